"""The arithmetic words of the project: integer types, quantization parameters, rounding and saturation."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitfab.errors import BitfabError

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.floating]

MAX_BITS = 32


class Rounding(enum.StrEnum):
    """How `x / 2**n` becomes an integer; the hardware implements exactly these four."""

    HALF_UP = "half_up"  # add 2**(n-1), shift arithmetically
    HALF_EVEN = "half_even"  # ties to the even neighbour (IEEE 754, numpy, ONNX)
    HALF_AWAY = "half_away"  # ties away from zero (C's round, TFLite)
    FLOOR = "floor"  # shift arithmetically


class ScaleKind(enum.StrEnum):
    """Which real numbers a scale may be."""

    REAL = "real"  # any positive number: requantize multiplies, shifts and rounds
    PO2 = "po2"  # a power of two: requantize only shifts and rounds


@dataclass(frozen=True)
class IntType:
    """Two's complement (signed) or unsigned integers of 1 to 32 bits.

    One signed bit is bipolar: it holds -1 and +1, on a wire as 0 and 1, and never 0.
    """

    bits: int
    signed: bool

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise BitfabError(
                f"integer type of {self.bits} bits: 1 to {MAX_BITS} are supported; use fewer bits or a smaller layer"
            )

    @property
    def bipolar(self) -> bool:
        """Whether only -1 and +1 are held."""
        return self.bits == 1 and self.signed

    @property
    def low(self) -> int:
        """The smallest representable integer."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest representable integer."""
        return max(1, (1 << (self.bits - 1)) - 1) if self.signed else (1 << self.bits) - 1

    @classmethod
    def holding(cls, low: int, high: int) -> IntType:
        """The narrowest type that holds every integer of [low, high]; unsigned where low >= 0, never bipolar."""
        if low >= 0:
            return cls(max(1, int(high).bit_length()), signed=False)
        return cls(max(1, (-low - 1).bit_length(), max(high, 0).bit_length()) + 1, signed=True)

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}"


@dataclass(frozen=True)
class QParams:
    """The real meaning of integers: `x = scale * (q - zero_point)`; one scale, or one per channel (axis 0)."""

    scale: tuple[float, ...]
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not self.scale or not all(math.isfinite(s) and s > 0 for s in self.scale):
            raise BitfabError(f"scale {self.scale}: must be positive and finite; check the calibration data")

    def scale_array(self, rank: int) -> FloatArray:
        """The scale shaped to multiply a value of `rank` axes (no batch axis)."""
        return np.asarray(self.scale, dtype=np.float64).reshape((-1,) + (1,) * (rank - 1))


@dataclass(frozen=True)
class QuantSpec:
    """How a tensor is to be quantized; the observer's range then fixes the QParams.

    `symmetric` fixes the zero point at 0 (signed types); `per_channel` gives each output channel its own scale.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    per_channel: bool = False
    scale_kind: ScaleKind = ScaleKind.REAL

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise BitfabError(f"{self.bits} bits asked for: weights and activations take 1 to 16 bits")
        if self.symmetric and not self.signed:
            raise BitfabError("a symmetric quantization needs a signed type: use signed=True or symmetric=False")

    @property
    def type(self) -> IntType:
        return IntType(self.bits, self.signed)


def round_shift(x: IntArray, shift: IntArray | int, rounding: Rounding) -> IntArray:
    """`x / 2**shift` rounded to an integer; x int64, shift >= 0 (scalar or broadcastable); integers only."""
    x = np.asarray(x, dtype=np.int64)
    shift = np.asarray(shift, dtype=np.int64)
    half = np.where(shift > 0, np.left_shift(1, np.maximum(shift - 1, 0)), 0)
    match rounding:
        case Rounding.HALF_UP:
            offset = half
        case Rounding.HALF_EVEN:
            offset = np.where(shift > 0, half - 1 + ((x >> shift) & 1), 0)
        case Rounding.HALF_AWAY:
            offset = np.where((shift > 0) & (x < 0), half - 1, half)
        case Rounding.FLOOR:
            offset = np.zeros_like(half)
    return (x + offset) >> shift


def quantize(x: FloatArray, qparams: QParams, type: IntType) -> IntArray:
    """Real values (batch, *shape) to integers: `clip(round_half_even(x / scale) + zero_point)`; bipolar: the sign."""
    if type.bipolar:
        return np.where(np.asarray(x) >= 0, 1, -1).astype(storage(type))
    scale = qparams.scale_array(x.ndim - 1)
    codes = np.rint(np.asarray(x, dtype=np.float64) / scale) + qparams.zero_point
    return np.clip(codes, type.low, type.high).astype(storage(type))


def dequantize(q: IntArray, qparams: QParams) -> FloatArray:
    """Integers (batch, *shape) to the real values they mean, float64."""
    return (np.asarray(q, dtype=np.float64) - qparams.zero_point) * qparams.scale_array(q.ndim - 1)


def storage(type: IntType) -> type[np.integer]:
    """The narrowest numpy dtype that holds the type."""
    for bits, signed, unsigned in ((8, np.int8, np.uint8), (16, np.int16, np.uint16), (32, np.int32, np.uint32)):
        if type.bits <= bits:
            return signed if type.signed else unsigned
    raise AssertionError(type)


def multiplier_and_shift(ratio: FloatArray, bits: int) -> tuple[IntArray, IntArray]:
    """For each positive ratio the integers m < 2**bits and n >= 0 for which `m / 2**n` is nearest to it.

    (Jacob et al. 2018, section 2.2, with m normalised to use all its bits.) A power of two gives m = 1 when n >= 0.
    Raises BitfabError where the ratio needs more than `bits` bits or is too small to act on a 32-bit accumulator.
    """
    multipliers, shifts = [], []
    for r in np.atleast_1d(np.asarray(ratio, dtype=np.float64)):
        if not (math.isfinite(r) and r > 0):
            raise BitfabError(f"requantize ratio {r}: must be positive and finite; check scales and calibration data")
        mantissa, exponent = math.frexp(r)  # r = mantissa * 2**exponent, mantissa in [0.5, 1)
        shift = bits - exponent
        multiplier = round(mantissa * (1 << bits))
        while multiplier % 2 == 0 and shift > 0:
            multiplier, shift = multiplier // 2, shift - 1
        if shift < 0 or multiplier >= 1 << bits:
            raise BitfabError(
                f"requantize ratio {r:.3g} needs a multiplier of more than {bits} bits: scales too unequal"
            )
        if shift > 62 - bits:  # so small that fewer digits do: keep the shifted product within int64
            drop = shift - (62 - bits)
            multiplier, shift = max(1, ((multiplier >> (drop - 1)) + 1) >> 1), 62 - bits
        multipliers.append(multiplier)
        shifts.append(shift)
    return np.asarray(multipliers, dtype=np.int64), np.asarray(shifts, dtype=np.int64)
