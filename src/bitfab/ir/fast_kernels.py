"""The torch kernels of the fast executor, each chosen by its node's proven range and exact.

Floating point is exact on integers while every partial result stays below 2**24 (float32) or 2**53 (float64), whatever
the order of summation; range analysis tells which holds, and what fits neither is left to `run`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitfab.dtypes import IntArray, Rounding
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import (
    Add,
    Argmax,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Op,
    Pads,
    Requantize,
    Reshape,
    SumPool2d,
    Table,
    Upsample,
)
from bitfab.ir.run import run

CHUNK = 1 << 17  # integers that requantize works on at once; fewer cost more in calls than caches give back

Kernel = Callable[..., Tensor]


@dataclass(frozen=True)
class Carrier:
    """How a tensor holds integers: `integer = element + offset`."""

    dtype: torch.dtype
    offset: int = 0

    def store(self, exact: Tensor) -> Tensor:
        """A tensor of integers, in any float dtype that holds them, in this carrier."""
        return (exact - self.offset if self.offset else exact).to(self.dtype)

    def exact(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The integers themselves in a float dtype."""
        return tensor.to(dtype) + self.offset if self.offset else tensor.to(dtype)

    def largest(self, value: Value) -> int:
        """A bound on the magnitude of the elements."""
        return max(abs(value.low - self.offset), abs(value.high - self.offset), 1)


def carrier(value: Value) -> Carrier:
    """uint8 up to 8 bits, else the narrowest exact float."""
    if value.type.bits <= 8:
        return Carrier(torch.uint8, value.type.low)
    return Carrier(exact_float(max(abs(value.low), abs(value.high))) or torch.float64)


def exact_float(bound: int) -> torch.dtype | None:
    """The narrowest float dtype that holds every integer of magnitude `bound`; None where none does."""
    return torch.float32 if bound < 1 << 24 else torch.float64 if bound < 1 << 53 else None


def to_torch(x: IntArray, held: Carrier) -> Tensor:
    """An array of integers (batch, *shape) in this carrier; images become channels-last."""
    if held.dtype == torch.uint8:
        tensor = torch.from_numpy((x if held.offset == 0 else x.astype(np.int16) - held.offset).astype(np.uint8))
    else:
        tensor = torch.from_numpy(x.astype(np.float32 if held.dtype == torch.float32 else np.float64))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def kernel_of(node: Node, values: Mapping[str, Value]) -> Kernel:
    """The prepared kernel of a node: tensors of its inputs in, tensor of its output out, each in its carrier."""
    return _KERNELS[type(node.op)](node.op, [values[name] for name in node.inputs], node.output)


def _by_definition(op: Op, inputs: Sequence[Value], output: Value) -> Kernel:
    """`run` on this one node, for what no float holds exactly."""
    distinct = tuple({value.name: value for value in inputs}.values())
    names = tuple(value.name for value in inputs)
    single = Graph("node", distinct, (Node(op, names, output),), (output.name,))

    def kernel(*tensors: Tensor) -> Tensor:
        arrays = {
            value.name: carrier(value).exact(tensor, torch.float64).numpy().astype(np.int64)
            for value, tensor in zip(inputs, tensors, strict=True)
        }
        result = run(single, *(arrays[value.name] for value in distinct))
        assert isinstance(result, np.ndarray)
        return to_torch(result, carrier(output))

    return kernel


def _conv2d(op: Conv2d, inputs: Sequence[Value], output: Value) -> Kernel:
    """`sum w * x + b = sum w * (x - zero) + (b + zero * sum w)`: with `zero` the pad value, padding adds nothing."""
    (x,) = inputs
    source, target = carrier(x), carrier(output)
    top, left, bottom, right = op.padding
    zero = op.pad_value if any(op.padding) else source.offset
    weight = op.weight.astype(np.int64)
    bias = op.bias.astype(np.int64) + zero * weight.sum(axis=(1, 2, 3))
    largest = max(abs(x.low - zero), abs(x.high - zero))
    dtype = exact_float(int((np.abs(weight).sum(axis=(1, 2, 3)) * largest + np.abs(bias)).max()))
    symmetric = (top, left) == (bottom, right)
    inner = replace(op, padding=op.padding if symmetric else (0, 0, 0, 0))
    if _fits_int8(weight, bias, x, zero) and target.dtype == torch.float32 and int8_is_exact():
        convolve = _int8_convolution(inner, bias, zero - source.offset)
    elif dtype is not None:
        convolve = _float_convolution(inner, bias, zero - source.offset, dtype)
    else:
        return _by_definition(op, inputs, output)
    if symmetric:
        return lambda t: target.store(convolve(t))
    return lambda t: target.store(convolve(_padded(t, op.padding, zero - source.offset)))


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


