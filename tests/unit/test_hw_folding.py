"""Foldings: which are legal, and that the chosen ones are the best that the multipliers allow."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.hw import Folding, Multiplier, generate
from bitfab.hw.folding import choose, cycles, legal, signed_bits, styled, weight_bits
from bitfab.ir import Builder, Graph, Node
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Requantize, Reshape
from bitfab.parts import find_part

UINT8 = IntType(8, signed=False)


def _network(channels: list[int], size: int) -> Graph:
    """Convolutions 3x3 one after the other, requantized in between."""
    builder = Builder("chain")
    value = builder.input("image", (channels[0], size, size), UINT8)
    for i, (ins, outs) in enumerate(pairwise(channels)):
        weight = np.ones((outs, ins, 3, 3), np.int8)
        value = builder.add(f"conv{i}", Conv2d(weight, np.zeros(outs, np.int32), padding=(1, 1, 1, 1)), value)
        scale = Requantize(np.array([1]), np.array([8]), UINT8, 0, 255)
        value = builder.add(f"conv{i}_requantize", scale, value)
    return builder.build((value,))


def _inputs(graph: Graph) -> dict[str, int]:
    return {node.name: graph.values[node.inputs[0]].shape[0] for node in graph}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=3, max_size=4), st.integers(3, 40))
def test_no_other_folding_within_the_budget_is_faster(channels: list[int], budget: int) -> None:
    graph = _network(channels, 4)
    layers = [node for node in graph if isinstance(node.op, Conv2d)]
    inputs = _inputs(graph)
    chosen = choose(graph, inputs, budget, {})
    assert sum(folding.multipliers for folding in chosen.values()) <= budget
    slowest = max(cycles(node, chosen[node.name]) for node in layers)
    for foldings in product(*(legal(node, inputs[node.name]) for node in layers)):
        if sum(folding.multipliers for folding in foldings) <= budget:
            assert max(map(cycles, layers, foldings)) >= slowest


def test_an_illegal_folding_is_refused_with_the_legal_ones() -> None:
    graph = _network([4, 6, 2], 4)
    with pytest.raises(BitfabError, match=r"conv0: folding PE 4 x SIMD 4 .* PE may be 1, 2, 3, 6, SIMD may be 1, 2, 4"):
        generate(graph, folding={"conv0": Folding(4, 4)})


def test_an_unknown_layer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BitfabError, match="'conv9': no such layer; layers that fold are conv0, conv1"):
        generate(_network([4, 6, 2], 4), folding={"conv9": Folding(1, 1)})


def test_too_few_multipliers_name_the_least() -> None:
    with pytest.raises(BitfabError, match=r"parallelism 1: .* at least 2 multipliers"):
        generate(_network([4, 6, 2], 4), parallelism=1)


def test_a_fixed_folding_is_kept() -> None:
    design = generate(_network([4, 6, 2], 4), parallelism=64, folding={"conv1": Folding(1, 3)})
    assert {layer.name: layer.folding for layer in design.layers}["conv1"] == Folding(1, 3, Multiplier.LUTS)  # of 1


def test_more_multipliers_are_never_slower() -> None:
    graph = _network([2, 8, 8, 4], 6)
    paces = [generate(graph, parallelism=budget).expected_cycles for budget in (3, 8, 20, 60, 200)]
    assert paces == sorted(paces, reverse=True)
    assert paces[-1] < paces[0] / 10


def test_cycles_count_every_product_once() -> None:
    builder = Builder("kinds")
    value = builder.input("image", (4, 4, 4), UINT8)
    up = ConvTranspose2d(np.ones((4, 6, 2, 2), np.int8), np.zeros(6, np.int32), stride=(2, 2))
    value = builder.add("up", up, value)
    value = builder.add("narrow", Requantize(np.array([1]), np.array([8]), UINT8, 0, 255), value)
    value = builder.add("flat", Reshape((6 * 64,)), value)
    value = builder.add("dense", Dense(np.ones((10, 384), np.int8), np.zeros(10, np.int32)), value)
    graph = builder.build((value,))
    design = generate(graph, parallelism=1000, folding={"up": Folding(2, 4), "dense": Folding(5, 3)})
    layers = {layer.name: layer for layer in design.layers}
    assert layers["up"].cycles == layers["up"].macs // 8 == 4 * 6 * 4 * 16 // 8
    assert layers["dense"].cycles == layers["dense"].macs // 15 == 3840 // 15


def _one(weight: np.ndarray, x: IntType = UINT8) -> tuple[Graph, Node]:
    """A dense layer with these weights."""
    builder = Builder("one")
    value = builder.add("dense", Dense(weight, np.zeros(len(weight), int)), builder.input("x", weight.shape[1:], x))
    graph = builder.build((value,))
    return graph, graph.nodes[0]


@pytest.mark.parametrize(
    ("bits", "low", "high", "pe", "chosen"),
    [
        (8, -100, 100, 4, "dsp"),
        (4, -7, 7, 4, "packed"),  # 4 + 2 * 4 + 1 bits
        (4, -7, 7, 3, "dsp"),  # an odd row has no partner
        (7, -16, 15, 2, "packed"),  # 7 + 2 * 5 + 1 bits: as many as there are
        (8, -16, 15, 2, "dsp"),
        (2, -7, 7, 2, "luts"),  # 2 x 4 bits are a few LUTs
        (8, -1, 1, 2, "luts"),
    ],
)
def test_multipliers_by_the_operands(bits: int, low: int, high: int, pe: int, chosen: str) -> None:
    weight = np.random.default_rng(0).integers(low, high, (12, 4), endpoint=True)
    weight[0, :2] = low, high
    if high == 1:
        weight[weight == 0] = 1
    x = IntType(bits, signed=False)
    _, node = _one(weight, x)
    assert weight_bits(node) == (1 if high == 1 else signed_bits(low, high))
    assert styled(node, x, Folding(pe, 1)).multiplier == chosen
    assert styled(node, x, Folding(pe, 1), (0, 0)).multiplier is Multiplier.LUTS
    kept = styled(node, x, Folding(pe, 1, Multiplier.LUTS))
    assert kept == Folding(pe, 1, Multiplier.LUTS)
    assert styled(node, x, Folding(pe, 1, Multiplier.DSP)).multiplier == ("luts" if high == 1 else "dsp")


@pytest.mark.parametrize(
    ("part", "bits", "high", "chosen"),
    [
        ("xc7a35t", 8, 127, "packed"),  # 8 + 2 * 8 + 1 bits: as many as a DSP48E1 has
        ("xc7a35t", 9, 127, "dsp"),
        ("xczu3eg", 10, 127, "packed"),  # 27 bits of a DSP48E2
        ("xczu3eg", 11, 127, "dsp"),
        ("xc7z020", 17, 3, "packed"),  # with its sign 18 bits, as many as the other side has
        ("xc7z020", 18, 3, "dsp"),
        ("ice40-up5k", 5, 15, "packed"),  # 5 + 2 * 5 + 1 bits, all 16
        ("ice40-up5k", 6, 15, "dsp"),
        ("ice40-hx8k", 4, 7, "luts"),
        ("gw2a-18c", 7, 15, "packed"),
        ("5ceba4", 7, 15, "packed"),
        ("5ceba4", 8, 127, "dsp"),
        ("ecp5-85k", 8, 127, "dsp"),
    ],
)
def test_multipliers_by_the_part(part: str, bits: int, high: int, chosen: str) -> None:
    """Packed where the part's DSP takes two weights side by side and, on its other side, an input with a sign."""
    graph, node = _one(np.full((4, 4), high), IntType(bits, signed=False))
    assert styled(node, IntType(bits, signed=False), Folding(2, 1), find_part(part).operands).multiplier == chosen
    design = generate(graph, part, folding={"dense": Folding(2, 2)})
    assert [layer.folding for layer in design.layers] == [Folding(2, 2, Multiplier(chosen))]


