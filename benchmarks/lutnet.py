"""LUT networks trained by gradients on jets, pulses and MNIST: accuracy, LUTs, and time on an ECP5.

    python benchmarks/lutnet.py [--only NAME ...] [--json FILE]

Names: those of `benchmarks/models/lutnets.py`. Accuracy is that of the integer graph, by `run_fast`, on data that was
neither trained on nor, for the pulses, simulated by the same program. The jets' bounds are relative to a float MLP
64-32-32 trained on the same 16,000 jets; the pulses' network is refined by a genetic search after the gradients. LUTs
are those of Yosys' `synth_xilinx` (LUT6) and `synth_ecp5` (LUT4) of the whole design, encoder, counts and argmax
included; synthesis fails on a latch. Delays are nextpnr's on an ecp5-85k of the slowest grade, out of context: from
register to register where all logic lies between one rank at the input and one at the output, and the smaller networks
pipelined too. Plots beside the literature's points (other parts, other tools): build/bench/lutnet.svg.

Data: ../shared/data (a network whose data is absent is left out, visibly) and MNIST from PyPI. One thread a network.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, Check, main, told
from benchmarks.models import datasets, lutnets
from benchmarks.models.lutnet_plot import LITERATURE, Point, plotted
from bitfab.backend import synthesize
from bitfab.hw.design import Target, write_files
from bitfab.hw.generate import generate
from bitfab.ir.graph import Graph
from bitfab.ir.passes.simplify_bits import simplify
from bitfab.lutnet import LutNetwork, lower
from bitfab.lutnet.cost import lut6_estimate
from bitfab.tools.levels import levels
from bitfab.tools.nextpnr import Placed
from bitfab.tools.yosys import Netlist, synthesize_ecp5, synthesize_xilinx

PLOT = ROOT / "build" / "bench" / "lutnet.svg"
FILES = {"jets-small": datasets.JETS, "jets": datasets.JETS, "pulses": lutnets.PULSES}
POINTS_LOST = {"jets-small": 3.0, "jets": 1.5}  # at most, against the float MLP
PERCENT = {"pulses": 90.0, "mnist-small": 97.0, "mnist": 98.0}
NS = {"pulses": 15.0}  # the combinational delay
NOT_PLACED = {"mnist-small", "mnist"}  # mnist-small takes more than five minutes
PIPELINED = {"jets-small", "jets", "pulses"}
PART = "ecp5-85k"
COMBINATIONAL = Target(PART, clock_mhz=66.7)
FAST = Target(PART, clock_mhz=200)


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    points: list[Point] = []
    checks = list(told(check for name in arguments.only for check in _checks(name, points)))
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    PLOT.write_text(plotted([*LITERATURE, *points]), encoding="utf-8")
    print(f"plots: {PLOT}", file=sys.stderr)
    return [*checks, *_literature({point.task for point in points})]


def _checks(name: str, points: list[Point]) -> Iterator[Check]:
    if name in FILES and not FILES[name].exists():
        print(f"{name}: left out, {FILES[name]} is absent", file=sys.stderr)
        return
    network = yield from _trained(name)
    accuracy = lutnets.judged(network, lutnets.RECIPES[name].task())
    if name in POINTS_LOST:
        yield Check(f"{name}: accuracy of the float MLP 64-32-32 %", _reference())
    bound = _reference() - POINTS_LOST[name] if name in POINTS_LOST else PERCENT[name]
    yield Check.at_least(f"{name}: accuracy %", accuracy, bound)
    graph = simplify(lower(network, "net"))
    yield Check(f"{name}: encoder bits read", graph.values["encode"].shape[0])
    with tempfile.TemporaryDirectory(prefix="bitfab-bench-") as folder:
        luts, nanoseconds = yield from _hardware(name, graph, Path(folder))
    points.append(Point(name.split("-")[0], f"bitfab {name}", accuracy, luts, nanoseconds, ours=True))


def _trained(name: str) -> Generator[Check, None, LutNetwork]:
    """The checks of training; returns the network."""
    start = time.process_time()
    network = lutnets.trained(name)
    yield Check(f"{name}: truth tables", network.tables)
    yield Check(f"{name}: training, CPU seconds", time.process_time() - start)
    if lutnets.RECIPES[name].refinement is None:
        return network
    task = lutnets.RECIPES[name].task()
    yield Check(f"{name}: accuracy after gradients alone %", lutnets.judged(network, task))
    start = time.process_time()
    network = lutnets.refined(network, name)
    yield Check(f"{name}: genetic refinement, CPU seconds", time.process_time() - start)
    return network


def _hardware(name: str, graph: Graph, folder: Path) -> Generator[Check, None, tuple[int, float | None]]:
    """The checks of the design; returns its LUT6 and the delay between its ends, where it was placed."""
    design = generate(graph, COMBINATIONAL, levels=0)
    write_files(dict(design.files), folder / "between")
    sources = [folder / "between" / path for path in design.sources]
    xilinx = synthesize_xilinx(sources, design.name, folder / "xilinx", restructure=False)
    yield Check.at_most(f"{name}: LUT6", xilinx.total.lut, lutnets.RECIPES[name].budget)
    yield Check(f"{name}: LUT6 as estimated before", lut6_estimate(graph))
    placed: Placed | None = None
    if name in NOT_PLACED:
        ecp5 = synthesize_ecp5(sources, design.name, folder / "ecp5", restructure=False)
    else:
        done = synthesize(design, folder / "between")
        ecp5, placed = done.netlist, done.placed
    yield from _cells(name, xilinx, ecp5)
    if placed is None:
        return xilinx.total.lut, None
    delay = 1000 / placed.fmax_mhz
    what = f"{name}: combinational delay, ns"
    yield Check.at_most(what, delay, NS[name]) if name in NS else Check(what, delay)
    if name in PIPELINED:
        yield from _pipelined(name, graph, folder / "pipelined")
    return xilinx.total.lut, delay


def _cells(name: str, xilinx: Netlist, ecp5: Netlist) -> Iterator[Check]:
    yield Check(f"{name}: LUT4", ecp5.total.lut)
    yield Check(f"{name}: levels of LUT6", levels(xilinx))
    yield Check(f"{name}: levels of LUT4", levels(ecp5))
    for what in ("dsp", "bram"):
        cells = getattr(xilinx.total, what) + getattr(ecp5.total, what)
        yield Check.at_most(f"{name}: {what.upper()}", cells, 0)


def _pipelined(name: str, graph: Graph, folder: Path) -> Iterator[Check]:
    design = generate(graph, FAST)
    write_files(dict(design.files), folder)
    placed = synthesize(design, folder).placed
    cycles = design.expected_latency
    yield Check(f"{name}: pipelined for {FAST.clock_mhz:g} MHz, MHz", placed.fmax_mhz)
    yield Check(f"{name}: cycles of it", cycles)
    yield Check(f"{name}: latency of it, ns", 1000 * cycles / placed.fmax_mhz)


def _literature(tasks: set[str]) -> Iterator[Check]:
    for point in LITERATURE:
        if point.task in tasks:
            name = f"theirs, {point.where}: {point.task}, {point.name}"
            yield Check(f"{name}: accuracy %", point.accuracy)
            yield Check(f"{name}: LUT6", point.luts)
            if point.nanoseconds is not None:
                yield Check(f"{name}: latency, ns", point.nanoseconds)


@cache
def _reference() -> float:
    return lutnets.float_reference()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    names = list(lutnets.RECIPES)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    main(measure, parser)
