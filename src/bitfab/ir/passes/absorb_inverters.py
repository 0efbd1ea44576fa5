"""Moves inversions from the outputs of truth tables into the tables that read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Graph, Node, rebuild
from bitfab.ir.ops import Lut, Popcount
from bitfab.ir.passes.truth_tables import Mask, own_addresses, read_as_bits_alone, readdressed


def absorb_inverters(graph: Graph) -> Graph:
    """Tables whose bit only tables read hold 0 at address 0: an inverter is a wire, a table equals its inverse.

    A bit that is counted, or read by anything else, keeps its sense.
    """
    nodes: list[Node] = []
    inverted: dict[str, Mask] = {}
    for node in graph:
        op = node.op
        if isinstance(op, Lut):
            table = _reading_inverted(op, inverted.get(node.inputs[0]))
            flip = (table[:, 0] == 1) & _only_tables_read(graph, node.name, len(table))
            inverted[node.name] = flip
            op = replace(op, table=np.where(flip[:, None], 1 - table, table))
        nodes.append(replace(node, op=op))
    return rebuild(graph, tuple(nodes))


def _reading_inverted(op: Lut, inverted: Mask | None) -> IntArray:
    """The tables, their addresses inverted in the places whose bit is."""
    if inverted is None or not inverted.any():
        return op.table
    places = np.left_shift(1, np.arange(op.wiring.shape[1]))
    return readdressed(op.table, own_addresses(op) ^ (inverted[op.wiring] * places).sum(axis=1)[:, None])


def _only_tables_read(graph: Graph, name: str, count: int) -> Mask:
    free = np.full(count, read_as_bits_alone(graph, name))
    for user in graph.users[name]:
        if isinstance(user.op, Popcount):
            free[user.op.wiring] = False
    return free
