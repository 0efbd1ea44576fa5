"""GHDL: analyse VHDL-2008, run a testbench of it, translate a design to Verilog for Yosys."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitfab.errors import BitfabError
from bitfab.tools.process import SHOWN_LINES, OnLine, ToolError, find_program, output_folder, run_tool

__all__ = ["analyse", "require", "run_testbench", "to_verilog"]

# Every warning that GHDL 2.0 has off by default and that can hold for our sources; it knows no -Wall. Not -Wreserved,
# which complains of names that VHDL-AMS reserves, a language of its own, nor -Wdelayed-checks, which says of every
# function that reads a file that it will be looked at again.
_WARNINGS = ["binding", "library", "vital-generic", "body", "specs", "unused", "hide"]
_WARNINGS += ["parenthesis", "nested-comment", "runtime-error", "useless", "static", "others", "pure"]
_STANDARD = "--std=08"
_COMPLAINT = re.compile(r":warning:|\(assertion warning\)|\(report warning\)")
# Where the lines start that tell why a simulation failed: with a complaint of our testbenches or an error of GHDL.
_FAILURE = re.compile(r"^(MISMATCH|PROTOCOL)\b|\((report|assertion) (error|failure)\)|:error: ")
# What GHDL says after a failed assertion; the assertion's own message, printed before it, tells more.
_EPILOGUE = re.compile(r":error: (report|assertion|simulation) failed$|^in process |^ +from: ")


def require() -> None:
    """Raise MissingToolError, naming the package to install, unless GHDL is here."""
    _program()


def analyse(sources: Sequence[Path], *, directory: Path | None = None, time_limit: float = 120) -> None:
    """Check VHDL-2008 `sources`, each behind those it uses, with every warning on; ToolError holds the first ones.

    The log is `directory`/analyse_<last source>.log, if a directory is given.
    """
    log = directory / f"analyse_{sources[-1].stem}.log" if directory else None
    with tempfile.TemporaryDirectory(prefix="bitfab-vhdl-") as library:
        _analyse(sources, Path(library), log, time_limit)


def run_testbench(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    generics: Mapping[str, int | str] | None = None,
    *,
    log: Path | None = None,
    time_limit: float = 600,
    on_line: OnLine | None = None,
) -> list[str]:
    """Analyse `sources`, run the testbench `top` in `directory` (where its vectors lie), return the lines it printed.

    `generics` overrides those of `top`. The testbench ends itself with `std.env.finish`. ToolError on a warning of the
    analysis, an assertion or report of severity error or failure, a file that is missing, or the time limit. Warnings
    of the numeric library about registers that have no value yet are off.
    """
    overrides = [f"-g{name}={value}" for name, value in (generics or {}).items()]
    task = f"simulating {top}"
    with tempfile.TemporaryDirectory(prefix="bitfab-vhdl-") as library:
        _analyse(sources, Path(library), log, time_limit)
        # elab-run elaborates with every back end of GHDL, -r with mcode alone; LLVM and GCC leave a program `top`.
        command: list[str | Path] = [_program(), "--elab-run", _STANDARD, f"--workdir={library}", top, *overrides]
        options = ["--assert-level=error", "--ieee-asserts=disable", "--unbuffered"]
        try:
            lines = run_tool(
                [*command, *options],
                tool="ghdl",
                task=task,
                directory=directory,
                log=log,
                time_limit=time_limit,
                on_line=on_line,
            )
        except ToolError as error:
            raise ToolError("ghdl", task, error.reason, _telling(error.lines), log) from error
    _refuse_warnings(lines, task, log)
    return lines


def to_verilog(sources: Sequence[Path], top: str, target: Path, *, time_limit: float = 600) -> Path:
    """Write the entity `top` as one Verilog netlist (of operators, not of cells) to `target`, and return that.

    The log is `target` with the suffix .log; nothing else is left when GHDL fails. ToolError on any warning.
    """
    log, task = target.with_suffix(".log"), f"translating {top} to Verilog"
    partial = output_folder(target.parent) / f"{target.name}.partial"
    try:
        with tempfile.TemporaryDirectory(prefix="bitfab-vhdl-") as library:
            _analyse(sources, Path(library), log, time_limit)
            # GHDL writes to its standard output, where its notes are not to get between the lines.
            command: list[str | Path] = [_program(), "--synth", _STANDARD, f"--workdir={library}", "--out=verilog", top]
            lines = run_tool(
                ["sh", "-c", 'netlist="$1"; shift; exec "$@" > "$netlist"', "sh", partial, *command],
                tool="ghdl",
                task=task,
                directory=Path(library),
                log=log,
                time_limit=time_limit,
            )
        _refuse_warnings(lines, task, log)
        return partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _program() -> Path:
    return find_program("ghdl", "ghdl")


def _analyse(sources: Sequence[Path], library: Path, log: Path | None, time_limit: float) -> None:
    """Analyse into the folder `library`."""
    for source in sources:
        if not source.is_file():
            raise BitfabError(f"{source}: no such VHDL file")
    task = f"analysing {sources[-1].name}"
    options = [_STANDARD, f"--workdir={library}", *(f"-W{name}" for name in _WARNINGS)]
    lines = run_tool(
        [_program(), "-a", *options, *(source.resolve() for source in sources)],
        tool="ghdl",
        task=task,
        directory=library,
        log=log,
        time_limit=time_limit,
    )
    _refuse_warnings(lines, task, log)


def _telling(lines: Sequence[str]) -> list[str]:
    """The lines that tell why a simulation failed."""
    kept = [line for line in lines if not _EPILOGUE.search(line)]
    first = next((index for index, line in enumerate(kept) if _FAILURE.search(line)), 0)
    return kept[first : first + SHOWN_LINES]


def _refuse_warnings(lines: Sequence[str], task: str, log: Path | None) -> None:
    first = next((index for index, line in enumerate(lines) if _COMPLAINT.search(line)), None)
    if first is not None:
        raise ToolError("ghdl", task, "it warned", lines[first : first + SHOWN_LINES], log)
