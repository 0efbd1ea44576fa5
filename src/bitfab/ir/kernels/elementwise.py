"""Torch kernels that work integer by integer, a cacheful at a time: requantize, threshold, add, multiply and table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitfab.dtypes import Rounding
from bitfab.ir.graph import Value
from bitfab.ir.kernels.carrier import Kernel, by_definition, carrier, exact_float
from bitfab.ir.ops import Add, Multiply, Requantize, Table, Threshold

CHUNK = 1 << 17  # integers worked on at once; fewer cost more in calls than caches give back


def requantize(op: Requantize, inputs: Sequence[Value], output: Value) -> Kernel:
    """With t = x - offset: `y = clip(round(t * m / 2**n + c))`, c an integer multiple of 2**-n.

    Times 2**n, every intermediate result is an integer below `bound` in magnitude; so while bound < 2**24 (float32) or
    2**53 (float64) products and sums are exact, a fused multiply-add or not, and only the rounding asked for happens.
    HALF_UP is floor(. + 1/2), its half part of c. For an uint8 output converting to integers is the floor, because it
    truncates and what is negative is clipped to 0 or more; through int16 or int32, where clipping is cheap (torch
    converts floats to uint8 four times slower). Rejected: float32, even fused into the convolution, with the
    thresholds of every output checked beforehand and the scale tuned; at ratios of 2**-10 it holds for a third of the
    channels, at 2**-11 for few.
    """
    target = carrier(output)
    out_zero = op.output_zero - target.offset
    floors = op.rounding in (Rounding.HALF_UP, Rounding.FLOOR)
    lines = _lines(op, inputs[0], out_zero, floors)
    dtype = exact_float(lines.bound)
    if dtype is None:
        return by_definition(op, inputs, output)
    slope, constant = torch.tensor(lines.slopes, dtype=dtype), torch.tensor(lines.constants, dtype=dtype)
    low, high = op.low - target.offset, op.high - target.offset

    def chunk(t: Tensor, out: Tensor, buffer: Tensor, *rounded: Tensor) -> None:
        torch.addcmul(constant, buffer.copy_(t), slope, out=buffer)
        if not floors:
            _round(buffer, op.rounding).add_(out_zero)
        elif target.dtype != torch.uint8:
            buffer.floor_()
        for integers in rounded:
            buffer = integers.copy_(buffer)
        out.copy_(buffer.clamp_(low, high))

    buffers = (dtype, lines.whole) if target.dtype == torch.uint8 else (dtype,)
    return functools.partial(_by_chunks, chunk, buffers, target.dtype)


@dataclass(frozen=True)
class _Lines:
    """`t * slope + constant` of each channel; `bound` is on all magnitudes times 2**n, `reach` on the result's."""

    slopes: tuple[float, ...]
    constants: tuple[float, ...]
    bound: int
    reach: int

    @property
    def whole(self) -> torch.dtype:
        """The narrowest integer dtype that holds the results, at least int16."""
        return torch.int16 if self.reach < 1 << 15 else torch.int32 if self.reach < 1 << 31 else torch.int64


def _lines(op: Requantize, x: Value, out_zero: int, floors: bool) -> _Lines:
    """A requantize before rounding; where that is a floor, `out_zero` and HALF_UP's half are part of the constants."""
    source = carrier(x)
    in_zero = op.input_zero - source.offset
    bound, reach, slopes, constants = 0, 0, [], []
    for m, n in zip(op.multiplier.tolist(), op.shift.tolist(), strict=True):
        constant = -in_zero * m
        if floors:
            constant += (out_zero << n) + (((1 << n) >> 1) if op.rounding is Rounding.HALF_UP else 0)
        largest = (source.largest(x) + abs(in_zero)) * m + ((abs(out_zero) + 1) << n)
        bound, reach = max(bound, largest), max(reach, (largest >> n) + 1)
        slopes.append(m / 2**n)
        constants.append(constant / 2**n)
    return _Lines(tuple(slopes), tuple(constants), bound, reach)


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


def threshold(op: Threshold, inputs: Sequence[Value], output: Value) -> Kernel:
    """One comparison and one addition for each threshold, in the dtype of the elements or, for uint8, in int16.

    Comparing into the operands' own dtype is five times faster than into booleans; to uint8 only through int16.
    """
    (x,) = inputs
    source, target = carrier(x), carrier(output)
    dtype = source.dtype if source.dtype.is_floating_point else torch.int16
    reached = np.clip(op.thresholds.astype(np.int64), x.low, x.high + 1) - source.offset
    first, *others = torch.from_numpy(reached.T.copy()).to(dtype)
    low = op.low - target.offset

    def chunk(t: Tensor, out: Tensor, passed: Tensor, count: Tensor, short: Tensor) -> None:
        elements = t if t.dtype == dtype else short.copy_(t)
        torch.ge(elements, first, out=count)
        for column in others:
            count.add_(torch.ge(elements, column, out=passed))
        count.mul_(op.step).add_(low)
        out.copy_(short.copy_(count) if target.dtype == torch.uint8 else count)

    return functools.partial(_by_chunks, chunk, (dtype, dtype, torch.int16), target.dtype)


def add(op: Add, inputs: Sequence[Value], output: Value) -> Kernel:
    (a, b), target = (carrier(value) for value in inputs), carrier(output)
    offset = a.offset + b.offset - target.offset
    dtype = exact_float(a.largest(inputs[0]) + b.largest(inputs[1]) + abs(offset))
    if dtype is None:
        return by_definition(op, inputs, output)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        total = torch.add(x.to(dtype), y)
        return (total.add_(offset) if offset else total).to(target.dtype)

    return kernel


def multiply(op: Multiply, inputs: Sequence[Value], output: Value) -> Kernel:
    (a, b), target = (carrier(value) for value in inputs), carrier(output)
    zeros = (op.first_zero, op.second_zero)
    factors = [max(-v.low, v.high) + abs(zero) for v, zero in zip(inputs, zeros, strict=True)]
    dtype = exact_float(max(factors) * max(1, min(factors)))
    if dtype is None:
        return by_definition(op, inputs, output)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return target.store(a.exact(x, dtype).sub(zeros[0]) * b.exact(y, dtype).sub(zeros[1]))

    return kernel


def table(op: Table, inputs: Sequence[Value], output: Value) -> Kernel:
    source, target = carrier(inputs[0]), carrier(output)
    entries = torch.from_numpy(op.table.astype(np.int64) - target.offset).to(target.dtype)
    first = op.domain.low - source.offset

    def chunk(t: Tensor, out: Tensor, index: Tensor) -> None:
        torch.take(entries, index.copy_(t).sub_(first), out=out)

    return functools.partial(_by_chunks, chunk, (torch.int64,), target.dtype)
