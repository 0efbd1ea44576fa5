"""Estimates against synthesis: ten networks that did not calibrate the cost model, and foldings found for a budget.

    python benchmarks/estimate.py [--only NAME ...] [--json FILE]

Weights are random where the zoo has none: size depends little on them. LUTs within 15 % of Yosys', multipliers and
block RAMs as many as Yosys infers; the estimate itself in seconds. `fit`: the integer program's folding of the qubit
U-Net for a share of the ecp5-85k is generated and synthesized, and must lie within it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from benchmarks.common import Check, main, told
from benchmarks.models.mlp import mlp
from benchmarks.models.resnet import resnet8
from bitfab import zoo
from bitfab.hw import cost, generate
from bitfab.hw.design import Design, write_files
from bitfab.hw.fit import fit
from bitfab.ir import Graph
from bitfab.parts import Resources, find_part
from bitfab.quant import Recipe, quantize
from bitfab.tools import yosys

LUT_ERROR = 15.0  # per cent
SECONDS = 10.0  # of an estimate, generating included
SHARE = 0.8


class Separable(nn.Sequential):
    """Depthwise and pointwise convolutions, as on small devices."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6()]
        for inputs, outputs, stride in ((8, 16, 1), (16, 24, 2), (24, 32, 2)):
            layers += [nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs), nn.ReLU6()]
            layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU6()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def small_conv() -> nn.Sequential:
    """The convolutional network that da4ml and NNgen are compared on."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))


def graph_of(net: nn.Module, shape: tuple[int, ...], name: str, **recipe: int) -> Graph:
    """Quantized on random inputs with the ranges that they give."""
    torch.manual_seed(0)
    return quantize(net.eval(), [torch.rand(8, *shape)], Recipe(**recipe), name)


def shipped(name: str, label: str, **recipe: int) -> Graph:
    return graph_of(zoo.load(name), zoo.NETWORKS[name].input_shape, label, **recipe)


NETWORKS: dict[str, tuple[Callable[[], Graph], int]] = {
    "digits": (lambda: shipped("digits", "digits"), 64),
    "digits W4A4": (lambda: shipped("digits", "digits4", weights=4, activations=4), 24),
    "qubit-447": (lambda: shipped("qubit-447", "qubit447"), 64),
    "qubit": (lambda: shipped("qubit", "qubit"), 64),
    "qubit W4A4": (lambda: shipped("qubit", "qubit4", weights=4, activations=4), 32),
    "jets MLP": (lambda: shipped("jets", "jets"), 32),
    "mnist MLP W2A2": (lambda: graph_of(mlp((784, 64, 64, 10)), (784,), "mnist2", weights=2, activations=2), 48),
    "conv 8x8": (lambda: graph_of(small_conv(), (1, 8, 8), "small_conv"), 24),
    "separable": (lambda: graph_of(Separable(), (3, 32, 32), "separable"), 48),
    "ResNet8": (lambda: graph_of(resnet8(), (3, 32, 32), "resnet8"), 64),
}


def synthesized(design: Design) -> Resources:
    """What Yosys makes of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / design.name
        write_files(design.files, folder)
        counts = yosys.synthesize_ecp5([folder / p for p in design.sources], design.name, folder / "build").total
    return Resources(counts.lut, counts.ff, counts.dsp, counts.bram)


def compared(name: str, design: Design, seconds: float) -> Iterator[Check]:
    """The estimate of a design and what synthesis gives."""
    start = time.perf_counter()
    guess = cost.total(cost.estimate(design).values())
    seconds += time.perf_counter() - start
    real = synthesized(design)
    yield Check(f"{name}: LUT, synthesized", real.lut)
    yield Check.at_most(f"{name}: LUT error of the estimate, %", abs(100 * (guess.lut / real.lut - 1)), LUT_ERROR)
    yield Check(f"{name}: FF error of the estimate, %", abs(100 * (guess.ff / real.ff - 1)))
    yield Check.at_most(f"{name}: DSP, estimate beside {real.dsp}", abs(guess.dsp - real.dsp), 0)
    yield Check.at_most(f"{name}: BRAM, estimate beside {real.bram}", abs(guess.bram - real.bram), 0)
    yield Check.at_most(f"{name}: s to generate and estimate", seconds, SECONDS)


def networks(names: Sequence[str]) -> Iterator[Check]:
    for name in names:
        make, parallelism = NETWORKS[name]
        torch.manual_seed(0)
        graph = make()
        start = time.perf_counter()
        design = generate(graph, "ecp5-85k", parallelism, style="stream")
        yield from compared(name, design, time.perf_counter() - start)


def fitted() -> Iterator[Check]:
    """A folding from the integer program, synthesized: within its share of the part."""
    graph = shipped("qubit", "qubit_fit")
    start = time.perf_counter()
    folding = fit(graph, "ecp5-85k", SHARE)
    yield Check("fit: s to find the foldings", time.perf_counter() - start)
    design = generate(graph, "ecp5-85k", folding=folding)
    yield Check("fit: cycles an image", design.expected_cycles)
    real, budget = synthesized(design), find_part("ecp5-85k").available.times(SHARE)
    for kind in ("lut", "ff", "dsp", "bram"):
        yield Check.at_most(f"fit: {kind.upper()}, synthesized", getattr(real, kind), getattr(budget, kind))
    slowest = max(layer.cycles for layer in design.layers if layer.folding)
    busy = [layer.folding.multipliers * layer.cycles for layer in design.layers if layer.folding]
    provided = slowest * design.multipliers
    yield Check("fit: multipliers' use over the whole network, %", 100 * sum(busy) / provided)


def measure(arguments: argparse.Namespace) -> list[Check]:
    """All figures."""
    names = arguments.only or [*NETWORKS, "fit"]
    checks = list(told(networks([name for name in names if name in NETWORKS])))
    return checks + (list(told(fitted())) if "fit" in names else [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Estimates against synthesis")
    parser.add_argument("--only", nargs="+", choices=[*NETWORKS, "fit"], metavar="NAME", help="only these networks")
    main(measure, parser)
