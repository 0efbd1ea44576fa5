"""Lets tables and counts that read nothing but wires through a layer read what lies before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Graph, Node, rebuild
from bitfab.ir.ops import Lut, Popcount
from bitfab.ir.passes.truth_tables import own_addresses, rewired

_NO_WIRE = -1


def bypass_wires(graph: Graph) -> Graph:
    """A node all of whose bits are passed on unchanged by the layer before reads that layer's input instead.

    Where only some are, they stay wires through the layer, which costs no logic.
    """
    nodes: dict[str, Node] = {}
    for node in graph:
        nodes[node.name] = _bypassed(node, nodes)
    return rebuild(graph, tuple(nodes.values()))


def _bypassed(node: Node, before: dict[str, Node]) -> Node:
    layer = before.get(node.inputs[0])
    if layer is None or not isinstance(layer.op, Lut) or not isinstance(node.op, Lut | Popcount):
        return node
    sources = _sources(layer.op)
    if (sources[node.op.wiring] == _NO_WIRE).any():
        return node
    return replace(node, op=rewired(node.op, sources), inputs=layer.inputs)


def _sources(op: Lut) -> IntArray:
    """The bit that each table passes on, or _NO_WIRE."""
    sources = np.full(len(op.table), _NO_WIRE)
    for place, wires in enumerate(op.wiring.T):
        sources = np.where((op.table == own_addresses(op) >> place & 1).all(axis=1), wires, sources)
    return sources
