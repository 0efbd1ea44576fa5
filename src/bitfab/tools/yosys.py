"""Yosys: synthesize RTL to a netlist of ECP5 or Xilinx 7 cells and count them, in total and per instance of the top."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfab.errors import BitfabError
from bitfab.tools.process import OnLine, ToolError, find_package, output_folder, run_tool

__all__ = ["Counts", "Netlist", "read_sources", "require", "run_script", "synthesize_ecp5", "synthesize_xilinx"]

# Yosys ends its process on an error, so it never runs inside ours.
_PROGRAM = "import sys; from pyosys import libyosys; libyosys.run_pass('script ' + sys.argv[1])"

# -defer: a module whose memory file has no default cannot be elaborated by itself, only where it is instantiated.
# rename -hide: flattened nets then keep the instance's own name of them, and so do the cells behind these nets; by
# that name every cell is traced back to its instance at no cost, where keeping the hierarchy would forbid optimizing
# across it.
_READ = """\
read_verilog -sv -defer -DSYNTHESIS {sources}
hierarchy -check -top {top}
rename -hide {top}/w:*
"""
# Options of synth_ecp5, tried on a layer of 32 multipliers with adder trees and scaling (1,094 LUTs, 40 DSPs; ecp5-45k,
# one seed): default 95.4 MHz; -dff 93.2 MHz with 6 % fewer LUTs but twice the time, and it rewrites registers;
# -nowidelut 93.8 MHz; -widelut changes nothing. So none.
_ECP5 = "synth_ecp5 -top {top} -json {netlist}\n"
# Out of context, as nextpnr places it: no pads, no clock buffer. autoname, which synth_ecp5 runs by itself, gives cells
# the names of their nets.
_XILINX = """\
synth_xilinx -family xc7 -top {top} -flatten -noiopad -noclkbuf
autoname
write_json {netlist}
"""

# What abc9 does to a design that is nearly all truth tables: map them once, nothing before and after. A LUT network of
# 200 tables took 2,149 LUT4 on 13 levels and 18 s instead of 2,293 on 15 and 35 s; 901 LUT6 instead of 993.
_MAP_ONCE = 'scratchpad -set abc9.script "+&if {C} {W} {D} {R} -v"\n'

Cells = Mapping[str, Mapping[str, Any]]
"""Cells of Yosys' JSON by name: `type`, and `connections`, the bits of each port."""


@dataclass(frozen=True)
class Counts:
    """Cells of a mapped netlist.

    `lut` counts the LUTs that the cells take in the device. ECP5, LUTs of four inputs: one for a LUT4, two for a carry
    cell (CCU2C), six for a distributed RAM (TRELLIS_DPR16X4: four hold the bits, two carry the write port). Xilinx 7,
    LUTs of six inputs: one for any LUT1 to LUT6 or inverter, one for each sum bit of a CARRY4 that no LUT drives (the
    device reaches it only through one), one for a shift register and those that a distributed RAM is made of. `carry`
    and `lutram` count these cells by themselves, `mux` those that join LUTs (MUXF7, MUXF8; PFUMX, L6MUX21).
    `bram` is in 18-kbit blocks.
    """

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0
    carry: int = 0
    lutram: int = 0
    mux: int = 0


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
    restructure: bool = True,
    time_limit: float = 1800,
    on_line: OnLine | None = None,
) -> Netlist:
    """Synthesize the SystemVerilog `sources` to `directory`/<top>.json.

    Memory files are read relative to `directory`, or else (Yosys' own rule) from beside the source. The macro
    SYNTHESIS is defined. Without `restructure` logic is mapped as it is, which suits truth tables. Latches are refused.
    ToolError on any error, a memory file that is nowhere among them.
    Nothing is left but the log when synthesis fails.
    """
    return _synthesize(sources, top, directory, f"{top}.json", _ECP5, _ecp5_counts, restructure, time_limit, on_line)


def synthesize_xilinx(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    *,
    restructure: bool = True,
    time_limit: float = 1800,
    on_line: OnLine | None = None,
) -> Netlist:
    """Like `synthesize_ecp5`, for Xilinx 7 series, out of context; the netlist is `directory`/<top>_xilinx.json."""
    return _synthesize(
        sources, top, directory, f"{top}_xilinx.json", _XILINX, _xilinx_counts, restructure, time_limit, on_line
    )


