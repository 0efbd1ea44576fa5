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
    Bits,
    Compare,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Lut,
    MaxPool2d,
    Multiply,
    Pair,
    Popcount,
    Requantize,
    Reshape,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    TopK,
    Transpose,
    Upsample,
)
from bitfab.parts import Operands

# A stage that is not the slowest must not slow it down: it gets lanes for this share of the slowest one's cycles.
HEADROOM = 0.8
MAX_LEVELS = 15  # thresholds a channel, compared all at once
JOINS = (Add, Multiply, Concat)  # operations that join streams


@dataclass(frozen=True)
class Window:
    """A sliding window over an image held in cyclic line buffers (see rtl/window/README.md).

    `origin` is the first tap's row and column for output pixel (0, 0). With `up` = s the window moves one pixel every
    s output pixels, starting in `phase`: the phases of a transposed convolution, or nearest upsampling.
    From one tap to the next it is `dilation` rows and columns. Each output pixel reads, for each of `groups` x `fold`,
    kernel[0] x kernel[1] x `words` input words.
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
    dilation: Pair = (1, 1)

    @property
    def reach(self) -> Pair:
        """Rows and columns from the first tap to the last, both counted."""
        return _reach(self.kernel, self.dilation)

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


def plan(
    graph: Graph, parallelism: int, fixed: Mapping[str, Folding], operands: Operands = fold.OPERANDS
) -> tuple[dict[str, Engine], dict[str, Shape3]]:
    """An engine for each node that computes, and each value's stream shape; `operands`: what a DSP takes.

    Raises BitfabError for what the hardware cannot do, naming the node.
    """
    shapes = stream_shapes(graph)
    channels = {node.name: _input(node, shapes)[0] for node in graph}
    folding = fold.choose(graph, channels, parallelism, fixed, operands)
    slowest = max(
        (fold.cycles(node, folding[node.name]) for node in graph if isinstance(node.op, fold.FOLDED)), default=0
    )
    budget = max(slowest, pixel_cycles(graph, shapes))
    engines: dict[str, Engine] = {}
    for node in graph:
        if not isinstance(node.op, Reshape):
            engines[node.name] = engine_of(node, graph, shapes, folding.get(node.name), budget, operands)
    return engines, shapes


def pixel_cycles(graph: Graph, shapes: Mapping[str, Shape3]) -> int:
    """The least cycles an image: a pixel of the input each."""
    return max(_words(shapes[value.name]) // shapes[value.name][0] for value in graph.inputs)


def stream_shapes(graph: Graph) -> dict[str, Shape3]:
    """Each value's (C, H, W) as it flows: a flatten changes no stream, it only renames it."""
    shapes = {value.name: _as_image(value) for value in graph.inputs}
    for node in graph:
        first = shapes[node.inputs[0]]
        flattened = any(len(graph.values[x].shape) == 1 and shapes[x][1] * shapes[x][2] > 1 for x in node.inputs)
        match node.op:
            case Reshape(shape=(_,)):
                shapes[node.name] = first
            case Reshape() if len(node.output.shape) in (2, 3) and _as_image(node.output) == first:
                shapes[node.name] = first
            case Slice() | Concat() if node.op.axis and len(node.output.shape) == 2:
                raise BitfabError(
                    f"{node.name}: a {type(node.op).__name__.lower()} of signals (C, L) along their length has no "
                    "hardware; make them images of one row (C, 1, L) before"
                )
            case Compare() | Bits() | Lut() | Popcount():
                raise BitfabError(
                    f"{node.name}: operations on single bits have no streaming hardware; choose the style parallel"
                )
            case Transpose():
                raise BitfabError(
                    f"{node.name}: a transposition of an image's axes has no streaming hardware; take it out of the "
                    "network, or choose the style parallel"
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
            case op if isinstance(op, Reshape) or (flattened and isinstance(op, (*JOINS, Slice, TopK))):
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
        case (c, length):
            return (c, 1, length)
        case (c, h, w):
            return (c, h, w)
    raise BitfabError(
        f"{value.name}: shape {value.shape} has no stream; images (C, H, W), signals (C, L) and vectors (C,) have"
    )


def _words(shape: Shape3) -> int:
    return shape[0] * shape[1] * shape[2]


def _input(node: Node, shapes: Mapping[str, Shape3]) -> Shape3:
    return shapes[node.inputs[0]]


def engine_of(
    node: Node,
    graph: Graph,
    shapes: Mapping[str, Shape3],
    folding: Folding | None,
    budget: int,
    operands: Operands = fold.OPERANDS,
) -> Engine:
    """The engine of one node: folded as told, else with as many lanes as it needs to stream within the budget."""
    inputs, output = tuple(shapes[name] for name in node.inputs), shapes[node.name]
    values = tuple(_as_read(node, graph.values[name]) for name in node.inputs)
    if isinstance(node.op, fold.LANED):
        folding = folding or Folding(lanes_for(output, budget), 1)
        folding = fold.laned(node, values, folding, output[0], operands)
        return Engine(node, values, inputs, output, folding.pe, folding.pe, _words(output) // folding.pe, None, folding)
    if folding is not None:
        folding = fold.styled(node, graph.values[node.inputs[0]].type, folding, operands)
        window = _fitting(node, inputs[0], _multiplying_window(node, inputs[0], output, folding))
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
        case Slice():
            lanes = _slice_lanes(node.op, inputs[0], budget)
            return Engine(node, values, inputs, output, lanes, lanes, _words(inputs[0]) // lanes)
        case TopK():
            return Engine(node, values, inputs, output, 1, 1, _words(inputs[0]))
        case _:
            lanes = lanes_for(output, budget)
            return Engine(node, values, inputs, output, lanes, lanes, _words(output) // lanes)


def _as_read(node: Node, value: Value) -> Value:
    """A bipolar value as the node's block takes it: itself, to multiply; its bit, to move or compare; else two bits."""
    if not value.type.bipolar:
        return value
    if isinstance(node.op, fold.FOLDED):
        return value
    keeps = isinstance(node.op, MaxPool2d | Upsample | Concat | Slice | TopK)
    return replace(value, type=IntType(1, signed=False) if keeps else IntType(2, signed=True))


def inner_words(shape: Shape3, axis: int, lanes: int) -> int:
    """Words of a stream that share a place along an axis, one after another: channels lie in columns, those in rows."""
    words = shape[0] // lanes
    return (1, words * shape[2], words)[axis]


def turn_words(shape: Shape3, axis: int, lanes: int) -> int:
    """Words that a stream gives in its turn, where streams are joined along an axis."""
    return inner_words(shape, axis, lanes) * (shape[axis] if axis else shape[0] // lanes)


def _slice_lanes(op: Slice, shape: Shape3, budget: int) -> int:
    """The fewest lanes within the budget whose words a slice of channels keeps or drops whole."""
    first, kept = (op.start, op.stop - op.start) if op.axis == 0 else (0, shape[0])
    legal = [d for d in fold.divisors(shape[0]) if d == 1 or (first % d == kept % d == 0 and (op.axis or op.step == 1))]
    return next((d for d in legal if _words(shape) // d <= HEADROOM * budget), legal[-1])


def _divides_all(lanes: int, shapes: tuple[Shape3, ...]) -> bool:
    return all(shape[0] % lanes == 0 for shape in shapes)


def _pool_lanes(op: MaxPool2d | SumPool2d | Upsample, output: Shape3, budget: int) -> int:
    taps = 1 if isinstance(op, Upsample) else op.kernel[0] * op.kernel[1]
    return next((d for d in fold.divisors(output[0]) if _words(output) * taps // d <= HEADROOM * budget), output[0])


def _multiplying_window(node: Node, shape: Shape3, output: Shape3, folding: Folding) -> Window:
    op, out, dilation = node.op, output[1:], (1, 1)
    match op:
        case Conv2d():
            dilation = op.dilation
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
    rows = _rows(_reach(kernel, dilation), stride, shape[1], (phase[0] + out[0] - 1) // up[0] + 1)
    return Window(kernel, stride, up, phase, origin, out, groups, fold_count, words, rows, pad, dilation)


def _fitting(node: Node, shape: Shape3, window: Window) -> Window:
    """The window itself, if no window lies wholly above or below the image, and not all lie beside it."""
    walk = zip(window.origin, window.stride, window.phase, window.out, window.up, strict=True)
    last = [first + stride * ((phase + count - 1) // up) for first, stride, phase, count, up in walk]
    beyond = last[0] > shape[1] or -window.origin[0] > window.reach[0]
    if beyond or window.origin[1] >= shape[2] or last[1] + window.reach[1] <= 0:
        raise BitfabError(f"{node.name}: padding beyond the kernel's size has no hardware; pad less")
    return window


def _pool_window(node: Node, shape: Shape3, output: Shape3, lanes: int, value: Value) -> Window:
    op, out, groups = node.op, output[1:], shape[0] // lanes
    match op:
        case MaxPool2d():
            pad, origin = value.type.low, (-op.padding[0], -op.padding[1])
            rows = _rows(op.kernel, op.stride, shape[1], out[0])
            return Window(op.kernel, op.stride, (1, 1), (0, 0), origin, out, groups, 1, 1, rows, pad)
        case SumPool2d():
            pad, origin = op.pad_value, (-op.padding[0], -op.padding[1])
            rows = _rows(op.kernel, op.stride, shape[1], out[0])
            return Window(op.kernel, op.stride, (1, 1), (0, 0), origin, out, groups, 1, 1, rows, pad)
        case Upsample():
            return Window((1, 1), (1, 1), op.factor, (0, 0), (0, 0), out, 1, 1, groups, 2, 0)
    raise AssertionError(op)


def _reach(kernel: Pair, dilation: Pair) -> Pair:
    return ((kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1)


def _rows(reach: Pair, stride: Pair, height: int, tops: int) -> int:
    """Line-buffer rows for a window that stands at so many tops: no image waits for the one before.

    Beside the window's own rows, those that it moves on by; and when it stands on an image's last rows, room for the
    next image's first ones, as many as it needs to begin.
    """
    return reach[0] + max(height - (tops - 1) * stride[0], min(stride[0], reach[0]))
