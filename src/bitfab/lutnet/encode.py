"""How a LUT network's inputs become bits: integers for real features, thermometer codes, or the bits as they are."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import FloatArray, IntArray, IntType, QParams, quantize
from bitfab.errors import BitfabError
from bitfab.ir.ops import Bits, Compare
from bitfab.lutnet.network import Features


class Spacing(enum.StrEnum):
    """Where the thresholds of a thermometer code lie."""

    UNIFORM = "uniform"  # at equal distances between the smallest and the largest value seen
    QUANTILE = "quantile"  # so that between two of them lie equally many of the values seen


def fixed_point(x: FloatArray, bits: int = 8, clipped: float = 0.001) -> Features:
    """A signed type and one scale a feature for real features x (samples, features), as a converter would have.

    The scale covers all values but the share `clipped` at either end, which saturates.
    Raises BitfabError for features that are constant or not finite.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise BitfabError(f"features of shape {x.shape}: (samples, features), all finite, expected; clean the data")
    _refuse_constant(x, np.arange(x.shape[1]))
    type = IntType(bits, signed=True)
    reach = np.abs(np.quantile(x, [clipped, 1 - clipped], axis=0)).max(axis=0)
    reach = np.where(reach > 0, reach, np.abs(x).max(axis=0))
    return Features(x.shape[1], type, QParams(tuple((reach / type.high).tolist())))


def integers(x: NDArray[np.generic], features: Features) -> IntArray:
    """Inputs (samples, features) as the network's integers: real ones by its scales, integers as they are."""
    if np.issubdtype(x.dtype, np.integer):
        return x.astype(np.int64)
    if features.qparams is None:
        raise BitfabError("the network does not say what its integers mean; give integers")
    return quantize(x.astype(np.float64), features.qparams, features.type)


def thermometer(
    x: IntArray,
    levels: int,
    spacing: Spacing = Spacing.QUANTILE,
    *,
    read: Sequence[int] | None = None,
    step: int = 1,
) -> Compare:
    """A thermometer code of at most `levels` bits for each feature of x (samples, features): bit i is x >= T_i.

    Only the features `read` are coded, by default all. Thresholds are multiples of `step`: with a power of two,
    comparisons leave out as many bits and cost fewer LUTs. Thresholds that coincide are kept once, so a feature of few
    values gets fewer bits. Bits lie feature by feature, the lowest threshold first.
    Raises BitfabError for features that are constant or that x does not have.
    """
    x = np.asarray(x)
    chosen = np.arange(x.shape[1]) if read is None else np.asarray(read, dtype=np.int64)
    if not len(chosen) or levels < 1 or step < 1:
        raise BitfabError(
            f"thermometer code of {levels} levels in steps of {step} for {len(chosen)} features: at least 1 of each is "
            "needed"
        )
    absent = chosen[(chosen < 0) | (chosen >= x.shape[1])]
    if len(absent):
        raise BitfabError(f"feature {absent[0]}: the samples have features 0 to {x.shape[1] - 1}; read these alone")
    _refuse_constant(x, chosen)
    channels, thresholds = [], []
    for channel in chosen:
        column = x[:, channel].astype(np.int64)
        if spacing is Spacing.QUANTILE:
            cuts = np.quantile(column, np.arange(1, levels + 1) / (levels + 1), method="higher")
        else:
            cuts = np.ceil(np.linspace(column.min(), column.max(), levels + 2)[1:-1])
        snapped = np.maximum(cuts.astype(np.int64) // step, column.min() // step + 1) * step
        distinct = np.unique(snapped)
        channels.append(np.full(len(distinct), channel))
        thresholds.append(distinct)
    return Compare(np.concatenate(channels), np.concatenate(thresholds))


def raw_bits(features: Features) -> Bits:
    """Every bit of every feature, the least significant first, as a converter gives them: costs no logic."""
    count, bits = features.count, features.type.bits
    return Bits(np.repeat(np.arange(count), bits), np.tile(np.arange(bits), count))


def _refuse_constant(x: IntArray | FloatArray, chosen: IntArray) -> None:
    constant = chosen[x[:, chosen].min(axis=0) == x[:, chosen].max(axis=0)]
    if len(constant):
        names = ", ".join(map(str, constant[:8])) + (" and more" if len(constant) > 8 else "")
        raise BitfabError(f"feature {names}: constant over {len(x)} samples, tells nothing; leave it out")