def test_products_that_cannot_be_packed_are_refused() -> None:
    graph, _ = _one(np.full((4, 4), 100))
    with pytest.raises(
        BitfabError, match=r"dense: two products a DSP need .* 25x9 bits .* takes 18x18: choose dsp or luts"
    ):
        generate(graph, folding={"dense": Folding(2, 2, Multiplier.PACKED)})


def test_zeros_of_a_transposed_convolution_are_no_bipolar_weights() -> None:
    builder = Builder("up")
    x = builder.input("x", (1, 3, 3), UINT8)
    for kernel, bits in ((2, 1), (3, 2)):  # of stride 2
        op = ConvTranspose2d(np.ones((1, 1, kernel, kernel), int), np.zeros(1, int), stride=(2, 2))
        builder.add(f"kernel{kernel}", op, x)
        assert weight_bits(builder.build((f"kernel{kernel}",)).nodes[-1]) == bits


def test_a_requantizer_has_lanes_and_multipliers() -> None:
    graph = _network([4, 6, 2], 4)
    design = generate(graph, folding={"conv0_requantize": Folding(3, 1, Multiplier.LUTS)})
    (instance,) = [instance for instance in design.instances if instance.layer == "conv0_requantize"][:1]
    assert instance.parameters["Lanes"] == 3
    assert {layer.name: layer.folding for layer in design.layers}["conv0_requantize"] is None
    with pytest.raises(BitfabError, match=r"conv0_requantize: folding PE 4 x SIMD 1 is illegal; .* PE 1, 2, 3, 6"):
        generate(graph, folding={"conv0_requantize": Folding(4, 1)})


def test_foldings_of_all_layers_need_no_budget() -> None:
    folding = {"conv0": Folding(6, 4), "conv1": Folding(2, 6)}
    assert generate(_network([4, 6, 2], 4), parallelism=2, folding=folding).multipliers == 36
