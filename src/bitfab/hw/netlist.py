"""Engines wired into a netlist: block instances, forks, lane converters and FIFOs on named streams."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import gcd

from bitfab.hw.blocks import block
from bitfab.hw.design import Fifo, Instance, Shape3, Stream
from bitfab.hw.plan import JOINS, Engine, turn_words
from bitfab.ir.graph import Graph, Node
from bitfab.ir.ops import Concat, Reshape

FIFO_MARGIN = 32  # words, for what the pipeline registers of the other branch delay


@dataclass
class Netlist:
    """The structure while it grows; `sources` are each value's streams that nobody reads yet."""

    graph: Graph
    shapes: Mapping[str, Shape3]
    depths: Mapping[tuple[str, str], int]
    streams: list[Stream] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    fifos: list[Fifo] = field(default_factory=list)
    roms: dict[str, str] = field(default_factory=dict)
    taps: dict[str, Stream] = field(default_factory=dict)
    sources: dict[str, list[Stream]] = field(default_factory=dict)

    def produce(self, value: str, lanes: int) -> Stream:
        """The stream that carries a value, forked for as many readers as it has."""
        stream = self.stream(value, value, lanes)
        self.taps[value] = stream
        readers = self.readers(value)
        if len(readers) == 1:
            self.sources[value] = [stream]
            return stream
        copies = [self.stream(f"{value}_to_{reader}", value, lanes) for reader in readers]
        parameters = {"Bits": stream.width, "Count": len(copies)}
        self.add(f"{value}_fork", "fork", parameters, [stream], copies, value)
        self.sources[value] = copies
        return stream

    def consume(self, value: str, lanes: int, fifo_for: str | None = None) -> Stream:
        """The next unread copy of a value, converted to `lanes`, behind a FIFO where `fifo_for` needs one."""
        stream = source = self.sources[value].pop(0)
        for step in _lane_steps(stream.lanes, lanes):
            fresh = self.stream(f"{stream.name}_x{step}", value, step)
            parameters = {"Bits": stream.bits, "InLanes": stream.lanes, "OutLanes": step}
            self.add(f"{stream.name}_width_{step}", "width", parameters, [stream], [fresh], value)
            stream = fresh
        pixels = 0 if fifo_for is None else self.depths.get((value, fifo_for), 0)
        if fifo_for is None or not pixels:
            return stream
        depth = pixels * (stream.shape[0] // stream.lanes) + FIFO_MARGIN
        fresh = self.stream(f"{stream.name}_held", value, lanes)
        name = f"{source.name}_fifo"
        parameters = {"Bits": stream.width, "Depth": depth}
        instance = self.add(name, "fifo", parameters, [stream], [fresh], fifo_for)
        self.fifos.append(Fifo(instance, stream.name, depth))
        return fresh

    def widened(self, stream: Stream, bits: int) -> Stream:
        """The stream itself, or its bipolar lanes as the two bits that a block wants to calculate with."""
        if stream.bits == bits:
            return stream
        fresh = self.stream(f"{stream.name}_signed", stream.value, stream.lanes, bits)
        self.add(fresh.name, "bipolar", {"Lanes": stream.lanes}, [stream], [fresh], stream.value)
        return fresh

    def stream(self, name: str, value: str, lanes: int, bits: int | None = None) -> Stream:
        """A new stream of a value, named so or much like it."""
        own = bits or self.graph.values[value].type.bits
        return self.record(Stream(name, value, own, lanes, self.shapes[value]))

    def record(self, stream: Stream) -> Stream:
        """The stream under a name that no other one has."""
        named = replace(stream, name=_unique(stream.name, (other.name for other in self.streams)))
        self.streams.append(named)
        return named

    def add(
        self,
        name: str,
        block: str,
        parameters: Mapping[str, int | str],
        inputs: list[Stream],
        outputs: list[Stream],
        layer: str,
        comment: str = "",
        own: bool = False,
    ) -> str:
        """A new instance and its name; a node's `own` block has the node's, others make way."""
        unique = f"u_{name}"
        if not own:
            nodes = [f"u_{node.name}" for node in self.graph]
            unique = _unique(unique, [*nodes, *(instance.name for instance in self.instances)])
        ins, outs = tuple(s.name for s in inputs), tuple(s.name for s in outputs)
        self.instances.append(Instance(unique, block, parameters, ins, outs, layer, comment))
        return unique

    def rom(self, node: str, parameter: str, text: str) -> str:
        """Keep the contents of a memory; returns the file's name, such as conv1_weight.mem for WeightFile."""
        file = f"{node}_{parameter.removesuffix('File').lower()}.mem"
        self.roms[file] = text
        return file

    def readers(self, value: str) -> list[str]:
        readers = [node.name for node in self.graph for name in node.inputs if name == value]
        return readers + ["output"] * self.graph.outputs.count(value)


def connect(
    graph: Graph, engines: Mapping[str, Engine], shapes: Mapping[str, Shape3], depths: Mapping[tuple[str, str], int]
) -> tuple[Netlist, tuple[Stream, ...], tuple[Stream, ...]]:
    """The whole netlist, its input streams and its output streams."""
    netlist = Netlist(graph, shapes, depths)
    for value in graph.inputs:
        netlist.produce(value.name, input_lanes(value.name, engines))
    entries = tuple(netlist.taps[value.name] for value in graph.inputs)
    for node in graph:
        if isinstance(node.op, Reshape):  # the same words under another name
            netlist.sources[node.name] = _renamed(netlist, node)
            continue
        _add_engine(netlist, engines[node.name])
    return netlist, entries, tuple(netlist.sources[name].pop(0) for name in graph.outputs)


def input_lanes(name: str, engines: Mapping[str, Engine]) -> int:
    """Lanes of one of the graph's inputs: what its fastest reader takes."""
    readers = [engine.lanes_in for engine in engines.values() if name in engine.node.inputs]
    return max(readers, default=1)


def _unique(name: str, others: Iterable[str]) -> str:
    """The name, or with a number behind it, such that no other is the same whatever the case, as in VHDL."""
    taken = {other.lower() for other in others}
    numbered = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))
    return next(candidate for candidate in numbered if candidate.lower() not in taken)


