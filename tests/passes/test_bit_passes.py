"""Passes on single bits: `run` stays what it was on every input, and what can go goes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.ir import Builder, Graph, run
from bitfab.ir.ops import Bits, Compare, Concat, Dense, Lut, Op, Popcount, Reshape, Threshold, TopK
from bitfab.ir.passes.absorb_inverters import absorb_inverters
from bitfab.ir.passes.bypass_wires import bypass_wires
from bitfab.ir.passes.drop_dead_bits import drop_dead_bits
from bitfab.ir.passes.exploit_codes import exploit_codes
from bitfab.ir.passes.exploit_unseen import exploit_unseen
from bitfab.ir.passes.fold_constants import fold_constants
from bitfab.ir.passes.reduce_fan_in import reduce_fan_in
from bitfab.ir.passes.share_equal_bits import share_equal_bits
from bitfab.ir.passes.simplify_bits import simplify
from bitfab.ir.verify import verify
from tests.strategies import batch, graphs

PASSES = (
    fold_constants,
    reduce_fan_in,
    absorb_inverters,
    bypass_wires,
    share_equal_bits,
    drop_dead_bits,
    exploit_codes,
    simplify,
)
BIT_OPS = (Compare, Bits, Lut, Lut, Lut, Popcount, TopK, Concat, Reshape, Dense, Threshold)
AND, OR, XOR, NAND = ([0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0])
WIRE, INVERTER = [0, 1], [1, 0]


def chain(*ops: Op, features: int = 3, bits: int = 3) -> Graph:
    """A graph of operations one after the other, on unsigned integers."""
    builder = Builder("chain")
    name = builder.input("x", (features,), IntType(bits, signed=False))
    for number, op in enumerate(ops):
        name = builder.add(f"n{number}", op, name)
    return verify(builder.build((name,)))


def lut(wiring: list[list[int]], table: list[list[int]]) -> Lut:
    return Lut(np.array(wiring), np.array(table))


def ones(*bits: int) -> Popcount:
    return Popcount(np.array([bits]))


def first_bits(count: int) -> Bits:
    """Places 0 of `count` features: independent bits."""
    return Bits(np.arange(count), np.zeros(count, dtype=np.int64))


def ops_of(graph: Graph) -> list[Op]:
    return [node.op for node in graph]


def every_input(features: int, bits: int) -> IntArray:
    grid = np.meshgrid(*[np.arange(1 << bits)] * features, indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, features)


@st.composite
def lut_networks(draw: Callable) -> Graph:
    """Layers in a chain, with all that a pass can find: sparse tables, repeated wires, wires, inverters, constants."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features, bits = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    count = draw(st.integers(1, 8))
    channel = rng.integers(0, features, count)
    thresholds = rng.integers(-1, (1 << bits) + 2, count)
    ops: list[Op] = [Compare(channel, thresholds), Bits(channel, rng.integers(0, bits, count))][
        draw(st.integers(0, 1)) :
    ][:1]
    for _ in range(draw(st.integers(1, 4))):
        fan_in, width = draw(st.integers(1, 6)), draw(st.integers(1, 8))
        table = rng.integers(0, 2, (width, 1 << fan_in), dtype=draw(st.sampled_from([np.uint8, np.int64])))
        address = np.arange(1 << fan_in)
        for row in table:  # half of the tables read only some places
            if rng.random() < 0.5:
                row[:] = row[address & rng.integers(0, 1 << fan_in)]
        ops.append(Lut(rng.integers(0, count, (width, fan_in)), table))
        count = width
    if draw(st.booleans()):
        ops += [Popcount(rng.integers(0, count, (draw(st.integers(1, 3)), draw(st.integers(1, 4))))), TopK(1)]
    return chain(*ops, features=features, bits=bits)


