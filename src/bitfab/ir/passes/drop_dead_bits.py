"""Removes comparisons, bits and truth tables that nobody reads, and the nodes that no output needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Graph, Node, rebuild
from bitfab.ir.ops import Bits, Compare, Lut, Popcount
from bitfab.ir.passes.prune import prune
from bitfab.ir.passes.truth_tables import read_as_bits_alone, rewired


def drop_dead_bits(graph: Graph) -> Graph:
    """From the outputs to the inputs: what only dead bits read is dead. The graph's inputs stay, read or not."""
    graph = prune(graph)
    kept: dict[str, IntArray] = {}
    nodes: dict[str, Node] = {}
    for node in reversed(graph.nodes):
        op = node.op
        if isinstance(op, Compare | Bits | Lut) and read_as_bits_alone(graph, node.name):
            readers = (nodes[user.name].op for user in graph.users[node.name])
            wirings = [reader.wiring.reshape(-1) for reader in readers if isinstance(reader, Lut | Popcount)]
            kept[node.name] = np.unique(np.concatenate(wirings))
            op = _rows(op, kept[node.name])
        nodes[node.name] = replace(node, op=op)
    return rebuild(graph, tuple(_renumbered(nodes[node.name], kept) for node in graph))


def _rows(op: Compare | Bits | Lut, kept: IntArray) -> Compare | Bits | Lut:
    match op:
        case Compare():
            return Compare(op.channel[kept], op.threshold[kept])
        case Bits():
            return Bits(op.channel[kept], op.place[kept])
    return Lut(op.wiring[kept], op.table[kept])


def _renumbered(node: Node, kept: dict[str, IntArray]) -> Node:
    if not isinstance(node.op, Lut | Popcount) or node.inputs[0] not in kept:
        return node
    bits = kept[node.inputs[0]]
    numbers = np.zeros(int(bits.max()) + 1, dtype=np.int64)
    numbers[bits] = np.arange(len(bits))
    return replace(node, op=rewired(node.op, numbers))
