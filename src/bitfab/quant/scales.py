"""From ranges and weights to scales, zero points and codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from bitfab.dtypes import FloatArray, IntArray, QParams, QuantSpec, ScaleKind, storage

Range = tuple[float, float]

SHRINK = np.linspace(1.0, 0.2, 41)  # the fractions of the full range that an MSE search tries, widest first


def choose_qparams(limits: Range, spec: QuantSpec) -> QParams:
    """Scale and zero point that cover [low, high], 0 included, with all codes of the spec's type.

    Affine: `scale = (high - low) / (2**bits - 1)`, `zero_point = round(-low / scale)` (Jacob et al. 2018, section 3).
    Symmetric: `scale = max(|low|, |high|) / (2**(bits-1) - 1)`, zero point 0. A power-of-two scale is the next larger
    one, so that it still covers the range.
    """
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if spec.symmetric:
        return QParams((round_scale(max(-low, high) / spec.type.high, spec.scale_kind),))
    levels = spec.type.high - spec.type.low
    scale = round_scale((high - low) / levels, spec.scale_kind)
    zero_point = spec.type.low + min(round(-low / scale), levels) if scale > 0 else spec.type.low
    return QParams((scale,), zero_point)


def round_scale(scale: float, kind: ScaleKind) -> float:
    """The scale itself, or for po2 the smallest power of two that is not below it."""
    if kind is ScaleKind.REAL or scale <= 0:
        return scale
    mantissa, exponent = math.frexp(scale)  # scale = mantissa * 2**exponent, mantissa in [0.5, 1)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def weight_scales(weight: FloatArray, spec: QuantSpec, search: bool) -> FloatArray:
    """One scale per output channel of weight (O, K), equal ones unless `per_channel`; 0 for a channel of zeros.

    The largest magnitude becomes the largest code, `2**(bits-1) - 1`; with `search`, the fraction of it that gives the
    least squared error does. One bit: the mean magnitude (or the power of two nearest to it), which has the least
    squared error of all (XNOR-Net, Rastegari et al. 2016, 1603.05279, equation 6).
    """
    rows = weight if spec.per_channel else weight.reshape(1, -1)
    full = full_scales(rows, spec)
    fractions = (1.0, 0.5) if spec.type.bipolar else tuple(SHRINK) if search else (1.0,)
    scales = least_error(rows, full, fractions, spec.scale_kind, lambda scaled: _rounded(scaled, spec))
    return np.broadcast_to(scales, (len(weight),)).copy()


def full_scales(rows: FloatArray, spec: QuantSpec) -> FloatArray:
    """For each row (R, K) its largest magnitude over the largest code, or for one bit its mean magnitude."""
    if spec.type.bipolar:
        return np.asarray(np.abs(rows).mean(axis=1))
    return np.abs(rows).max(axis=1, initial=0.0) / spec.type.high


def least_error(
    rows: FloatArray,
    full: FloatArray,
    fractions: Iterable[float],
    kind: ScaleKind,
    rounded: Callable[[FloatArray], FloatArray | IntArray],
) -> FloatArray:
    """For each row (R, K) that of the scales `fraction * full` with which `rounded` errs least in squares."""
    best, least = np.zeros(len(rows)), np.full(len(rows), np.inf)
    for fraction in fractions:
        scales = np.asarray([round_scale(scale * fraction, kind) for scale in full])
        safe = np.where(scales > 0, scales, 1.0)[:, None]
        error = np.square(rounded(rows / safe) * safe - rows).sum(axis=1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def weight_codes(weight: FloatArray, scales: FloatArray, spec: QuantSpec) -> IntArray:
    """Symmetric codes of weight (O, K): `clip(round_half_even(w / scale))` to +-(2**(bits-1) - 1).

    One bit: 1 where w >= 0, else -1.
    """
    return _rounded(weight / scales[:, None], spec).astype(storage(spec.type))


def _rounded(scaled: FloatArray, spec: QuantSpec) -> FloatArray:
    if spec.type.bipolar:
        return np.where(scaled >= 0, 1.0, -1.0)
    return np.clip(np.rint(scaled), -spec.type.high, spec.type.high)
