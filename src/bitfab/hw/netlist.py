"""Engines wired into a netlist: block instances, forks, lane converters and FIFOs on named streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import gcd

from bitfab.hw import memories
from bitfab.hw.design import Fifo, Instance, Shape3, Stream
from bitfab.hw.plan import Engine
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import (
    Add,
    Argmax,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Requantize,
    Reshape,
    SumPool2d,
    Table,
    Upsample,
)

FIFO_MARGIN = 32  # words, for what the pipeline registers of the other branch delay
ROUNDING_CODES = {"half_up": 0, "half_even": 1, "half_away": 2, "floor": 3}


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
        stream = self.sources[value].pop(0)
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
        name = f"{value}_to_{fifo_for}_fifo"
        self.add(name, "fifo", {"Bits": stream.width, "Depth": depth}, [stream], [fresh], fifo_for)
        self.fifos.append(Fifo(f"u_{name}", stream.name, depth))
        return fresh

    def stream(self, name: str, value: str, lanes: int) -> Stream:
        names = {stream.name for stream in self.streams}
        unique = (
            name if name not in names else next(f"{name}_{i}" for i in range(2, 1000) if f"{name}_{i}" not in names)
        )
        stream = Stream(unique, value, self.graph.values[value].type.bits, lanes, self.shapes[value])
        self.streams.append(stream)
        return stream

    def add(
        self,
        name: str,
        block: str,
        parameters: Mapping[str, int | str],
        inputs: list[Stream],
        outputs: list[Stream],
        layer: str,
        comment: str = "",
    ) -> None:
        ins, outs = tuple(s.name for s in inputs), tuple(s.name for s in outputs)
        self.instances.append(Instance(f"u_{name}", block, parameters, ins, outs, layer, comment))

    def rom(self, name: str, text: str) -> str:
        """The contents of a memory; returns the file's name."""
        self.roms[f"{name}.mem"] = text
        return f"{name}.mem"

    def readers(self, value: str) -> list[str]:
        readers = [node.name for node in self.graph for name in node.inputs if name == value]
        return readers + ["output"] * self.graph.outputs.count(value)


def connect(
    graph: Graph, engines: Mapping[str, Engine], shapes: Mapping[str, Shape3], depths: Mapping[tuple[str, str], int]
) -> tuple[Netlist, Stream, Stream]:
    """The whole netlist, its input stream and its output stream."""
    netlist = Netlist(graph, shapes, depths)
    first = graph.inputs[0]
    entry = netlist.produce(first.name, input_lanes(graph, engines))
    for node in graph:
        if isinstance(node.op, Reshape):  # the same words under another name
            netlist.sources[node.name] = _renamed(netlist, node)
            continue
        _add_engine(netlist, engines[node.name])
    return netlist, entry, netlist.sources[graph.outputs[0]].pop(0)


def input_lanes(graph: Graph, engines: Mapping[str, Engine]) -> int:
    """Lanes of the graph's input: what its fastest reader takes."""
    name = graph.inputs[0].name
    readers = [engine.lanes_in for engine in engines.values() if name in engine.node.inputs]
    return max(readers, default=1)


def _renamed(netlist: Netlist, node: Node) -> list[Stream]:
    (source,) = netlist.sources[node.inputs[0]][:1]
    netlist.sources[node.inputs[0]].pop(0)
    copies = netlist.readers(node.name)
    if len(copies) == 1:
        return [source]
    streams = [replace(source, name=f"{node.name}_to_{reader}") for reader in copies]
    netlist.streams.extend(streams)
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
    join = isinstance(node.op, Add | Concat)
    inputs = [netlist.consume(name, engine.lanes_in, node.name if join else None) for name in node.inputs]
    if isinstance(node.op, Concat):
        inputs = _chained_concat(netlist, node, inputs)
    values = [netlist.graph.values[name] for name in node.inputs]
    block, parameters = _block(netlist, engine, values, inputs)
    output = netlist.produce(node.name, engine.lanes_out)
    netlist.add(node.name, block, parameters, inputs, [output], node.name, _comment(engine, values))


def _comment(engine: Engine, values: list[Value]) -> str:
    node = engine.node
    ins = ", ".join(f"{value.type} {'x'.join(map(str, value.shape))}" for value in values)
    out = f"{node.output.type} {'x'.join(map(str, node.output.shape))}"
    fold = f", PE {engine.folding.pe} x SIMD {engine.folding.simd}" if engine.folding else ""
    return f"{type(node.op).__name__}: {ins} -> {out}{fold}, {engine.cycles} cycles an image"


