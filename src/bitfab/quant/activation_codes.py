"""Fixed codes for the inputs of integer layers: evenly spaced, evenly spaced in groups of channels, or log-uniform."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from bitfab.dtypes import FloatArray, IntArray, QuantSpec
from bitfab.quant.scales import Range, choose_qparams

LOG_RANGES = (0.05, 0.1, 0.2, 0.3, 0.5)  # fractions of the range below which levels are powers of two
LOG_LEVELS = (0.25, 0.5, 0.75)  # fractions of the levels that are spent there
FINEST = 20  # the integers of a log-uniform code stay below 2**20: sums are exact in float64
SWEEPS = 20  # of the clustering, at most


class EvenCode(nn.Module):
    """`x = scale * (code - zero)`: scale and zero point () for all channels, or (C,) with those of each one's group.

    Codes are signed, `low .. high`. `groups` (C,) numbers each channel's group from 0; None: all are one.
    """

    scale: Tensor
    zero: Tensor
    groups: Tensor | None

    def __init__(self, limits: FloatArray, spec: QuantSpec, groups: IntArray | None = None) -> None:
        """`limits` is (2,), low and high, or (G, 2) for groups."""
        super().__init__()
        signed = QuantSpec(spec.bits, symmetric=spec.symmetric, scale_kind=spec.scale_kind)
        self.low, self.high = (-signed.type.high if spec.symmetric else signed.type.low), signed.type.high
        rows = np.asarray(limits, dtype=np.float64).reshape(-1, 2)
        scales, zeros = np.asarray([_signed_qparams((low, high), signed) for low, high in rows]).T
        order = np.zeros((), dtype=np.int64) if groups is None else groups
        self.register_buffer("scale", torch.tensor(scales[order], dtype=torch.float32))
        self.register_buffer("zero", torch.tensor(zeros[order], dtype=torch.float32))
        self.register_buffer("groups", None if groups is None else torch.from_numpy(groups))

    def forward(self, x: Tensor) -> Tensor:
        """The codes of x, integers held in float; with groups, channels are the last axis."""
        return (x / self.scale).round_().add_(self.zero).clamp_(self.low, self.high)

    def parts(self) -> Iterator[tuple[Tensor | None, Tensor, Tensor]]:
        """Each group's channels (None: all), scale () and zero point ()."""
        if self.groups is None:
            yield None, self.scale, self.zero
            return
        for group in range(int(self.groups.max()) + 1):
            channels = torch.nonzero(self.groups == group)[:, 0]
            yield channels, self.scale[channels[0]], self.zero[channels[0]]

    def extra_repr(self) -> str:
        count = 1 if self.groups is None else int(self.groups.max()) + 1
        return f"{self.low} .. {self.high}" + (f", {count} groups of channels" if count > 1 else "")


class LogUniformCode(nn.Module):
    """Levels that halve towards the least value, and evenly spaced ones above a threshold: `x = unit * value`.

    Hybrid log-uniform quantization (AHCPTQ, Zhang et al. 2025, 2503.03088, section 3), for the dense small and sparse
    large values behind GELU and softmax: with t the threshold above the least value m, the levels are
    m, m + t / 2**k (k = n - 2 .. 0), then m + t + j * step. Here every level is a whole multiple of `unit`, the
    smallest of those distances, so that sums of products stay exact integers; a product is a shift, or a
    multiplication above the threshold. The paper maps what is below its least power of two to m as well.
    """

    unit: Tensor
    values: Tensor
    edges: Tensor

    def __init__(self, unit: float, values: IntArray) -> None:
        """`values` are the levels in units, ascending integers."""
        super().__init__()
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float64))
        self.register_buffer("values", torch.from_numpy(values).double())
        self.register_buffer("edges", torch.from_numpy((values[1:] + values[:-1]) / 2 * unit).float())

    def forward(self, x: Tensor) -> Tensor:
        """The level nearest to x in units, an integer held in float64."""
        return self.values[torch.bucketize(x.contiguous(), self.edges)]

    def extra_repr(self) -> str:
        return f"{len(self.values)} levels"


ActivationCode = EvenCode | LogUniformCode


def group_channels(limits: FloatArray, count: int) -> tuple[FloatArray, IntArray]:
    """At most `count` groups of channels (C, 2) of similar range: the limits of each (G, 2), each channel's group (C,).

    K-means of the channels' ends from an even spread of their widths; a group's limits cover its channels. (AHCPTQ,
    2503.03088, section 3: channel-aware grouping, which clusters scales and zero points, and uses the centroids.)
    """
    order = np.argsort(limits[:, 1] - limits[:, 0], kind="stable")
    starts = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    centres = limits[starts]
    for _ in range(SWEEPS):
        groups = np.square(limits[:, None] - centres[None]).sum(axis=2).argmin(axis=1)
        centres = np.stack([limits[groups == g].mean(0) if (groups == g).any() else c for g, c in enumerate(centres)])
    _, groups = np.unique(groups, return_inverse=True)
    covered = [(limits[groups == g, 0].min(), limits[groups == g, 1].max()) for g in range(groups.max() + 1)]
    return np.asarray(covered), groups


def log_uniform(values: Tensor, spec: QuantSpec, shares: bool = False) -> LogUniformCode | None:
    """The log-uniform code of least squared error on a sample (N,), or None where evenly spaced codes err less.

    `shares`: values are positive and sum to 1 (softmax), thousands of small ones outweigh a few large; an error counts
    relative to its value then, `(x' - x)**2 / x`.
    """
    sample = values.double()
    importance = 1 / sample.clamp(min=2.0**-FINEST) if shares else torch.ones(())
    low, high = min(float(sample.min()), 0.0), max(float(sample.max()), 0.0)
    even = EvenCode(np.asarray((low, high)), spec)
    best, least = None, float((importance * ((even(sample) - even.zero) * even.scale - sample).square()).sum())
    if high <= low:
        return None
    for unit, levels in _hybrids(low, high, 2**spec.bits):
        code = LogUniformCode(unit, levels)
        error = float((importance * (code(sample) * unit - sample).square()).sum())
        if error < least:
            best, least = code, error
    return best


def _hybrids(low: float, high: float, count: int) -> Iterator[tuple[float, IntArray]]:
    """Unit and levels of every candidate with `count` levels."""
    for reach in LOG_RANGES:
        for share in LOG_LEVELS:
            powers = min(round(count * share), FINEST - math.ceil(-math.log2(reach)) - 1)
            threshold = reach * (high - low)
            unit = threshold / 2 ** (powers - 2)
            steps = (high - low - threshold) / unit * np.arange(1, count - powers + 1) / (count - powers)
            above = np.concatenate([[0], 2 ** np.arange(powers - 1), 2 ** (powers - 2) + np.rint(steps)])
            yield unit, np.unique(above.astype(np.int64)) + round(low / unit)


def _signed_qparams(limits: Range, spec: QuantSpec) -> tuple[float, float]:
    """Scale and zero point for a range, the scale positive even where all is 0."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if high - low < np.finfo(np.float32).tiny * 2**spec.bits:
        return 1.0, 0.0
    qparams = choose_qparams((low, high), spec)
    return qparams.scale[0], float(qparams.zero_point)