def _conv_transpose2d(op: ConvTranspose2d, inputs: Sequence[Value], output: Value) -> Kernel:
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
        return _by_definition(op, inputs, output)
    kernels, offsets = torch.from_numpy(weight).to(dtype), torch.from_numpy(bias).to(dtype)[:, None, None]
    top, left, bottom, right = op.padding

    def kernel(t: Tensor) -> Tensor:
        centred = t.to(dtype) - (zero - source.offset)
        full = F.conv_transpose2d(centred, kernels, None, op.stride, groups=op.groups)
        return target.store(F.pad(full, (-left, -right, -top, -bottom)).add_(offsets))

    return kernel


def _dense(op: Dense, inputs: Sequence[Value], output: Value) -> Kernel:
    """A 1x1 convolution over one pixel."""
    (x,) = inputs
    pixel = replace(x, shape=(*x.shape, 1, 1))
    kernel = _conv2d(
        Conv2d(op.weight[:, :, None, None], op.bias), [pixel], replace(output, shape=(*output.shape, 1, 1))
    )
    return lambda t: kernel(t[:, :, None, None])[:, :, 0, 0]


def _requantize(op: Requantize, inputs: Sequence[Value], output: Value) -> Kernel:
    """With t = x - offset: `y = clip(round(t * m / 2**n + c))`, c an integer multiple of 2**-n.

    Times 2**n, every intermediate result is an integer below `bound` in magnitude; so while bound < 2**24 (float32) or
    2**53 (float64) products and sums are exact, a fused multiply-add or not, and only the rounding asked for happens.
    HALF_UP is floor(. + 1/2), its half part of c. For an uint8 output converting to integers is the floor, because it
    truncates and what is negative is clipped to 0 or more; through int16 or int32, where clipping is cheap (torch
    converts floats to uint8 four times slower). Rejected: float32, even fused into the convolution, with the
    thresholds of every output checked beforehand and the scale tuned; at ratios of 2**-10 it holds for a third of the
    channels, at 2**-11 for few.
    """
    (x,) = inputs
    source, target = carrier(x), carrier(output)
    in_zero, out_zero = op.input_zero - source.offset, op.output_zero - target.offset
    floors = op.rounding in (Rounding.HALF_UP, Rounding.FLOOR)
    bound, reach, slopes, constants = 0, 0, [], []
    for m, n in zip(op.multiplier.tolist(), op.shift.tolist(), strict=True):
        constant = -in_zero * m
        if floors:
            constant += (out_zero << n) + (((1 << n) >> 1) if op.rounding is Rounding.HALF_UP else 0)
        largest = (source.largest(x) + abs(in_zero)) * m + ((abs(out_zero) + 1) << n)
        bound, reach = max(bound, largest), max(reach, (largest >> n) + 1)
        slopes.append(m / 2**n)
        constants.append(constant / 2**n)
    dtype = exact_float(bound)
    if dtype is None:
        return _by_definition(op, inputs, output)
    slope, constant = torch.tensor(slopes, dtype=dtype), torch.tensor(constants, dtype=dtype)
    low, high = op.low - target.offset, op.high - target.offset
    whole = torch.int16 if reach < 1 << 15 else torch.int32 if reach < 1 << 31 else torch.int64

    def chunk(t: Tensor, out: Tensor, buffer: Tensor, *rounded: Tensor) -> None:
        torch.addcmul(constant, buffer.copy_(t), slope, out=buffer)
        if not floors:
            _round(buffer, op.rounding).add_(out_zero)
        elif target.dtype != torch.uint8:
            buffer.floor_()
        for integers in rounded:
            buffer = integers.copy_(buffer)
        out.copy_(buffer.clamp_(low, high))

    buffers = (dtype, whole) if target.dtype == torch.uint8 else (dtype,)
    return functools.partial(_by_chunks, chunk, buffers, target.dtype)


def _round(t: Tensor, rounding: Rounding) -> Tensor:
    """Round in place, half to even or half away from zero."""
    if rounding is Rounding.HALF_EVEN:
        return t.round_()
    return t.copy_(t.abs().add_(0.5).floor_().copysign_(t))