def _chained_concat(netlist: Netlist, node: Node, inputs: list[Stream]) -> list[Stream]:
    """More than two inputs are joined pair by pair; the last pair is the node's own instance."""
    while len(inputs) > 2:
        a, b, *rest = inputs
        words = [s.shape[0] // s.lanes for s in (a, b)]
        joined = replace(a, name=f"{node.name}_part{len(rest)}", shape=(a.shape[0] + b.shape[0], *a.shape[1:]))
        netlist.streams.append(joined)
        parameters = {"Bits": a.width, "WordsA": words[0], "WordsB": words[1]}
        netlist.add(joined.name, "concat", parameters, [a, b], [joined], node.name)
        inputs = [joined, *rest]
    return inputs


def _block(
    netlist: Netlist, engine: Engine, values: list[Value], inputs: list[Stream]
) -> tuple[str, dict[str, int | str]]:
    """The RTL block that an operation becomes, with its parameters."""
    node, first, out = engine.node, values[0], engine.node.output
    words = inputs[0].shape[0] // inputs[0].lanes
    match node.op:
        case Conv2d() | ConvTranspose2d() | Dense():
            return "conv2d", _conv2d_parameters(netlist, engine, first)
        case MaxPool2d() | SumPool2d():
            head: dict[str, int | str] = {
                "Bits": first.type.bits,
                "Signed": int(first.type.signed),
                "Lanes": engine.lanes_in,
            }
            reduce = {"Sum": int(isinstance(node.op, SumPool2d)), "OutBits": out.type.bits}
            return "pool2d", head | reduce | _window_parameters(engine, first, words, up=False)
        case Upsample():
            return "window", {"Bits": first.type.bits, "Lanes": engine.lanes_in} | _window_parameters(
                engine, first, words, up=True
            ) | {"Groups": 1, "Fold": 1}
        case Requantize():
            return "requantize", _requantize_parameters(netlist, engine, first)
        case Table():
            file = netlist.rom(f"{node.name}_table", memories.table(node.op))
            bits = {"InBits": first.type.bits, "OutBits": out.type.bits}
            return "table", {**bits, "Lanes": engine.lanes_in, "TableFile": file}
        case Add():
            a, b = (value.type for value in values)
            types: dict[str, int | str] = {
                "ABits": a.bits,
                "ASigned": int(a.signed),
                "BBits": b.bits,
                "BSigned": int(b.signed),
            }
            return "add", types | {"Lanes": engine.lanes_in, "OutBits": out.type.bits}
        case Concat():
            a_words, b_words = (s.shape[0] // s.lanes for s in inputs)
            return "concat", {"Bits": inputs[0].width, "WordsA": a_words, "WordsB": b_words}
        case Argmax():
            signed = int(first.type.signed)
            return "argmax", {"Bits": first.type.bits, "Signed": signed, "Words": words, "IndexBits": out.type.bits}
    raise AssertionError(node.op)


def _window_parameters(engine: Engine, x: Value, words: int, up: bool) -> dict[str, int | str]:
    window, (_, height, width) = engine.window, engine.inputs[0]
    assert window is not None
    parameters: dict[str, int | str] = {"Words": words, "Height": height, "Width": width}
    names: list[tuple[str, str, tuple[int, int]]] = [
        ("KernelHeight", "KernelWidth", window.kernel),
        ("StrideHeight", "StrideWidth", window.stride),
        *([("UpHeight", "UpWidth", window.up), ("PhaseHeight", "PhaseWidth", window.phase)] if up else []),
        ("OriginTop", "OriginLeft", window.origin),
        ("OutHeight", "OutWidth", window.out),
    ]
    for vertical, horizontal, pair in names:
        parameters |= {vertical: pair[0], horizontal: pair[1]}
    pad_bits = window.pad_value & ((1 << x.type.bits) - 1)
    return parameters | {"Rows": window.rows, "PadValue": pad_bits}


def _conv2d_parameters(netlist: Netlist, engine: Engine, x: Value) -> dict[str, int | str]:
    node, window, folding = engine.node, engine.window, engine.folding
    assert window is not None and folding is not None
    weight_words, bias_words = memories.weights(engine)
    weight_bits = _signed_bits(int(weight_words.min()), int(weight_words.max()))
    acc_bits = node.output.type.bits
    weight_file = netlist.rom(f"{node.name}_weights", memories.mem_file(weight_words, weight_bits))
    bias_file = netlist.rom(f"{node.name}_bias", memories.mem_file(bias_words, acc_bits))
    types: dict[str, int | str] = {
        "InBits": x.type.bits,
        "InSigned": int(x.type.signed),
        "WeightBits": weight_bits,
        "AccBits": acc_bits,
        "Simd": folding.simd,
        "Pe": folding.pe,
    }
    geometry = _window_parameters(engine, x, window.words * window.groups, up=True)
    folds = {"Groups": window.groups, "Fold": window.fold}
    return types | geometry | folds | {"WeightFile": weight_file, "BiasFile": bias_file}


def _signed_bits(low: int, high: int) -> int:
    """Bits of the narrowest two's complement type, at least 2."""
    return max(2, (-low - 1).bit_length() + 1 if low < 0 else 1, high.bit_length() + 1)


def _requantize_parameters(netlist: Netlist, engine: Engine, x: Value) -> dict[str, int | str]:
    op, lanes = engine.node.op, engine.lanes_in
    assert isinstance(op, Requantize)
    multiplier_bits, shift, extra_bits = memories.scale_fields(op)
    words = len(op.multiplier) // lanes if len(op.multiplier) > 1 else 1
    scaled = multiplier_bits or extra_bits
    file = netlist.rom(f"{engine.node.name}_scales", memories.scales(op, lanes)) if scaled else ""
    return {
        "InBits": x.type.bits,
        "InSigned": int(x.type.signed),
        "OutBits": op.type.bits,
        "Lanes": lanes,
        "Words": words,
        "InputZero": op.input_zero,
        "OutputZero": op.output_zero,
        "Low": op.low,
        "High": op.high,
        "MultiplierBits": multiplier_bits,
        "MinShift": shift,
        "ExtraBits": extra_bits,
        "Rounding": ROUNDING_CODES[op.rounding],
        "ScaleFile": file,
    }
