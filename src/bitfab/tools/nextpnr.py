"""nextpnr: place and route a netlist and read its frequency, its use of the device and its critical path."""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfab import parts
from bitfab.errors import BitfabError
from bitfab.parts import Family, Part, Resources, find_part
from bitfab.tools.cells import gowin_multipliers
from bitfab.tools.process import OnLine, ToolError, find_package, output_folder, run_tool

__all__ = ["Hop", "Pins", "Placed", "check_fit", "place_and_route", "require"]

_PROGRAM = "import sys; import {module} as tool; sys.exit(tool.run_{tool}(sys.argv[1:]))"

# Options tried on a layer of 1,100 LUTs and 40 DSPs, ecp5-45k, one seed, processor seconds and peak memory: the default
# (heap, router1) 95 MHz, 22 s, 280 MB; router2 89 MHz, 18 s, 520 MB; --placer static 82 MHz, 29 s; --tmg-ripup 85 MHz.
# So none. The first call on a machine compiles the tool to machine code: 5 s more.
_USAGE = re.compile(r"^Info:\s+(\w+):\s*(\d+)\s*/\s*(\d+)\s+\d+%$")
_ICE40_FLIP_FLOPS = re.compile(r"^Info:\s+(\d+) LCs used as (?:LUT4 and DFF|DFF only)$")


@dataclass(frozen=True)
class _Tool:
    """One of nextpnr's programs: what `resources` its table of cells means, and the `ports` that stay.

    A design has more ports than a device has pins. Of an ECP5 nextpnr drops them all by an option; of others they are
    taken out of the netlist, but for those named here.
    """

    name: str
    resources: Callable[[Mapping[str, int]], Mapping[str, int]]
    ports: tuple[str, ...] | None = None

    @property
    def distribution(self) -> str:
        return f"yowasp-{self.name}"

    @property
    def program(self) -> str:
        tool = self.name.replace("-", "_")
        return _PROGRAM.format(module=f"yowasp_{tool}", tool=tool)


