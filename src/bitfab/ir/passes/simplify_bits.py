"""Shrinks LUT networks: the passes on single bits, one after the other until nothing changes."""

from __future__ import annotations

import dataclasses

import numpy as np

from bitfab.ir.graph import Graph
from bitfab.ir.passes.absorb_inverters import absorb_inverters
from bitfab.ir.passes.bypass_wires import bypass_wires
from bitfab.ir.passes.drop_dead_bits import drop_dead_bits
from bitfab.ir.passes.exploit_codes import exploit_codes
from bitfab.ir.passes.fold_constants import fold_constants
from bitfab.ir.passes.reduce_fan_in import reduce_fan_in
from bitfab.ir.passes.share_equal_bits import share_equal_bits
from bitfab.ir.verify import verify

_STEPS = (
    fold_constants,
    exploit_codes,
    reduce_fan_in,
    absorb_inverters,
    bypass_wires,
    share_equal_bits,
    drop_dead_bits,
)


def simplify(graph: Graph) -> Graph:
    """The same inputs and outputs, equal under `run` on every input, with fewer bits and narrower tables.

    Constants are folded, repeated and unread places unwired, inverters and wires absorbed, equal bits shared, dead
    ones removed. Graphs without single bits lose their dead nodes alone.
    """
    while True:
        before = graph
        for step in _STEPS:
            graph = verify(step(graph), after=step.__name__)
        if _same(before, graph):
            return graph


def _same(a: Graph, b: Graph) -> bool:
    if len(a.nodes) != len(b.nodes):
        return False
    return all(
        m.inputs == n.inputs
        and all(
            np.array_equal(getattr(m.op, field.name), getattr(n.op, field.name)) for field in dataclasses.fields(m.op)
        )
        for m, n in zip(a, b, strict=True)
    )
