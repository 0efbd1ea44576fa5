"""Observers: they see an activation batch by batch, in memory that does not grow, and tell the range to quantize."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bitfab.dtypes import FloatArray, QuantSpec
from bitfab.errors import BitfabError
from bitfab.quant.recipe import ObserverKind
from bitfab.quant.scales import SHRINK, Range, choose_qparams

BINS_PER_SIDE = 2048
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
        position = (x.flatten().double() / self.reach + 1) * BINS_PER_SIDE
        bins = position.long().clamp_(0, 2 * BINS_PER_SIDE - 1)
        self.counts += torch.bincount(bins, minlength=2 * BINS_PER_SIDE).cpu().numpy()


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
