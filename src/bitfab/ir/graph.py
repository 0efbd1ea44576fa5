"""The integer graph: an exact program over integers, the only handover between the float world and hardware."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from bitfab.dtypes import IntType, QParams
from bitfab.errors import BitfabError
from bitfab.ir.infer import Signature, infer
from bitfab.ir.ops import Op, Shape


@dataclass(frozen=True)
class Value:
    """A tensor of integers: shape without batch axis, type, proven range [low, high].

    `qparams` tell what the integers mean in reals; they are metadata and never change what `run` computes.
    """

    name: str
    shape: Shape
    type: IntType
    low: int
    high: int
    qparams: QParams | None = None

    @property
    def signature(self) -> Signature:
        return Signature(self.shape, self.type, self.low, self.high)

    def __str__(self) -> str:
        return f"{self.name}: {self.type}{list(self.shape)} in [{self.low}, {self.high}]"


@dataclass(frozen=True)
class Node:
    """One operation; its output value bears the node's name. `source` is the layer's place in the user's module."""

    op: Op
    inputs: tuple[str, ...]
    output: Value
    source: str = ""

    @property
    def name(self) -> str:
        return self.output.name


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, each value defined once (SSA)."""

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every value by its name, in order of definition."""
        return {value.name: value for value in (*self.inputs, *(node.output for node in self.nodes))}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value."""
        readers: dict[str, list[Node]] = {name: [] for name in self.values}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    @property
    def output_values(self) -> tuple[Value, ...]:
        return tuple(self.values[name] for name in self.outputs)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


@dataclass
class Builder:
    """Grows a graph node by node; shapes, types and ranges are inferred."""

    name: str
    _inputs: list[Value] = field(default_factory=list)
    _nodes: list[Node] = field(default_factory=list)
    _values: dict[str, Value] = field(default_factory=dict)

    def input(self, name: str, shape: Shape, type: IntType, qparams: QParams | None = None) -> str:
        """A graph input: any integers of `type`."""
        value = self._define(Value(name, shape, type, type.low, type.high, qparams))
        self._inputs.append(value)
        return name

    def add(
        self, name: str, op: Op, inputs: tuple[str, ...] | str, qparams: QParams | None = None, source: str = ""
    ) -> str:
        """A node named `name` (made unique if taken); returns the name of its output value."""
        names = (inputs,) if isinstance(inputs, str) else inputs
        unique = name
        suffix = 1
        while unique in self._values:
            suffix += 1
            unique = f"{name}_{suffix}"
        try:
            known = infer(op, [self._values[i].signature for i in names])
        except BitfabError as error:
            raise BitfabError(f"{source or name}: {error}") from error
        value = self._define(Value(unique, known.shape, known.type, known.low, known.high, qparams))
        self._nodes.append(Node(op, names, value, source))
        return unique

    def value(self, name: str) -> Value:
        return self._values[name]

    def build(self, outputs: tuple[str, ...]) -> Graph:
        return Graph(self.name, tuple(self._inputs), tuple(self._nodes), outputs)

    def _define(self, value: Value) -> Value:
        if value.name in self._values:
            raise BitfabError(f"{value.name}: defined twice; give each layer its own name")
        self._values[value.name] = value
        return value


def rebuild(graph: Graph, nodes: tuple[Node, ...]) -> Graph:
    """The graph with other nodes, shapes, types and ranges inferred anew."""
    values = {value.name: value for value in graph.inputs}
    fresh = []
    for node in nodes:
        known = infer(node.op, [values[name].signature for name in node.inputs])
        output = replace(node.output, shape=known.shape, type=known.type, low=known.low, high=known.high)
        values[output.name] = output
        fresh.append(replace(node, output=output))
    return replace(graph, nodes=tuple(fresh))
