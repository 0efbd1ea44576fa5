"""Estimates the six-input LUTs that a LUT network takes, without synthesis, so that training can keep to a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.ir.graph import Graph, Value
from bitfab.ir.ops import Bits, Compare, Lut, Popcount, Threshold, TopK
from bitfab.ir.passes.truth_tables import places_read

LUT_INPUTS = 6
ARGMAX_LUTS_PER_BIT = 3  # to compare two counts, to pass on the larger, and their indices: about one each
SHARED_PART = 1.6  # LUTs that synthesis spends on a part that comparisons could share, where it finds half of them


def lut6_estimate(graph: Graph) -> int:
    """About what `synth_xilinx` counts, encoder, counts and argmax included: the sum of `lut6_by_node`.

    `simplify` the graph before: what is dead or double is counted here, and synthesis removes it. Raises BitfabError
    for operations that LUT networks do not have.
    """
    return sum(lut6_by_node(graph).values())


def lut6_by_node(graph: Graph) -> dict[str, int]:
    """LUTs of six inputs by node."""
    result = {}
    for node in graph:
        if type(node.op) not in _RULES:
            raise BitfabError(f"{node.name}: no estimate for {type(node.op).__name__}; synthesize to count its LUTs")
        result[node.name] = _RULES[type(node.op)](node.op, graph.values[node.inputs[0]])
    return result


def comparison_luts(channel: IntArray, threshold: IntArray, x: Value) -> int:
    """LUTs of all `x[channel] >= threshold`, (N,) each.

    Bits below the lowest one of T (counted from the type's lowest integer) do not matter: one bit that does is a wire,
    two to six fit a LUT, and of more the upper five do, with the comparison of all that lies below, which thresholds of
    one feature can share where they agree there. So a threshold alone takes ceil((bits - 1) / 5).
    """
    above = np.asarray(threshold, dtype=np.int64) - x.type.low
    alive = (threshold > x.low) & (threshold <= x.high)
    parts, asked = np.unique(np.stack((channel[alive], above[alive]), axis=1), axis=0), 0
    bits, total = x.type.bits, 0
    while len(parts):
        matter = bits - np.log2(parts[:, 1] & -parts[:, 1]).astype(np.int64)
        logic = int(np.count_nonzero(matter > 1))
        total += min(round(SHARED_PART * logic), asked) if asked else logic
        bits -= LUT_INPUTS - 1
        below = parts[matter > LUT_INPUTS]
        below[:, 1] &= (1 << max(bits, 0)) - 1
        parts, asked = np.unique(below, axis=0), len(below)
    return total


def popcount_luts(bits: int) -> int:
    """LUTs that count the ones among `bits` bits: counters of six (three LUTs) and of three (two), then one adder."""
    columns, total = [bits], 0
    while max(columns) > 2:
        after = [0] * (len(columns) + 2)
        for place, height in enumerate(columns):
            if height <= 2:
                after[place] += height
                continue
            sixes, rest = divmod(height, LUT_INPUTS)
            threes, rest = divmod(rest, 3)
            total += 3 * sixes + 2 * threes
            for carry, counted in enumerate((sixes + threes + rest, sixes + threes, sixes)):
                after[place + carry] += counted
        columns = after[: max(place for place, height in enumerate(after) if height) + 1]
    return total + len(columns) - columns.index(2) if 2 in columns else total


def _compare(op: Compare, x: Value) -> int:
    return comparison_luts(op.channel, op.threshold, x)


def _lut(op: Lut, _: Value) -> int:
    """Wires cost nothing, and inverters go into the tables that read them."""
    return int(np.count_nonzero(places_read(op.table).sum(axis=1) > 1))


def _popcount(op: Popcount, _: Value) -> int:
    groups, bits = op.wiring.shape
    return groups * popcount_luts(bits)


def _threshold(op: Threshold, x: Value) -> int:
    """The comparisons, and the count of those that hold."""
    thresholds = np.broadcast_to(op.thresholds, (x.shape[0], op.thresholds.shape[1]))
    channel = np.repeat(np.arange(x.shape[0]), thresholds.shape[1])
    return comparison_luts(channel, thresholds.reshape(-1), x) + x.shape[0] * popcount_luts(thresholds.shape[1])


def _top_k(op: TopK, x: Value) -> int:
    """A tournament, the last match of which passes on no value."""
    if op.k > 1:
        raise BitfabError(f"no estimate for the {op.k} largest of {x.name}; synthesize to count its LUTs")
    return ARGMAX_LUTS_PER_BIT * x.type.bits * (x.shape[0] - 1) - 2 * x.type.bits if x.shape[0] > 1 else 0


_RULES: dict[type, Callable[[Any, Value], int]] = {
    Compare: _compare,
    Bits: lambda op, x: 0,
    Lut: _lut,
    Popcount: _popcount,
    Threshold: _threshold,
    TopK: _top_k,
}
