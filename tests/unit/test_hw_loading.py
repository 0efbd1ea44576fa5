"""Loadable designs: wide enough for all that may come, each memory at its addresses, what does not fit refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bitfab as bf
from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.hw import Design, Folding, generate
from bitfab.hw.folding import weight_bits
from bitfab.hw.loading import LOAD_ADDRESS, LOAD_DATA, memory_map, widened
from bitfab.ir import Builder, Graph
from bitfab.ir.graph import rebuild
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, MaxPool2d, Op, Requantize, Reshape, Threshold
from tests.perturbed import perturbed
from tests.strategies import graphs

UINT8, INT8 = IntType(8, signed=False), IntType(8, signed=True)
KINDS = (Conv2d, ConvTranspose2d, Dense, Requantize, Threshold, MaxPool2d, Reshape)


def network(pad: int = 0, weight: int = 100, **requantize: IntArray | int) -> Graph:
    """A padded convolution, its requantizer and a dense layer."""
    rng, b = np.random.default_rng(0), Builder("small")
    x = b.input("x", (2, 3, 3), UINT8)
    kernel = rng.integers(-weight, weight + 1, (4, 2, 3, 3))
    kernel.flat[0] = weight
    y = b.add("conv", Conv2d(kernel, rng.integers(-9, 9, 4), padding=(1, 1, 1, 1), pad_value=pad), x)
    scale = Requantize(np.array([40000, 30, 512, 1]), np.array([27, 16, 21, 12]), INT8, -128, 127)
    y = b.add("scale", replace(scale, **requantize), y)
    flat = b.add("flat", Reshape((36,)), y)
    return b.build((b.add("dense", Dense(rng.integers(-7, 8, (3, 36)), rng.integers(-9, 9, 3)), flat),))


@pytest.fixture(scope="module")
def design() -> Design:
    folding = {"conv": Folding(2, 2), "dense": Folding(3, 1), "scale": Folding(1, 1)}
    return generate(network(), folding=folding, registers=True, loadable=True)


def changed(graph: Graph, name: str, **fields: object) -> Graph:
    """The graph with some of one operation's fields changed."""

    def op(own: Any) -> Op:
        found: Op = replace(own, **fields)
        return found

    return rebuild(graph, tuple(replace(n, op=op(n.op)) if n.name == name else n for n in graph))


