"""The operations of the integer graph: their attributes and constant tensors.

An operation is a frozen dataclass. `run.py` defines what it computes, `infer.py` its output's shape, type and range.
Shapes have no batch axis: images are (C, H, W), vectors (C,).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfab.dtypes import IntArray, IntType, Rounding, round_shift

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]  # top, left, bottom, right
Shape = tuple[int, ...]

MAX_FAN_IN = 6  # inputs of a truth table: what one LUT of the larger FPGAs takes


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

    multiplier and shift have one entry, or one per channel; multiplier 1 to 2**31 - 1, shift 0 to 62. `low` and `high`
    lie within `type`; a ReLU is `low = output_zero`. The zero points, `low` and `high` fit 32 bits signed; a zero point
    need not lie within its type. The products before the shift stay below 2**62.
    """

    multiplier: IntArray
    shift: IntArray
    type: IntType
    low: int
    high: int
    input_zero: int = 0
    output_zero: int = 0
    rounding: Rounding = Rounding.HALF_UP


@dataclass(frozen=True, eq=False)
class Threshold:
    """`y[c] = low + step * #{i : x[c] >= thresholds[c, i]}`; step is 2 where `type` is bipolar (low -1), else 1.

    thresholds (C or 1, L), each row ascending; the results `low` to `low + step * L` lie within `type`. Any monotone
    function of an accumulator to L + 1 levels, batch norm and scale absorbed (Umuroglu et al. 2017, section 4.2.2).
    """

    thresholds: IntArray
    type: IntType
    low: int

    @property
    def step(self) -> int:
        """What each threshold passed adds."""
        return 2 if self.type.bipolar else 1


@dataclass(frozen=True)
class Add:
    """The exact sum of two values of one shape."""


@dataclass(frozen=True)
class Multiply:
    """The exact product `(a - first_zero) * (b - second_zero)` of values of one shape, or b a factor for each channel.

    A factor for each channel of a (C, H, W) is b (C, 1, 1). The zeros fit 32 bits signed.
    """

    first_zero: int = 0
    second_zero: int = 0


@dataclass(frozen=True)
class Concat:
    """The inputs one after the other along an axis; the channels are axis 0."""

    axis: int = 0


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


@dataclass(frozen=True, eq=False)
class Compare:
    """`y[n] = x[channel[n]] >= threshold[n]`: single bits of thermometer codes, only those that are wanted.

    channel (N,) with entries 0 to C - 1, threshold (N,), x (C,); y (N,) of one unsigned bit.
    """

    channel: IntArray
    threshold: IntArray


@dataclass(frozen=True, eq=False)
class Bits:
    """`y[n] = (x[channel[n]] >> place[n]) & 1`: single bits of two's complement, place 0 the least significant.

    channel (N,) with entries 0 to C - 1, place (N,) with entries 0 to bits - 1, x (C,); y (N,) of one unsigned bit.
    """

    channel: IntArray
    place: IntArray


@dataclass(frozen=True, eq=False)
class Lut:
    """`y[n] = table[n, sum_k x[wiring[n, k]] << k]`: N truth tables, each over K of the C input bits.

    wiring (N, K) with entries 0 to C - 1, table (N, 2**K) of 0 and 1, K from 1 to MAX_FAN_IN; x (C,) and y (N,) of one
    unsigned bit.
    """

    wiring: IntArray
    table: IntArray


@dataclass(frozen=True, eq=False)
class Popcount:
    """`y[g] = sum_l x[wiring[g, l]]`: the number of ones in each group of L bits; wiring (G, L), x (C,), y (G,)."""

    wiring: IntArray


@dataclass(frozen=True)
class Reshape:
    """The same values in C order under another shape."""

    shape: Shape


@dataclass(frozen=True)
class Transpose:
    """`y.shape[i] = x.shape[axes[i]]`, as numpy's transpose; axes are all of x's (C, H, W are 0, 1, 2), each once."""

    axes: Shape


@dataclass(frozen=True)
class Slice:
    """`x[start:stop:step]` along one axis, 0 <= start < stop <= size, step >= 1; the channels are axis 0."""

    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True)
class TopK:
    """The indices of the k largest along axis 0, which becomes k, the largest first; of equal ones the lower index.

    1 <= k <= the axis's size; with k = 1 this is the argmax.
    """

    k: int


Op = (
    Conv2d
    | ConvTranspose2d
    | Dense
    | Requantize
    | Threshold
    | Add
    | Multiply
    | Concat
    | MaxPool2d
    | SumPool2d
    | Upsample
    | Table
    | Compare
    | Bits
    | Lut
    | Popcount
    | Reshape
    | Transpose
    | Slice
    | TopK
)


def requantized(op: Requantize, x: IntArray, channel_axis_first: bool = False) -> IntArray:
    """The requantize equation on int64; multiplier and shift broadcast along x's axis 0 or 1 (behind the batch)."""
    rank = x.ndim - (0 if channel_axis_first else 1)
    multiplier = op.multiplier.astype(np.int64).reshape((-1,) + (1,) * (rank - 1))
    shift = op.shift.astype(np.int64).reshape((-1,) + (1,) * (rank - 1))
    scaled = round_shift((x.astype(np.int64) - op.input_zero) * multiplier, shift, op.rounding)
    return np.clip(scaled + op.output_zero, op.low, op.high)


def addresses(op: Lut, x: IntArray) -> IntArray:
    """Which entry of its table each truth table reads, (batch, N) int64, for bits x (batch, C)."""
    places = np.left_shift(1, np.arange(op.wiring.shape[1]))
    return (x.astype(np.int64)[:, op.wiring] * places).sum(axis=2)


def thresholded(op: Threshold, x: IntArray, channel_axis_first: bool = False) -> IntArray:
    """The threshold equation on int64; thresholds broadcast along x's axis 0 or 1 (behind the batch)."""
    rank = x.ndim - (0 if channel_axis_first else 1)
    columns = op.thresholds.astype(np.int64).T.reshape((-1, len(op.thresholds)) + (1,) * (rank - 1))
    passed = np.zeros(x.shape, dtype=np.int64)
    for column in columns:
        passed += x >= column
    return op.low + op.step * passed