def run_script(
    script: str, directory: Path, log: Path, task: str, time_limit: float, on_line: OnLine | None = None
) -> list[str]:
    """Run the commands of `script` in `directory` and return what Yosys printed; ToolError when one fails."""
    require()
    path = output_folder(directory) / f"{log.stem}.ys"
    path.write_text(script, encoding="utf-8")
    try:
        return run_tool(
            [sys.executable, "-c", _PROGRAM, path.name],
            tool="yosys",
            task=task,
            directory=directory,
            log=log,
            time_limit=time_limit,
            on_line=on_line,
        )
    finally:
        path.unlink()


def read_sources(sources: Sequence[Path], directory: Path) -> str:
    """The sources as words of a script that runs in `directory`; BitfabError for one that is not there.

    Relative paths: cells are named after their source line and placed by name, so same design, same result.
    """
    for source in sources:
        if not source.is_file():
            raise BitfabError(f"{source}: no such RTL file")
    return " ".join(f'"{os.path.relpath(source.resolve(), directory.resolve())}"' for source in sources)


def _synthesize(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    name: str,
    commands: str,
    count: Callable[[Cells], Counts],
    restructure: bool,
    time_limit: float,
    on_line: OnLine | None,
) -> Netlist:
    require()
    words = read_sources(sources, directory)
    folder, task = output_folder(directory), f"synthesizing {top}"
    netlist, partial, log = folder / name, folder / f"{name}.partial", folder / f"synthesize_{Path(name).stem}.log"
    script = ("" if restructure else _MAP_ONCE) + (_READ + commands).format(
        sources=words, top=top, netlist=partial.name
    )
    try:
        lines = run_script(script, folder, log, task, time_limit, on_line)
        cells = json.loads(partial.read_text(encoding="utf-8"))["modules"][top]["cells"]
        latches = sorted(name for name, cell in cells.items() if cell["type"] in ("LDCE", "LDPE"))
        if latches:
            raise ToolError("yosys", task, f"{len(latches)} latches inferred, the first is {latches[0]}", lines, log)
        partial.replace(netlist)
    finally:
        partial.unlink(missing_ok=True)
    return Netlist(netlist, top, count(cells), {name: count(own) for name, own in _by_instance(cells).items()})


def _by_instance(cells: Cells) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The cells of the flattened top by the first part of their hierarchical name."""
    # Flattening leaves one $scopeinfo per former instance: those without a dot are the top's.
    scopes = (name for name, cell in cells.items() if cell["type"] == "$scopeinfo" and "." not in name)
    instances: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in scopes}
    for name, cell in cells.items():
        instance = name.split(".", 1)[0]
        if instance in instances and "." in name:
            instances[instance][name] = cell
    return instances


def _ecp5_counts(cells: Cells) -> Counts:
    types = Counter(cell["type"] for cell in cells.values())
    carry, lutram = types["CCU2C"], types["TRELLIS_DPR16X4"]
    return Counts(
        lut=types["LUT4"] + 2 * carry + 6 * lutram,
        ff=types["TRELLIS_FF"],
        dsp=types["MULT18X18D"],
        bram=types["DP16KD"],
        carry=carry,
        lutram=lutram,
        mux=types["PFUMX"] + types["L6MUX21"],
    )


# UG474 (7 Series FPGAs CLB), tables 2-3 and 2-4: LUTs of each distributed RAM and shift register.
_LUTRAM = {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM32M": 4, "RAM64M": 4}
_LUTRAM |= {"RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1}
_XILINX_LUTS = {"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV"}


def _xilinx_counts(cells: Cells) -> Counts:
    types = Counter(cell["type"] for cell in cells.values())
    luts = sum(types[name] for name in _XILINX_LUTS)
    outputs = {bit for cell in cells.values() if cell["type"] in _XILINX_LUTS for bit in cell["connections"]["O"]}
    chains = [cell["connections"]["S"] for cell in cells.values() if cell["type"] == "CARRY4"]
    through = sum(1 for bits in chains for bit in bits if isinstance(bit, int) and bit not in outputs)
    return Counts(
        lut=luts + through + sum(types[name] * count for name, count in _LUTRAM.items()),
        ff=sum(types[name] for name in ("FDRE", "FDSE", "FDCE", "FDPE")),
        dsp=types["DSP48E1"],
        bram=types["RAMB18E1"] + 2 * types["RAMB36E1"],
        carry=types["CARRY4"],
        lutram=sum(types[name] for name in _LUTRAM),
        mux=types["MUXF7"] + types["MUXF8"],
    )
