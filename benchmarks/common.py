"""What all benchmarks share: checks with bounds, the table, the JSON file, and peers in environments of their own."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Check:
    """A measured figure; `bound` says in words what it must be, and is empty where it is only reported."""

    name: str
    value: float
    bound: str = ""
    holds: bool = True

    @classmethod
    def at_least(cls, name: str, value: float, bound: float) -> Check:
        """A figure that must not be smaller than `bound`."""
        return cls(name, value, f">= {bound:g}", value >= bound)

    @classmethod
    def at_most(cls, name: str, value: float, bound: float) -> Check:
        """A figure that must not be larger than `bound`."""
        return cls(name, value, f"<= {bound:g}", value <= bound)


def main(measure: Callable[[argparse.Namespace], Sequence[Check]], parser: argparse.ArgumentParser) -> None:
    """Measure, print the table, write `{"checks": [...]}` to `--json FILE`; exit status 1 if a check does not hold."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the checks to FILE")
    arguments = parser.parse_args()
    checks = measure(arguments)
    table = Table("figure", "value", "bound", "holds", title=parser.description)
    for check in checks:
        verdict = ("[green]yes" if check.holds else "[red]NO") if check.bound else ""
        table.add_row(check.name, f"{check.value:,.4g}", check.bound, verdict)
    Console(width=110).print(table)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({"checks": [dataclasses.asdict(check) for check in checks]}, indent=1) + "\n"
        )
    sys.exit(not all(check.holds for check in checks))


def told(checks: Iterable[Check]) -> Iterator[Check]:
    """The checks as they come, each told on stderr at once."""
    for check in checks:
        print(f"{check.name}: {check.value:.2f} {check.bound}", file=sys.stderr, flush=True)
        yield check


def peer_python(name: str, requirements: Sequence[str]) -> Path:
    """The Python of the virtual environment build/peers/<name> that holds exactly these pinned packages.

    It is made on first use, and made anew when the requirements change.
    """
    folder = ROOT / "build" / "peers" / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"preparing {folder} ({', '.join(requirements)})", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        stamp.write_text(wanted)  # last: an interrupted installation leaves no stamp
    return python


class Peer:
    """A script that runs in a peer's environment and answers one JSON line on stdout for each line on stdin."""

    def __init__(self, python: Path, script: Path, *arguments: str | Path) -> None:
        command = [python, script, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> dict[str, float]:
        """The answer to one line; raises RuntimeError where the script ended instead."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args[1]} ended with status {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the script."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
