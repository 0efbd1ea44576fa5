"""Lint every RTL block with every warning of Verilator and, where it is installed, of GHDL on; used by `make check`."""

import sys
from pathlib import Path

from bitfab.errors import BitfabError
from bitfab.hw.render_vhdl import library
from bitfab.tools import ghdl, verilator
from bitfab.tools.process import MissingToolError

PACKAGE = Path(__file__).parent.parent / "src" / "bitfab"
LIBRARY, BOARD = PACKAGE / "rtl", PACKAGE / "board" / "rtl"
FILES = {
    "dot": {"WeightFile": "weights.mem", "BiasFile": "bias.mem"},
    "conv2d": {"WeightFile": "weights.mem", "BiasFile": "bias.mem"},
    "requantize": {"ScaleFile": "scales.mem"},
    "table": {"TableFile": "table.mem"},
    "interpolate": {"TableFile": "table.mem"},
    "threshold": {"ThresholdFile": "thresholds.mem"},
    "memory": {"MemoryFile": "words.mem"},
}
SIMULATION = {"sim_source": {"File": "words.mem"}, "sim_check": {"File": "words.mem"}}


def main() -> int:
    sources = [*sorted(LIBRARY.glob("*/bf_*.sv")), *sorted(BOARD.glob("bf_*.sv"))]
    failures = 0
    for source in sources:
        block = source.stem.removeprefix("bf_")
        needed = [source]
        for file in needed:  # which grows by what each of its files names
            needed += [other for other in sources if other not in needed and other.stem in file.read_text()]
        try:
            verilator.lint(needed, source.stem, {**FILES.get(block, {}), **SIMULATION.get(block, {})})
        except BitfabError as error:
            print(error)
            failures += 1
    print(f"{len(sources)} RTL blocks linted, {failures} with warnings")
    return 1 if failures + lint_vhdl() else 0


def lint_vhdl() -> int:
    """How many VHDL files have warnings; each is analysed behind those it uses."""
    files, failures = sorted(LIBRARY.glob("*/bf_*.vhd")), 0
    paths = {path.name: path for path in files}
    for file in files:
        try:
            ghdl.analyse([paths[name] for name in library([file.stem.removeprefix("bf_")])])
        except MissingToolError as error:
            print(f"VHDL files not linted: {error}")
            return 0
        except BitfabError as error:
            print(error)
            failures += 1
    print(f"{len(files)} VHDL files linted, {failures} with warnings")
    return failures


if __name__ == "__main__":
    sys.exit(main())
