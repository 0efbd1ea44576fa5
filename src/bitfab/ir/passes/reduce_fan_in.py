"""Unwires places of truth tables that their outputs do not depend on, and puts the others in order."""

from __future__ import annotations

from dataclasses import replace

from bitfab.ir.graph import Graph, rebuild
from bitfab.ir.ops import Lut
from bitfab.ir.passes.truth_tables import sorted_places


def reduce_fan_in(graph: Graph) -> Graph:
    """Each layer's K becomes what its widest table reads; narrower tables ignore their last places.

    Layers are not split by fan-in: hardware writes each table over the places it reads, and the graph stays a chain.
    """
    nodes = (replace(node, op=sorted_places(node.op)[0]) if isinstance(node.op, Lut) else node for node in graph)
    return rebuild(graph, tuple(nodes))
