"""Torch kernels that move, pool or compare values and multiply nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bitfab.ir.graph import Value
from bitfab.ir.kernels.carrier import Kernel, by_definition, carrier, exact_float, padded
from bitfab.ir.ops import Concat, MaxPool2d, Reshape, Slice, SumPool2d, TopK, Transpose, Upsample


def concat(op: Concat, inputs: Sequence[Value], output: Value) -> Kernel:
    dtype = carrier(output).dtype
    return lambda *tensors: torch.cat([t.to(dtype) for t in tensors], dim=1 + op.axis)


def max_pool2d(op: MaxPool2d, inputs: Sequence[Value], output: Value) -> Kernel:
    """The larger of shifted images, first of rows, then of columns; torch's own pooling is slower on uint8."""
    smallest = inputs[0].type.low - carrier(inputs[0]).offset

    def kernel(t: Tensor) -> Tensor:
        for axis, size, stride in ((2, op.kernel[0], op.stride[0]), (3, op.kernel[1], op.stride[1])):
            if axis == 2:
                t = padded(t, op.padding, smallest)
            last = (t.shape[axis] - size) // stride * stride + 1
            taps = (t.movedim(axis, 0)[tap : tap + last : stride].movedim(0, axis) for tap in range(size))
            t = functools.reduce(torch.maximum, taps)
        return t

    return kernel


def sum_pool2d(op: SumPool2d, inputs: Sequence[Value], output: Value) -> Kernel:
    source, target = carrier(inputs[0]), carrier(output)
    count, fill = op.kernel[0] * op.kernel[1], op.pad_value - source.offset
    dtype = exact_float(count * (max(source.largest(inputs[0]), abs(fill)) + abs(source.offset)))
    if dtype is None:
        return by_definition(op, inputs, output)

    def kernel(t: Tensor) -> Tensor:
        image = padded(t, op.padding, fill).to(dtype)
        total = F.avg_pool2d(image, op.kernel, op.stride, divisor_override=1)
        return target.store(total.add_(source.offset * count))

    return kernel


def upsample(op: Upsample, inputs: Sequence[Value], output: Value) -> Kernel:
    channels, height, width = inputs[0].shape
    rows, columns = op.factor

    def kernel(t: Tensor) -> Tensor:
        spread = t.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, height, rows, width, columns, channels)
        return spread.reshape(-1, height * rows, width * columns, channels).permute(0, 3, 1, 2)

    return kernel


def reshape(op: Reshape, inputs: Sequence[Value], output: Value) -> Kernel:
    return lambda t: _laid_out(t.contiguous().reshape(-1, *op.shape))


def transpose(op: Transpose, inputs: Sequence[Value], output: Value) -> Kernel:
    axes = (0, *(1 + axis for axis in op.axes))
    return lambda t: _laid_out(t.permute(axes))


def slice_axis(op: Slice, inputs: Sequence[Value], output: Value) -> Kernel:
    index = (slice(None),) * (1 + op.axis) + (slice(op.start, op.stop, op.step),)
    return lambda t: _laid_out(t[index])


def _laid_out(t: Tensor) -> Tensor:
    """The tensor in the order in which kernels expect it: images channels-last, all else in C order."""
    return t.contiguous(memory_format=torch.channels_last if t.ndim == 4 else torch.contiguous_format)


def top_k(op: TopK, inputs: Sequence[Value], output: Value) -> Kernel:
    """`torch.topk` promises no order among equal values; argmax and a stable sort do."""
    target = carrier(output)
    if op.k == 1:
        return lambda t: target.store(t.argmax(dim=1, keepdim=True))
    return lambda t: target.store(_laid_out(t.sort(dim=1, descending=True, stable=True).indices[:, : op.k]))
