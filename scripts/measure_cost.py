"""Synthesize seeded random networks and keep what each of their blocks took: the data of `scripts/fit_cost.py`.

    python scripts/measure_cost.py FOLDER [--first SEED] [--count N]

FOLDER/<seed>.json: a list of {block, parameters, lut, ff, dsp, bram}. Seeds that are there already are left out, so an
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bitfab.dtypes import IntType, Rounding, multiplier_and_shift
from bitfab.errors import BitfabError
from bitfab.hw import generate
from bitfab.hw.cost import top_parameters
from bitfab.hw.design import Design, write_files
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import (
    Add,
    Argmax,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Op,
    Requantize,
    Reshape,
    SumPool2d,
    Table,
    Threshold,
    Upsample,
)
from bitfab.tools import yosys

CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Network:
    """A random network under construction: what a quantizer would make, with random weights."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = Builder(f"random_{seed}")
        self.bits = int(self.rng.choice([8, 8, 8, 6, 4, 4, 3, 2]))
        self.weight_bits = int(self.rng.choice([8, 8, 6, 4, 4, 3, 2]))
        side = int(self.rng.choice([1, 8, 12, 16, 20, 28, 32, 64], p=[0.15, 0.15, 0.1, 0.15, 0.1, 0.15, 0.15, 0.05]))
        shape = (int(self.rng.choice(CHANNELS)), side, side)
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
                        outputs = int(rng.choice(CHANNELS))
                        weight = self.weights((channels, outputs, 2, 2))
                        self.add("deconv", ConvTranspose2d(weight, self.biases(outputs), (2, 2)))
                        self.requantize()
                case "table":
                    type = self.builder.value(self.value).type
                    if type.bits <= 8:
                        entries = rng.integers(0, 1 << self.bits, 1 << type.bits)
                        self.add("table", Table(entries, type, IntType(self.bits, signed=False)))
                case "skip":
                    shortcut = self.value
                    self.convolve(groups=1, alike=True)
                    self.join(shortcut)
        for _ in range(int(rng.integers(0, 3))):
            self.dense()
        if len(self.shape) == 1 and rng.integers(2):
            self.add("class", Argmax())
        return self.builder.build((self.value,))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.builder.value(self.value).shape

    def add(self, name: str, op: Op, *others: str) -> None:
        self.value = self.builder.add(name, op, (self.value, *others))

    def weights(self, shape: tuple[int, ...]) -> np.ndarray:
        high = (1 << (self.weight_bits - 1)) - 1
        return np.clip(np.rint(self.rng.normal(0, high / 2.5 + 0.3, shape)), -high, high).astype(np.int32)

    def biases(self, count: int) -> np.ndarray:
        return self.rng.integers(-2000, 2000, count, dtype=np.int32)

    def convolve(self, groups: int, alike: bool = False) -> None:
        """By a random kernel; `alike` keeps the shape."""
        channels, height, _ = self.shape
        kernel = int(self.rng.choice([1, 3, 3, 3, 5])) if height > 4 else 1
        outputs = channels if groups > 1 or alike else int(self.rng.choice(CHANNELS))
        pad = kernel // 2
        stride = int(self.rng.choice([1, 1, 2])) if height % 2 == 0 and not alike else 1
        weight = self.weights((outputs, channels // groups, kernel, kernel))
        op = Conv2d(weight, self.biases(outputs), (stride, stride), (pad,) * 4, (1, 1), groups)
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
    graph = Network(seed).build()
    return generate(graph, "ecp5-85k", int(np.random.default_rng(seed).choice([16, 24, 32, 48, 64])), style="stream")


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
            found = rows(design_of(seed))
        except BitfabError as error:  # what has no streaming hardware, such as thresholds behind a flatten
            print(f"{seed}: left out ({error})", flush=True)
            continue
        path.write_text(json.dumps(found))
        print(f"{seed}: {len(found)} blocks, {sum(int(row['lut']) for row in found)} LUTs", flush=True)


if __name__ == "__main__":
    main()
