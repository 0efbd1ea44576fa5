"""Which operation turns integers of a known meaning into the codes of a quantizer: thresholds, a multiplier or a table.

Thresholds (up to 4 bits) equal the file's definition, computed in float64, for every integer, and tables equal it
computed in float32. A multiplier does so wherever one of up to 30 bits exists that is equal to it for every integer of
the proven range, which is tested; it is the smallest such of `MULTIPLIER_BITS`, or else the nearest of the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntArray, IntType, Rounding, storage
from bitfab.errors import BitfabError
from bitfab.frontend.onnx_quantized.meaning import Reals, Tensor
from bitfab.frontend.onnx_quantized.quantizers import IR_ROUNDINGS, Grid, Quantizer, first_reaching
from bitfab.ir.graph import Value
from bitfab.ir.infer import infer
from bitfab.ir.ops import Requantize, Table, Threshold, requantized

TOLERANCE = 1 / 64  # of a code: by how much the rounding of a zero point or bias may move a result before its rounding
FEW_LEVELS, MANY_LEVELS = 15, 255  # thresholds: as many as hardware compares at once; as many as 8 bits have
TABLE_BITS = 12  # of the input of a table
MULTIPLIER_BITS = (16, 18, 24, 30)
MOST_SHIFT = 62
MOST_THRESHOLDS = 1 << 20  # of all channels together
MOST_CHECKED = 1 << 18  # boundaries between codes that are compared; beyond, the largest multiplier is taken unseen

Span = tuple[IntType, int, int]
"""A type, and the lowest and highest code of it that are used."""


def already(t: Tensor, value: Value, quantizer: Quantizer) -> bool:
    """Whether the integers are the quantizer's codes as they are."""
    return (
        isinstance(quantizer, Grid)
        and t.affine_only
        and value.type == quantizer.type
        and quantizer.low <= value.low
        and value.high <= quantizer.high
        and bool((t.scale == quantizer.scale).all() and (t.offset == quantizer.offset).all())
    )


def operation(t: Tensor, value: Value, quantizer: Quantizer) -> Requantize | Threshold | Table | None:
    """The operation that makes the quantizer's codes of the integers of `value`; None where there is none."""
    t, rows = _one_row(t, quantizer)
    levels = len(quantizer.levels)
    if 0 < levels <= FEW_LEVELS and t.rising:
        return _threshold(t, value, quantizer, rows)
    op = _requantize(t, value, quantizer, rows) if isinstance(quantizer, Grid) else None
    if op is not None:
        return op
    if rows == 1 and value.type.bits <= TABLE_BITS and not value.type.bipolar and not quantizer.type.bipolar:
        return _table(t, value, quantizer)
    if 0 < levels <= MANY_LEVELS and t.rising:
        return _threshold(t, value, quantizer, rows)
    return None


def scaling(ratio: Reals, bits: int, zeros: tuple[int, int], span: Span, rounding: Rounding) -> Requantize:
    """`clip((q - zeros[0]) * ratio + zeros[1])` with multipliers of at most `bits` bits; raises BitfabError if none."""
    multiplier, shift = (
        np.asarray(part, dtype=np.int64) for part in zip(*(_nearest(r, bits) for r in ratio), strict=True)
    )
    if (multiplier == multiplier[0]).all() and (shift == shift[0]).all():
        multiplier, shift = multiplier[:1], shift[:1]
    type, low, high = span
    return Requantize(multiplier, shift, type, low, high, zeros[0], zeros[1], rounding)


def _nearest(ratio: float, bits: int) -> tuple[int, int]:
    """m < 2**bits and n <= 62 for which `m / 2**n` is nearest to a ratio.

    `dtypes.multiplier_and_shift` keeps n <= 62 - bits, for any 32-bit integer; here `infer` checks the range there is.
    """
    if not (math.isfinite(ratio) and ratio > 0):
        raise BitfabError(f"requantize ratio {ratio}: must be positive and finite; check the scales")
    exponent = math.frexp(ratio)[1]
    shift = min(bits - exponent, MOST_SHIFT)
    multiplier = round(math.ldexp(ratio, shift))
    while multiplier and multiplier % 2 == 0 and shift > 0:
        multiplier, shift = multiplier // 2, shift - 1
    if shift < 0 or not 0 < multiplier < 1 << bits:
        raise BitfabError(f"requantize ratio {ratio:.3g}: no multiplier of {bits} bits; scales too unequal")
    return multiplier, shift


