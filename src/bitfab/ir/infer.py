"""Shape, type and exact range of an operation's output, inferred from its inputs and its actual constants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError, require
from bitfab.ir.ops import (
    MAX_FAN_IN,
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
    Op,
    Popcount,
    Requantize,
    Reshape,
    Shape,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    TopK,
    Transpose,
    Upsample,
    requantized,
    thresholded,
)

Bounds = tuple[int, int]


@dataclass(frozen=True)
class Signature:
    """What is known of a value without running the graph: shape, type and the proven range of its integers."""

    shape: Shape
    type: IntType
    low: int
    high: int


def infer(op: Op, inputs: Sequence[Signature]) -> Signature:
    """The output's signature; raises BitfabError where shapes or tensors do not fit."""
    arity = 2 if isinstance(op, Add | Multiply) else 1
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


def sees_padding(op: Op) -> bool:
    """Whether some window holds something that is no pixel of the input."""
    return isinstance(op, ConvTranspose2d) or any(getattr(op, "padding", ()))


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


def _image(op: Op, x: Signature) -> tuple[int, int, int]:
    require(len(x.shape) == 3, f"{type(op).__name__}: input of shape {x.shape}, an image (C, H, W) expected")
    return x.shape[0], x.shape[1], x.shape[2]


def _with_pad(op: Op, x: Signature) -> Bounds:
    """The input's range, the padding's value included where the operation can see it."""
    pad = getattr(op, "pad_value", None)
    if pad is None or not sees_padding(op):
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
    require(
        channels == per_group * op.groups and outputs % op.groups == 0 and op.bias.shape == (outputs,),
        f"conv2d: weight {op.weight.shape}, bias {op.bias.shape}, groups {op.groups} do not fit {channels} channels",
    )
    top, left, bottom, right = op.padding
    out_h = window_outputs(height, op.dilation[0] * (kernel_h - 1) + 1, op.stride[0], top, bottom)
    out_w = window_outputs(width, op.dilation[1] * (kernel_w - 1) + 1, op.stride[1], left, right)
    require(out_h > 0 and out_w > 0, f"conv2d: kernel {kernel_h}x{kernel_w} larger than the image {height}x{width}")
    return _accumulator(op, x, (outputs, out_h, out_w))


