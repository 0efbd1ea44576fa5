"""Run one external tool: time limit, log file, line-by-line progress, and errors that show the tool's own words."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path

from bitfab.errors import BitfabError

__all__ = ["MissingToolError", "OnLine", "ToolError", "find_package", "find_program", "run_tool", "telling_lines"]

OnLine = Callable[[str], None]

SHOWN_LINES = 5
_ERROR = re.compile(r"%Error(?!: Exiting due to)|^\s*(ERROR|Error|FATAL)\b|\berror: |Error:.*\bfailed\b")
_WARNING = re.compile(r"^%Warning|^Warning:")


class ToolError(BitfabError):
    """A tool failed. First line: tool, task, reason and the log's path; then up to five of the tool's own lines.

    `lines` is everything the tool printed, `log` the file that holds the same text.
    """

    def __init__(self, tool: str, task: str, reason: str, lines: Sequence[str], log: Path) -> None:
        self.tool, self.task, self.reason, self.lines, self.log = tool, task, reason, tuple(lines), log
        shown = [f"  {line}" for line in telling_lines(lines)]
        super().__init__("\n".join([f"{tool}: {task}: {reason}; the whole log: {log}", *shown]))


class MissingToolError(BitfabError):
    """A tool is not installed; the message says which package brings it."""


def find_package(module: str, distribution: str) -> Path:
    """Folder of an installed Python package, found without importing it; MissingToolError names what to pip-install."""
    spec = util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingToolError(f"{distribution}: not installed: run `pip install {distribution}`")
    return Path(spec.origin).parent


def find_program(program: str, package: str) -> Path:
    """Path of a program on PATH; MissingToolError names the system package that brings it."""
    path = shutil.which(program)
    if path is None:
        raise MissingToolError(f"{program}: not on PATH: install it (Debian, Ubuntu: `apt install {package}`)")
    return Path(path)


def run_tool(
    command: Sequence[str | Path],
    *,
    tool: str,
    task: str,
    directory: Path,
    log: Path,
    time_limit: float,
    environment: Mapping[str, str] | None = None,
    on_line: OnLine | None = None,
) -> list[str]:
    """Run `command` in `directory` and return the lines of its standard output and error, merged, in order.

    Every line goes to the file `log` and to `on_line` as it comes. `environment` is added to the process's own.
    After `time_limit` seconds, or when `on_line` raises, the whole process group is killed, so that no compiler or
    simulator stays behind. Raises ToolError when the command cannot start, exits with a code other than 0, or
    reaches the time limit.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        sink = log.open("w", encoding="utf-8")
    except OSError as error:
        raise BitfabError(f"{tool}: {task}: cannot write {log}: {error.strerror}") from error
    lines: list[str] = []
    timed_out = threading.Event()
    with sink:
        try:
            with _started(command, directory, {**os.environ, **(environment or {})}) as process:
                timer = threading.Timer(time_limit, _stop, (process, timed_out))
                timer.start()
                try:
                    for line in _lines(process):
                        sink.write(line + "\n")
                        lines.append(line)
                        if on_line is not None:
                            on_line(line)
                    code = process.wait()
                finally:
                    timer.cancel()
        except OSError as error:
            raise ToolError(tool, task, f"cannot run {command[0]}: {error.strerror}", lines, log) from error
    if timed_out.is_set():
        raise ToolError(tool, task, f"stopped at the time limit of {time_limit:g} s", lines, log)
    if code != 0:
        raise ToolError(tool, task, _reason(code), lines, log)
    return lines


def telling_lines(lines: Sequence[str]) -> list[str]:
    """Up to five lines that tell why a tool failed: from its first error on, else its first warning, else its last."""
    kept = [line for line in lines if line.strip()]
    for pattern in (_ERROR, _WARNING):
        for index, line in enumerate(kept):
            if pattern.search(line):
                return kept[index : index + SHOWN_LINES]
    return kept[-SHOWN_LINES:]


@contextlib.contextmanager
def _started(
    command: Sequence[str | Path], directory: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The process in its own group, which is gone when the block is left, by whatever way."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _kill_group(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    if process.stdout is not None:
        for line in process.stdout:
            yield line.rstrip("\n")


def _stop(process: subprocess.Popen[str], timed_out: threading.Event) -> None:
    timed_out.set()
    _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"ended by signal {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