def _ecp5(cells: Mapping[str, int]) -> Mapping[str, int]:
    names = {"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "dsp": "MULT18X18D", "bram": "DP16KD"}
    return {name: cells[cell] for name, cell in names.items()}


def _ice40(cells: Mapping[str, int]) -> Mapping[str, int]:
    """Logic cells hold a LUT, a carry and a flip-flop each, so flip-flops are not counted here."""
    names = {"lut": "ICESTORM_LC", "dsp": "ICESTORM_DSP", "bram": "ICESTORM_RAM", "spram": "ICESTORM_SPRAM"}
    return {name: cells.get(cell, 0) for name, cell in names.items()}


def _gowin(cells: Mapping[str, int]) -> Mapping[str, int]:
    return {"lut": cells["LUT4"], "ff": cells["DFF"], "dsp": gowin_multipliers(cells), "bram": cells["BSRAM"]}


_TOOLS = {
    Family.ECP5: _Tool("nextpnr-ecp5", _ecp5),
    # The clock stays a pin: it then gets one of the device's global nets.
    Family.ICE40: _Tool("nextpnr-ice40", _ice40, ("clk_i",)),
    # It asks where each port lies.
    Family.GOWIN: _Tool("nextpnr-himbaechel-gowin", _gowin, ()),
}


@dataclass(frozen=True)
class Hop:
    """One step of a timing path: `kind` is nextpnr's (clk-to-q, logic, routing, setup), `cell` where it ends."""

    cell: str
    instance: str
    kind: str
    delay_ns: float


@dataclass(frozen=True)
class Placed:
    """A placed and routed design. `critical_instance` holds most of the critical path's delay; "" is the top itself.

    Of a part that nextpnr cannot place, `used` is what synthesis counted, `fmax_mhz` None and the path empty.
    """

    part: str
    fmax_mhz: float | None
    used: Resources
    available: Resources
    critical_path: tuple[Hop, ...]
    critical_instance: str
    spram: int = 0


@dataclass(frozen=True)
class Pins:
    """Where an ECP5's ports lie: the file of `constraints` (.lpf), and the `config` to write, which ecppack packs."""

    constraints: Path
    config: Path


def require(part: str = "ecp5-85k") -> None:
    """Raise MissingToolError, naming the package to install, unless the nextpnr of that part is here."""
    tool = _TOOLS[find_part(part).family]
    find_package(tool.distribution.replace("-", "_"), tool.distribution)


def place_and_route(
    netlist: Path,
    part: str,
    directory: Path,
    *,
    target_mhz: float = 100,
    seed: int = 1,
    pins: Pins | None = None,
    time_limit: float = 3600,
    on_line: OnLine | None = None,
) -> Placed:
    """Place and route `netlist` (Yosys' JSON) out of context: with no pins, since streams have more bits than pins.

    With `pins`, of an ECP5, ports lie where they say, and the configuration is written.
    A clock below `target_mhz` is no error: the result says what was reached. One seed gives one result.
    Writes `directory`/place_and_route.json (nextpnr's own report) and .log. Raises BitfabError as soon as the packed
    design needs more than `part` has, naming the resource and a larger part; ToolError when nextpnr fails.
    """
    require(part)
    device, folder = find_part(part), output_folder(directory)
    tool = _TOOLS[device.family]
    partial, log = folder / "place_and_route.partial", folder / "place_and_route.log"
    task = f"placing and routing {netlist.name} on {part}"
    # The tool sees a private /tmp, hence relative paths; TMPDIR is where it makes that.
    options = [*device.options, "--timing-allow-fail", "--freq", f"{target_mhz:g}", "--seed", str(seed)]
    watch = _FitWatch(device, tool, on_line)
    with tempfile.TemporaryDirectory(prefix="bitfab-place-") as scratch:
        options += ["--report", partial.name, *_input(netlist, tool, folder, pins)]
        try:
            lines = run_tool(
                [sys.executable, "-c", tool.program, *options],
                tool=tool.name,
                task=task,
                directory=folder,
                log=log,
                time_limit=time_limit,
                environment={"TMPDIR": scratch},
                on_line=watch,
            )
            placed = _placed(device, tool, json.loads(partial.read_text(encoding="utf-8")), task, lines, log)
            partial.replace(folder / "place_and_route.json")
        finally:
            partial.unlink(missing_ok=True)
            (folder / _PORTLESS).unlink(missing_ok=True)
    return placed


_PORTLESS = "place_and_route.netlist"


def _input(netlist: Path, tool: _Tool, folder: Path, pins: Pins | None) -> list[str]:
    """The options that give nextpnr the netlist, without its ports unless there are pins for them."""
    if pins is not None:
        paths = {"--json": netlist, "--lpf": pins.constraints, "--textcfg": pins.config}
        return [word for option, path in paths.items() for word in (option, os.path.relpath(path.resolve(), folder))]
    if tool.ports is None:
        return ["--out-of-context", "--json", os.path.relpath(netlist.resolve(), folder)]
    whole = json.loads(netlist.read_text(encoding="utf-8"))
    for module in whole["modules"].values():
        if int(module["attributes"].get("top", "0"), 2):
            module["ports"] = {name: port for name, port in module["ports"].items() if name in tool.ports}
    (folder / _PORTLESS).write_text(json.dumps(whole), encoding="utf-8")
    return ["--json", _PORTLESS]


@dataclass
class _FitWatch:
    """Reads nextpnr's utilisation table as it comes and raises BitfabError at its end if the part is too small."""

    part: Part
    tool: _Tool
    on_line: OnLine | None
    cells: dict[str, int] = field(default_factory=dict)

    def __call__(self, line: str) -> None:
        match = _USAGE.match(line)
        if match:
            self.cells[match[1]] = int(match[2])
        if line.startswith("Info: Placed "):
            check_fit(self.part, self.tool.resources(self.cells))
        if self.on_line is not None:
            self.on_line(line)


def check_fit(part: Part, needed: Mapping[str, int]) -> None:
    """Raise BitfabError for the resource (lut, ff, dsp, bram, spram) that `part` lacks most, naming the remedy."""

    def fits(candidate: Part) -> bool:
        return all(count <= _has(candidate, name) for name, count in needed.items())

    if fits(part):
        return
    name = max(needed, key=lambda name: needed[name] / max(_has(part, name), 0.1))
    larger = [
        candidate.name for candidate in parts.PARTS.values() if candidate.family is part.family and fits(candidate)
    ]
    remedies = [f"choose {larger[0]}"] if larger else []
    remedies += ["multiply in LUTs (--fold LAYER=PExSIMD:luts, requantizers too)"] if name == "dsp" else []
    remedies += ["fold more (a smaller parallelism)"]
    raise BitfabError(
        f"{part.name}: the design needs {needed[name]} {name.upper()}, the part has {_has(part, name)}: "
        f"{' or '.join(remedies)}"
    )


def _has(part: Part, name: str) -> int:
    return part.spram if name == "spram" else getattr(part.available, name)


def _placed(part: Part, tool: _Tool, report: dict[str, Any], task: str, lines: Sequence[str], log: Path) -> Placed:
    if not report["fmax"]:
        raise ToolError(tool.name, task, "the design has no path between registers to time", lines, log)
    clock = min(report["fmax"], key=lambda name: report["fmax"][name]["achieved"])
    path = _critical_path(report["critical_paths"], clock)
    share: Counter[str] = Counter()
    for hop in path:
        share[hop.instance] += round(1000 * hop.delay_ns)
    table = report["utilization"]
    used = dict(tool.resources({cell: row["used"] for cell, row in table.items()}))
    used.setdefault("ff", sum(int(match[1]) for line in lines if (match := _ICE40_FLIP_FLOPS.match(line))))
    return Placed(
        part=part.name,
        fmax_mhz=report["fmax"][clock]["achieved"],
        spram=used.pop("spram", 0),
        used=Resources(**used),
        available=part.available,
        critical_path=path,
        critical_instance=share.most_common(1)[0][0] if share else "",
    )


def _critical_path(paths: Sequence[dict[str, Any]], clock: str) -> tuple[Hop, ...]:
    """The slowest path from a clock edge to an edge of `clock`; paths from or to unplaced ports do not count."""
    timed = [path["path"] for path in paths if path["to"].endswith(f"edge {clock}") and path["from"] != "<async>"]
    if not timed:
        return ()
    hops = max(timed, key=lambda path: sum(hop["delay"] for hop in path))
    return tuple(
        Hop(hop["to"]["cell"], _instance(hop["to"]["cell"]), hop["type"], round(hop["delay"], 3)) for hop in hops
    )


def _instance(cell: str) -> str:
    """Name of the top's instance that holds a cell, the part before the first dot; "" for the top's own cells."""
    instance, dot, _ = cell.partition(".")
    return instance if dot and not instance.startswith("$") else ""
