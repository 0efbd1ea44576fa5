"""Verilator: lint RTL, build a simulator from it, run that simulator."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bitfab.errors import BitfabError
from bitfab.tools.process import OnLine, ToolError, find_package, find_program, run_tool

__all__ = ["build", "lint", "require", "run"]

Parameters = Mapping[str, int | str]


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

    `parameters` overrides those of the module `top`. The log goes to `directory`, by default a temporary one.
    """
    with tempfile.TemporaryDirectory(prefix="bitfab-lint-") as scratch:
        folder = Path(scratch) if directory is None else directory
        run_tool(
            [_binary(), "--lint-only", "-Wall", "--timing", *_design(sources, top, parameters)],
            tool="verilator",
            task=f"linting {top}",
            directory=Path(scratch),
            log=folder / "lint.log",
            time_limit=time_limit,
            environment=_environment(),
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
    directory.mkdir(parents=True, exist_ok=True)
    executable = directory.resolve() / f"sim_{top}"
    # A scratch folder, since GNU make refuses a path with a space and a failed build must leave nothing behind.
    with tempfile.TemporaryDirectory(prefix="bitfab-build-") as name:
        scratch = Path(name)
        run_tool(
            [
                _binary(),
                "--cc",
                "--main",
                "--exe",
                "--timing",
                "--assert",
                "--output-split",
                "0",
                "-Wno-fatal",
                "-Mdir",
                ".",
                "-o",
                "sim",
                *design,
            ],
            tool="verilator",
            task=f"translating {top} to C++",
            directory=scratch,
            log=directory / f"verilate_{top}.log",
            time_limit=time_limit,
            environment=_environment(),
            on_line=on_line,
        )
        flags = _make_flags(optimize)
        runtime = _runtime_cache(flags)
        for compiled in sorted(runtime.glob("*.o")):
            shutil.copyfile(compiled, scratch / compiled.name)
        run_tool(
            [find_program("make", "make"), "-j2", "-f", f"V{top}.mk", *flags],
            tool="verilator",
            task=f"compiling the simulator of {top}",
            directory=scratch,
            log=directory / f"compile_{top}.log",
            time_limit=time_limit,
            environment=_environment(),
            on_line=on_line,
        )
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
            for compiled in scratch.glob("verilated*.o"):
                if not (runtime / compiled.name).exists():
                    _install(compiled, runtime / compiled.name)
        _install(scratch / "sim", executable)
    return executable


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
    assertion, a memory file that is missing, or the time limit.
    """
    task = f"simulating {executable.name}"
    log = directory / f"{executable.name}.log"
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


def _environment() -> dict[str, str]:
    return {"VERILATOR_ROOT": str(find_package("verilator", "verilator"))}


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
        f"PYTHON3={sys.executable}",
        "CFG_CXXFLAGS_STD=-std=c++20",
        "CFG_CXXFLAGS_PCH_I=-include",
        "CFG_LDLIBS_THREADS=-pthread",
        f"OPT_FAST={'-O1' if optimize else '-O0'}",
        "OPT_SLOW=-O0",
        "OPT_GLOBAL=-O2",
    ]


def _runtime_cache(flags: Sequence[str]) -> Path:
    """Folder of Verilator's own run-time objects, the same for every design compiled by the same compiler.

    Compiling them takes 8 s of processor time, more than a small testbench itself.
    """
    compiler = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=False).stdout
    fast = [flag for flag in flags if not flag.startswith("OPT_FAST=")]
    key = hashlib.sha256("\n".join([metadata.version("verilator"), compiler, *fast]).encode()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "bitfab" / f"verilator-{key}"


def _install(source: Path, target: Path) -> None:
    """Copy a file so that `target` is complete at any moment, even with several builds at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as partial:
        partial.write(source.read_bytes())
    Path(partial.name).chmod(0o755)
    Path(partial.name).replace(target)
