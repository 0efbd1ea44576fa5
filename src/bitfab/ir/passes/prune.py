"""Removes the nodes that no output needs."""

from dataclasses import replace

from bitfab.ir.graph import Graph


def prune(graph: Graph) -> Graph:
    """The same inputs and outputs, without dead nodes; what remains is untouched and keeps its order."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            kept.append(node)
    return replace(graph, nodes=tuple(reversed(kept)))