@given(graph=graphs(ops=KINDS), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_widened_graph_holds_all_that_can_be_loaded(graph: Graph, seed: int) -> None:
    try:
        wide = widened(graph).values
    except BitfabError as error:
        assert "to be loadable" in str(error)
        return
    for value in perturbed(graph, seed).values.values():
        held = wide[value.name]
        assert held.type.low <= held.low <= value.low <= value.high <= held.high <= held.type.high, value.name
        assert held.shape == value.shape


@pytest.mark.parametrize("weight", [1, 5, 127])
def test_an_accumulator_has_a_bit_more_than_the_largest_sum(weight: int) -> None:
    """The sum of 18 products of any weights of the type and 0 to 255, and as much again for the bias."""
    kernel = np.full((1, 2, 3, 3), weight)
    builder = Builder("one")
    builder.add("conv", Conv2d(kernel, np.array([5])), builder.input("x", (2, 3, 3), UINT8))
    graph = builder.build(("conv",))
    bits = weight_bits(graph.nodes[0])
    assert bits == {1: 1, 5: 4, 127: 8}[weight]
    low, high = (-1, 1) if bits == 1 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    value = widened(graph).values["conv"]
    assert (value.low, value.high) == (2 * 18 * 255 * low, 2 * 18 * 255 * high)
    assert value.type == IntType.holding(value.low, value.high)


def test_padding_beyond_the_input_counts() -> None:
    builder = Builder("padded")
    clip = Requantize(np.array([1]), np.array([0]), INT8, 0, 10)
    x = builder.add("clip", clip, builder.input("x", (1, 2, 2), UINT8))
    builder.add("conv", Conv2d(np.full((1, 1, 3, 3), 7), np.array([0]), padding=(1, 1, 1, 1), pad_value=-100), x)
    value = widened(builder.build(("conv",))).values["conv"]
    assert (value.low, value.high) == (2 * 9 * 7 * -100, 2 * 9 * -8 * -100)


def test_memories_have_addresses_of_their_own(design: Design) -> None:
    found, bus = memory_map(design), design.load_bus
    assert [(memory.layer, memory.words) for memory in found] == [
        ("dense", 36), ("dense", 1), ("conv", 18), ("conv", 2), ("scale", 4),
    ]  # fmt: skip
    assert bus is not None and bus.bits == max(memory.bits for memory in found)
    assert all(one.base + one.words <= other.base for one, other in pairwise(found))
    assert (found[-1].base + found[-1].words - 1).bit_length() == bus.address_bits
    for memory in found:
        assert len(design.files[f"rtl/{memory.file}"].split()) == memory.words


def test_a_word_goes_in_parts_the_highest_first(design: Design) -> None:
    """Of the convolution's biases, for instance."""
    memory = next(memory for memory in memory_map(design) if memory.parameter == "BiasFile" and memory.layer == "conv")
    writes = bf.load_writes(design, network())
    end = writes.index((LOAD_ADDRESS, memory.base)) + 1
    parts = writes[end - memory.parts - 1 : end - 1]
    word = int(design.files[f"rtl/{memory.file}"].split()[0], 16)
    assert memory.parts > 1 and {address for address, _ in parts} == {LOAD_DATA}
    assert int("".join(f"{part:08x}" for _, part in parts), 16) == word
    assert writes[end - memory.parts - 2][0] == LOAD_ADDRESS


CONV, DENSE = network().nodes[0].op, network().nodes[3].op
assert isinstance(CONV, Conv2d) and isinstance(DENSE, Dense)
REFUSED: dict[str, tuple[Graph, str]] = {
    "padding": (network(pad=3), "conv: pad_value is 3 and not 0 from what the design was built for"),
    "weights too wide": (network(weight=130), "conv: weights of -130 to 130 do not fit the design's, of 8 bits"),
    "sums": (changed(network(), "dense", bias=np.full(3, 1 << 20)), "dense: sums of .* do not fit the design's int18"),
    "zero point": (network(output_zero=1), "scale: output_zero is 1 and not 0 from"),
    "ends": (network(low=0), "scale: low is 0 and not -128 from"),
    "one factor": (
        network(multiplier=np.array([3]), shift=np.array([9])),
        "scale: multiplier differs from what the design was built for",
    ),
    "large factor": (
        network(multiplier=np.full(4, 65535), shift=np.full(4, 8)),
        r"scale: a factor of 65535 / 2\*\*8 does not fit the design, which has 16 bits and shifts of",
    ),
    "small factor": (
        network(multiplier=np.full(4, 65535), shift=np.full(4, 46)),
        r"scale: a factor of 65535 / 2\*\*46 does not fit the design",
    ),
    "fewer layers": (replace(network(), nodes=network().nodes[:1], outputs=("conv",)), "another structure .*its end"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_is_refused(name: str, design: Design) -> None:
    graph, message = REFUSED[name]
    with pytest.raises(BitfabError, match=message):
        bf.load_writes(design, graph)


def test_a_layer_of_other_name_is_refused(design: Design) -> None:
    first, *others = network().nodes
    renamed = replace(first, output=replace(first.output, name="other"))
    scale = replace(others[0], inputs=("other",))
    with pytest.raises(BitfabError, match="small: another structure than the design's, from conv on"):
        bf.load_writes(design, replace(network(), nodes=(renamed, scale, *others[1:])))


def test_bipolar_weights_stay_bipolar() -> None:
    graph = network(weight=1)
    signs = changed(graph, "conv", weight=np.where(CONV.weight < 0, -1, 1))
    design = generate(signs, parallelism=24, registers=True, loadable=True)
    bf.load_writes(design, signs)
    with pytest.raises(BitfabError, match="conv: weights of -1 to 1 do not fit the design's, of 1 bits"):
        bf.load_writes(design, graph)


def test_weights_of_plus_and_minus_one_fit_wider_ones(design: Design) -> None:
    """They are numbers there, and no bits."""
    signs = changed(network(), "conv", weight=np.where(CONV.weight < 0, -1, 1))
    writes = dict(_words(bf.load_writes(design, signs)))
    memory = next(memory for memory in memory_map(design) if memory.layer == "conv")
    lanes = {writes[memory.base + place] >> 8 * lane & 255 for place in range(memory.words) for lane in range(4)}
    assert {1, 255} <= lanes <= {0, 1, 255}


def _words(writes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Address and word of each store."""
    words, word = [], 0
    for address, data in writes:
        if address == LOAD_ADDRESS:
            words.append((data, word))
            word = 0
        else:
            word = word << 32 | data
    return words


def test_a_design_is_loadable_only_where_asked_for() -> None:
    plain = generate(network(), registers=True)
    assert plain.load_bus is None and memory_map(plain) == ()
    assert not any(".Loadable(1)" in text for text in plain.files.values())
    with pytest.raises(BitfabError, match="small: nothing can be loaded; generate it with registers and loadable"):
        bf.load_writes(plain, network())
    with pytest.raises(
        BitfabError, match="small: weights are loaded through the AXI-Lite registers; ask for these too"
    ):
        generate(network(), loadable=True)
    with pytest.raises(BitfabError, match="a parallel design has no registers"):
        generate(network(), loadable=True, style="parallel")


def test_an_accumulator_too_wide_is_refused() -> None:
    """Its own weights need few bits."""
    weight = np.zeros((1, 40), dtype=np.int64)
    weight[0, 0] = 1 << 14
    builder = Builder("wide")
    builder.add("dense", Dense(weight, np.array([0])), builder.input("x", (40,), IntType(12, signed=False)))
    with pytest.raises(BitfabError, match="dense: to be loadable: integer type of 35 bits"):
        generate(builder.build(("dense",)), registers=True, loadable=True)
