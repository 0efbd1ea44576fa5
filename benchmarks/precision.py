"""Fewer bits, less hardware: two networks in INT8, INT4 and 2 bits, a binary one, beside a real FP32 engine.

    python benchmarks/precision.py [--only NAME ...] [--json FILE]

The qubit U-Net, MLPerf Tiny's ResNet8 (CIFAR-10), and a CNV-like network of one bit throughout (MNIST). INT8 is
quantized after training, fewer bits are trained (`benchmarks/models/few_bits.py`; the integer graphs are shipped).
Scales are powers of two. Accuracy is that of the integer graph on data that neither calibrated nor trained it;
ResNet8's authors trained it on these photos, so its differences count.

Every network gets the same area: `bitfab.fit` finds the fastest foldings for the same share of an ecp5-85k. Each
design is simulated against its graph, every word of every stream, then synthesized, placed and routed. GOPS count the
network's multiplications alone, two operations each.

The FP32 engine (`benchmarks/baselines`) is a pipelined multiply-accumulate unit with its weights in block RAM, equal
to numpy in every bit. Area is the share of the part that a design takes of the resource it takes most of, and speed at
equal area is GOPS over that share against the engine's. That favours FP32: the engine stands alone, without line
buffers, activations and skip connections, and as many copies of it as fit are assumed to keep its clock; but each of
its products takes four DSPs, as synthesis infers them, where some LUTs could take the place of one or two.
DSP and BRAM are compared at equal speed and for equal networks: the engine's DSPs over ours for as many GOPS; the
block RAMs of the same design with all words, weights and activations, of 32 bits (by Yosys' rules) over ours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import bitfab as bf
from benchmarks.baselines import fp32
from benchmarks.common import Check, main, told
from benchmarks.models import datasets, few_bits
from benchmarks.models.built import PART, Built, build, share
from benchmarks.models.training import Data, accuracy
from bitfab import applications, flow
from bitfab.dtypes import IntArray
from bitfab.ir import Graph

SHARE = 0.25  # of the part for every design
IMAGES = 3  # simulated, all streams compared
PAIRS = 200_000  # random products and sums that prove the FP32 engine
LITERATURE = {  # bits: times faster than FP32 at equal area, times fewer block RAMs and DSPs
    8: ("3 to 6", 3.0, "4", "2"),
    4: ("6 to 12", 6.0, "8", "4"),
    2: ("", 0.0, "16", "8"),
    1: ("50 to 100", 50.0, "32", "all"),
}


@dataclass(frozen=True)
class Case:
    """A quantized network: its graph, the float network's accuracy and its own in percent, inputs to simulate."""

    graph: Graph
    real: float
    accuracy: float
    images: IntArray


@dataclass(frozen=True)
class Row:
    """A case in hardware."""

    name: str
    bits: int
    case: Case
    built: Built


@cache
def _qubit_application() -> applications.Application:
    found = applications.load("qubit")
    assert isinstance(found, applications.Application)
    return found


def qubit_case(bits: int) -> Case:
    """The U-Net; accuracy is the IoU of the transitions, in percent."""
    application = _qubit_application()
    real = flow.float_outputs(application.network, application.tests)
    if bits == 8:
        graph = bf.quantize(application.network, application.calibration, few_bits.recipe("qubit", 8), "qubit_8")
    else:
        graph = few_bits.graph(f"qubit-{bits}")
    judged = application.judge(real, flow.integer_outputs(graph, application.tests))
    assert judged.float is not None and judged.integer is not None
    return Case(graph, 100 * judged.float, 100 * judged.integer, bf.as_integers(graph, application.tests[:IMAGES]))


def resnet8_case(bits: int) -> Case:
    """ResNet8; top-1 on the 800 photos that the training under quantization did not see."""
    net, data = few_bits.resnet8(), few_bits.cifar()
    if bits == 8:
        recipe = few_bits.recipe("resnet8", 8)
        graph = bf.quantize(net, [data.train[: few_bits.CALIBRATION]], recipe, "resnet8_8")
    else:
        graph = few_bits.graph(f"resnet8-{bits}")
    return _classified(graph, net, data)


def binary_case() -> Case:
    """The binary network on MNIST's test images; float is the same network with Hardtanh, before."""
    graph, data = few_bits.graph("binary"), few_bits.mnist()
    return _classified(graph, None, data)


