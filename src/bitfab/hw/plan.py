"""From graph nodes to streaming engines: window geometry, lanes, folding and cycles, before any HDL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.hw import folding as fold
from bitfab.hw.design import Folding, Shape3
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import (
    Add,
    Argmax,
    Bits,
    Compare,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Lut,
    MaxPool2d,
    Pair,
    Popcount,
    Requantize,
    Reshape,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    Transpose,
    Upsample,
)

# A stage that is not the slowest must not slow it down: it gets lanes for this share of the slowest one's cycles.
HEADROOM = 0.8
MAX_LEVELS = 15  # thresholds a channel, compared all at once


@dataclass(frozen=True)
class Window:
    """A sliding window over an image held in cyclic line buffers (see rtl/window/README.md).

    `origin` is the first tap's row and column for output pixel (0, 0). With `up` = s the window moves one pixel every
    s output pixels, starting in `phase`: the phases of a transposed convolution, or nearest upsampling.
    Each output pixel reads, for each of `groups` x `fold`, kernel[0] x kernel[1] x `words` input words.
    """

    kernel: Pair
    stride: Pair
    up: Pair
    phase: Pair
    origin: Pair
    out: Pair
    groups: int
    fold: int
    words: int
    rows: int
    pad_value: int

    @property
    def terms(self) -> int:
        """Words that one result is made of."""
        return self.kernel[0] * self.kernel[1] * self.words

    @property
    def reads(self) -> int:
        """Words read for each output pixel: also the cycles it takes."""
        return self.groups * self.fold * self.terms


@dataclass(frozen=True)
class Engine:
    """A node in hardware: the values as it reads them, the shapes (C, H, W) of its streams, lanes in and out, and the
    cycles it is busy an image."""

    node: Node
    values: tuple[Value, ...]
    inputs: tuple[Shape3, ...]
    output: Shape3
    lanes_in: int
    lanes_out: int
    cycles: int
    window: Window | None = None
    folding: Folding | None = None


def plan(graph: Graph, parallelism: int, fixed: Mapping[str, Folding]) -> tuple[dict[str, Engine], dict[str, Shape3]]:
    """An engine for each node that computes, and each value's stream shape.

    Raises BitfabError for what the hardware cannot do, naming the node.
    """
    shapes = stream_shapes(graph)
    folding = fold.choose(graph, {node.name: _input(node, shapes)[0] for node in graph}, parallelism, fixed)
    slowest = max((fold.cycles(node, folding[node.name]) for node in graph if node.name in folding), default=0)
    budget = max(slowest, *(_words(shapes[value.name]) // shapes[value.name][0] for value in graph.inputs))
    engines: dict[str, Engine] = {}
    for node in graph:
        if not isinstance(node.op, Reshape):
            engines[node.name] = engine_of(node, graph, shapes, folding.get(node.name), budget)
    return engines, shapes


def stream_shapes(graph: Graph) -> dict[str, Shape3]:
    """Each value's (C, H, W) as it flows: a flatten changes no stream, it only renames it."""
    shapes = {value.name: _as_image(value) for value in graph.inputs}
    for node in graph:
        first = shapes[node.inputs[0]]
        flattened = len(graph.values[node.inputs[0]].shape) == 1 and first[1] * first[2] > 1
        match node.op:
            case Reshape(shape=(_,)):
                shapes[node.name] = first
            case Reshape(shape=(c, 1, 1)) if first == (c, 1, 1):
                shapes[node.name] = first
            case Compare() | Bits() | Lut() | Popcount():
                raise BitfabError(
                    f"{node.name}: operations on single bits have no streaming hardware; choose the style parallel"
                )
            case Transpose() | Slice() | Concat() if not isinstance(node.op, Concat) or node.op.axis:
                raise BitfabError(
                    f"{node.name}: {type(node.op).__name__.lower()} of the axes of an image has no streaming hardware "
                    "(only a concat of channels has); take it out of the network, or choose the style parallel"
                )
            case Requantize(multiplier=multiplier) if flattened and len(multiplier) > 1:
                raise BitfabError(
                    f"{node.name}: has no hardware behind a flatten with a scale for each value; use one scale"
                )
            case Threshold(thresholds=thresholds) if flattened and len(thresholds) > 1:
                raise BitfabError(
                    f"{node.name}: has no hardware behind a flatten with thresholds for each value; put it before"
                )
            case Threshold(thresholds=thresholds) if thresholds.shape[1] > MAX_LEVELS:
                raise BitfabError(
                    f"{node.name}: {thresholds.shape[1]} thresholds, but the hardware has up to {MAX_LEVELS}; "
                    "use 4 bits or fewer, or a requantize"
                )
            case Requantize() | Threshold() | Table():
                shapes[node.name] = first
            case Reshape() | Add() | Concat() | Argmax() if flattened or isinstance(node.op, Reshape):
                raise BitfabError(
                    f"{node.name}: in hardware an image is flattened only before a dense layer; reorder them"
                )
            case _:
                shapes[node.name] = _as_image(node.output)
    return shapes


