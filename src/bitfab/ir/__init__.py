"""The integer world: the graph, its operations and the definition of what it computes. Loads no torch."""

from bitfab.ir.graph import Builder, Graph, Node, Value
from bitfab.ir.run import run, trace

__all__ = ["Builder", "Graph", "Node", "Value", "run", "trace"]
