"""Yosys: synthesize RTL to a netlist of a family's cells and count them, in total and per instance of the top."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfab.errors import BitfabError
from bitfab.parts import Family, Part, find_part
from bitfab.tools.cells import COUNT, Cells, Counts
from bitfab.tools.process import OnLine, ToolError, find_package, output_folder, run_tool
from bitfab.tools.register_packing import pack_registers

__all__ = [
    "Counts",
    "Netlist",
    "read_sources",
    "require",
    "run_script",
    "synthesize",
    "synthesize_ecp5",
    "synthesize_xilinx",
]

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
# Out of context, as nextpnr places it: no pads, no clock buffer. autoname gives cells the names of their nets; what
# nextpnr is for (synth_ecp5, synth_ice40, synth_gowin) runs it by itself.
_XILINX = "synth_xilinx -family {family} -top {{top}} -flatten -noiopad -noclkbuf\nautoname\nwrite_json {{netlist}}\n"
_COMMANDS = {
    Family.ECP5: _ECP5,
    Family.ICE40: "synth_ice40 -device {device} -top {{top}} -json {{netlist}}\n",
    Family.GOWIN: "synth_gowin -family gw2a -noiopads -top {top} -json {netlist}\n",
    Family.XILINX_7: _XILINX.format(family="xc7"),
    Family.ULTRASCALE_PLUS: _XILINX.format(family="xcup"),
    Family.CYCLONE_V: (
        "synth_intel_alm -family cyclonev -noiopad -noclkbuf -top {top}\nautoname\nwrite_json {netlist}\n"
    ),
}
_LATCH = re.compile(r"Latch inferred for signal `(\S+)'")
_SUFFIX = {Family.ECP5: "", Family.XILINX_7: "_xilinx"}

# What abc9 does to a design that is nearly all truth tables: map them once, nothing before and after. A LUT network of
# 200 tables took 2,149 LUT4 on 13 levels and 18 s instead of 2,293 on 15 and 35 s; 901 LUT6 instead of 993.
_MAP_ONCE = 'scratchpad -set abc9.script "+&if {C} {W} {D} {R} -v"\n'


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


def synthesize(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    part: Part,
    *,
    restructure: bool = True,
    time_limit: float = 1800,
    on_line: OnLine | None = None,
) -> Netlist:
    """Synthesize the SystemVerilog `sources` to cells of the part's family, out of context: no pads, no clock buffer.

    The netlist is `directory`/<top>.json of an ECP5, <top>_<family>.json of others. Memory files are read relative to
    `directory`, or else (Yosys' own rule) from beside the source. The macro SYNTHESIS is defined. Without `restructure`
    logic is mapped as it is, which suits truth tables. Registers go into an ECP5's multipliers and block RAMs
    (`register_packing`). Latches are refused. ToolError on any error, a memory file that is nowhere among them. Nothing
    is left but the log when synthesis fails.
    """
    require()
    words, family = read_sources(sources, directory), part.family
    name = f"{top}{_SUFFIX.get(family, '_' + family.name.lower())}.json"
    folder, task = output_folder(directory), f"synthesizing {top}"
    netlist, partial, log = folder / name, folder / f"{name}.partial", folder / f"synthesize_{Path(name).stem}.log"
    script = ("" if restructure else _MAP_ONCE) + (_READ + _commands(part)).format(
        sources=words, top=top, netlist=partial.name
    )
    try:
        lines = run_script(script, folder, log, task, time_limit, on_line)
        whole = json.loads(partial.read_text(encoding="utf-8"))
        latches = [match[1] for line in lines if (match := _LATCH.search(line))]
        if latches:
            raise ToolError("yosys", task, f"{len(latches)} latches inferred, the first is {latches[0]}", lines, log)
        if family is Family.ECP5:
            pack_registers(whole["modules"][top])
            partial.write_text(json.dumps(whole), encoding="utf-8")
        partial.replace(netlist)
    finally:
        partial.unlink(missing_ok=True)
    count, cells = COUNT[family], whole["modules"][top]["cells"]
    return Netlist(netlist, top, count(cells), {name: count(own) for name, own in _by_instance(cells).items()})


def synthesize_ecp5(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    *,
    restructure: bool = True,
    time_limit: float = 1800,
    on_line: OnLine | None = None,
) -> Netlist:
    """`synthesize` for an ECP5 of any size."""
    part = find_part("ecp5-85k")
    return synthesize(sources, top, directory, part, restructure=restructure, time_limit=time_limit, on_line=on_line)


def synthesize_xilinx(
    sources: Sequence[Path],
    top: str,
    directory: Path,
    *,
    restructure: bool = True,
    time_limit: float = 1800,
    on_line: OnLine | None = None,
) -> Netlist:
    """`synthesize` for Xilinx 7 series of any size; the netlist is `directory`/<top>_xilinx.json."""
    part = find_part("xc7a100t")
    return synthesize(sources, top, directory, part, restructure=restructure, time_limit=time_limit, on_line=on_line)


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


def _commands(part: Part) -> str:
    """Yosys' flow for the part. iCE40: only an UltraPlus has multipliers and large RAMs, and delays of its own."""
    if part.family is not Family.ICE40:
        return _COMMANDS[part.family]
    return _COMMANDS[part.family].format(device="u -dsp -spram" if part.spram else "hx")


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
