"""Weights on other integers than evenly spaced ones: powers of two, their sums, a codebook, a factor for each group.

Whatever the levels, a weight is its channel's scale times an integer, so the integer graph needs no operation for them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfab.dtypes import FloatArray, IntArray, IntType, QuantSpec, storage
from bitfab.quant.recipe import FACTOR_BITS, LayerRecipe, WeightLevels
from bitfab.quant.scales import full_scales, least_error, round_scale, weight_codes, weight_scales

CODEBOOK_LIMIT = 127  # a codebook's entries are 8-bit integers, the largest weight of a channel being the largest
SPREAD = np.linspace(1.5, 0.2, 53)  # the fractions of the full range at which a search puts the largest level


def choose_scales(weight: FloatArray, recipe: LayerRecipe) -> FloatArray:
    """The scale of each output channel of weight (O, K), equal ones unless per channel; 0 for a channel of zeros.

    Uniform levels: see `scales.weight_scales`. Powers of two and their sums: the scale of least squared error, since
    gaps between levels are unequal and covering the range is poor. Codebook: the largest magnitude becomes 127.
    Groups: the group of the widest range gets the largest factor.
    """
    spec = recipe.weights
    if recipe.group_size:
        return _group_scales(weight, spec, recipe.group_size)
    if recipe.levels is WeightLevels.UNIFORM:
        return weight_scales(weight, spec, recipe.search_weights)
    if recipe.levels is WeightLevels.CODEBOOK:
        return weight_scales(weight, replace(spec, bits=8), search=False)
    levels = level_set(recipe.levels, spec.bits)
    rows = weight if spec.per_channel else weight.reshape(1, -1)
    full = np.abs(rows).max(axis=1, initial=0.0) / levels[-1]
    scales = least_error(rows, full, SPREAD, spec.scale_kind, lambda scaled: nearest(scaled, levels))
    return np.broadcast_to(scales, (len(weight),)).copy()


def choose_codes(weight: FloatArray, scales: FloatArray, recipe: LayerRecipe) -> IntArray:
    """The integer (O, K) for each weight (O, K): the level nearest to `w / scale`, in groups times their factor."""
    if recipe.group_size:
        return _group_codes(weight, scales, recipe.weights, recipe.group_size)
    if recipe.levels is WeightLevels.UNIFORM:
        return weight_codes(weight, scales, recipe.weights)
    scaled = weight / scales[:, None]
    if recipe.levels is WeightLevels.CODEBOOK:
        importance = np.broadcast_to(np.square(scales)[:, None], scaled.shape)
        return nearest(scaled, codebook(scaled, importance, 2**recipe.weights.bits))
    return nearest(scaled, level_set(recipe.levels, recipe.weights.bits))


def level_set(levels: WeightLevels, bits: int) -> IntArray:
    """The integers, ascending, that weights of `bits` bits can be with po2 or apot levels; half of them negative.

    po2: 0 and +-2**k, k = 0 .. 2**(bits-1) - 2; so {0, +-1, +-2, +-4} for 3 bits (Zhou et al. 2017, 1702.03044).
    apot: signed sums of bits / 2 powers of two, one from each of as many sets of powers that interleave (Li et al.
    2020, 1909.13144, section 2.2, with k = 2 bits a term, the odd bit taking a term of one power); so
    {0, +-1, +-2, +-3, +-4, +-6, +-8, +-10} for 4 bits.
    """
    if levels is WeightLevels.PO2:
        magnitudes = {0, *(2**k for k in range(2 ** (bits - 1) - 1))}
    else:
        count, odd = divmod(bits - 1, 2)
        terms = [[0, 2**i, 2 ** (i + count + odd), 2 ** (i + 2 * count + odd)] for i in range(count)]
        magnitudes = {0}
        for term in terms + [[0, 2**count]] * odd:
            magnitudes = {total + power for total in magnitudes for power in term}
    return np.asarray(sorted(magnitudes | {-m for m in magnitudes}), dtype=np.int64)


def nearest(values: FloatArray, levels: IntArray) -> IntArray:
    """For each value the nearest of the ascending levels, of two at the same distance the lower one."""
    type = IntType.holding(min(int(levels[0]), -1), int(levels[-1]))
    return levels.astype(storage(type))[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]


def codebook(values: FloatArray, importance: FloatArray, count: int) -> IntArray:
    """The `count` integers of -127 .. 127, ascending, to which values come with the least sum of importance * error^2.

    One-dimensional k-means is solved exactly, by dynamic programming over the ordered centroids (Wang and Song 2011,
    Ckmeans.1d.dp, with integers for centroids); so it needs no start values and gives the same result every time.
    Weight sharing by k-means: Han et al. 2016, 1510.00149, section 3.
    """
    candidates = np.arange(-CODEBOOK_LIMIT, CODEBOOK_LIMIT + 1)
    moments = _moments(values.ravel(), importance.ravel())

    def error(centroid: IntArray, start: IntArray, stop: IntArray) -> FloatArray:
        """Of the values between two half-integers, counted from the lowest one, all brought to the centroid."""
        count, total, square = moments[:, stop] - moments[:, start]
        return np.asarray(square - 2 * centroid * total + centroid**2 * count)

    place = 2 * np.arange(len(candidates)) + 1  # of each candidate among the half-integers
    first, last = np.zeros_like(place), np.full_like(place, moments.shape[1] - 1)
    lower, upper, middle = place[:, None], place[None, :], (place[:, None] + place[None, :]) // 2
    between = error(candidates[:, None], lower, middle) + error(candidates[None, :], middle, upper)
    between[lower >= upper] = np.inf
    best, choices = error(candidates, first, place), []
    for _ in range(count - 1):
        totals = best[:, None] + between
        choices.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
    chosen = [int((best + error(candidates, place, last)).argmin())]
    for choice in reversed(choices):
        chosen.append(int(choice[chosen[-1]]))
    return candidates[chosen[::-1]]


def _moments(values: FloatArray, importance: FloatArray) -> FloatArray:
    """Sums of importance * value**p, p = 0, 1, 2, over the values up to each half-integer from -127 on: (3, 510)."""
    bins = np.clip(np.ceil(2 * values) + 2 * CODEBOOK_LIMIT, 0, 4 * CODEBOOK_LIMIT).astype(np.int64)
    sums = [np.bincount(bins, importance * values**p, 4 * CODEBOOK_LIMIT + 1) for p in range(3)]
    return np.pad(np.cumsum(sums, axis=1), ((0, 0), (1, 0)))


def _group_scales(weight: FloatArray, spec: QuantSpec, size: int) -> FloatArray:
    """The scale that a group has with factor 1: the widest group's own scale over the largest factor."""
    widest = np.max([full_scales(part, spec) for part in _groups(weight, size)], axis=0) / (2**FACTOR_BITS - 1)
    if not spec.per_channel:
        widest = np.full_like(widest, widest.max())
    return np.asarray([round_scale(scale, spec.scale_kind) for scale in widest])


def _group_codes(weight: FloatArray, scales: FloatArray, spec: QuantSpec, size: int) -> IntArray:
    """Code times factor, each group with the factor 1 .. 15 of least squared error.

    (Dai et al. 2021, 2102.04503, section 4, rounds the factor that covers the group's range instead.)
    """
    factors = np.arange(1, 2**FACTOR_BITS)
    largest = int(factors[-1]) * spec.type.high
    dtype = storage(IntType.holding(-largest, largest))
    parts = []
    for part in _groups(weight, size):
        tried = np.stack([factor * weight_codes(part, scales * factor, spec).astype(dtype) for factor in factors])
        errors = np.square(tried * scales[:, None] - part).sum(axis=2)
        parts.append(tried[errors.argmin(axis=0), np.arange(len(part))])
    return np.concatenate(parts, axis=1).astype(dtype)


def _groups(weight: FloatArray, size: int) -> list[FloatArray]:
    return np.split(weight, np.arange(size, weight.shape[1], size), axis=1)
