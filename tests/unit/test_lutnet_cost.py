"""The LUT estimate: known small cases, and what synthesis gave for counts of ones."""

import numpy as np
import pytest

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.ir import Builder, Graph, Value
from bitfab.ir.ops import Bits, Compare, Dense, Lut, Op, Popcount, Threshold, TopK
from bitfab.lutnet.cost import comparison_luts, lut6_by_node, lut6_estimate, popcount_luts


def chain(type: IntType, features: int, *ops: Op) -> Graph:
    builder = Builder("chain")
    name = builder.input("x", (features,), type)
    for number, op in enumerate(ops):
        name = builder.add(f"n{number}", op, name)
    return builder.build((name,))


def comparisons(bits: int, *thresholds: int, channels: int = 1, signed: bool = False) -> int:
    type = IntType(bits, signed)
    channel = np.arange(len(thresholds)) % channels
    return comparison_luts(channel, np.array(thresholds), Value("x", (channels,), type, type.low, type.high))


def test_comparisons_cost_what_their_threshold_depends_on() -> None:
    assert comparisons(8, 128) == 0  # the upper bit
    assert comparisons(8, 0, signed=True) == 0  # its inverse
    assert comparisons(8, 64) == comparisons(8, 4) == 1  # two bits, six bits
    assert comparisons(8, 5) == 2
    assert comparisons(12, 5) == 3
    assert comparisons(8, 0, 256, -3) == 0  # decided by the range
    assert comparisons(8, 5, 5) == 2  # one bit
    thresholds = range(5, 250, 8)  # the lower three bits agree
    assert comparisons(8, *thresholds) == 31 + 2
    assert comparisons(8, *thresholds, channels=31) == 31 + 31


@pytest.mark.parametrize(("bits", "synthesized"), [(3, 2), (6, 3), (12, 10), (20, 20), (60, 70), (100, 112)])
def test_counts_of_ones_are_near_what_yosys_gave(bits: int, synthesized: int) -> None:
    assert abs(popcount_luts(bits) - synthesized) <= max(1, round(0.1 * synthesized))


def test_a_network_costs_the_sum_of_its_nodes() -> None:
    encode = Compare(np.array([0, 1, 2, 3]), np.array([8, 4, 5, 12]))
    tables = np.array([[0, 0, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]])
    layer = Lut(np.tile([0, 1], (6, 1)), tables)  # of these one is a wire, one an inverter, one constant
    graph = chain(IntType(4, signed=False), 4, encode, layer, Popcount(np.arange(6).reshape(2, 3)), TopK(1))
    assert lut6_by_node(graph) == {"n0": 3, "n1": 3, "n2": 4, "n3": 2}
    assert lut6_estimate(graph) == 12


def test_bits_cost_nothing_and_a_decision_its_comparisons() -> None:
    count = Popcount(np.arange(6).reshape(1, 6))
    decide = Threshold(np.array([[2, 4]]), IntType(2, signed=False), 0)
    graph = chain(IntType(2, signed=False), 3, Bits(np.repeat(np.arange(3), 2), np.tile([0, 1], 3)), count, decide)
    assert lut6_by_node(graph) == {"n0": 0, "n1": 3, "n2": 2}


def test_other_operations_are_refused() -> None:
    with pytest.raises(BitfabError, match="n0: no estimate for Dense"):
        lut6_estimate(chain(IntType(2, signed=False), 2, Dense(np.ones((1, 2), int), np.zeros(1, int))))
