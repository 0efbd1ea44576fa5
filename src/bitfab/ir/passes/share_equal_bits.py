"""Lets the readers of equal bits read one of them: equal comparisons, equal bits of inputs, equal tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Graph, Node, rebuild
from bitfab.ir.ops import Bits, Compare, Lut, Op, Popcount
from bitfab.ir.passes.truth_tables import rewired


def share_equal_bits(graph: Graph) -> Graph:
    """Tables and counts read, of equal bits of one node, the first; who nobody reads then, `drop_dead_bits` removes.

    Tables are equal whose rows are, so `reduce_fan_in` goes before.
    """
    nodes: list[Node] = []
    first: dict[str, IntArray] = {}
    for node in graph:
        op = node.op
        if isinstance(op, Lut | Popcount) and node.inputs[0] in first:
            op = rewired(op, first[node.inputs[0]])
        if isinstance(op, Compare | Bits | Lut):
            first[node.name] = _first_equal(op)
        nodes.append(replace(node, op=op))
    return rebuild(graph, tuple(nodes))


def _first_equal(op: Compare | Bits | Lut) -> IntArray:
    """For each bit the first that equals it, (N,)."""
    _, index, inverse = np.unique(_rows(op), axis=0, return_index=True, return_inverse=True)
    return index[inverse.reshape(-1)]


def _rows(op: Op) -> IntArray:
    """What decides each bit, one row of integers a bit."""
    match op:
        case Compare():
            return np.stack((op.channel, op.threshold), axis=1).astype(np.int64)
        case Bits():
            return np.stack((op.channel, op.place), axis=1).astype(np.int64)
        case Lut():
            return np.concatenate((op.wiring, np.packbits(op.table.astype(np.uint8), axis=1)), axis=1)
    raise AssertionError(op)