def _renamed(netlist: Netlist, node: Node) -> list[Stream]:
    (source,) = netlist.sources[node.inputs[0]][:1]
    netlist.sources[node.inputs[0]].pop(0)
    copies = netlist.readers(node.name)
    if len(copies) == 1:
        return [source]
    streams = [netlist.record(replace(source, name=f"{node.name}_to_{reader}")) for reader in copies]
    netlist.add(f"{node.name}_fork", "fork", {"Bits": source.width, "Count": len(copies)}, [source], streams, node.name)
    return streams


def _lane_steps(have: int, want: int) -> list[int]:
    """Lane counts to pass through: a converter's one side divides its other side."""
    if have == want:
        return []
    common = gcd(have, want)
    return [step for step in dict.fromkeys((common, want)) if step != have]


def _add_engine(netlist: Netlist, engine: Engine) -> None:
    node = engine.node
    join = isinstance(node.op, JOINS)
    inputs = [netlist.consume(name, engine.lanes_in, node.name if join else None) for name in node.inputs]
    inputs = [netlist.widened(stream, value.type.bits) for stream, value in zip(inputs, engine.values, strict=True)]
    if isinstance(node.op, Concat):
        inputs = _chained_concat(netlist, node, inputs)
    made = block(engine)
    files = {parameter: netlist.rom(node.name, parameter, text) for parameter, text in made.roms.items()}
    output = netlist.produce(node.name, engine.lanes_out)
    whole = made.parameters | files
    netlist.add(node.name, made.name, whole, inputs, [output], node.name, _comment(engine), own=True)


def _comment(engine: Engine) -> str:
    node = engine.node
    ins = ", ".join(f"{value.type} {'x'.join(map(str, value.shape))}" for value in engine.values)
    out = f"{node.output.type} {'x'.join(map(str, node.output.shape))}"
    fold = f", {engine.folding}" if engine.folding else ""
    return f"{type(node.op).__name__}: {ins} -> {out}{fold}, {engine.cycles} cycles an image"


def _chained_concat(netlist: Netlist, node: Node, inputs: list[Stream]) -> list[Stream]:
    """More than two inputs are joined pair by pair; the last pair is the node's own instance."""
    assert isinstance(node.op, Concat)
    axis = node.op.axis
    while len(inputs) > 2:
        a, b, *rest = inputs
        words = [turn_words(s.shape, axis, s.lanes) for s in (a, b)]
        sizes = list(a.shape)
        sizes[axis] += b.shape[axis]
        named = replace(a, name=f"{node.name}_part{len(rest)}", shape=(sizes[0], sizes[1], sizes[2]))
        joined = netlist.record(named)
        parameters = {"Bits": a.width, "WordsA": words[0], "WordsB": words[1]}
        netlist.add(joined.name, "concat", parameters, [a, b], [joined], node.name)
        inputs = [joined, *rest]
    return inputs
