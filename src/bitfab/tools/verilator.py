"""Verilator: lint RTL, build a simulator from it, run that simulator."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bitfab.errors import BitfabError
from bitfab.tools.process import OnLine, ToolError, find_package, find_program, output_folder, run_tool

__all__ = ["build", "lint", "require", "run"]

Parameters = Mapping[str, int | str]

# One C++ file (--output-split 0): several compile three times slower, since each reads the same large headers.
_TRANSLATE = ["--cc", "--main", "--exe", "--timing", "--assert", "--output-split", "0"]
# Warnings are no errors, but an illegal parameter is one: an $error at elaboration, to Verilator a warning.
_TRANSLATE += ["-Wno-fatal", "-Werror-USERERROR"]
# --no-MMD: no dependency file, which would name the sources to make, and make cannot take a path with a space.
# --autoflush: progress is seen as it happens, and up to the moment a time limit ends the simulation.
_TRANSLATE += ["--autoflush", "--no-MMD", "-Mdir", ".", "-o", "sim"]


def require() -> None:
    """Raise MissingToolError, naming the package to install, unless RTL can be simulated here."""
    _binary()
    _compiler()
    find_program("make", "make")


def lint(
    sources: Sequence[Path],
    top: str,
    parameters: Parameters | None = None,
    *,
    directory: Path | None = None,
    time_limit: float = 120,
) -> None:
    """Check `sources` with every warning on (`--lint-only -Wall`); ToolError holds the first warnings.

    `parameters` overrides those of the module `top`. The log is `directory`/lint_<top>.log, if a directory is given.
    """
    with tempfile.TemporaryDirectory(prefix="bitfab-lint-") as scratch:
        run_tool(
            [_binary(), "--lint-only", "-Wall", "--timing", *_design(sources, top, parameters)],
            tool="verilator",
            task=f"linting {top}",
            directory=Path(scratch),
            log=directory / f"lint_{top}.log" if directory else None,
            time_limit=time_limit,
            environment={"VERILATOR_ROOT": str(find_package("verilator", "verilator"))},
        )


def build(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    parameters: Parameters | None = None,
    *,
    optimize: bool = True,
    time_limit: float = 1800,
    on_line: OnLine | None = None,
) -> Path:
    """Build the simulator of the testbench `top` and return its path, `directory`/sim_<top>.

    The testbench has no ports, makes its own clock with delays and ends itself with `$finish`.
    `optimize=False` compiles for a quick start (tests of a few thousand cycles), True for long runs.
    """
    require()
    design = _design(sources, top, parameters)
    logs = output_folder(directory)
    # A scratch folder, since GNU make refuses a path with a space and a failed build must leave nothing behind.
    with tempfile.TemporaryDirectory(prefix="bitfab-build-") as name:
        scratch = Path(name)
        (scratch / "verilator").symlink_to(find_package("verilator", "verilator"))

        def step(command: Sequence[str | Path], verb: str, task: str) -> None:
            run_tool(
                command,
                tool="verilator",
                task=task,
                directory=scratch,
                log=logs / f"{verb}_{top}.log",
                time_limit=time_limit,
                environment={"VERILATOR_ROOT": str(scratch / "verilator")},
                on_line=on_line,
            )

        step([_binary(), *_TRANSLATE, *design], "translate", f"translating {top} to C++")
        flags = _make_flags(optimize)
        with _runtime_objects(scratch, flags):
            step(["make", "-j2", "-f", f"V{top}.mk", *flags], "compile", f"compiling the simulator of {top}")
        return _install(scratch / "sim", logs / f"sim_{top}")


def run(
    executable: Path,
    directory: Path,
    time_limit: float = 600,
    on_line: OnLine | None = None,
    arguments: Sequence[str] = (),
) -> list[str]:
    """Run a built simulator in `directory` (where its memory files lie) and return the lines it printed.

    `arguments` are plus-arguments, e.g. `+images=3`. Registers without reset start at random values (with a fixed
    seed), so that a design which needs their first value shows it. ToolError on `$fatal`, `$error`, a failed
    assertion, a memory file that is missing, or the time limit. The log lies beside the simulator.
    """
    task = f"simulating {executable.name}"
    log = executable.with_name(f"{executable.name}.log")
    lines = run_tool(
        [executable.resolve(), "+verilator+rand+reset+2", "+verilator+seed+1", *arguments],
        tool="verilator",
        task=task,
        directory=directory,
        log=log,
        time_limit=time_limit,
        on_line=on_line,
    )
    if any(line.startswith("%Warning") for line in lines):
        raise ToolError("verilator", task, "the simulation warned", lines, log)
    return lines


def _binary() -> Path:
    return find_package("verilator", "verilator") / "bin" / "verilator_bin"


def _compiler() -> Path:
    return find_program(os.environ.get("CXX", "g++"), "g++")


def _design(sources: Sequence[Path], top: str, parameters: Parameters | None) -> list[str]:
    for source in sources:
        if not source.is_file():
            raise BitfabError(f"{source}: no such RTL file")
    values = {name: value if isinstance(value, int) else f'"{value}"' for name, value in (parameters or {}).items()}
    overrides = [f"-G{name}={value}" for name, value in values.items()]
    return ["--top-module", top, *overrides, *(str(source.resolve()) for source in sources)]


def _make_flags(optimize: bool) -> list[str]:
    """The wheel's makefile names the programs of the machine it was built on; name this one's instead.

    Optimisation, processor seconds for a design of 768 multiplier-accumulators, to compile and to run 10^6 cycles:
    -O0 2.9 and 49, -O1 6.6 and 2.9, -O2 10.1 and 2.1, -Os 10.8 and 3.6; -O3 and -march=native gain nothing.
    """
    compiler = _compiler()
    return [
        f"CXX={compiler}",
        f"LINK={compiler}",
        "AR=ar",
        f'PYTHON3="{sys.executable}"',
        "CFG_CXXFLAGS_STD=-std=c++20",
        "CFG_CXXFLAGS_PCH_I=-include",
        "CFG_LDLIBS_THREADS=-pthread",
        f"OPT_FAST={'-O1' if optimize else '-O0'}",
        "OPT_SLOW=-O0",
        "OPT_GLOBAL=-O2",
    ]


@contextlib.contextmanager
def _runtime_objects(scratch: Path, flags: Sequence[str]) -> Iterator[None]:
    """Verilator's own run-time objects, taken from the user's cache into `scratch` or, when built there, kept in it.

    They are the same for every design and compiling them takes 8 s of processor time, more than a small testbench.
    Copies are newer than the makefile, so make takes them as they are.
    """
    compiler = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=False).stdout
    common = [flag for flag in flags if not flag.startswith(("OPT_FAST=", "PYTHON3="))]
    key = hashlib.sha256("\n".join([metadata.version("verilator"), compiler, *common]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitfab" / f"verilator-{key}"
    for cached in cache.glob("*.o"):
        shutil.copyfile(cached, scratch / cached.name)
    yield
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        for built in scratch.glob("verilated*.o"):
            if not (cache / built.name).exists():
                _install(built, cache / built.name)


def _install(source: Path, target: Path) -> Path:
    """Copy a file so that `target` is complete at any moment, even with several builds at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as partial:
        partial.write(source.read_bytes())
    Path(partial.name).chmod(0o755)
    return Path(partial.name).replace(target)
