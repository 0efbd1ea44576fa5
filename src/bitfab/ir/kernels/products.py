"""Torch kernels of what multiplies by weights: convolutions in int8, float32 or float64, the first that is exact."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Value
from bitfab.ir.kernels.carrier import Kernel, by_definition, carrier, exact_float, padded
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Pads


def conv2d(op: Conv2d, inputs: Sequence[Value], output: Value) -> Kernel:
    """`sum w * x + b = sum w * (x - zero) + (b + zero * sum w)`: with `zero` the pad value, padding adds nothing."""
    (x,) = inputs
    source, target = carrier(x), carrier(output)
    top, left, bottom, right = op.padding
    zero = op.pad_value if any(op.padding) else source.offset
    weight = op.weight.astype(np.int64)
    bias = op.bias.astype(np.int64) + zero * weight.sum(axis=(1, 2, 3))
    largest = max(abs(x.low - zero), abs(x.high - zero))
    dtype = exact_float(int((np.abs(weight).sum(axis=(1, 2, 3)) * largest + np.abs(bias)).max()))
    inside = (top, left) == (bottom, right) and _every_window_sees_a_pixel(op, x.shape[1:])
    inner = op if inside else replace(op, padding=(0, 0, 0, 0))
    one_column = output.shape[2] == 1 and op.stride[1] > 1  # oneDNN's int8 kernels read beyond the image there
    fits = _fits_int8(weight, bias, x, zero) and target.dtype == torch.float32 and not one_column
    if fits and int8_is_exact():
        convolve = _int8_convolution(inner, bias, zero - source.offset)
    elif dtype is not None:
        convolve = _float_convolution(inner, bias, zero - source.offset, dtype)
    else:
        return by_definition(op, inputs, output)
    if inside:
        return lambda t: target.store(convolve(t))
    return lambda t: target.store(convolve(padded(t, op.padding, zero - source.offset)))


def _every_window_sees_a_pixel(op: Conv2d, size: Sequence[int]) -> bool:
    """Whether no window lies wholly in the padding: oneDNN's int8 kernels read beyond the image for those."""
    axes = zip(size, op.padding[:2], op.dilation, op.weight.shape[2:], strict=True)
    return all(dilation <= pixels and pad <= dilation * (taps - 1) for pixels, pad, dilation, taps in axes)


def _fits_int8(weight: IntArray, bias: IntArray, x: Value, zero: int) -> bool:
    """Whether oneDNN's int8 convolution is exact, given that the output fits float32.

    It accumulates in int32, whatever the order, and only then converts to float32: so the sums before and after the
    zero point is taken off and the bias itself must fit as well; not their partial sums, which float32 would need.
    """
    if x.type.bits > 8 or weight.min() < -128 or weight.max() > 127:
        return False
    positive, negative = (np.maximum(sign * weight, 0).sum(axis=(1, 2, 3)) for sign in (1, -1))
    sums = [np.abs(bias)]
    for low, high in ((0, x.high - x.type.low), (min(x.low - zero, 0), max(x.high - zero, 0))):
        sums += [positive * high - negative * low, negative * high - positive * low]
    return exact_float(int(np.max(sums))) is torch.float32


def _int8_convolution(op: Conv2d, bias: IntArray, zero: int) -> Kernel:
    """oneDNN's convolution of uint8 by int8 with float32 output; outside the image x is `zero`."""
    outputs, padding = len(bias), list(op.padding[:2])
    scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int8)
    weight, offsets = torch.from_numpy(op.weight.astype(np.int8)), torch.from_numpy(bias.astype(np.float32))
    geometry = (list(op.stride), padding, list(op.dilation), op.groups)
    packed = torch.ops.onednn.qconv_prepack(weight, scales, 1.0, zero, *geometry, None)

    def convolve(t: Tensor) -> Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            t, 1.0, zero, packed, scales, zeros, offsets, *geometry, 1.0, 0, torch.float32, "none", [], ""
        )

    return convolve


def _float_convolution(op: Conv2d, bias: IntArray, zero: int, dtype: torch.dtype) -> Kernel:
    weight = torch.from_numpy(op.weight.astype(np.int64)).to(dtype).contiguous(memory_format=torch.channels_last)
    offsets = torch.from_numpy(bias).to(dtype)

    def convolve(t: Tensor) -> Tensor:
        return F.conv2d(t.to(dtype) - zero, weight, offsets, op.stride, op.padding[:2], op.dilation, op.groups)

    return convolve


@functools.cache
def int8_is_exact() -> bool:
    """Whether this processor's int8 convolution is exact; without VNNI instructions pairs of products saturate."""
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-128, 127]), (16, 48, 3, 3))
    weight[0], weight[1] = 127, -128
    op = Conv2d(weight, rng.integers(-1000, 1000, 16), padding=(1, 1, 1, 1))
    t = torch.full((2, 48, 6, 6), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    t[1] = torch.from_numpy(rng.integers(0, 256, (48, 6, 6), dtype=np.uint8))
    try:
        pairs = [
            (_int8_convolution(op, op.bias, zero)(t), _float_convolution(op, op.bias, zero, torch.float64)(t))
            for zero in (0, 101)
        ]
    except (AttributeError, RuntimeError):  # this build of torch has no oneDNN
        return False
    return all(torch.equal(fast.double(), exact) for fast, exact in pairs)


def conv_transpose2d(op: ConvTranspose2d, inputs: Sequence[Value], output: Value) -> Kernel:
    """As for conv2d with `zero` the pad value: then all that lies between and outside the pixels adds nothing."""
    (x,) = inputs
    source, target, zero = carrier(x), carrier(output), op.pad_value
    channels, per_group = op.weight.shape[:2]
    weight = op.weight.astype(np.int64)
    grouped = weight.reshape(op.groups, channels // op.groups, per_group, -1)
    by_output = grouped.swapaxes(1, 2).reshape(op.groups * per_group, -1)
    bias = op.bias.astype(np.int64) + zero * by_output.sum(axis=1)
    largest = max(abs(x.low - zero), abs(x.high - zero))
    dtype = exact_float(int((np.abs(by_output).sum(axis=1) * largest + np.abs(bias)).max()))
    if dtype is None:
        return by_definition(op, inputs, output)
    kernels, offsets = torch.from_numpy(weight).to(dtype), torch.from_numpy(bias).to(dtype)[:, None, None]
    top, left, bottom, right = op.padding
    grown: Pads = (max(-top, 0), max(-left, 0), max(-bottom, 0), max(-right, 0))  # before cropping: a crop may exceed x
    cropped: Pads = (-max(top, 0), -max(left, 0), -max(bottom, 0), -max(right, 0))

    def kernel(t: Tensor) -> Tensor:
        centred = t.to(dtype) - (zero - source.offset)
        full = F.conv_transpose2d(centred, kernels, None, op.stride, groups=op.groups)
        return target.store(padded(padded(full, grown, 0), cropped, 0).add_(offsets))

    return kernel


def dense(op: Dense, inputs: Sequence[Value], output: Value) -> Kernel:
    """A 1x1 convolution over one pixel."""
    (x,) = inputs
    pixel = replace(x, shape=(*x.shape, 1, 1))
    kernel = conv2d(Conv2d(op.weight[:, :, None, None], op.bias), [pixel], replace(output, shape=(*output.shape, 1, 1)))
    return lambda t: kernel(t[:, :, None, None])[:, :, 0, 0]
