"""Designs whose weights can be written at run time: how wide that makes them, where each memory lies, what to write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.hw import memories
from bitfab.hw.design import Design, Instance
from bitfab.hw.folding import FOLDED, signed_bits, weight_bits
from bitfab.hw.netlist import Netlist
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.infer import Signature, infer, sees_padding
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Op, Requantize, Threshold
from bitfab.ir.verify import verify

LOAD_DATA, LOAD_ADDRESS = 0x28, 0x2C  # registers of rtl/registers
PART_BITS = 32
FACTOR_BITS = 16  # of a requantizer's multipliers, at least
ROOM = 3  # a requantizer's factors may become 2**ROOM times smaller or larger than the build's

LOADED: dict[type, tuple[str, ...]] = {  # what each operation's block keeps in memories that can be written
    Conv2d: ("weight", "bias"),
    ConvTranspose2d: ("weight", "bias"),
    Dense: ("weight", "bias"),
    Requantize: ("multiplier", "shift"),
    Threshold: ("thresholds",),
}


@dataclass(frozen=True)
class LoadedMemory:
    """A memory on the bus: words `base` to `base + words - 1`, of `bits` bits; `file` is what it holds at the start."""

    layer: str
    parameter: str
    file: str
    base: int
    words: int
    bits: int

    @property
    def parts(self) -> int:
        """Writes of 32 bits that make a word."""
        return -(-self.bits // PART_BITS)


# ---- How wide ----


def widened(graph: Graph) -> Graph:
    """The graph with the types and ranges that its values have under any constants that can be loaded.

    Any weights of the type of the build's (`folding.weight_bits`) and any biases up to the largest sum of products, or
    the build's if larger: an accumulator of one bit more than that sum. Requantizers and thresholds give all that their
    attributes allow. Raises BitfabError where an accumulator takes more than 32 bits.
    """
    values = {value.name: value for value in graph.inputs}
    nodes = []
    for node in graph:
        inputs = [values[name].signature for name in node.inputs]
        try:
            known = _under_any(node, inputs[0], infer(node.op, inputs))
        except BitfabError as error:
            raise BitfabError(f"{node.name}: to be loadable: {error}") from error
        output = replace(node.output, shape=known.shape, type=known.type, low=known.low, high=known.high)
        values[output.name] = output
        nodes.append(replace(node, output=output))
    return replace(graph, nodes=tuple(nodes))


def _under_any(node: Node, x: Signature, known: Signature) -> Signature:
    match node.op:
        case Requantize(low=low, high=high):
            return replace(known, low=low, high=high)
        case Threshold(low=low, step=step, thresholds=thresholds):
            return replace(known, low=low, high=low + step * thresholds.shape[1])
        case Conv2d() | ConvTranspose2d() | Dense():
            low, high = _any_sum(node, x)
            low, high = low + min(low, int(node.op.bias.min())), high + max(high, int(node.op.bias.max()))
            return replace(known, type=IntType.holding(low, high), low=low, high=high)
    return known


def _any_sum(node: Node, x: Signature) -> tuple[int, int]:
    """The least and the largest sum of products of an output, whatever the weights."""
    op, bits = node.op, weight_bits(node)
    assert isinstance(op, FOLDED)
    outputs = op.weight.shape[1] * op.groups if isinstance(op, ConvTranspose2d) else op.weight.shape[0]
    ends = [x.low, x.high, *([op.pad_value] if not isinstance(op, Dense) and sees_padding(op) else [])]
    factors = (-1, 1) if bits == 1 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    products = [factor * end for factor in factors for end in ends]
    count = op.weight.size // outputs
    return count * min(0, *products), count * max(0, *products)


# ---- Where each memory lies ----


def add_loading(netlist: Netlist) -> None:
    """Make every memory of LOADED writable and give it its addresses; the netlist's graph is a widened one.

    Each instance has a window of addresses, of a power of two and aligned to it, the largest first: what lies above the
    address within a memory tells which it is.
    """
    nodes = {f"u_{node.name}": node for node in netlist.graph if type(node.op) in LOADED}
    ready = {name: _widest(netlist, instance, nodes[name]) for name, instance in _instances(netlist, nodes)}
    bases, end = {}, 0
    for name in sorted(ready, key=lambda name: -_window(ready[name])):
        bases[name], end = end, end + _window(ready[name])
    bus = {
        "LoadBits": max(bits for instance in ready.values() for _, _, bits in _memories(instance)),
        "LoadAddressBits": max(1, (end - 1).bit_length()),
    }
    for place, instance in enumerate(netlist.instances):
        if instance.name in ready:
            wide = ready[instance.name]
            own = {**wide.parameters, "Loadable": 1, **bus, "LoadBase": bases[instance.name]}
            netlist.instances[place] = replace(wide, parameters=own)


def _instances(netlist: Netlist, nodes: dict[str, Node]) -> Iterator[tuple[str, Instance]]:
    yield from ((instance.name, instance) for instance in netlist.instances if instance.name in nodes)


def _widest(netlist: Netlist, instance: Instance, node: Node) -> Instance:
    """The instance with parameters, and memories, that any constants fit which can be loaded."""
    op, x = node.op, netlist.graph.values[node.inputs[0]]
    match op:
        case Requantize():
            own = dict(zip(("MultiplierBits", "MinShift", "ExtraBits"), _scale_fields(op), strict=True))
        case Threshold():
            own = {"ThresholdBits": signed_bits(x.low, x.high + 1)}
        case _:
            return instance
    wide = replace(instance, parameters={**instance.parameters, **own})
    files = {name: netlist.rom(node.name, name, text) for name, text in _contents(wide, node.name, op, x).items()}
    return replace(wide, parameters={**wide.parameters, **files})


def _scale_fields(op: Requantize) -> tuple[int, int, int]:
    """(multiplier bits, smallest shift, bits of the extra shift) with ROOM on both sides of the factors there are."""
    largest = int(op.multiplier.max())
    bits = 0 if largest == 1 else max(FACTOR_BITS, largest.bit_length())
    factors = zip(op.multiplier.tolist(), op.shift.tolist(), strict=True)
    shifts = [n + bits - m.bit_length() if bits else n for m, n in factors]
    span = max(shifts) - min(shifts)
    extra_bits = max(span.bit_length(), min(5, (span + 2 * ROOM).bit_length()))
    return bits, max(0, min(shifts) - ((1 << extra_bits) - 1 - span) // 2), extra_bits


def _window(instance: Instance) -> int:
    """Addresses of an instance: its memories side by side, each in as many as the first and largest."""
    found = _memories(instance)
    return len(found) << _address_bits(found[0][1])


def _address_bits(words: int) -> int:
    return max(1, (words - 1).bit_length())


def _memories(instance: Instance) -> list[tuple[str, int, int]]:
    """(parameter that names the file, words, bits) of each memory that can be written, in order of addresses."""
    p = _integers(instance)
    match instance.block:
        case "conv2d":
            results = p["UpHeight"] * p["UpWidth"] * p["Groups"] * p["Fold"]
            terms = p["KernelHeight"] * p["KernelWidth"] * (p["Words"] // p["Groups"])
            weights = ("WeightFile", results * terms, p["Pe"] * p["Simd"] * p["WeightBits"])
            return [weights, ("BiasFile", results, p["Pe"] * p["AccBits"])]
        case "requantize":
            return [("ScaleFile", p["Words"], p["Lanes"] * (p["MultiplierBits"] + p["ExtraBits"]))]
        case "threshold":
            return [("ThresholdFile", p["Words"], p["Lanes"] * p["Levels"] * p["ThresholdBits"])]
    raise AssertionError(instance.block)


def _integers(instance: Instance) -> dict[str, int]:
    return {name: value for name, value in instance.parameters.items() if isinstance(value, int)}


def memory_map(design: Design) -> tuple[LoadedMemory, ...]:
    """The memories that can be written, by address."""
    found = []
    for instance in design.instances:
        if instance.loadable:
            base = int(instance.parameters["LoadBase"])
            for parameter, words, bits in _memories(instance):
                file = str(instance.parameters[parameter])
                found.append(LoadedMemory(instance.layer, parameter, file, base, words, bits))
                base += 1 << _address_bits(_memories(instance)[0][1])
    return tuple(sorted(found, key=lambda memory: memory.base))


# ---- What to write ----


def load_writes(design: Design, graph: Graph) -> list[tuple[int, int]]:
    """The AXI-Lite writes, (address, data) in order, after which the design computes `graph` instead of its own.

    For a design generated with `loadable`; it must be idle: input closed (0 at 0x0c) and no frame under way (0x24 reads
    0). A word is written in parts of 32 bits to 0x28, the highest first, and stored by writing its place to 0x2c.
    Raises BitfabError, naming the layer, where the graphs differ in anything but weights, biases, requantizers' factors
    and thresholds, or where these do not fit the design. Zero points cannot be loaded: a network that is trained on and
    quantized again keeps them with `Recipe(symmetric_activations=True)`, where they are 0.
    """
    if design.load_bus is None:
        raise BitfabError(f"{design.name}: nothing can be loaded; generate it with registers and loadable")
    verify(graph)
    _check_same(design.graph, graph)
    nodes = {node.name: node for node in graph}
    contents: dict[str, str] = {}
    for instance in design.instances:
        if instance.loadable:
            own, node = design.graph.values[instance.layer], nodes[instance.layer]
            x = design.graph.values[node.inputs[0]]
            _check_fits(instance, own, node.op, x)
            for parameter, text in _contents(instance, node.name, node.op, x).items():
                contents[str(instance.parameters[parameter])] = text
    writes = []
    for memory in memory_map(design):
        for place, word in enumerate(memories.lines(contents[memory.file])):
            parts = [word >> PART_BITS * i & (1 << PART_BITS) - 1 for i in reversed(range(memory.parts))]
            writes += [(LOAD_DATA, part) for part in parts] + [(LOAD_ADDRESS, memory.base + place)]
    return writes


def _contents(instance: Instance, name: str, op: Op, x: Value) -> dict[str, str]:
    """The texts of an instance's memories for an operation, by the parameter that names the file."""
    p = _integers(instance)
    match op:
        case Requantize():
            pairs = zip(op.multiplier.tolist(), op.shift.tolist(), strict=True)
            factors = np.array([_factor(p, name, multiplier, shift) for multiplier, shift in pairs])
            widths = (p["MultiplierBits"], p["ExtraBits"])
            return {"ScaleFile": memories.scale_words(factors, widths, p["Lanes"])}
        case Threshold():
            words = memories.threshold_words(memories.thresholds(op, x), p["Lanes"])
            return {"ThresholdFile": memories.mem_file(words, p["ThresholdBits"])}
        case Conv2d() | ConvTranspose2d() | Dense():
            shape = (p["Words"] * p["Simd"], p["KernelHeight"], p["KernelWidth"])  # a dense layer's input
            weights, biases = memories.weight_words(op, shape, p["Pe"], p["Simd"], p["WeightBits"] == 1)
            return {
                "WeightFile": memories.mem_file(weights, p["WeightBits"]),
                "BiasFile": memories.mem_file(biases, p["AccBits"]),
            }
    raise AssertionError(op)


