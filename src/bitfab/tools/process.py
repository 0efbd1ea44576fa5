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
from typing import TextIO

from bitfab.errors import BitfabError

__all__ = [
    "MissingToolError",
    "OnLine",
    "ToolError",
    "find_package",
    "find_program",
    "output_folder",
    "run_tool",
    "telling_lines",
]

OnLine = Callable[[str], None]

SHOWN_LINES = 5
_ERROR = re.compile(r"%(Error|Fatal)(?!: Exiting due to)|\b(ERROR|FATAL):|\berror: ")
_WARNING = re.compile(r"^%Warning|^Warning:")


class ToolError(BitfabError):
    """A tool failed. First line: tool, task, reason and the log's path; then up to five of the tool's own lines.

    `lines` is everything the tool printed, `log` the file that holds the same text, if one was asked for.
    """

    def __init__(self, tool: str, task: str, reason: str, lines: Sequence[str], log: Path | None) -> None:
        self.tool, self.task, self.reason, self.lines, self.log = tool, task, reason, tuple(lines), log
        shown = [f"  {line}" for line in telling_lines(lines)]
        whole = f"; the whole log: {log}" if log else ""
        super().__init__("\n".join([f"{tool}: {task}: {reason}{whole}", *shown]))


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


def output_folder(path: Path) -> Path:
    """Make the folder if need be and return its absolute path; BitfabError when nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BitfabError(f"{path}: cannot make this output folder: {error.strerror}: choose another") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise BitfabError(f"{path}: this output folder is not writable: choose another")
    return path.resolve()


def run_tool(
    command: Sequence[str | Path],
    *,
    tool: str,
    task: str,
    directory: Path,
    log: Path | None,
    time_limit: float,
    environment: Mapping[str, str] | None = None,
    on_line: OnLine | None = None,
) -> list[str]:
    """Run `command` in `directory` and return the lines of its standard output and error, merged, in order.

    Every line goes to the file `log` (None: nowhere) and to `on_line` as it comes. `environment` is added to the
    process's own. After `time_limit` seconds, or when `on_line` raises, the whole process group is killed, so that no
    compiler or simulator stays behind. Raises ToolError when the command cannot start, exits with a code other than 0,
    or reaches the time limit.
    """
    lines: list[str] = []
    timed_out = threading.Event()
    with _open_log(log, f"{tool}: {task}") as sink:
        try:
            process = _start(command, directory, environment)
        except OSError as error:
            raise ToolError(tool, task, f"cannot run {command[0]}: {error.strerror}", lines, log) from error
        with _guarded(process, time_limit, timed_out):
            for line in process.stdout or ():
                lines.append(line.rstrip("\n"))
                sink.write(line)
                if on_line is not None:
                    on_line(lines[-1])
            code = process.wait()
    if code != 0 and timed_out.is_set():
        raise ToolError(tool, task, f"stopped at the time limit of {time_limit:g} s", lines, log)
    if code != 0:
        raise ToolError(tool, task, _reason(code), lines, log)
    return lines


def _open_log(log: Path | None, context: str) -> TextIO:
    path = log or Path(os.devnull)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", buffering=1, encoding="utf-8")
    except OSError as error:
        raise BitfabError(f"{context}: cannot write {path}: {error.strerror}") from error


def telling_lines(lines: Sequence[str]) -> list[str]:
    """Up to five lines that tell why a tool failed: from its first error on, else its first warning, else its last."""
    kept = [line for line in lines if line.strip()]
    for pattern in (_ERROR, _WARNING):
        for index, line in enumerate(kept):
            if pattern.search(line):
                return kept[index : index + SHOWN_LINES]
    return kept[-SHOWN_LINES:]


def _start(
    command: Sequence[str | Path], directory: Path, environment: Mapping[str, str] | None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=directory,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


@contextlib.contextmanager
def _guarded(process: subprocess.Popen[str], time_limit: float, timed_out: threading.Event) -> Iterator[None]:
    """A block that the process and its group do not outlive, and which the time limit ends."""
    timer = threading.Timer(time_limit, _stop, (process, timed_out))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _kill_group(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


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