def _one_row(t: Tensor, quantizer: Quantizer) -> tuple[Tensor, int]:
    """The tensor with one number where all channels have the same, and the rows that the operation needs."""
    uniform = t.uniform and (quantizer.scale == quantizer.scale[0]).all()
    if isinstance(quantizer, Grid):
        rows = 1 if uniform else t.shape[0]
    else:
        rows = 1 if t.uniform and len(quantizer.thresholds) == 1 else t.shape[0]
    if rows == 1:
        t = replace(t, scale=t.scale[:1], offset=t.offset[:1], low=t.low[:1], high=t.high[:1])
    return t, rows


def _threshold(t: Tensor, value: Value, quantizer: Quantizer, rows: int) -> Threshold | None:
    if rows * len(quantizer.levels) > MOST_THRESHOLDS:
        return None

    def codes(q: IntArray) -> npt.NDArray[Any]:
        return quantizer.codes(t.of(q))

    thresholds = first_reaching(codes, quantizer.levels, value.low, value.high, rows)
    if (thresholds == thresholds[:1]).all():
        thresholds = thresholds[:1]
    return Threshold(thresholds, quantizer.type, quantizer.low)


def _table(t: Tensor, value: Value, quantizer: Quantizer) -> Table | None:
    domain = np.arange(value.type.low, value.type.high + 1)
    codes = quantizer.codes(t.of_codes(domain[None, :]))[0]
    if not np.isfinite(codes).all():
        return None
    return Table(codes.astype(storage(quantizer.type)), value.type, quantizer.type)


def _requantize(t: Tensor, value: Value, grid: Grid, rows: int) -> Requantize | None:
    """A multiplication, where the meaning is a rising affine map from a zero point, then perhaps a clip."""
    rounding = IR_ROUNDINGS.get(grid.rounding)
    if t.then or rounding is None or (t.scale <= 0).any() or (rounding is Rounding.HALF_AWAY and grid.zero):
        return None
    ratio, zero = t.scale / grid.scale, -t.offset / t.scale
    nearest = np.rint(zero)
    ends = grid.codes(np.stack(np.broadcast_arrays(t.low, t.high), axis=1))
    if (nearest != nearest[0]).any() or (ends != ends[0]).any() or np.abs((zero - nearest) * ratio).max() > TOLERANCE:
        return None
    span = (grid.type, int(ends[0, 0]), int(ends[0, 1]))
    wanted = replace(t, offset=-nearest * t.scale)
    equal = _equality(lambda q: grid.codes(wanted.of(q)), span, value, rows)
    found = None
    for bits in MULTIPLIER_BITS if equal else MULTIPLIER_BITS[-1:]:
        try:
            op = scaling(ratio, bits, (int(nearest[0]), grid.zero), span, rounding)
            infer(op, [value.signature])
        except BitfabError:
            continue
        found = op
        if equal and equal(op):
            break
    return found


def _equality(
    codes: Callable[[IntArray], npt.NDArray[Any]], span: Span, value: Value, rows: int
) -> Callable[[Requantize], bool] | None:
    """Tells whether a requantize gives `codes` for every integer; None where that would take too long.

    Both never fall, so they are equal if both change at the same integers.
    """
    levels = np.arange(span[1] + 1, span[2] + 1)
    if rows * len(levels) > MOST_CHECKED:
        return None
    first = first_reaching(codes, levels, value.low, value.high, rows)
    at, before = np.minimum(first, value.high), np.maximum(first - 1, value.low)

    def equal(op: Requantize) -> bool:
        reached = requantized(op, at, channel_axis_first=True) >= levels
        too_early = (requantized(op, before, channel_axis_first=True) >= levels) & (first > value.low)
        return bool((reached == (first <= value.high)).all() and not too_early.any())

    return equal