def _by_chunks(
    chunk: Callable[..., None], buffer_dtypes: tuple[torch.dtype, ...], dtype: torch.dtype, t: Tensor
) -> Tensor:
    """An elementwise `chunk(input, out, *buffers)` on (pixels, channels), a cacheful at a time; channels-last."""
    channels_last = t.movedim(1, -1)
    rows = channels_last.reshape(-1, t.shape[1])
    size = min(max(1, CHUNK // t.shape[1]), len(rows))
    out = torch.empty(rows.shape, dtype=dtype)
    buffers = [torch.empty((size, t.shape[1]), dtype=each) for each in buffer_dtypes]
    for part, out_part in zip(rows.split(size), out.split(size), strict=True):
        chunk(part, out_part, *(buffer[: len(part)] for buffer in buffers))
    return out.view(channels_last.shape).movedim(-1, 1)


def _add(_: Add, inputs: Sequence[Value], output: Value) -> Kernel:
    (a, b), target = (carrier(value) for value in inputs), carrier(output)
    dtype = target.dtype if target.dtype.is_floating_point else torch.float32
    offset = a.offset + b.offset - target.offset

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        total = torch.add(x.to(dtype), y)
        return (total.add_(offset) if offset else total).to(target.dtype)

    return kernel


def _concat(_: Concat, inputs: Sequence[Value], output: Value) -> Kernel:
    dtype = carrier(output).dtype
    return lambda *tensors: torch.cat([t.to(dtype) for t in tensors], dim=1)


def _padded(t: Tensor, padding: Pads, fill: int) -> Tensor:
    top, left, bottom, right = padding
    return F.pad(t, (left, right, top, bottom), value=fill) if any(padding) else t


def _max_pool2d(op: MaxPool2d, inputs: Sequence[Value], output: Value) -> Kernel:
    """The larger of shifted images, first of rows, then of columns; torch's own pooling is slower on uint8."""
    smallest = inputs[0].type.low - carrier(inputs[0]).offset

    def kernel(t: Tensor) -> Tensor:
        for axis, size, stride in ((2, op.kernel[0], op.stride[0]), (3, op.kernel[1], op.stride[1])):
            if axis == 2:
                t = _padded(t, op.padding, smallest)
            last = (t.shape[axis] - size) // stride * stride + 1
            taps = (t.movedim(axis, 0)[tap : tap + last : stride].movedim(0, axis) for tap in range(size))
            t = functools.reduce(torch.maximum, taps)
        return t

    return kernel


def _sum_pool2d(op: SumPool2d, inputs: Sequence[Value], output: Value) -> Kernel:
    source, target = carrier(inputs[0]), carrier(output)
    count, fill = op.kernel[0] * op.kernel[1], op.pad_value - source.offset
    dtype = exact_float(count * (max(source.largest(inputs[0]), abs(fill)) + abs(source.offset)))
    if dtype is None:
        return _by_definition(op, inputs, output)

    def kernel(t: Tensor) -> Tensor:
        padded = _padded(t, op.padding, fill).to(dtype)
        total = F.avg_pool2d(padded, op.kernel, op.stride, divisor_override=1)
        return target.store(total.add_(source.offset * count))

    return kernel


def _upsample(op: Upsample, inputs: Sequence[Value], output: Value) -> Kernel:
    channels, height, width = inputs[0].shape
    rows, columns = op.factor

    def kernel(t: Tensor) -> Tensor:
        spread = t.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, height, rows, width, columns, channels)
        return spread.reshape(-1, height * rows, width * columns, channels).permute(0, 3, 1, 2)

    return kernel


def _table(op: Table, inputs: Sequence[Value], output: Value) -> Kernel:
    source, target = carrier(inputs[0]), carrier(output)
    entries = torch.from_numpy(op.table.astype(np.int64) - target.offset).to(target.dtype)
    first = op.domain.low - source.offset

    def chunk(t: Tensor, out: Tensor, index: Tensor) -> None:
        torch.take(entries, index.copy_(t).sub_(first), out=out)

    return functools.partial(_by_chunks, chunk, (torch.int64,), target.dtype)


def _reshape(op: Reshape, inputs: Sequence[Value], output: Value) -> Kernel:
    def kernel(t: Tensor) -> Tensor:
        shaped = t.contiguous().reshape(-1, *op.shape)
        return shaped.contiguous(memory_format=torch.channels_last) if shaped.ndim == 4 else shaped

    return kernel


def _argmax(_: Argmax, inputs: Sequence[Value], output: Value) -> Kernel:
    target = carrier(output)
    return lambda t: target.store(t.argmax(dim=1, keepdim=True))


_KERNELS: dict[type, Callable[[Any, Sequence[Value], Value], Kernel]] = {
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
