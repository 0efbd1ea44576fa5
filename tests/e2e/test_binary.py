"""A binary network that reads bipolar values with every operation that can: equal in simulation; it synthesizes."""

from pathlib import Path

import numpy as np

from bitfab.backend import simulate
from bitfab.dtypes import IntArray, IntType
from bitfab.hw import generate
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Requantize,
    Reshape,
    SumPool2d,
    Threshold,
    TopK,
    Upsample,
)
from bitfab.tools import yosys

BIPOLAR = IntType(1, signed=True)
RNG = np.random.default_rng(0)


def weights(*shape: int) -> tuple[IntArray, IntArray]:
    """Weights of -1 and +1, and biases."""
    return RNG.choice([-1, 1], shape), RNG.integers(-3, 4, shape[0])


def signs(builder: Builder, name: str, value: str) -> str:
    """Bipolar values, by a threshold a channel around the middle of the range."""
    x = builder.value(value)
    middle, reach = (x.low + x.high) // 2, (x.high - x.low) // 8
    thresholds = RNG.integers(middle - reach, middle + reach, (x.shape[0], 1), endpoint=True)
    return builder.add(name, Threshold(thresholds, BIPOLAR, -1), value)


def conv(builder: Builder, name: str, value: str, pad_value: int) -> str:
    constants = weights(4, builder.value(value).shape[0], 3, 3)
    return builder.add(name, Conv2d(*constants, padding=(1, 1, 1, 1), pad_value=pad_value), value)


def network() -> Graph:
    """Two bipolar convolutions in, a bipolar vote out."""
    b = Builder("binary")
    image = signs(b, "image_signs", b.input("image", (2, 6, 6), IntType(8, signed=False)))
    one = signs(b, "one", conv(b, "conv1", image, pad_value=-1))
    two = signs(b, "two", conv(b, "conv2", one, pad_value=1))
    pool = b.add("pool", MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), b.add("both", Concat(), (one, two)))
    up = b.add("up", Upsample((2, 2)), pool)
    spread = ConvTranspose2d(RNG.choice([-1, 1], (8, 4, 2, 2)), np.zeros(4, int), (2, 2), pad_value=1)
    wide = b.add("wide", spread, pool)
    sums = b.add("sums", SumPool2d((2, 2), (2, 2), (1, 1, 1, 1), pad_value=-1), signs(b, "three", wide))
    scaled = b.add("scaled", Requantize(np.array([3]), np.array([1]), IntType(3, True), -4, 3, 1), up)
    step = b.add("step", Threshold(np.array([[0]]), IntType(2, False), 1), two)
    total = b.add("total", Add(), (one, signs(b, "again", step)))
    few = b.add(
        "few", Threshold(np.array([[-1, 0, 2], [0, 1, 2], [-2, -1, 0], [0, 0, 1]]), IntType(3, True), -2), total
    )
    ends = (conv(b, "end1", few, pad_value=0), conv(b, "end2", scaled, pad_value=0))
    late = signs(b, "late", b.add("sum", Add(), ends))
    scores = b.add("dense1", Dense(*weights(5, 144)), b.add("flat1", Reshape((144,)), late))
    others = b.add("dense2", Dense(*weights(5, 64)), b.add("flat2", Reshape((64,)), sums))
    return b.build((b.add("best", TopK(1), signs(b, "votes", b.add("scores", Add(), (scores, others)))),))


def test_a_binary_network_equals_the_definition(tmp_path: Path) -> None:
    graph = network()
    design = generate(graph, parallelism=32)
    images = np.random.default_rng(1).integers(0, 256, (4, 2, 6, 6))
    simulation = simulate(design, images, tmp_path / "net")
    assert simulation.mismatches == 0
    compared = {node.name for node in graph if not isinstance(node.op, Reshape)}
    assert compared <= set(simulation.steady.values)


def test_bipolar_values_go_in_and_out_as_one_bit_and_synthesize(tmp_path: Path) -> None:
    b = Builder("thin")
    x = b.input("x", (4, 3, 3), BIPOLAR)
    graph = b.build((signs(b, "y", b.add("conv", Conv2d(*weights(2, 4, 2, 2)), x)),))
    design = generate(graph)
    assert (design.input.bits, design.output.bits) == (1, 1)
    folder = tmp_path / "net"
    assert simulate(design, RNG.choice([-1, 1], (3, 4, 3, 3)), folder).mismatches == 0
    assert "values of one bit (0 means -1, 1 means +1)" in (folder / "README.md").read_text()
    netlist = yosys.synthesize_ecp5([folder / path for path in design.sources], design.name, folder / "rtl")
    assert netlist.instances["u_y"].ff > 0 and netlist.instances["u_y"].dsp == netlist.instances["u_y"].bram == 0