def lanes_for(shape: Shape3, budget: int) -> int:
    """The fewest lanes that stream the shape within HEADROOM of the budget's cycles."""
    words = _words(shape)
    return next((d for d in fold.divisors(shape[0]) if words // d <= HEADROOM * budget), shape[0])


def _as_image(value: Value) -> Shape3:
    match value.shape:
        case (c,):
            return (c, 1, 1)
        case (c, h, w):
            return (c, h, w)
    raise BitfabError(f"{value.name}: shape {value.shape} has no stream; images (C, H, W) and vectors (C,) have")


def _words(shape: Shape3) -> int:
    return shape[0] * shape[1] * shape[2]


def _input(node: Node, shapes: Mapping[str, Shape3]) -> Shape3:
    return shapes[node.inputs[0]]


def engine_of(node: Node, graph: Graph, shapes: Mapping[str, Shape3], folding: Folding | None, budget: int) -> Engine:
    """The engine of one node: folded as told, else with as many lanes as it needs to stream within the budget."""
    inputs, output = tuple(shapes[name] for name in node.inputs), shapes[node.name]
    values = tuple(_as_read(node, graph.values[name]) for name in node.inputs)
    if folding is not None:
        window = _multiplying_window(node, inputs[0], output, folding)
        cycles = window.reads * output[1] * output[2]
        return Engine(node, values, inputs, output, folding.simd, folding.pe, cycles, window, folding)
    match node.op:
        case MaxPool2d() | SumPool2d() | Upsample():
            lanes = _pool_lanes(node.op, output, budget)
            window = _pool_window(node, inputs[0], output, lanes, values[0])
            return Engine(node, values, inputs, output, lanes, lanes, window.reads * output[1] * output[2], window)
        case Add() | Concat():
            common = next(d for d in reversed(fold.divisors(lanes_for(output, budget))) if _divides_all(d, inputs))
            return Engine(node, values, inputs, output, common, common, _words(output) // common)
        case Argmax():
            return Engine(node, values, inputs, output, 1, 1, _words(inputs[0]))
        case _:
            lanes = lanes_for(output, budget)
            return Engine(node, values, inputs, output, lanes, lanes, _words(output) // lanes)


def _as_read(node: Node, value: Value) -> Value:
    """A bipolar value as the node's block takes it: its bit, where it only moves or compares, else two bits, signed."""
    if not value.type.bipolar:
        return value
    keeps = isinstance(node.op, MaxPool2d | Upsample | Concat | Argmax)
    return replace(value, type=IntType(1, signed=False) if keeps else IntType(2, signed=True))


def _divides_all(lanes: int, shapes: tuple[Shape3, ...]) -> bool:
    return all(shape[0] % lanes == 0 for shape in shapes)


def _pool_lanes(op: MaxPool2d | SumPool2d | Upsample, output: Shape3, budget: int) -> int:
    taps = 1 if isinstance(op, Upsample) else op.kernel[0] * op.kernel[1]
    return next((d for d in fold.divisors(output[0]) if _words(output) * taps // d <= HEADROOM * budget), output[0])


def _multiplying_window(node: Node, shape: Shape3, output: Shape3, folding: Folding) -> Window:
    op, out = node.op, output[1:]
    match op:
        case Conv2d():
            if op.dilation != (1, 1):
                raise BitfabError(f"{node.name}: dilation {op.dilation} has no hardware yet; use dilation 1")
            kernel, stride, groups = (op.weight.shape[2], op.weight.shape[3]), op.stride, op.groups
            up, phase, origin, pad = (1, 1), (0, 0), (-op.padding[0], -op.padding[1]), op.pad_value
            outputs = op.weight.shape[0]
        case ConvTranspose2d():
            sizes = op.weight.shape[2:]
            kernel = (-(-sizes[0] // op.stride[0]), -(-sizes[1] // op.stride[1]))
            stride, groups, up, pad = (1, 1), op.groups, op.stride, op.pad_value
            phase = (op.padding[0] % op.stride[0], op.padding[1] % op.stride[1])
            origin = (op.padding[0] // up[0] - kernel[0] + 1, op.padding[1] // up[1] - kernel[1] + 1)
            outputs = op.weight.shape[1] * groups
        case Dense():
            kernel, stride, groups, up, phase, origin, pad = (shape[1], shape[2]), (1, 1), 1, (1, 1), (0, 0), (0, 0), 0
            outputs = op.weight.shape[0]
        case _:
            raise AssertionError(op)
    words = shape[0] // groups // folding.simd
    fold_count = outputs // groups // folding.pe
    return Window(kernel, stride, up, phase, origin, out, groups, fold_count, words, _rows(kernel, stride, out), pad)


def _pool_window(node: Node, shape: Shape3, output: Shape3, lanes: int, value: Value) -> Window:
    op, out, groups = node.op, output[1:], shape[0] // lanes
    match op:
        case MaxPool2d():
            pad, origin = value.type.low, (-op.padding[0], -op.padding[1])
            return Window(
                op.kernel, op.stride, (1, 1), (0, 0), origin, out, groups, 1, 1, _rows(op.kernel, op.stride, out), pad
            )
        case SumPool2d():
            pad, origin = op.pad_value, (-op.padding[0], -op.padding[1])
            return Window(
                op.kernel, op.stride, (1, 1), (0, 0), origin, out, groups, 1, 1, _rows(op.kernel, op.stride, out), pad
            )
        case Upsample():
            return Window((1, 1), (1, 1), op.factor, (0, 0), (0, 0), out, 1, 1, groups, 2, 0)
    raise AssertionError(op)


def _rows(kernel: Pair, stride: Pair, out: Pair) -> int:
    """Line-buffer rows: the window's own and as many as it moves on by, so that filling and reading overlap.

    A window that is used once an image (dense layers, global pools) needs room for the next image's.
    """
    return kernel[0] + (kernel[0] if out[0] == 1 else min(stride[0], kernel[0]))
