"""The operations of the integer graph: their attributes, shapes and exact value ranges.

An operation is a frozen dataclass that carries its attributes and its constant tensors. `run.py` defines what it
computes. Shapes have no batch axis: images are (C, H, W), vectors (C,). `infer` tells an operation's output shape,
type and proven range from its inputs; the range of an accumulator follows from the actual weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray, IntType, Rounding, round_shift
from bitfab.errors import BitfabError

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]  # top, left, bottom, right
Shape = tuple[int, ...]
Bounds = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Conv2d:
    """`acc[o] = bias[o] + sum w[o] * x` over the window; outside the image x is `pad_value` (the input's zero point).

    weight (O, I / groups, KH, KW), bias (O,) with the input's zero point folded in.
    """

    weight: IntArray
    bias: IntArray
    stride: Pair = (1, 1)
    padding: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pad_value: int = 0


@dataclass(frozen=True, eq=False)
class ConvTranspose2d:
    """A stride-1 convolution, kernel flipped, over x with `stride - 1` pad_values between its pixels.

    weight (I, O / groups, KH, KW), bias (O,). `padding` crops the full result (an output padding makes the bottom
    and right smaller, even negative); all that lies between or outside the pixels of x is `pad_value`.
    """

    weight: IntArray
    bias: IntArray
    stride: Pair = (1, 1)
    padding: Pads = (0, 0, 0, 0)
    groups: int = 1
    pad_value: int = 0


@dataclass(frozen=True, eq=False)
class Dense:
    """`acc = bias + weight @ x`; weight (O, I), bias (O,), x (I,)."""

    weight: IntArray
    bias: IntArray


@dataclass(frozen=True, eq=False)
class Requantize:
    """`y = clip(((x - input_zero) * multiplier >> shift, rounded) + output_zero, low, high)`.

    multiplier and shift have one entry, or one per channel; multiplier > 0, shift >= 0. `low` and `high` lie within
    `type`; a ReLU is `low = output_zero`.
    """

    multiplier: IntArray
    shift: IntArray
    type: IntType
    low: int
    high: int
    input_zero: int = 0
    output_zero: int = 0
    rounding: Rounding = Rounding.HALF_UP


@dataclass(frozen=True)
class Add:
    """The exact sum of two values of one shape."""


@dataclass(frozen=True)
class Concat:
    """The inputs one after the other along the channel axis (axis 0)."""


@dataclass(frozen=True)
class MaxPool2d:
    """The largest value of each window; what lies outside the image never wins."""

    kernel: Pair
    stride: Pair
    padding: Pads = (0, 0, 0, 0)


@dataclass(frozen=True)
class SumPool2d:
    """The exact sum of each window, outside the image `pad_value`; a requantize then divides by the window's size."""

    kernel: Pair
    stride: Pair
    padding: Pads = (0, 0, 0, 0)
    pad_value: int = 0


@dataclass(frozen=True)
class Upsample:
    """Nearest neighbour: each pixel becomes factor[0] x factor[1] pixels."""

    factor: Pair


@dataclass(frozen=True, eq=False)
class Table:
    """`y = table[x - domain.low]`: any unary function of the input's codes; table (2**domain.bits,) within `type`."""

    table: IntArray
    domain: IntType
    type: IntType


@dataclass(frozen=True)
class Reshape:
    """The same values in C order under another shape."""

    shape: Shape


@dataclass(frozen=True)
class Argmax:
    """The index of the first largest along axis 0, which becomes 1."""


Op = (
    Conv2d
    | ConvTranspose2d
    | Dense
    | Requantize
    | Add
    | Concat
    | MaxPool2d
    | SumPool2d
    | Upsample
    | Table
    | Reshape
    | Argmax
)


@dataclass(frozen=True)
class Signature:
    """What is known of a value without running the graph: shape, type and the proven range of its integers."""

    shape: Shape
    type: IntType
    low: int
    high: int


def infer(op: Op, inputs: Sequence[Signature]) -> Signature:
    """The output's signature; raises BitfabError where shapes or tensors do not fit."""
    arity = 2 if isinstance(op, Add) else 1
    if isinstance(op, Concat):
        if not inputs:
            raise BitfabError("concat: no inputs")
    elif len(inputs) != arity:
        raise BitfabError(f"{type(op).__name__}: {len(inputs)} inputs, {arity} expected")
    return _RULES[type(op)](op, inputs)


def magnitude(op: Conv2d | ConvTranspose2d | Dense, x: Signature) -> int:
    """A bound on every partial sum of the accumulation in any order: `max_o |bias| + sum |w| * max |x|`."""
    weight, largest = _by_output(op), max(abs(bound) for bound in _with_pad(op, x))
    return int((np.abs(op.bias.astype(np.int64)) + np.abs(weight).sum(axis=1) * largest).max())


def window_outputs(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """How many window positions fit along one axis."""
    return (size + before + after - kernel) // stride + 1


def macs(op: Op, output: Shape) -> int:
    """Multiplications an image takes, as the layer is usually counted (padding included)."""
    match op:
        case Conv2d():
            return int(np.prod(output)) * int(np.prod(op.weight.shape[1:]))
        case ConvTranspose2d():
            pixels = int(np.prod(output[1:])) // (op.stride[0] * op.stride[1])
            return pixels * int(op.weight.size)
        case Dense():
            return int(op.weight.size)
        case _:
            return 0


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BitfabError(message)


def _image(op: Op, x: Signature) -> tuple[int, int, int]:
    _require(len(x.shape) == 3, f"{type(op).__name__}: input of shape {x.shape}, an image (C, H, W) expected")
    return x.shape[0], x.shape[1], x.shape[2]


def _with_pad(op: Op, x: Signature) -> Bounds:
    """The input's range, the padding's value included where the operation can see it."""
    pad = getattr(op, "pad_value", None)
    seen = isinstance(op, ConvTranspose2d) or any(getattr(op, "padding", ()))
    if pad is None or not seen:
        return x.low, x.high
    return min(x.low, pad), max(x.high, pad)


def _by_output(op: Conv2d | ConvTranspose2d | Dense) -> IntArray:
    """Weights as (outputs, products per output), int64."""
    weight = op.weight.astype(np.int64)
    if isinstance(op, ConvTranspose2d):
        inputs, outputs = weight.shape[:2]
        grouped = weight.reshape(op.groups, inputs // op.groups, outputs, -1)
        return grouped.transpose(0, 2, 1, 3).reshape(op.groups * outputs, -1)
    return weight.reshape(weight.shape[0], -1)


def _accumulator(op: Conv2d | ConvTranspose2d | Dense, x: Signature, shape: Shape) -> Signature:
    """Range of the sums of products: each weight meets the end of the input's range that suits it best."""
    weight, (low, high) = _by_output(op), _with_pad(op, x)
    positive, negative = np.maximum(weight, 0).sum(axis=1), np.minimum(weight, 0).sum(axis=1)
    bias = op.bias.astype(np.int64)
    lowest = int((bias + positive * low + negative * high).min())
    highest = int((bias + positive * high + negative * low).max())
    return Signature(shape, IntType.holding(lowest, highest), lowest, highest)


def _conv2d(op: Conv2d, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    channels, height, width = _image(op, x)
    outputs, per_group, kernel_h, kernel_w = op.weight.shape
    _require(
        channels == per_group * op.groups and outputs % op.groups == 0 and op.bias.shape == (outputs,),
        f"conv2d: weight {op.weight.shape}, bias {op.bias.shape}, groups {op.groups} do not fit {channels} channels",
    )
    top, left, bottom, right = op.padding
    out_h = window_outputs(height, op.dilation[0] * (kernel_h - 1) + 1, op.stride[0], top, bottom)
    out_w = window_outputs(width, op.dilation[1] * (kernel_w - 1) + 1, op.stride[1], left, right)
    _require(out_h > 0 and out_w > 0, f"conv2d: kernel {kernel_h}x{kernel_w} larger than the image {height}x{width}")
    return _accumulator(op, x, (outputs, out_h, out_w))


def _conv_transpose2d(op: ConvTranspose2d, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    channels, height, width = _image(op, x)
    ins, per_group, kernel_h, kernel_w = op.weight.shape
    outputs = per_group * op.groups
    _require(
        channels == ins and ins % op.groups == 0 and op.bias.shape == (outputs,),
        f"conv_transpose2d: weight {op.weight.shape}, bias {op.bias.shape} do not fit {channels} channels",
    )
    top, left, bottom, right = op.padding
    out_h = (height - 1) * op.stride[0] + kernel_h - top - bottom
    out_w = (width - 1) * op.stride[1] + kernel_w - left - right
    _require(out_h > 0 and out_w > 0, f"conv_transpose2d: padding {op.padding} leaves no output")
    return _accumulator(op, x, (outputs, out_h, out_w))


def _dense(op: Dense, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    outputs, ins = op.weight.shape
    _require(
        x.shape == (ins,) and op.bias.shape == (outputs,),
        f"dense: weight {op.weight.shape}, bias {op.bias.shape} do not fit an input of shape {x.shape}",
    )
    return _accumulator(op, x, (outputs,))


def requantized(op: Requantize, x: IntArray, channel_axis_first: bool = False) -> IntArray:
    """The requantize equation on int64; multiplier and shift broadcast along x's axis 0 or 1 (behind the batch)."""
    rank = x.ndim - (0 if channel_axis_first else 1)
    multiplier = op.multiplier.astype(np.int64).reshape((-1,) + (1,) * (rank - 1))
    shift = op.shift.astype(np.int64).reshape((-1,) + (1,) * (rank - 1))
    scaled = round_shift((x.astype(np.int64) - op.input_zero) * multiplier, shift, op.rounding)
    return np.clip(scaled + op.output_zero, op.low, op.high)


def _requantize(op: Requantize, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    _require(
        op.multiplier.shape == op.shift.shape and op.multiplier.shape in ((1,), (x.shape[0],)),
        f"requantize: multiplier {op.multiplier.shape} and shift {op.shift.shape} do not fit {x.shape[0]} channels",
    )
    _require(
        bool((op.multiplier > 0).all() and (op.shift >= 0).all() and (op.shift <= 62).all()),
        "requantize: multipliers must be positive and shifts 0 to 62",
    )
    _require(op.type.low <= op.low <= op.high <= op.type.high, f"requantize: [{op.low}, {op.high}] not in {op.type}")
    span = max(abs(x.low - op.input_zero), abs(x.high - op.input_zero), 1)
    _require(span * int(op.multiplier.max()) < 1 << 62, "requantize: product beyond 62 bits; use a smaller multiplier")
    ends = requantized(op, np.asarray([[x.low, x.high]] * len(op.multiplier)), channel_axis_first=True)
    return Signature(x.shape, op.type, int(ends.min()), int(ends.max()))


def _add(op: Add, inputs: Sequence[Signature]) -> Signature:
    a, b = inputs
    _require(a.shape == b.shape, f"add: shapes {a.shape} and {b.shape} differ")
    low, high = a.low + b.low, a.high + b.high
    return Signature(a.shape, IntType.holding(low, high), low, high)


def _concat(op: Concat, inputs: Sequence[Signature]) -> Signature:
    first = inputs[0]
    for x in inputs[1:]:
        _require(
            x.type == first.type and x.shape[1:] == first.shape[1:],
            f"concat: {x.type} {x.shape} does not fit {first.type} {first.shape}",
        )
    shape = (sum(x.shape[0] for x in inputs), *first.shape[1:])
    return Signature(shape, first.type, min(x.low for x in inputs), max(x.high for x in inputs))


def _pooled(op: MaxPool2d | SumPool2d, x: Signature) -> Shape:
    channels, height, width = _image(op, x)
    top, left, bottom, right = op.padding
    out_h = window_outputs(height, op.kernel[0], op.stride[0], top, bottom)
    out_w = window_outputs(width, op.kernel[1], op.stride[1], left, right)
    _require(out_h > 0 and out_w > 0, f"pool: kernel {op.kernel} larger than the image {height}x{width}")
    fits = max(top, bottom) < op.kernel[0] and max(left, right) < op.kernel[1]
    _require(fits, f"pool: padding {op.padding} must be smaller than the kernel {op.kernel}")
    return (channels, out_h, out_w)


def _max_pool2d(op: MaxPool2d, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    return Signature(_pooled(op, x), x.type, x.low, x.high)


def _sum_pool2d(op: SumPool2d, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    count = op.kernel[0] * op.kernel[1]
    low, high = (bound * count for bound in _with_pad(op, x))
    return Signature(_pooled(op, x), IntType.holding(low, high), low, high)


def _upsample(op: Upsample, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    channels, height, width = _image(op, x)
    return Signature((channels, height * op.factor[0], width * op.factor[1]), x.type, x.low, x.high)


def _table(op: Table, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    _require(
        x.type == op.domain and op.table.shape == (1 << x.type.bits,),
        f"table: {op.table.shape[0]} entries for {op.domain}, {1 << x.type.bits} for {x.type} expected",
    )
    reached = op.table[x.low - x.type.low : x.high - x.type.low + 1]
    low, high = int(reached.min()), int(reached.max())
    _require(op.type.low <= low and high <= op.type.high, f"table: entries [{low}, {high}] do not fit {op.type}")
    return Signature(x.shape, op.type, low, high)


def _reshape(op: Reshape, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    _require(np.prod(op.shape) == np.prod(x.shape), f"reshape: {x.shape} to {op.shape} changes the number of values")
    return Signature(op.shape, x.type, x.low, x.high)


def _argmax(op: Argmax, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    high = x.shape[0] - 1
    return Signature((1, *x.shape[1:]), IntType.holding(0, high), 0, high)


_RULES: dict[type, Callable[[Any, Sequence[Signature]], Signature]] = {
    Conv2d: _conv2d,
    ConvTranspose2d: _conv_transpose2d,
    Dense: _dense,
    Requantize: _requantize,
    Add: _add,
    Concat: _concat,
    MaxPool2d: _max_pool2d,
    SumPool2d: _sum_pool2d,
    Upsample: _upsample,
    Table: _table,
    Reshape: _reshape,
    Argmax: _argmax,
}
