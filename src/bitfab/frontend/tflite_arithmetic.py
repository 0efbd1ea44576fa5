"""TFLite's int8 arithmetic in integers: what its reference kernels compute, as requantizations and tables.

Most kernels multiply an accumulator by a real ratio as `m / 2**31 * 2**e`, m of 31 bits, and round twice: the product
by 2**31 to the nearest, ties up (SaturatingRoundingDoublingHighMul), then by 2**-e to the nearest, ties away from zero
(RoundingDivideByPOT; Jacob et al. 2018, section 2.2, and the gemmlowp library). FULLY_CONNECTED rounds once, but a
product of double precision; AVERAGE_POOL_2D divides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray, IntType, QParams
from bitfab.errors import BitfabError
from bitfab.frontend.tflite_layers import Unary

__all__ = [
    "ADD_SHIFT",
    "INT8",
    "Ratio",
    "clip_range",
    "division",
    "first_rounding",
    "rounded_once",
    "unary_function",
]

INT8 = IntType(8, signed=True)
ADD_SHIFT = 20  # operands of an add are brought to a scale 2**20 finer than twice the larger of theirs
MULTIPLIER_BITS = 31  # what TFLite's own multipliers have, and the hardware takes
NEVER = 62  # a shift by this makes 0 of whatever fits 32 bits

Function = Callable[[IntArray], IntArray]


@dataclass(frozen=True)
class Ratio:
    """A real factor as TFLite holds it: `multiplier * 2**(exponent - 31)`, multiplier 0 or in [2**30, 2**31)."""

    multiplier: int
    exponent: int

    @classmethod
    def of(cls, real: float) -> Ratio:
        """The nearest (QuantizeMultiplier); what is below 2**-32 becomes 0. BitfabError for 2**30 and more."""
        mantissa, exponent = math.frexp(real)
        multiplier = math.floor(mantissa * (1 << 31) + 0.5)
        if multiplier == 1 << 31:
            multiplier, exponent = multiplier // 2, exponent + 1
        if exponent > 30:
            raise BitfabError(
                f"scales differ by a factor of {real:.3g}, more than TFLite takes; export the model again"
            )
        return cls(multiplier, exponent) if exponent >= -31 else cls(0, 0)

    @property
    def left(self) -> int:
        """By how many bits the accumulator is shifted to the left before the product."""
        return max(self.exponent, 0)

    @property
    def right(self) -> int:
        """By how many bits the product is shifted to the right in the second rounding."""
        return max(-self.exponent, 0)

    def over(self, count: int) -> Ratio:
        """The ratio over a count, as the kernel of MEAN divides its multiplier, with as many bits as it can keep."""
        shift = min(count.bit_length() - 1, 32, 31 + self.exponent)
        return Ratio((self.multiplier << shift) // count, self.exponent - shift)

    def times(self, x: IntArray) -> IntArray:
        """`x * ratio` with both roundings; x int64, within 32 bits after the shift to the left."""
        shift = 31 - self.left
        product = (x * self.multiplier + (1 << (shift - 1))) >> shift
        if self.right == 0:
            return product
        return (product + (1 << (self.right - 1)) - (product < 0)) >> self.right


def first_rounding(ratios: Sequence[Ratio]) -> tuple[IntArray, IntArray]:
    """Multipliers and shifts of a requantize, half up, that is the first rounding; shared factors of two left off."""
    multiplier = np.array([ratio.multiplier for ratio in ratios], dtype=np.int64)
    shift = np.array([31 - ratio.left for ratio in ratios], dtype=np.int64)
    while multiplier.any() and not (multiplier % 2).any() and shift.min() > 0:
        multiplier, shift = multiplier >> 1, shift - 1
    return np.where(multiplier == 0, 1, multiplier), np.where(multiplier == 0, NEVER, shift)


def rounded_once(real: float, largest: int, levels: int) -> tuple[int, int]:
    """Multiplier and shift for which `x * m / 2**n`, ties away from zero, is `round(x * real)` in double precision.

    The results agree for |x| <= largest while they lie within +-levels, and lie beyond on the same side where one does.
    Of all such pairs it is the one of fewest bits: with T[k] the first x whose result is k, `m / 2**n` must be at least
    `(k - 1/2) / T[k]` and less than `(k - 1/2) / (T[k] - 1)` for each k; both functions are odd and monotone, so that
    is all. FULLY_CONNECTED's reference kernel multiplies and rounds so. Raises BitfabError where no 31 bits do.
    """
    halves = 2 * np.arange(1, levels + 1, dtype=np.int64) - 1  # twice k - 1/2
    guess = np.ceil(np.minimum(halves / 2 / real, largest + 1)).astype(np.int64)
    candidates = np.maximum(guess[:, None] + np.arange(-2, 3), 1)
    reached = _round_away(candidates * real) >= (halves[:, None] + 1) // 2
    first = candidates[np.arange(levels), reached.argmax(axis=1)]
    kept = reached.any(axis=1) & (first <= largest)
    halves, first = halves[kept], first[kept]
    if not len(first):
        return 1, NEVER
    for shift in range(1, 54):
        ties = halves << (shift - 1)
        multiplier = int((-(-ties // first)).max())
        if multiplier >= 1 << MULTIPLIER_BITS:
            break
        if (multiplier * (first - 1) < ties).all():
            return multiplier, shift
    raise BitfabError(
        f"sums of up to {largest} times {real:.3g} need a multiplier of more than 31 bits: scales too unequal"
    )


def division(count: int, largest: int) -> tuple[int, int]:
    """Multiplier and shift for which `s * m / 2**n`, ties away from zero, is `s / count` rounded so, |s| <= largest.

    With m = ceil(2**n / count) and e = m * count - 2**n the result is too far from zero by `|s| * e / (count * 2**n)`.
    No s / count lies closer below a tie than 1 / (2 * count), so `2 * largest * e < 2**n` is enough.
    """
    shift = 0
    while 2 * largest * (-(1 << shift) % count) >= 1 << shift:
        shift += 1
    return -(-(1 << shift) // count), shift


def clip_range(clip: str, qparams: QParams) -> tuple[int, int]:
    """The int8 codes between which a fused activation lies (CalculateActivationRangeQuantized)."""
    low, high = {"RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}.get(clip, (None, None))

    def code(real: int) -> int:
        steps = float(_round_away(np.float32(real) / np.float32(qparams.scale[0])))
        return qparams.zero_point + int(min(max(steps, -512.0), 512.0))  # beyond any code

    lowest = INT8.low if low is None else min(max(INT8.low, code(low)), INT8.high)
    highest = INT8.high if high is None else max(min(INT8.high, code(high)), lowest)
    return lowest, highest


def unary_function(layer: Unary, before: QParams, after: QParams) -> Function:
    """What a function of one input does to its codes; BitfabError where it has no int8 kernel here."""
    if layer.kind in _REALS:
        return _real_function(layer.kind, before, after)
    ratio = below = Ratio.of(before.scale[0] / after.scale[0])
    match layer.kind:
        case "LEAKY_RELU":
            if not 0 < layer.alpha < math.inf:
                raise BitfabError(f"LEAKY_RELU with slope {layer.alpha:g}; positive ones are supported")
            below = Ratio.of(before.scale[0] * layer.alpha / after.scale[0])
        case "RELU" | "RELU6" | "RELU_N1_TO_1" | "QUANTIZE":
            pass
        case _:
            raise BitfabError(f"{layer.kind} has no int8 form here; load the float model and quantize it")
    ends = (-(1 << 31), 1 << 31) if layer.kind in ("LEAKY_RELU", "QUANTIZE") else clip_range(layer.kind, after)

    def codes(q: IntArray) -> IntArray:
        x = q - before.zero_point
        return (np.where(x < 0, below.times(x), ratio.times(x)) + after.zero_point).clip(*ends)

    return codes


_REALS: Mapping[
    str, tuple[Callable[[Any], Any], float, int]
] = {  # function, and the scale and zero point it has to have
    "LOGISTIC": (lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)), 1 / 256, -128),
    "TANH": (np.tanh, 1 / 128, 0),
}


def _real_function(kind: str, before: QParams, after: QParams) -> Function:
    """A function of reals in float32, as TFLite fills its tables (LUTPopulate)."""
    function, scale, zero_point = _REALS[kind]
    if (after.scale[0], after.zero_point) != (scale, zero_point):
        raise BitfabError(f"{kind}: an output of scale {scale:g} and zero point {zero_point} expected")

    def codes(q: IntArray) -> IntArray:
        with np.errstate(over="ignore"):
            real = function(np.float32(before.scale[0]) * (q - before.zero_point).astype(np.float32))
        return _round_away(real * np.float32(1 / scale)).astype(np.int64) + zero_point

    return codes


def _round_away(x: Any) -> Any:
    """The nearest integers, ties away from zero, as C's round: exact, for `x - trunc(x)` is."""
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x)
