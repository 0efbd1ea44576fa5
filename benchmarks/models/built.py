"""An integer graph built for the ECP5-85k: its RTL proved equal to it, then synthesized, placed and routed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT
from bitfab.backend import SEEDS, simulate
from bitfab.dtypes import IntArray
from bitfab.hw import Folding, Target, generate
from bitfab.hw.design import Design
from bitfab.hw.memory_cost import memories
from bitfab.ir import Graph
from bitfab.parts import Resources, find_part
from bitfab.tools import nextpnr, yosys
from bitfab.tools.nextpnr import Placed

PART = find_part("ecp5-85k")
CLOCK_MHZ = 130.0  # asked of the placer: above what is needed, lest it stop there
WORK = ROOT / "build" / "bench" / "built"


@dataclass(frozen=True)
class Built:
    """What was measured: `macs` an image, as layers are usually counted, `cycles` an image, values `compared`.

    `wide_brams` are the block RAMs that it would take with words of 32 bits.
    """

    macs: int
    multipliers: int
    cycles: int
    compared: int
    mismatches: int
    used: Resources
    fmax_mhz: float
    critical: str
    wide_brams: int

    @property
    def images_per_second(self) -> float:
        return self.fmax_mhz * 1e6 / self.cycles

    @property
    def gops(self) -> float:
        """Two operations a product that the network needs, none for one that the hardware makes in vain."""
        return 2 * self.macs * self.images_per_second / 1e9

    @property
    def utilization(self) -> float:
        """Useful products over those that all multipliers could make."""
        return self.macs / (self.cycles * self.multipliers)

    @property
    def area(self) -> float:
        """See `share`."""
        return share(self.used)


def share(used: Resources) -> float:
    """The share of the part: that of the resource of which it takes most, so that 1 / share of it fit at once."""
    has = PART.available
    return max(used.lut / has.lut, used.ff / has.ff, used.dsp / has.dsp, used.bram / has.bram)


def build(
    graph: Graph,
    images: IntArray,
    folding: Mapping[str, Folding],
    least_mhz: float = 0,
    clock_mhz: float = CLOCK_MHZ,
) -> Built:
    """Generate with these foldings, simulate the images (at least two), synthesize, place and route.

    Below `least_mhz` the placer's other seeds are tried, as `bitfab build` does, and the best is kept.
    Raises BitfabError where a word of any stream differs from the graph's, and where the part is too small.
    """
    design = generate(graph, Target(PART.name, clock_mhz), folding=folding, style="stream")
    folder = WORK / design.name
    if folder.exists():
        shutil.rmtree(folder)
    simulation = simulate(design, images, folder)
    sources = [folder / path for path in design.sources]
    netlist = yosys.synthesize_ecp5(sources, design.name, folder / "build", time_limit=3600)
    counts = netlist.total
    placed = _placed(netlist.json, folder / "build", least_mhz, clock_mhz)
    return Built(
        macs=sum(layer.macs for layer in design.layers),
        multipliers=design.multipliers,
        cycles=simulation.steady.cycles_per_image,
        compared=simulation.values_compared,
        mismatches=simulation.mismatches,
        used=Resources(counts.lut, counts.ff, counts.dsp, counts.bram),
        fmax_mhz=_clock(placed),
        critical=placed.critical_instance,
        wide_brams=wide_brams(design),
    )


def _placed(netlist: Path, folder: Path, least_mhz: float, clock_mhz: float) -> Placed:
    found: list[Placed] = []
    for seed in SEEDS:
        found.append(
            nextpnr.place_and_route(netlist, PART.name, folder, target_mhz=clock_mhz, seed=seed, time_limit=7200)
        )
        if _clock(found[-1]) >= least_mhz:
            break
    return max(found, key=_clock)


def _clock(placed: Placed) -> float:
    return placed.fmax_mhz or 0.0


def wide_brams(design: Design) -> int:
    """Block RAMs of the same design with weights, activations and sums of 32 bits, by the rules of Yosys."""
    lanes = {stream.name: stream.lanes for stream in design.streams}
    found = 0
    for instance in design.instances:
        match instance.block:
            case "conv2d":
                wide = {"InBits": 32, "WeightBits": 32, "AccBits": 32, "Memory": 0}
            case "window" | "pool2d":
                wide = {"Bits": 32}
            case "fifo":
                wide = {"Bits": 32 * lanes[instance.inputs[0]]}
            case _:
                continue
        found += sum(memory.brams for memory in memories(instance.block, {**instance.parameters, **wide}))
    return found
