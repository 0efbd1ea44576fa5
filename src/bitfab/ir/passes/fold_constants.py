"""Folds bits that never change, and bits wired twice, into the truth tables that read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Graph, Node, Value, rebuild
from bitfab.ir.ops import Bits, Compare, Lut, Op
from bitfab.ir.passes.truth_tables import own_addresses, readdressed

_UNKNOWN = -1


def fold_constants(graph: Graph) -> Graph:
    """Tables no longer depend on a place whose bit is constant, nor on the second of two places of one bit.

    A comparison that the range of its input decides is constant and reads channel 0. Wirings stay as they are.
    """
    nodes: list[Node] = []
    known: dict[str, IntArray] = {}
    for node in graph:
        source = graph.values[node.inputs[0]]
        bits = known.get(source.name, np.full(source.shape[0], _UNKNOWN))
        op = _folded(node.op, source, bits)
        known[node.name] = _constants(op, source, node.output.shape[0])
        nodes.append(replace(node, op=op))
    return rebuild(graph, tuple(nodes))


def _folded(op: Op, source: Value, bits: IntArray) -> Op:
    if isinstance(op, Compare):
        threshold = np.clip(op.threshold.astype(np.int64), source.low, source.high + 1)
        decided = (threshold == source.low) | (threshold > source.high)
        return Compare(np.where(decided, 0, op.channel), threshold)
    return _folded_lut(op, bits) if isinstance(op, Lut) else op


def _folded_lut(op: Lut, bits: IntArray) -> Lut:
    """Each address is replaced by the one that can occur in its stead."""
    address = own_addresses(op)
    for place, wires in enumerate(op.wiring.T):
        constant = bits[wires][:, None]
        address = np.where(constant == _UNKNOWN, address, address & ~(1 << place) | (constant == 1) << place)
        for earlier in range(place):
            same = (wires == op.wiring[:, earlier])[:, None]
            address = np.where(same, address & ~(1 << place) | (address >> earlier & 1) << place, address)
    return replace(op, table=readdressed(op.table, address))


def _constants(op: Op, source: Value, count: int) -> IntArray:
    """Each bit's value, or _UNKNOWN."""
    match op:
        case Compare():
            low, high = (np.greater_equal(bound, op.threshold) for bound in (source.low, source.high))
        case Bits():
            low, high = (np.right_shift(bound, op.place) for bound in (source.low, source.high))
            low, high = np.where(low == high, low & 1, 0), np.where(low == high, low & 1, 1)
        case Lut():
            low, high = op.table.min(axis=1).astype(np.int64), op.table.max(axis=1)
        case _:
            return np.full(count, _UNKNOWN)
    return np.where(low == high, low, _UNKNOWN)
