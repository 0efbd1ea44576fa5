"""Observers: they see an activation batch by batch, in memory that does not grow, and tell the range to quantize."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bitfab.dtypes import FloatArray, IntArray, QuantSpec
from bitfab.errors import BitfabError
from bitfab.quant.recipe import ObserverKind
from bitfab.quant.scales import SHRINK, Range, choose_qparams

BINS_PER_SIDE = 2048
ENTROPY_STEPS = 128  # thresholds that the entropy search tries
SMALLEST = 1e-10  # a probability that stands for none, as its logarithm is needed
MOMENTUM = 0.1  # weight of the newest batch in the moving average


class MinMax:
    """The smallest and the largest value seen."""

    def __init__(self) -> None:
        self.low, self.high, self.count = math.inf, -math.inf, 0

    def update(self, x: Tensor) -> None:
        """Take one batch into account; raises BitfabError for NaN or infinite values."""
        low, high = (float(bound) for bound in x.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise BitfabError("NaN or infinite values")
        self.low, self.high, self.count = min(self.low, low), max(self.high, high), self.count + x.numel()
        self._observe(x, low, high)

    def _observe(self, x: Tensor, low: float, high: float) -> None:
        """What else a subclass keeps of the batch."""

    def limits(self, spec: QuantSpec) -> Range:
        """The range [low, high] to be covered by the codes of `spec`."""
        return self.low, self.high


class MovingAverage(MinMax):
    """The exponential moving average of each batch's extremes: one odd batch counts little."""

    def __init__(self) -> None:
        super().__init__()
        self.average: Range | None = None

    def _observe(self, x: Tensor, low: float, high: float) -> None:
        old = self.average or (low, high)
        self.average = (old[0] + MOMENTUM * (low - old[0]), old[1] + MOMENTUM * (high - old[1]))

    def limits(self, spec: QuantSpec) -> Range:
        assert self.average is not None
        return self.average