def _factor(p: dict[str, int], name: str, multiplier: int, shift: int) -> tuple[int, int]:
    """The same factor as (multiplier, extra shift) of the block: both may double, or halve while nothing is lost."""
    bits, first = p["MultiplierBits"], p["MinShift"]
    last = first + (1 << p["ExtraBits"]) - 1
    doubled = min(bits - multiplier.bit_length() if bits else 0, last - shift)
    scaled = multiplier << doubled if doubled >= 0 else multiplier >> -doubled
    lossless = doubled >= 0 or scaled << -doubled == multiplier
    if not lossless or shift + doubled < first or not (0 < scaled < 1 << bits if bits else scaled == 1):
        raise BitfabError(
            f"{name}: a factor of {multiplier} / 2**{shift} does not fit the design, which has "
            f"{bits or 1} bits and shifts of {first} to {last}; build the new graph"
        )
    return scaled, shift + doubled - first


def _check_fits(instance: Instance, own: Value, op: Op, x: Value) -> None:
    """Raise BitfabError unless weights and sums fit the widths of the block."""
    if isinstance(op, FOLDED):
        bits = int(instance.parameters["WeightBits"])
        low, high = int(op.weight.min()), int(op.weight.max())
        bipolar = bits == 1 and bool((np.abs(op.weight) == 1).all())
        if not bipolar and (bits == 1 or signed_bits(low, high) > bits):
            raise BitfabError(
                f"{own.name}: weights of {low} to {high} do not fit the design's, of {bits} bits; build the new graph"
            )
    try:
        known = infer(op, [x.signature])
    except BitfabError as error:
        raise BitfabError(f"{own.name}: {error}") from error
    if known.low < own.type.low or known.high > own.type.high:
        raise BitfabError(
            f"{own.name}: sums of {known.low} to {known.high} do not fit the design's {own.type}; use smaller biases, "
            "or build the new graph"
        )


