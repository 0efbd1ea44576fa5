"""Multipliers with which float32 arithmetic rounds every sum as the integers do, whatever it makes of ties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntArray, multiplier_and_shift

Codes = tuple[int, int, int]  # low, high, zero point

FIRST_BITS = 11  # a multiplier keeps these: it changes by less than 2**-10 of its size, a quarter of a step of 8 bits
FACTOR_BITS = 16  # of both factors of an addition together: the sums of 8-bit codes then have 24, as float32 has
MOST_GUARD, LEAST_GUARD, ROUNDED_GUARD = 14, 11, 8
MOST_RESULTS = 1 << 10  # more of them lie closer together than float32 can tell
MOST_SHIFT = 48  # with more the thresholds of the results leave int64


def float_safe(multiplier: IntArray, shift: IntArray, bits: int, codes: Codes) -> tuple[IntArray, IntArray]:
    """For each factor `multiplier / 2**shift` the nearest one with which float32 rounds every sum as integers do.

    Other engines run a quantized network as `rint(float32(sum) * float32(factor)) + zero`, or add the zero point before
    they round (as the Quant of QONNX). That is `sum * multiplier >> shift`, rounded, plus zero, unless a sum comes so
    near to the middle of two results that float32 rounds it onto or across. Of 16-bit factors near 2**-9, to 255
    results, every second one has such a sum, and a network with millions of activations meets some. So the neighbours
    of such a multiplier are tried; where none within 2**-10 of it is safe, and for powers of two, the factor stays.

    Args:
        multiplier: (C,) integers of at most `bits` bits; shift (C,).
        codes: the least and the largest result, and the zero point that they hold.
    """
    low, high, zero = codes
    if high - low > MOST_RESULTS or shift.min() < 1 or shift.max() + bits > MOST_SHIFT:
        return multiplier, shift
    more = bits - np.floor(np.log2(multiplier)).astype(np.int64) - 1
    full, places = multiplier << more, shift + more  # all `bits` bits used
    results, most = np.arange(low + 1, high + 1) - zero, 1 << max(bits - FIRST_BITS, 0)
    pending = np.flatnonzero(multiplier & (multiplier - 1))
    chosen = full.copy()
    for step in sorted(range(1 - most, most), key=abs):
        tried = full[pending] + step
        safe = _rounds_alike(tried, places[pending], results, zero) & (tried < 1 << bits)
        chosen[pending[safe]] = tried[safe]
        pending = pending[~safe]
    return multiplier_and_shift(chosen * 2.0 ** -places.astype(np.float64), bits)


def add_factors(
    ratios: Sequence[float], operands: Sequence[IntArray], bits: int, codes: Codes
) -> tuple[int, Sequence[float | None]]:
    """How much finer than its output an addition is, 2**guard, and the integers that bring its operands there.

    Only its last rounding counts then, which no sum makes a matter of choice (see `tie_free`). The integers together
    use at most `bits` and 16 bits, so that float32 holds all sums of 8-bit codes. None where such integers would be too
    coarse, or codes are wider: then operands are multiplied by the ratios and rounded, to a scale 2**8 finer (with 2**4
    a third of the sums of 2-bit codes came out one code off).

    Args:
        ratios: of the operands' scales to the output's.
        operands: all codes of each less their zero point.
        codes: the least and the largest result, and the zero point that they hold.
    """
    guard = min(MOST_GUARD, min(bits, FACTOR_BITS) - math.ceil(math.log2(sum(ratios))))
    if max(map(len, operands)) > 1 << 8 or guard < LEAST_GUARD:
        return ROUNDED_GUARD, [None] * len(ratios)
    return guard, tie_free([ratio * 2**guard for ratio in ratios], operands, guard, codes)


def tie_free(ratios: Sequence[float], operands: Sequence[IntArray], guard: int, codes: Codes) -> list[int]:
    """Integers near the two ratios by which no sum of two codes lies halfway between two results.

    So it does not matter how `a * x + b * y`, which float32 holds exactly, is rounded to multiples of 2**guard.

    Args:
        ratios: at least 0, their sum at most 2**16.
        operands: all the codes, (A,) and (B,), less their zero points.
        codes: the least and the largest result, and the zero point that they hold.

    Returns:
        At least 1 and less than 2**16, within 5 of the ratios; the nearest, where all have ties.
    """
    low, high, zero = codes
    first, second = (np.asarray(x, dtype=np.int64) for x in operands)
    nearest = [min(max(1, round(ratio)), (1 << FACTOR_BITS) - 1) for ratio in ratios]
    steps = sorted(itertools.product(range(-4, 5), repeat=2), key=lambda step: abs(step[0]) + abs(step[1]))
    for step in steps:
        a, b = (whole + more for whole, more in zip(nearest, step, strict=True))
        sums = a * first[:, None] + b * second
        down = sums >> guard
        halfway = (sums & ((1 << guard) - 1)) == 1 << (guard - 1)
        ties = halfway & (down >= low - zero) & (down < high - zero)
        if min(a, b) > 0 and max(a, b) < 1 << FACTOR_BITS and not ties.any():
            return [a, b]
    return nearest


def _rounds_alike(multiplier: IntArray, shift: IntArray, results: IntArray, zero: int) -> npt.NDArray[np.bool_]:
    """Whether for each result the least sum that gives it, and the one before, do so in float32 too; (C,)."""
    column = multiplier[:, None]
    least = -((1 - 2 * results) * (1 << (shift[:, None] - 1)) // column)  # sum * m >= (result - 1/2) * 2**n
    factor = (column * 2.0 ** -shift[:, None].astype(np.float64)).astype(np.float32)
    safe = np.ones(len(multiplier), np.bool_)
    for more in {0, zero}:
        reached, before = (np.rint(sums.astype(np.float32) * factor + np.float32(more)) for sums in (least, least - 1))
        safe &= ((reached >= results + more) & (before < results + more)).all(axis=1)
    return safe