class Histogram(MinMax):
    """Counts in equal bins over [-reach, reach]; the reach doubles, and bins merge in pairs, when a value is beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.reach = 0.0
        self.counts = np.zeros(2 * BINS_PER_SIDE, dtype=np.int64)

    @property
    def edges(self) -> FloatArray:
        return np.linspace(-self.reach, self.reach, 2 * BINS_PER_SIDE + 1)

    def _observe(self, x: Tensor, low: float, high: float) -> None:
        peak = max(-low, high)
        self.reach = self.reach or peak
        while peak > self.reach:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, BINS_PER_SIDE // 2)
            self.reach *= 2
        if self.reach == 0:  # zeros only, so far
            self.counts[BINS_PER_SIDE] += x.numel()
            return
        values = x.flatten() if x.dtype is torch.float64 else x.flatten().float()
        for part in values.split(1 << 23):  # histc counts in floats, exact up to 2**24
            counts = torch.histc(part, 2 * BINS_PER_SIDE, -self.reach, self.reach)
            self.counts += counts.cpu().numpy().astype(np.int64)


class Percentile(Histogram):
    """The range without the outermost values: `100 - percentile` percent of them lie beyond either end."""

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile

    def limits(self, spec: QuantSpec) -> Range:
        outside = self.count * (1 - self.percentile / 100)
        below, above = self.counts.cumsum(), self.counts[::-1].cumsum()
        low = self.edges[np.searchsorted(below, outside, side="right")]
        high = self.edges[::-1][np.searchsorted(above, outside, side="right")]
        return max(float(low), self.low), min(float(high), self.high)


class Mse(Histogram):
    """The range whose quantization has the least squared error over the histogram; either end is searched in turn."""

    def limits(self, spec: QuantSpec) -> Range:
        filled = self.counts > 0
        counts, centres = self.counts[filled], ((self.edges[1:] + self.edges[:-1]) / 2)[filled]
        largest = (min(self.low, 0.0), max(self.high, 0.0))

        def error(limits: Range) -> float:
            qparams = choose_qparams(limits, spec)
            scale, zero = qparams.scale[0], qparams.zero_point
            codes = np.clip(np.rint(centres / scale) + zero, spec.type.low, spec.type.high)
            return float(counts @ ((codes - zero) * scale - centres) ** 2)

        if spec.symmetric:
            return min(((largest[0] * f, largest[1] * f) for f in SHRINK), key=error)
        low, high = largest
        for _ in range(2):
            low, high = min(((low, largest[1] * f) for f in SHRINK if f * largest[1] > low), key=error)
            low, high = min(((largest[0] * f, high) for f in SHRINK if f * largest[0] < high), key=error)
        return low, high


class Entropy(Histogram):
    """The range whose quantized histogram has the least Kullback-Leibler divergence from the original.

    As in TensorRT's calibration (Migacz 2017) and onnxruntime's: for each threshold t the range is [-t, t] within
    what was seen; P is the histogram inside with what lies beyond added to the end bins, Q the inside alone, merged
    to as many levels as there are codes and spread again over the bins that hold something. Values heaped at zero and
    at the ends (by ReLU, ReLU6) have codes of their own, so they do not count as lost when their bin is merged: inside
    these bins count as much as their neighbours (as NVIDIA's pytorch-quantization does at zero). Else one code for
    each bin seemed best, at the price of nearly the whole range: EfficientNet-Lite0 then fell from 88 % to 8 %.
    """

    def limits(self, spec: QuantSpec) -> Range:
        levels = 2**spec.bits if not spec.symmetric or self.low < 0 else 2 ** (spec.bits - 1)
        filled = np.flatnonzero(self.counts)
        first, last = int(filled[0]), int(filled[-1]) + 1
        level = self.counts.copy()
        for heaped, neighbour in ((BINS_PER_SIDE, BINS_PER_SIDE + 1), (first, first + 1), (last - 1, last - 2)):
            if first <= neighbour < last:
                level[heaped] = min(level[heaped], level[neighbour])
        reaches = range(BINS_PER_SIDE, max(levels // 2, 1), -(BINS_PER_SIDE // ENTROPY_STEPS))
        best, divergence = BINS_PER_SIDE, math.inf
        for reach in reaches:
            low, high = max(first, BINS_PER_SIDE - reach), min(last, BINS_PER_SIDE + reach)
            if high - low >= levels and (found := _divergence(self.counts, level, low, high, levels)) < divergence:
                best, divergence = reach, found
        limit = self.reach * best / BINS_PER_SIDE
        return max(self.low, -limit), min(self.high, limit)


def _divergence(counts: IntArray, level: IntArray, low: int, high: int, levels: int) -> float:
    """KL(P || Q) for the bins [low, high); see `Entropy`."""
    inside = level[low:high].astype(np.float64)
    p = inside.copy()
    p[0] += counts[:low].sum()
    p[-1] += counts[high:].sum()
    starts = np.arange(levels) * len(inside) // levels
    filled = (inside > 0).astype(np.float64)
    sums, sizes = np.add.reduceat(inside, starts), np.add.reduceat(filled, starts)
    q = np.repeat(sums / np.maximum(sizes, 1), np.diff(starts, append=len(inside))) * filled
    p, q = p / p.sum(), q / max(q.sum(), 1)
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], SMALLEST))).sum())


def make_observer(kind: ObserverKind, percentile: float) -> MinMax:
    """A fresh observer of the kind."""
    match kind:
        case ObserverKind.MIN_MAX:
            return MinMax()
        case ObserverKind.MOVING_AVERAGE:
            return MovingAverage()
        case ObserverKind.PERCENTILE:
            return Percentile(percentile)
        case ObserverKind.MSE:
            return Mse()
        case ObserverKind.ENTROPY:
            return Entropy()
        case ObserverKind.BATCH_NORM:
            return MinMax()  # for what no batch norm tells
