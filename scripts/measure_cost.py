"""Synthesize seeded random networks and keep what each of their blocks took: the data of `scripts/fit_cost.py`.

    python scripts/measure_cost.py FOLDER [--first SEED] [--count N]

FOLDER/<seed>.json: a list of {block, parameters, lut, ff, dsp, bram}. Seeds that are there already are left out, so an
interrupted run goes on where it was. Seeds below STYLES have a DSP a product and at least two bits a value; networks
from there on draw multipliers and memories of every kind for each layer, and bipolar values and weights; from
REQUANTIZERS on a network is a requantizer that multiplies with LUTs, from PRODUCTS on a product of two streams. From
SLICES on a block is synthesized alone, without a design around it: a slice; from LINES on a function of more than 8
bits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bitfab.dtypes import IntType, Rounding, multiplier_and_shift
from bitfab.errors import BitfabError
from bitfab.hw import generate
from bitfab.hw.cost import top_parameters
from bitfab.hw.design import Design, Folding, MemoryStyle, Multiplier, write_files
from bitfab.hw.folding import styles
from bitfab.hw.plan import Engine, plan
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Multiply,
    Op,
    Requantize,
    Reshape,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    TopK,
    Upsample,
)
from bitfab.quant.piecewise import shortened
from bitfab.tools import yosys

CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
WIDE = (16, 16, 24, 32, 32, 48, 64, 64, 96, 128)  # of binary networks
STYLES, REQUANTIZERS, PRODUCTS, SLICES, LINES = 1000, 2000, 3000, 4000, 5000


class Network:
    """A random network under construction: what a quantizer would make, with random weights."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = Builder(f"random_{seed}")
        self.bits = int(self.rng.choice([8, 8, 8, 6, 4, 4, 3, 2]))
        self.weight_bits = int(self.rng.choice([8, 8, 6, 4, 4, 3, 2]))
        if seed >= STYLES:
            self.bits, self.weight_bits = (int(self.rng.choice([8, 6, 5, 4, 3, 2, 1, 1])) for _ in range(2))
        self.binary = self.bits == self.weight_bits == 1
        self.channels = WIDE if self.binary else CHANNELS
        side = int(self.rng.choice([1, 8, 12, 16, 20, 28, 32, 64], p=[0.15, 0.15, 0.1, 0.15, 0.1, 0.15, 0.15, 0.05]))
        shape = (int(self.rng.choice(self.channels)), side, side)
        self.value = self.builder.input("x", shape, IntType(8, signed=bool(self.rng.integers(2))))

    def build(self) -> Graph:
        """Convolutions, then dense layers; now and then a class at the end."""
        rng = self.rng
        for _ in range(int(rng.integers(2, 6))):
            channels, height, width = self.shape
            kinds = ["conv", "conv", "depthwise", "pool", "up", "table", "skip", "skip"] if height > 2 else ["conv"]
            match rng.choice(kinds):
                case "conv":
                    self.convolve(groups=1)
                case "depthwise":
                    self.convolve(groups=channels)
                case "pool" if height % 2 == 0 and width % 2 == 0:
                    op: Op = MaxPool2d((2, 2), (2, 2)) if rng.integers(2) else SumPool2d((2, 2), (2, 2))
                    self.add("pool", op)
                    if isinstance(op, SumPool2d):
                        self.requantize()
                case "up" if height <= 16:
                    if rng.integers(2):
                        self.add("up", Upsample((2, 2)))
                    else:
                        outputs = int(rng.choice(self.channels))
                        weight = self.weights((channels, outputs, 2, 2))
                        outside = -1 if self.bipolar else 0
                        self.add("deconv", ConvTranspose2d(weight, self.biases(outputs), (2, 2), pad_value=outside))
                        self.requantize()
                case "table":
                    type = self.builder.value(self.value).type
                    if type.bits <= 8 and not self.bipolar:
                        entries = rng.integers(0, 1 << self.bits, 1 << type.bits)
                        self.add("table", Table(entries, type, IntType(self.bits, signed=False)))
                case "skip":
                    shortcut = self.value
                    self.convolve(groups=1, alike=True)
                    self.join(shortcut)
        for _ in range(int(rng.integers(0, 3))):
            self.dense()
        if len(self.shape) == 1 and rng.integers(2):
            self.add("class", TopK(int(rng.integers(1, min(self.shape[0], 4) + 1))))
        return self.builder.build((self.value,))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.builder.value(self.value).shape

    @property
    def bipolar(self) -> bool:
        return self.builder.value(self.value).type.bipolar

    def add(self, name: str, op: Op, *others: str) -> None:
        self.value = self.builder.add(name, op, (self.value, *others))

    def weights(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.weight_bits == 1:
            return self.rng.choice([-1, 1], shape).astype(np.int32)
        high = (1 << (self.weight_bits - 1)) - 1
        return np.clip(np.rint(self.rng.normal(0, high / 2.5 + 0.3, shape)), -high, high).astype(np.int32)

    def biases(self, count: int) -> np.ndarray:
        return self.rng.integers(-2000, 2000, count, dtype=np.int32)

    def convolve(self, groups: int, alike: bool = False) -> None:
        """By a random kernel; `alike` keeps the shape."""
        channels, height, _ = self.shape
        kernel = int(self.rng.choice([1, 3, 3, 3, 5])) if height > 4 else 1
        outputs = channels if groups > 1 or alike else int(self.rng.choice(self.channels))
        pad = kernel // 2
        stride = int(self.rng.choice([1, 1, 2])) if height % 2 == 0 and not alike else 1
        weight = self.weights((outputs, channels // groups, kernel, kernel))
        outside = -1 if self.bipolar else 0
        op = Conv2d(weight, self.biases(outputs), (stride, stride), (pad,) * 4, (1, 1), groups, outside)
        self.add("conv", op)
        self.requantize()

    def dense(self) -> None:
        if len(self.shape) == 3:
            if self.shape[1] > 8:
                self.add("pool", SumPool2d(self.shape[1:], self.shape[1:]))
                self.requantize()
            self.add("flat", Reshape((int(np.prod(self.shape)),)))
        outputs = int(self.rng.choice([5, 8, 10, 16, 32, 64]))
        self.add("dense", Dense(self.weights((outputs, self.shape[0])), self.biases(outputs)))
        self.requantize()

    def requantize(self, per_channel: bool = True) -> None:
        """To the network's bits: by thresholds, or by multipliers of 16 bits, or by shifts."""
        rng, value = self.rng, self.builder.value(self.value)
        channels = value.shape[0] if per_channel and rng.integers(3) else 1
        spread = max(1, value.high - value.low) / 4
        if self.bits == 1:
            middle = rng.integers(value.low // 2, value.high // 2 + 1, (channels, 1))
            self.add("threshold", Threshold(middle.astype(np.int32), IntType(1, signed=True), -1))
            return
        if self.bits <= 4 and rng.integers(2):
            levels = (1 << self.bits) - 1
            rows = np.sort(rng.integers(value.low, value.high + 1, (channels, levels)), axis=1)
            self.add("threshold", Threshold(rows.astype(np.int32), IntType(self.bits, signed=False), 0))
            return
        ratio = rng.uniform(0.5, 2.0, channels) * (1 << self.bits) / spread
        if rng.integers(4) == 0:
            ratio = 2.0 ** np.round(np.log2(ratio))
        multiplier, shift = multiplier_and_shift(np.minimum(ratio, 100.0), 16)
        type = IntType(self.bits, signed=False)
        low, zero = (0, 0) if rng.integers(2) else (0, int(rng.integers(1 << self.bits)))
        rounding = Rounding.HALF_UP
        self.add("requantize", Requantize(multiplier, shift, type, low, type.high, 0, zero, rounding))

    def join(self, other: str) -> None:
        """Add or append an earlier value of the same shape."""
        types = {self.builder.value(name).type for name in (other, self.value)}
        if self.rng.integers(2) or len(types) > 1:
            self.add("sum", Add(), other)
            self.requantize(per_channel=False)
        else:
            self.add("joined", Concat(), other)


def design_of(seed: int) -> Design:
    """A streaming design of the random network with a random number of multipliers; its clock does not matter."""
    if seed >= REQUANTIZERS:
        return lone(seed)
    network, rng = Network(seed), np.random.default_rng(seed)
    graph = network.build()
    parallelism = int(rng.choice([16, 24, 32, 48, 64])) * (4 if network.binary else 1)
    engines, _ = plan(graph, parallelism, {})
    folding = {
        name: styled(engine, rng) if seed >= STYLES else replace(engine.folding, multiplier=Multiplier.DSP)
        for name, engine in engines.items()
        if engine.folding is not None
    }
    return generate(graph, "ecp5-85k", folding=folding, style="stream")


def lone(seed: int) -> Design:
    """One operation by itself, which one the seed says."""
    firsts = {REQUANTIZERS: requantizer, PRODUCTS: product, SLICES: slice_of, LINES: lines}
    return firsts[max(first for first in firsts if first <= seed)](seed)


def requantizer(seed: int) -> Design:
    """A requantizer by itself: of one scale or a scale a channel, of a few lanes."""
    rng, builder = np.random.default_rng(seed), Builder(f"random_{seed}")
    channels, lanes = ((1, 1), (4, 1), (4, 2), (8, 4), (16, 2))[rng.integers(5)]
    type = IntType(int(rng.choice([10, 13, 16, 19, 22, 25])), signed=bool(rng.integers(2)))
    value = builder.input("x", (channels, 4, 4), type)
    ratio = rng.uniform(0.5, 2.0, channels if rng.integers(4) else 1) / (1 << (type.bits - 8))
    multiplier, shift = multiplier_and_shift(ratio, int(rng.choice([8, 12, 16, 16])))
    out = IntType(8, signed=False)
    value = builder.add("requantize", Requantize(multiplier, shift, out, 0, 255, 0, int(rng.integers(2))), value)
    folding = {"requantize": Folding(lanes, 1, Multiplier.LUTS)}
    return generate(builder.build((value,)), "ecp5-85k", folding=folding, style="stream")


def product(seed: int) -> Design:
    """A product of two streams by itself: of images, or of an image and a factor a channel."""
    rng, builder = np.random.default_rng(seed), Builder(f"random_{seed}")
    channels, lanes = ((1, 1), (4, 1), (4, 2), (8, 4), (16, 2), (64, 1), (128, 2))[rng.integers(7)]
    types = [IntType(int(rng.choice([4, 6, 8, 8, 12, 16])), signed=bool(rng.integers(2))) for _ in range(2)]
    zeros = [int(rng.integers(type.low, type.high, endpoint=True)) * int(rng.integers(2)) for type in types]
    side = int(rng.choice([4, 8, 20]))
    shapes = [(channels, side, side), (channels, side, side) if rng.integers(2) else (channels, 1, 1)]
    values = tuple(builder.input(name, *value) for name, *value in zip("ab", shapes, types, strict=True))
    folding = {"product": Folding(lanes, 1, Multiplier.LUTS if rng.integers(2) else Multiplier.DSP)}
    graph = builder.build((builder.add("product", Multiply(*zeros), values),))
    return generate(graph, "ecp5-85k", folding=folding, style="stream")


def slice_of(seed: int) -> Design:
    """A slice by itself, along any axis, in steps of one or more."""
    rng, builder = np.random.default_rng(seed), Builder(f"random_{seed}")
    shape = (int(rng.choice([2, 4, 8, 16, 48])), *(int(side) for side in rng.choice([3, 8, 20, 64], 2)))
    value = builder.input("x", shape, IntType(int(rng.choice([2, 4, 8, 8])), signed=False))
    axis = int(rng.integers(3))
    start, stop = sorted(rng.choice(shape[axis] + 1, 2, replace=False).tolist())
    op = Slice(axis, start, stop, int(rng.choice([1, 1, 2, 3])))
    return generate(builder.build((builder.add("part", op, value),)), "ecp5-85k", style="stream")


def lines(seed: int) -> Design:
    """A smooth function of more than 8 bits by itself."""
    rng, builder = np.random.default_rng(seed), Builder(f"random_{seed}")
    domain = IntType(int(rng.integers(9, 17)), signed=True)
    type = IntType(int(rng.choice([8, 8, 10, 12, 16])), signed=bool(rng.integers(2)))
    reals = np.linspace(-1, 1, 1 << domain.bits, endpoint=False) * rng.uniform(2, 12)
    sigmoid = 1 / (1 + np.exp(-reals))
    values = (sigmoid, np.tanh(reals), reals * sigmoid, reals * np.tanh(np.logaddexp(0, reals)))[rng.integers(4)]
    wanted = (values - values.min()) / np.ptp(values) * (type.high - type.low) + type.low
    op = shortened(wanted, Table(np.rint(wanted).astype(np.int32), domain, type))
    value = builder.input("x", (int(rng.choice([1, 2, 4])), 4, 4), domain)
    return generate(builder.build((builder.add("curve", op, value),)), "ecp5-85k", style="stream")


def styled(engine: Engine, rng: np.random.Generator) -> Folding:
    """The engine's folding with multipliers and memory of a random kind."""
    assert engine.folding is not None
    if isinstance(engine.node.op, Requantize):
        return replace(engine.folding, multiplier=rng.choice([Multiplier.DSP, Multiplier.LUTS]))
    kinds = styles(engine.node, engine.values[0].type, engine.folding.pe)
    memory = rng.choice([None, None, *MemoryStyle]) if engine.node.op.weight.size <= 4096 else None
    return replace(engine.folding, multiplier=rng.choice(kinds), memory=memory)


def rows(design: Design) -> list[dict[str, object]]:
    """What each block instance took in synthesis."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / design.name
        write_files(design.files, folder)
        netlist = yosys.synthesize_ecp5([folder / path for path in design.sources], design.name, folder / "build")
    found = [
        {"block": instance.block, "parameters": dict(instance.parameters), **asdict(netlist.instances[instance.name])}
        for instance in design.instances
        if instance.name in netlist.instances
    ]
    rest = {kind: count - sum(int(row[kind]) for row in found) for kind, count in asdict(netlist.total).items()}
    return [*found, {"block": "top", "parameters": top_parameters(design), **rest}]


def alone(design: Design) -> list[dict[str, object]]:
    """What the block of a design's one engine takes by itself."""
    (instance,) = design.instances
    values = [f".{name}({v if isinstance(v, int) else json.dumps(v)})" for name, v in instance.parameters.items()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / design.name
        write_files(design.files, folder)
        top = folder / "top.sv"
        top.write_text(
            "module top (input logic clk_i, rst_i, valid_i, ready_i, output logic ready_o, valid_o,\n"
            f"input logic [{design.input.width - 1}:0] data_i, output logic [{design.output.width - 1}:0] data_o);\n"
            f"bf_{instance.block} #({', '.join(values)}) block (.*);\nendmodule\n"
        )
        source = folder / "rtl" / f"bf_{instance.block}.sv"
        total = yosys.synthesize_ecp5([source, top], "top", folder / "rtl").total
    return [{"block": instance.block, "parameters": dict(instance.parameters), **asdict(total)}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=80)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(options.first, options.first + options.count):
        path = options.folder / f"{seed}.json"
        if path.exists():
            continue
        try:
            found = alone(design_of(seed)) if seed >= SLICES else rows(design_of(seed))
        except BitfabError as error:  # what has no streaming hardware, such as thresholds behind a flatten
            print(f"{seed}: left out ({error})", flush=True)
            continue
        path.write_text(json.dumps(found))
        print(f"{seed}: {len(found)} blocks, {sum(int(row['lut']) for row in found)} LUTs", flush=True)


if __name__ == "__main__":
    main()