def _conv_transpose2d(op: ConvTranspose2d, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    channels, height, width = _image(op, x)
    ins, per_group, kernel_h, kernel_w = op.weight.shape
    outputs = per_group * op.groups
    require(
        channels == ins and ins % op.groups == 0 and op.bias.shape == (outputs,),
        f"conv_transpose2d: weight {op.weight.shape}, bias {op.bias.shape} do not fit {channels} channels",
    )
    top, left, bottom, right = op.padding
    out_h = (height - 1) * op.stride[0] + kernel_h - top - bottom
    out_w = (width - 1) * op.stride[1] + kernel_w - left - right
    require(out_h > 0 and out_w > 0, f"conv_transpose2d: padding {op.padding} leaves no output")
    return _accumulator(op, x, (outputs, out_h, out_w))


def _dense(op: Dense, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    outputs, ins = op.weight.shape
    require(
        x.shape == (ins,) and op.bias.shape == (outputs,),
        f"dense: weight {op.weight.shape}, bias {op.bias.shape} do not fit an input of shape {x.shape}",
    )
    return _accumulator(op, x, (outputs,))


def _requantize(op: Requantize, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    require(
        op.multiplier.shape == op.shift.shape and op.multiplier.shape in ((1,), (x.shape[0],)),
        f"requantize: multiplier {op.multiplier.shape} and shift {op.shift.shape} do not fit {x.shape[0]} channels",
    )
    require(
        bool((op.multiplier > 0).all() and (op.shift >= 0).all() and (op.shift <= 62).all()),
        "requantize: multipliers must be positive and shifts 0 to 62",
    )
    require(int(op.multiplier.max()) < 1 << 31, "requantize: multipliers have at most 31 bits; use fewer")
    _int32("requantize", {"input zero": op.input_zero, "output zero": op.output_zero, "high": op.high})
    require(not op.type.bipolar, "requantize: bipolar values are -1 and +1 only; use a threshold")
    require(op.type.low <= op.low <= op.high <= op.type.high, f"requantize: [{op.low}, {op.high}] not in {op.type}")
    span = max(abs(x.low - op.input_zero), abs(x.high - op.input_zero), 1)
    require(span * int(op.multiplier.max()) < 1 << 62, "requantize: product beyond 62 bits; use a smaller multiplier")
    ends = requantized(op, np.asarray([[x.low, x.high]] * len(op.multiplier)), channel_axis_first=True)
    return Signature(x.shape, op.type, int(ends.min()), int(ends.max()))


def _int32(name: str, numbers: dict[str, int]) -> None:
    """Numbers that the hardware has as parameters: integers of 32 bits, signed."""
    for what, number in numbers.items():
        require(-(1 << 31) <= number < 1 << 31, f"{name}: {what} {number} does not fit 32 bits signed; use less")


def _threshold(op: Threshold, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    rows, levels = op.thresholds.shape
    require(rows in (1, x.shape[0]), f"threshold: {rows} rows of thresholds do not fit {x.shape[0]} channels")
    require(
        bool((np.diff(op.thresholds.astype(np.int64)) >= 0).all()),
        "threshold: the thresholds of each channel must ascend",
    )
    require(
        op.type.low <= op.low and op.low + op.step * levels <= op.type.high,
        f"threshold: {op.low} and {levels} steps of {op.step} do not fit {op.type}"
        + (", which takes low -1 and one threshold" if op.type.bipolar else ""),
    )
    ends = thresholded(op, np.asarray([[x.low, x.high]] * rows), channel_axis_first=True)
    return Signature(x.shape, op.type, int(ends.min()), int(ends.max()))


def _add(op: Add, inputs: Sequence[Signature]) -> Signature:
    a, b = inputs
    require(a.shape == b.shape, f"add: shapes {a.shape} and {b.shape} differ")
    low, high = a.low + b.low, a.high + b.high
    return Signature(a.shape, IntType.holding(low, high), low, high)


def _multiply(op: Multiply, inputs: Sequence[Signature]) -> Signature:
    a, b = inputs
    _int32("multiply", {"first zero": op.first_zero, "second zero": op.second_zero})
    each = len(a.shape) == 3 and b.shape == (a.shape[0], 1, 1)
    require(a.shape == b.shape or each, f"multiply: shape {b.shape} fits neither {a.shape} nor its channels")
    ends = [(x - op.first_zero) * (y - op.second_zero) for x, y in itertools.product((a.low, a.high), (b.low, b.high))]
    return Signature(a.shape, IntType.holding(min(ends), max(ends)), min(ends), max(ends))


def _concat(op: Concat, inputs: Sequence[Signature]) -> Signature:
    first = inputs[0]
    before, behind = _around(op, first)
    for x in inputs[1:]:
        require(
            x.type == first.type and len(x.shape) == len(first.shape) and _around(op, x) == (before, behind),
            f"concat: {x.type} {x.shape} does not fit {first.type} {first.shape} along axis {op.axis}",
        )
    shape = (*before, sum(x.shape[op.axis] for x in inputs), *behind)
    return Signature(shape, first.type, min(x.low for x in inputs), max(x.high for x in inputs))


def _pooled(op: MaxPool2d | SumPool2d, x: Signature) -> Shape:
    channels, height, width = _image(op, x)
    top, left, bottom, right = op.padding
    out_h = window_outputs(height, op.kernel[0], op.stride[0], top, bottom)
    out_w = window_outputs(width, op.kernel[1], op.stride[1], left, right)
    require(out_h > 0 and out_w > 0, f"pool: kernel {op.kernel} larger than the image {height}x{width}")
    fits = max(top, bottom) < op.kernel[0] and max(left, right) < op.kernel[1]
    require(fits, f"pool: padding {op.padding} must be smaller than the kernel {op.kernel}")
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
    require(not x.type.bipolar and not op.type.bipolar, "table: no bipolar values in or out; use a threshold")
    require(
        x.type == op.domain and op.table.shape == (1 << x.type.bits,),
        f"table: {op.table.shape[0]} entries for {op.domain}, {1 << x.type.bits} for {x.type} expected",
    )
    reached = op.table[x.low - x.type.low : x.high - x.type.low + 1]
    low, high = int(reached.min()), int(reached.max())
    require(op.type.low <= low and high <= op.type.high, f"table: entries [{low}, {high}] do not fit {op.type}")
    return Signature(x.shape, op.type, low, high)


def _vector(op: Op, x: Signature) -> int:
    require(len(x.shape) == 1, f"{type(op).__name__}: input of shape {x.shape}, a vector (C,) expected")
    return x.shape[0]


def _entries(op: Op, what: str, entries: IntArray, below: int) -> None:
    low, high = int(entries.min()), int(entries.max())
    require(low >= 0 and high < below, f"{type(op).__name__}: {what} [{low}, {high}] not within 0 to {below - 1}")


def _bit_vector(shape: Shape) -> Signature:
    return Signature(shape, IntType(1, signed=False), 0, 1)


def _compare(op: Compare, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    _entries(op, "channels", op.channel, _vector(op, x))
    require(op.channel.shape == op.threshold.shape, "compare: one threshold for each channel entry expected")
    return _bit_vector(op.channel.shape)


def _bits(op: Bits, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    _entries(op, "channels", op.channel, _vector(op, x))
    require(op.channel.shape == op.place.shape, "bits: one place for each channel entry expected")
    require(not x.type.bipolar, "bits: a bipolar value is one bit already; use a threshold")
    _entries(op, "places", op.place, x.type.bits)
    return _bit_vector(op.channel.shape)


def _lut(op: Lut, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    require(x.type == IntType(1, signed=False), f"lut: input of type {x.type}, single unsigned bits expected")
    _entries(op, "wiring", op.wiring, _vector(op, x))
    count, fan_in = op.wiring.shape
    require(fan_in <= MAX_FAN_IN, f"lut: {fan_in} inputs a table, at most {MAX_FAN_IN} are supported")
    require(
        op.table.shape == (count, 1 << fan_in),
        f"lut: tables of shape {op.table.shape} do not fit {count} wirings of {fan_in} inputs",
    )
    _entries(op, "table entries", op.table, 2)
    return _bit_vector((count,))


def _popcount(op: Popcount, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    require(x.type == IntType(1, signed=False), f"popcount: input of type {x.type}, single unsigned bits expected")
    _entries(op, "wiring", op.wiring, _vector(op, x))
    groups, size = op.wiring.shape
    return Signature((groups,), IntType.holding(0, size), 0, size)


def _reshape(op: Reshape, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    require(np.prod(op.shape) == np.prod(x.shape), f"reshape: {x.shape} to {op.shape} changes the number of values")
    return Signature(op.shape, x.type, x.low, x.high)


def _around(op: Concat | Slice, x: Signature) -> tuple[Shape, Shape]:
    """The sizes of the axes before and behind the operation's own."""
    rank, name = len(x.shape), type(op).__name__.lower()
    require(0 <= op.axis < rank, f"{name}: axis {op.axis} of shape {x.shape}; one of 0 to {rank - 1} expected")
    return x.shape[: op.axis], x.shape[op.axis + 1 :]


def _transpose(op: Transpose, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    axes = list(range(len(x.shape)))
    require(sorted(op.axes) == axes, f"transpose: axes {op.axes} of shape {x.shape}; each of {axes} once expected")
    return Signature(tuple(x.shape[axis] for axis in op.axes), x.type, x.low, x.high)


def _slice(op: Slice, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    before, behind = _around(op, x)
    require(
        0 <= op.start < op.stop <= x.shape[op.axis] and op.step >= 1,
        f"slice: {op.start}:{op.stop}:{op.step} along axis {op.axis} of shape {x.shape}; it must lie within the axis",
    )
    return Signature((*before, len(range(op.start, op.stop, op.step)), *behind), x.type, x.low, x.high)


def _top_k(op: TopK, inputs: Sequence[Signature]) -> Signature:
    (x,) = inputs
    require(1 <= op.k <= x.shape[0], f"top_k: the {op.k} largest of {x.shape[0]}; 1 to {x.shape[0]} expected")
    high = x.shape[0] - 1
    return Signature((op.k, *x.shape[1:]), IntType.holding(0, high), 0, high)


_RULES: dict[type, Callable[[Any, Sequence[Signature]], Signature]] = {
    Conv2d: _conv2d,
    ConvTranspose2d: _conv_transpose2d,
    Dense: _dense,
    Requantize: _requantize,
    Threshold: _threshold,
    Add: _add,
    Multiply: _multiply,
    Concat: _concat,
    MaxPool2d: _max_pool2d,
    SumPool2d: _sum_pool2d,
    Upsample: _upsample,
    Table: _table,
    Compare: _compare,
    Bits: _bits,
    Lut: _lut,
    Popcount: _popcount,
    Reshape: _reshape,
    Transpose: _transpose,
    Slice: _slice,
    TopK: _top_k,
}