def _check_same(design: Graph, graph: Graph) -> None:
    """Raise BitfabError where the graphs differ in what cannot be loaded."""
    own, new = _outline(design), _outline(graph)
    if own != new or design.outputs != graph.outputs:
        first = next((one[0] for one, other in zip(own, new, strict=False) if one != other), "its end")
        raise BitfabError(f"{graph.name}: another structure than the design's, from {first} on; build the new graph")
    for node, other in zip(design, graph, strict=True):
        for field in fields(node.op):
            _check_field(node, field.name, getattr(node.op, field.name), getattr(other.op, field.name))


def _outline(graph: Graph) -> list[tuple[object, ...]]:
    """Names, and what is known of each value but its constants."""
    ends: list[tuple[object, ...]] = [(value.name, value.shape, value.type) for value in graph.inputs]
    return ends + [(node.name, node.inputs, type(node.op)) for node in graph]


def _check_field(node: Node, field: str, own: object, other: object) -> None:
    loaded = field in LOADED.get(type(node.op), ())
    if loaded and np.shape(_array(own)) == np.shape(_array(other)):
        return
    if loaded or not np.array_equal(_array(own), _array(other)):
        what = f"{field} differs" if np.ndim(_array(own)) else f"{field} is {other} and not {own}"
        raise BitfabError(
            f"{node.name}: {what} from what the design was built for, and cannot be loaded; keep the activations' "
            "scales and zero points, or build the new graph"
        )


def _array(value: object) -> IntArray:
    return np.asarray(value)
