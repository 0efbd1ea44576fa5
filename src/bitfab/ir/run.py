"""The definition: what an integer graph computes, in numpy integers alone. All else is proved equal to this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray, storage
from bitfab.errors import BitfabError
from bitfab.ir.graph import Graph, Value
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
    Pads,
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
    addresses,
    requantized,
    thresholded,
)


def run(graph: Graph, *inputs: IntArray) -> IntArray | tuple[IntArray, ...]:
    """Evaluate the graph: one array (batch, *shape) per input; one array, or a tuple where there are more outputs.

    Raises BitfabError for inputs of the wrong number, dtype, shape or range.
    """
    values = trace(graph, *inputs)
    outputs = tuple(values[name] for name in graph.outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def trace(graph: Graph, *inputs: IntArray) -> Mapping[str, IntArray]:
    """Like `run`, but every value of the graph by name, each in its narrowest numpy dtype."""
    values = dict(zip((value.name for value in graph.inputs), checked_inputs(graph, inputs), strict=True))
    for node in graph.nodes:
        result = _DEFINITIONS[type(node.op)](node.op, [values[name].astype(np.int64) for name in node.inputs])
        values[node.name] = result.astype(storage(node.output.type))
    return values


def checked_inputs(graph: Graph, inputs: Sequence[IntArray]) -> list[IntArray]:
    """The inputs, found to be integers of the right number, shape and range."""
    if len(inputs) != len(graph.inputs):
        names = ", ".join(value.name for value in graph.inputs)
        raise BitfabError(f"{graph.name}: {len(inputs)} inputs given, {len(graph.inputs)} expected ({names})")
    arrays = [_checked(value, np.asarray(x)) for value, x in zip(graph.inputs, inputs, strict=True)]
    if len({len(x) for x in arrays}) > 1:
        raise BitfabError(f"{graph.name}: inputs of {[len(x) for x in arrays]} images; give as many of each")
    return arrays


def _checked(value: Value, x: IntArray) -> IntArray:
    if not np.issubdtype(x.dtype, np.integer):
        raise BitfabError(f"{value.name}: {x.dtype} given, integers expected; quantize the data first")
    if x.shape[1:] != value.shape:
        raise BitfabError(f"{value.name}: shape {x.shape} given, (batch, {', '.join(map(str, value.shape))}) expected")
    if x.size and (x.min() < value.low or x.max() > value.high):
        raise BitfabError(f"{value.name}: integers {x.min()} to {x.max()} given, {value.low} to {value.high} expected")
    if value.type.bipolar and (x == 0).any():
        raise BitfabError(f"{value.name}: integers 0 given, -1 and +1 expected; it is bipolar")
    return x


def _padded(x: IntArray, padding: Pads, fill: int) -> IntArray:
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)


def _tap(x: IntArray, row: int, column: int, stride: Pair, size: Pair) -> IntArray:
    """One tap of every window: the pixels at (row, column) plus multiples of the stride."""
    rows = slice(row, row + stride[0] * (size[0] - 1) + 1, stride[0])
    columns = slice(column, column + stride[1] * (size[1] - 1) + 1, stride[1])
    return x[:, :, rows, columns]


def _conv2d(op: Conv2d, inputs: Sequence[IntArray]) -> IntArray:
    x = _padded(inputs[0], op.padding, op.pad_value)
    weight = op.weight.astype(np.int64)
    outputs, per_group, kernel_h, kernel_w = weight.shape
    batch = x.shape[0]
    out_h = (x.shape[2] - op.dilation[0] * (kernel_h - 1) - 1) // op.stride[0] + 1
    out_w = (x.shape[3] - op.dilation[1] * (kernel_w - 1) - 1) // op.stride[1] + 1
    acc = np.zeros((batch, op.groups, outputs // op.groups, out_h * out_w), dtype=np.int64)
    for kh in range(kernel_h):
        for kw in range(kernel_w):
            tap = _tap(x, kh * op.dilation[0], kw * op.dilation[1], op.stride, (out_h, out_w))
            columns = tap.reshape(batch, op.groups, per_group, out_h * out_w)
            acc += weight[:, :, kh, kw].reshape(op.groups, -1, per_group) @ columns
    return acc.reshape(batch, outputs, out_h, out_w) + op.bias.astype(np.int64)[:, None, None]


def _conv_transpose2d(op: ConvTranspose2d, inputs: Sequence[IntArray]) -> IntArray:
    (x,) = inputs
    batch, channels, height, width = x.shape
    kernel_h, kernel_w = op.weight.shape[2:]
    (stride_h, stride_w), (top, left, bottom, right) = op.stride, op.padding
    spread = np.full((batch, channels, (height - 1) * stride_h + 1, (width - 1) * stride_w + 1), op.pad_value)
    spread[:, :, ::stride_h, ::stride_w] = x
    reach = (kernel_h - 1, kernel_w - 1, kernel_h - 1, kernel_w - 1)
    border = tuple(r - min(crop, 0) for r, crop in zip(reach, op.padding, strict=True))
    full = _padded(spread, border, op.pad_value)
    grouped = op.weight.reshape(op.groups, channels // op.groups, -1, kernel_h, kernel_w)
    flipped = grouped.swapaxes(1, 2).reshape(-1, channels // op.groups, kernel_h, kernel_w)[:, :, ::-1, ::-1]
    result = _conv2d(Conv2d(flipped, op.bias, groups=op.groups), [full])
    return result[:, :, max(top, 0) : result.shape[2] - max(bottom, 0), max(left, 0) : result.shape[3] - max(right, 0)]


def _dense(op: Dense, inputs: Sequence[IntArray]) -> IntArray:
    return inputs[0] @ op.weight.astype(np.int64).T + op.bias.astype(np.int64)


def _requantize(op: Requantize, inputs: Sequence[IntArray]) -> IntArray:
    return requantized(op, inputs[0])


def _threshold(op: Threshold, inputs: Sequence[IntArray]) -> IntArray:
    return thresholded(op, inputs[0])


def _add(_: Add, inputs: Sequence[IntArray]) -> IntArray:
    return inputs[0] + inputs[1]


def _multiply(op: Multiply, inputs: Sequence[IntArray]) -> IntArray:
    return (inputs[0] - op.first_zero) * (inputs[1] - op.second_zero)


def _concat(op: Concat, inputs: Sequence[IntArray]) -> IntArray:
    return np.concatenate(inputs, axis=1 + op.axis)


def _pool_taps(op: MaxPool2d | SumPool2d, x: IntArray, fill: int) -> list[IntArray]:
    padded = _padded(x, op.padding, fill)
    out_h = (padded.shape[2] - op.kernel[0]) // op.stride[0] + 1
    out_w = (padded.shape[3] - op.kernel[1]) // op.stride[1] + 1
    taps = [(kh, kw) for kh in range(op.kernel[0]) for kw in range(op.kernel[1])]
    return [_tap(padded, kh, kw, op.stride, (out_h, out_w)) for kh, kw in taps]


def _max_pool2d(op: MaxPool2d, inputs: Sequence[IntArray]) -> IntArray:
    lowest = np.iinfo(np.int64).min
    return np.maximum.reduce(_pool_taps(op, inputs[0], lowest))


def _sum_pool2d(op: SumPool2d, inputs: Sequence[IntArray]) -> IntArray:
    return np.add.reduce(_pool_taps(op, inputs[0], op.pad_value))


def _upsample(op: Upsample, inputs: Sequence[IntArray]) -> IntArray:
    return inputs[0].repeat(op.factor[0], axis=2).repeat(op.factor[1], axis=3)


def _table(op: Table, inputs: Sequence[IntArray]) -> IntArray:
    return op.table[inputs[0] - op.domain.low]


def _compare(op: Compare, inputs: Sequence[IntArray]) -> IntArray:
    return (inputs[0][:, op.channel] >= op.threshold).astype(np.int64)


def _bits(op: Bits, inputs: Sequence[IntArray]) -> IntArray:
    return (inputs[0][:, op.channel] >> op.place) & 1


def _lut(op: Lut, inputs: Sequence[IntArray]) -> IntArray:
    return op.table[np.arange(len(op.table)), addresses(op, inputs[0])]


def _popcount(op: Popcount, inputs: Sequence[IntArray]) -> IntArray:
    return inputs[0][:, op.wiring].sum(axis=2)


def _reshape(op: Reshape, inputs: Sequence[IntArray]) -> IntArray:
    return inputs[0].reshape(inputs[0].shape[0], *op.shape)


def _transpose(op: Transpose, inputs: Sequence[IntArray]) -> IntArray:
    return inputs[0].transpose(0, *(1 + axis for axis in op.axes))


def _slice(op: Slice, inputs: Sequence[IntArray]) -> IntArray:
    return inputs[0][(slice(None),) * (1 + op.axis) + (slice(op.start, op.stop, op.step),)]


def _top_k(op: TopK, inputs: Sequence[IntArray]) -> IntArray:
    return (-inputs[0]).argsort(axis=1, kind="stable")[:, : op.k]


_DEFINITIONS: dict[type, Callable[[Any, Sequence[IntArray]], IntArray]] = {
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
