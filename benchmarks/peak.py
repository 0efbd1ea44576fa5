"""Peak speed on an ecp5-85k, placed and routed: whole trained networks in INT8, INT4 and one bit.

    python benchmarks/peak.py [--only NAME ...] [--json FILE]

INT8 and INT4: MLPerf Tiny's ResNet8 (CIFAR-10), the first with nearly all of the part's 156 multipliers at work, the
second with two products in most of them. Binary: a CNV-like network of one bit throughout on MNIST
(`benchmarks/models`), 6,144 XNORs a cycle in its two largest layers. GOPS count two operations for each multiplication
of the network, none for what the hardware computes in vain, times the images a second at the frequency that nextpnr
reports (of up to three seeds, as in `bitfab build`); cycles an image are measured in simulation, where every word of
every stream is compared with the graph.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.common import Check, main, told
from benchmarks.models.built import PART, build
from benchmarks.precision import CASES, Case
from bitfab.hw import Folding, generate
from bitfab.hw.design import Multiplier
from bitfab.hw.folding import styles
from bitfab.ir import Graph

CLOCK = 100.0  # MHz, at least
DSPS = 146  # of 156 for products; a few requantizers need the rest


@dataclass(frozen=True)
class Peak:
    """A case of precision.py at so many products a cycle, some layers folded by hand, and the GOPS wanted."""

    case: str
    products: int
    gops: float
    folding: Mapping[str, Folding]


PEAKS = {
    "INT8": Peak("ResNet8 INT8", 171, 25, {}),
    "INT4": Peak("ResNet8 INT4", 341, 50, {}),
    # few channels at once with many inputs each: fewer accumulators and thresholds
    "binary": Peak(
        "binary", 6400, 1000, {"layer_0": Folding(128, 1), "layer_3": Folding(32, 128), "layer_6": Folding(16, 128)}
    ),
}


def foldings(graph: Graph, peak: Peak) -> dict[str, Folding]:
    """As balanced as so many products allow; the largest layers in DSPs, packed if possible, while they last."""
    design = generate(graph, PART.name, peak.products, dict(peak.folding), style="stream")
    found = {layer.name: layer.folding for layer in design.layers if layer.folding and layer.macs}
    types = {node.name: graph.values[node.inputs[0]].type for node in graph}
    left = DSPS
    for node in sorted((node for node in graph if node.name in found), key=lambda node: -found[node.name].multipliers):
        folding, legal = found[node.name], styles(node, types[node.name], found[node.name].pe)
        packed = Multiplier.PACKED in legal
        dsps = folding.multipliers // 2 if packed else folding.multipliers
        chosen = Multiplier.LUTS
        if Multiplier.DSP in legal and dsps <= left:
            left -= dsps
            chosen = Multiplier.PACKED if packed else Multiplier.DSP
        found[node.name] = replace(folding, multiplier=chosen)
    return found


def measured(name: str) -> Iterator[Check]:
    """The network, proved and placed."""
    peak = PEAKS[name]
    case: Case = CASES[peak.case][1]()
    built = build(case.graph, case.images, foldings(case.graph, peak), CLOCK)
    yield Check(f"{name}: accuracy, %", case.accuracy)
    yield Check(f"{name}: values compared in simulation", built.compared)
    yield Check.at_most(f"{name}: values that differ", built.mismatches, 0)
    yield Check(f"{name}: million multiplications an image", built.macs / 1e6)
    yield Check(f"{name}: products a cycle that the engines can make", built.multipliers)
    yield Check(f"{name}: cycles an image", built.cycles)
    yield Check(f"{name}: useful products of those possible, %", 100 * built.utilization)
    for kind in ("lut", "ff", "dsp", "bram"):
        yield Check(f"{name}: {kind.upper()}", getattr(built.used, kind))
    yield Check.at_least(f"{name}: Fmax, MHz", built.fmax_mhz, CLOCK)
    yield Check(f"{name}: images a second", built.images_per_second)
    yield Check.at_least(f"{name}: GOPS", built.gops, peak.gops)


def measure(arguments: argparse.Namespace) -> list[Check]:
    """All figures."""
    torch.set_num_threads(1)
    return [check for name in arguments.only for check in told(measured(name))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Peak speed")
    parser.add_argument("--only", nargs="+", choices=PEAKS, default=list(PEAKS), metavar="NAME", help="only these")
    main(measure, parser)