@pytest.mark.parametrize("step", PASSES, ids=lambda step: step.__name__)
@given(graph=graphs(ops=BIT_OPS, max_nodes=8), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_any_graph_computes_what_it_did(step: Callable[[Graph], Graph], graph: Graph, seed: int) -> None:
    after = verify(step(graph), after=step.__name__)
    assert after.inputs == graph.inputs
    assert after.outputs == graph.outputs
    assert after.output_values == graph.output_values
    inputs = batch(graph, seed, size=40)
    for new, old in zip(as_tuple(run(after, *inputs)), as_tuple(run(graph, *inputs)), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("step", PASSES, ids=lambda step: step.__name__)
@given(graph=lut_networks())
@settings(deadline=None, max_examples=60)
def test_lut_networks_compute_what_they_did_on_every_input(step: Callable[[Graph], Graph], graph: Graph) -> None:
    (x,) = graph.inputs
    inputs = every_input(x.shape[0], x.type.bits)
    after = verify(step(graph), after=step.__name__)
    np.testing.assert_array_equal(run(after, inputs), run(graph, inputs))


@given(graph=lut_networks())
@settings(deadline=None, max_examples=60)
def test_simplified_tables_differ_and_are_needed(graph: Graph) -> None:
    after = simplify(graph)
    for node in after:
        if isinstance(node.op, Lut) and node.name not in after.outputs:
            rows = np.concatenate((node.op.wiring, node.op.table), axis=1)
            assert len(np.unique(rows, axis=0)) == len(rows)
            read = np.concatenate([user.op.wiring.reshape(-1) for user in after.users[node.name]])
            assert set(read.tolist()) == set(range(len(rows)))


@given(graph=lut_networks(), samples=st.integers(1, 30), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_unseen_entries_change_nothing_on_the_data(graph: Graph, samples: int, seed: int) -> None:
    (data,) = batch(graph, seed, samples)
    after = simplify(verify(exploit_unseen(graph, data)))
    np.testing.assert_array_equal(run(after, data), run(graph, data))
    assert sizes(after) <= sizes(simplify(graph)) + len(graph.nodes)  # never a larger network, but for constants


@given(graph=graphs(ops=BIT_OPS, max_nodes=8), samples=st.integers(1, 30), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_unseen_entries_of_any_graph_change_nothing_on_the_data(graph: Graph, samples: int, seed: int) -> None:
    data = batch(graph, seed, samples)
    after = simplify(verify(exploit_unseen(graph, *data)))
    for new, old in zip(as_tuple(run(after, *data)), as_tuple(run(graph, *data)), strict=True):
        np.testing.assert_array_equal(new, old)


def sizes(graph: Graph) -> int:
    return sum(len(node.op.table) for node in graph if isinstance(node.op, Lut))


def as_tuple(result: IntArray | tuple[IntArray, ...]) -> tuple[IntArray, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_a_comparison_that_the_range_decides_is_folded_into_its_reader() -> None:
    compare = Compare(np.array([0, 1, 2]), np.array([3, 0, 8]))  # bit 1 is always true, bit 2 never
    graph = chain(compare, lut([[0, 1], [0, 2]], [AND, OR]), ones(0, 1), bits=3)
    encode, count = ops_of(simplify(graph))
    assert encode.threshold.tolist() == [3]
    assert count.wiring.tolist() == [[0, 0]]


def test_a_bit_wired_twice_leaves_a_table_of_fewer_places() -> None:
    majority = [0, 0, 0, 1, 0, 1, 1, 1]
    graph = chain(first_bits(3), lut([[0, 2, 0], [0, 1, 2]], [[0, 1, 1, 1, 0, 1, 0, 0], majority]), ones(0))
    encode, layer, _ = ops_of(simplify(graph))  # of the first table entries 0, 2, 5 and 7 can be read
    assert encode.channel.tolist() == [0, 2]
    assert layer.wiring.tolist() == [[0, 1]]
    assert layer.table.tolist() == [[0, 1, 1, 0]]


def test_inverters_and_wires_vanish_where_tables_read_them() -> None:
    first = lut([[0], [1], [2]], [INVERTER, WIRE, INVERTER])
    graph = chain(first_bits(3), first, lut([[0, 1], [1, 2]], [AND, XOR]), ones(0, 1))
    encode, layer, _ = ops_of(simplify(graph))
    assert len(encode.channel) == 3
    assert layer.wiring.tolist() == [[0, 1], [1, 2]]
    assert layer.table.tolist() == [[0, 0, 1, 0], [1, 0, 0, 1]]


def test_an_inverted_bit_that_is_counted_stays_inverted() -> None:
    graph = chain(first_bits(1), lut([[0]], [INVERTER]), ones(0), features=1)
    assert ops_of(simplify(graph))[1].table.tolist() == [INVERTER]


def test_a_table_and_its_inverse_are_one() -> None:
    first = lut([[0, 1], [1, 0], [1, 2]], [AND, NAND, OR])
    graph = chain(first_bits(3), first, lut([[0, 2], [1, 2]], [XOR, AND]), ones(0, 1))
    _, inner, outer, _ = ops_of(simplify(graph))
    assert inner.wiring.tolist() == [[0, 1], [1, 2]]
    assert outer.table.tolist() == [XOR, [0, 0, 1, 0]]


def test_what_only_dead_tables_read_is_dead() -> None:
    first = lut([[0, 1], [1, 2], [2, 3]], [AND, AND, AND])
    graph = chain(first_bits(4), first, lut([[0, 1], [1, 2]], [XOR, XOR]), ones(1), features=4)
    encode, inner, outer, _ = ops_of(simplify(graph))
    assert encode.channel.tolist() == [1, 2, 3]
    assert (len(inner.table), len(outer.table)) == (2, 1)


def test_codes_of_a_thermometer_that_cannot_occur_are_exploited() -> None:
    compare = Compare(np.array([0, 0, 1]), np.array([2, 5, 4]))
    # x >= 5 without x >= 2 cannot be, so the first table is x >= 5 alone: entry 2 (only the higher bit) is free.
    graph = chain(compare, lut([[0, 1], [0, 2]], [AND, AND]), ones(0, 1), features=2)
    encode, layer, _ = ops_of(simplify(graph))
    assert encode.threshold.tolist() == [2, 5, 4]
    assert layer.table.tolist() == [[0, 1, 0, 1], AND]
    np.testing.assert_array_equal(run(simplify(graph), every_input(2, 3)), run(graph, every_input(2, 3)))


def test_data_that_sees_little_leaves_little() -> None:
    rng = np.random.default_rng(0)
    layer = Lut(rng.integers(0, 12, (40, 4)), rng.integers(0, 2, (40, 16)))
    encode = Compare(np.repeat(np.arange(4), 3), np.tile([2, 4, 6], 4))
    graph = chain(encode, layer, Popcount(np.arange(40).reshape(4, 10)), TopK(1), features=4)
    data = rng.integers(0, 8, (12, 4))
    sparse = simplify(exploit_unseen(graph, data))
    rare = simplify(exploit_unseen(graph, data, least_visits=3))
    assert sizes(rare) < sizes(sparse) < sizes(simplify(graph))
    np.testing.assert_array_equal(run(sparse, data), run(graph, data))


def test_no_data_is_refused() -> None:
    graph = chain(first_bits(3), lut([[0, 1]], [AND]))
    with pytest.raises(BitfabError, match="at least 1"):
        exploit_unseen(graph, np.zeros((0, 3), dtype=np.int64))


def test_thousands_of_tables_take_seconds() -> None:
    rng = np.random.default_rng(0)
    encode = Compare(rng.integers(0, 100, 2000), rng.integers(1, 255, 2000))
    layers = [Lut(rng.integers(0, c, (4000, 6)), rng.integers(0, 2, (4000, 64), dtype=np.uint8)) for c in (2000, 4000)]
    graph = chain(encode, *layers, Popcount(np.arange(4000).reshape(10, 400)), TopK(1), features=100, bits=8)
    small = simplify(graph)
    data = rng.integers(0, 256, (50, 100))
    np.testing.assert_array_equal(run(small, data), run(graph, data))
