"""Yosys: synthesize RTL to an ECP5 netlist and count its cells, in total and per instance of the top module."""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfab.errors import BitfabError
from bitfab.tools.process import OnLine, find_package, output_folder, run_tool

__all__ = ["Counts", "Netlist", "require", "synthesize_ecp5"]

# Yosys ends its process on an error, so it never runs inside ours.
_PROGRAM = "import sys; from pyosys import libyosys; libyosys.run_pass('script ' + sys.argv[1])"

# -defer: a module whose memory file has no default cannot be elaborated by itself, only where it is instantiated.
# rename -hide: flattened nets then keep the instance's own name of them, and so do the cells behind these nets; by
# that name every cell is traced back to its instance at no cost, where keeping the hierarchy would forbid optimizing
# across it.
# Options of synth_ecp5, tried on a layer of 32 multipliers with adder trees and scaling (1,094 LUTs, 40 DSPs; ecp5-45k,
# one seed): default 95.4 MHz; -dff 93.2 MHz with 6 % fewer LUTs but twice the time, and it rewrites registers;
# -nowidelut 93.8 MHz; -widelut changes nothing. So none.
_SCRIPT = """\
read_verilog -sv -defer -DSYNTHESIS {sources}
hierarchy -check -top {top}
rename -hide {top}/w:*
synth_ecp5 -top {top} -json {netlist}
"""


@dataclass(frozen=True)
class Counts:
    """Cells of a mapped netlist.

    `lut` counts the four-input LUTs that the cells take in the device: one for a LUT4, two for a carry cell (CCU2C),
    six for a distributed RAM (TRELLIS_DPR16X4: four hold the bits, two carry the write port). `carry` and `lutram`
    count these cells by themselves.
    """

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0
    carry: int = 0
    lutram: int = 0


@dataclass(frozen=True)
class Netlist:
    """A synthesized design: `json` is Yosys' netlist, `total` its cells, `instances` those of each instance of the top.

    Cells that belong to no instance (the top's own logic, registers that drive its ports) are in `total` alone.
    """

    json: Path
    top: str
    total: Counts
    instances: Mapping[str, Counts]


def require() -> None:
    """Raise MissingToolError, naming the package to install, unless Yosys is here."""
    find_package("pyosys", "pyosys")


def synthesize_ecp5(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    *,
    time_limit: float = 1800,
    on_line: OnLine | None = None,
) -> Netlist:
    """Synthesize the SystemVerilog `sources` to `directory`/<top>.json.

    Memory files are read relative to `directory`, or else (Yosys' own rule) from beside the source. The macro
    SYNTHESIS is defined. Latches are refused. ToolError on any error, a memory file that is nowhere among them.
    Nothing is left but the log when synthesis fails.
    """
    require()
    for source in sources:
        if not source.is_file():
            raise BitfabError(f"{source}: no such RTL file")
    folder = output_folder(directory)
    netlist, partial, script = (folder / f"{top}{suffix}" for suffix in (".json", ".partial", ".ys"))
    # Relative paths: cells are named after their source line and placed by name, so same design, same result.
    quoted = " ".join(f'"{os.path.relpath(source.resolve(), folder.resolve())}"' for source in sources)
    script.write_text(_SCRIPT.format(sources=quoted, top=top, netlist=partial.name), encoding="utf-8")
    try:
        run_tool(
            [sys.executable, "-c", _PROGRAM, script.name],
            tool="yosys",
            task=f"synthesizing {top}",
            directory=folder,
            log=folder / f"synthesize_{top}.log",
            time_limit=time_limit,
            on_line=on_line,
        )
        total, instances = _count(partial, top)
        partial.replace(netlist)
    finally:
        partial.unlink(missing_ok=True)
        script.unlink()
    return Netlist(netlist, top, total, instances)


def _count(netlist: Path, top: str) -> tuple[Counts, dict[str, Counts]]:
    """Cells of the flattened top in all, and by the first part of the hierarchical name."""
    cells = json.loads(netlist.read_text(encoding="utf-8"))["modules"][top]["cells"]
    # Flattening leaves one $scopeinfo per former instance: those without a dot are the top's.
    scopes = (name for name, cell in cells.items() if cell["type"] == "$scopeinfo" and "." not in name)
    instances: dict[str, Counter[str]] = {name: Counter() for name in scopes}
    total: Counter[str] = Counter()
    for name, cell in cells.items():
        total[cell["type"]] += 1
        instance = name.split(".", 1)[0]
        if instance in instances and "." in name:
            instances[instance][cell["type"]] += 1
    return _counts(total), {name: _counts(types) for name, types in instances.items()}


def _counts(types: Counter[str]) -> Counts:
    carry, lutram = types["CCU2C"], types["TRELLIS_DPR16X4"]
    return Counts(
        lut=types["LUT4"] + 2 * carry + 6 * lutram,
        ff=types["TRELLIS_FF"],
        dsp=types["MULT18X18D"],
        bram=types["DP16KD"],
        carry=carry,
        lutram=lutram,
    )