def _classified(graph: Graph, net: nn.Module | None, data: Data) -> Case:
    codes = bf.as_integers(graph, data.test.numpy())
    found = np.concatenate([np.asarray(bf.run_fast(graph, part)) for part in np.array_split(codes, len(codes) // 100)])
    right = found.reshape(len(codes), -1).argmax(1) == data.truth.numpy()
    real = few_bits.float_accuracy("binary") if net is None else accuracy(net, data)
    return Case(graph, real, 100 * float(right.mean()), codes[:IMAGES])


CASES: dict[str, tuple[int, Callable[[], Case]]] = {
    "qubit INT8": (8, lambda: qubit_case(8)),
    "qubit INT4": (4, lambda: qubit_case(4)),
    "qubit 2 bits": (2, lambda: qubit_case(2)),
    "ResNet8 INT8": (8, lambda: resnet8_case(8)),
    "ResNet8 INT4": (4, lambda: resnet8_case(4)),
    "ResNet8 2 bits": (2, lambda: resnet8_case(2)),
    "binary": (1, binary_case),
}


def baseline() -> tuple[fp32.Baseline, list[Check]]:
    """The FP32 engine, proved and placed."""
    proof, engine = fp32.verify(PAIRS), fp32.place(PART.name)
    used = engine.used
    return engine, [
        Check("FP32 engine: numbers compared with numpy's", proof.compared),
        Check.at_most("FP32 engine: numbers that differ", proof.wrong, 0),
        Check.at_most("FP32 engine: cycles a multiply-accumulate", round(proof.cycles, 3), 1),
        Check.at_least("FP32 engine: Fmax, MHz", engine.fmax_mhz, 100),
        *(Check(f"FP32 engine: {kind.upper()}", getattr(used, kind)) for kind in ("lut", "ff", "dsp", "bram")),
        Check("FP32 engine: GOPS", engine.gops),
        Check("FP32 engine: GOPS a kLUT", 1000 * engine.gops / used.lut),
        Check("FP32 engine: GOPS a DSP", engine.gops / used.dsp),
        Check("FP32 engine: GOPS of a whole part of them", engine.gops / share(used)),
    ]


def measured(name: str) -> Row:
    """The network at those bits: quantized, fitted, proved, placed."""
    bits, make = CASES[name]
    case = make()
    return Row(name, bits, case, build(case.graph, case.images, bf.fit(case.graph, PART.name, SHARE)))


def figures(row: Row, engine: fp32.Baseline) -> Iterator[Check]:
    """All figures of a row; the bounds are the lower ends of the literature's estimates."""
    built, used, faster = row.built, row.built.used, at_equal_area(row, engine)
    yield Check(f"{row.name}: accuracy in float, %", row.case.real)
    yield Check(f"{row.name}: accuracy, %", row.case.accuracy)
    yield Check(f"{row.name}: values compared in simulation", built.compared)
    yield Check.at_most(f"{row.name}: values that differ", built.mismatches, 0)
    for kind in ("lut", "ff", "dsp", "bram"):
        yield Check(f"{row.name}: {kind.upper()}", getattr(used, kind))
    yield Check(f"{row.name}: Fmax, MHz", built.fmax_mhz)
    yield Check(f"{row.name}: cycles an image", built.cycles)
    yield Check(f"{row.name}: images a second", built.images_per_second)
    yield Check(f"{row.name}: GOPS", built.gops)
    yield Check(f"{row.name}: GOPS a kLUT", 1000 * built.gops / used.lut)
    if used.dsp:
        yield Check(f"{row.name}: GOPS a DSP", built.gops / used.dsp)
        yield Check(f"{row.name}: times fewer DSPs than FP32 at equal speed", fewer_dsps(row, engine))
    yield Check(f"{row.name}: times fewer BRAMs than with 32 bits", row.built.wide_brams / used.bram)
    words, least, _, _ = LITERATURE[row.bits]
    title = f"{row.name}: times faster than FP32 at equal area"
    yield Check.at_least(f"{title} (literature: {words})", faster, least) if words else Check(title, faster)


def at_equal_area(row: Row, engine: fp32.Baseline) -> float:
    """Times the GOPS that FP32 engines of the same area make."""
    return (row.built.gops / row.built.area) / (engine.gops / share(engine.used))


def fewer_dsps(row: Row, engine: fp32.Baseline) -> float:
    """The DSPs of FP32 engines that are as fast, over ours."""
    return engine.used.dsp * (row.built.gops / engine.gops) / max(row.built.used.dsp, 1)


def table(rows: Sequence[Row], engine: fp32.Baseline) -> Table:
    """One line a network and precision, the literature's estimates in brackets."""
    heads = (
        "float %",
        "acc. %",
        "LUT",
        "FF",
        "DSP",
        "BRAM",
        "MHz",
        "cycles",
        "images/s",
        "GOPS",
        "GOPS/kLUT",
        "GOPS/DSP",
    )
    found = Table("", *heads, "x FP32, area", "x BRAM", "x DSP", title=f"{SHARE:.0%} of an {PART.name} each")
    used, gops = engine.used, engine.gops
    found.add_row(
        *("FP32 engine", "", "", f"{used.lut}", f"{used.ff}", f"{used.dsp}", f"{used.bram}", f"{engine.fmax_mhz:.0f}"),
        *("", "", f"{gops:.2f}", f"{1000 * gops / used.lut:.2f}", f"{gops / used.dsp:.3f}", "1", "1", "1"),
    )
    for row in rows:
        built, used = row.built, row.built.used
        speed, _, brams, dsps = LITERATURE[row.bits]
        per_dsp = f"{built.gops / used.dsp:.3f}" if used.dsp else "-"
        found.add_row(
            *(row.name, f"{row.case.real:.2f}", f"{row.case.accuracy:.2f}"),
            *(f"{used.lut:,}", f"{used.ff:,}", f"{used.dsp}", f"{used.bram}"),
            *(f"{built.fmax_mhz:.0f}", f"{built.cycles:,}", f"{built.images_per_second:,.0f}", f"{built.gops:.1f}"),
            *(f"{1000 * built.gops / used.lut:.2f}", per_dsp),
            f"{at_equal_area(row, engine):.1f} ({speed})",
            f"{row.built.wide_brams / used.bram:.1f} ({brams})",
            f"{fewer_dsps(row, engine):.1f} ({dsps})" if used.dsp else f"no DSP ({dsps})",
        )
    return found


def measure(arguments: argparse.Namespace) -> list[Check]:
    """The baseline and every case asked for."""
    torch.set_num_threads(1)
    engine, checks = baseline()
    rows: list[Row] = []
    for name in arguments.only:
        if name.startswith("ResNet8") and not datasets.CIFAR.exists():
            print(f"SKIPPED: {name}: no photos in {datasets.CIFAR}", file=sys.stderr)
            continue
        rows.append(measured(name))
        checks += told(figures(rows[-1], engine))
    Console(width=200).print(table(rows, engine))
    return checks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Precision against hardware")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help="only these")
    main(measure, parser)
