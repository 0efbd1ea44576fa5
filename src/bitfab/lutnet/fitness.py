"""What counts of ones are worth: samples in the order of labels, margins, and a smooth loss, exact everywhere."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import FloatArray, IntArray
from bitfab.lutnet.packed import Planes

LOSS_ONE = 1 << 16
"""The loss of a sample in fixed point: sums of integers are the same in any order, on any machine."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Encoded samples in the order of their labels: planes (bits, words); class c is `bounds[c]` to `bounds[c + 1]`."""

    planes: Planes
    bounds: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self.bounds[-1]


def margins(counts: IntArray, bounds: tuple[int, ...]) -> NDArray[np.int16]:
    """By how much each sample's class leads, (P, samples), for counts (P, classes, samples) in the order of labels.

    `2 * own - max over the others of (2 * other + (other comes first))`: the answer, the first of the largest, is right
    if and only if this is not negative.
    """
    result = np.empty((counts.shape[0], counts.shape[2]), dtype=np.int16)
    doubled = 2 * counts.astype(np.int16)
    for label, (start, stop) in enumerate(itertools.pairwise(bounds)):
        others = [doubled[:, o, start:stop] + np.int16(o < label) for o in range(counts.shape[1]) if o != label]
        result[:, start:stop] = doubled[:, label, start:stop] - np.maximum.reduce(others)
    return result


def error(margin: IntArray) -> FloatArray:
    """The share of samples answered wrongly, (P,), for margins (P, samples)."""
    return np.count_nonzero(margin < 0, axis=1) / margin.shape[1]


def loss(margin: IntArray, reach: int, softness: float) -> FloatArray:
    """The mean over the samples of `log2(1 + exp(-(margin + 1/2) / 2 / softness))`, (P,); margins -reach to reach.

    `softness` is in ones counted: the logistic loss of the count difference, 1 for a tie, which leads the search where
    the share of errors is flat.
    """
    return loss_table(reach, softness)[margin + reach].sum(axis=1, dtype=np.int64) / (LOSS_ONE * margin.shape[1])


def loss_table(reach: int, softness: float) -> NDArray[np.int32]:
    """The loss of the margins -reach to reach in units of 1 / LOSS_ONE."""
    steps = np.arange(-reach, reach + 1)
    exact = np.logaddexp(0, -(steps + 0.5) / 2 / softness) / np.log(2)
    return np.round(exact * LOSS_ONE).astype(np.int32)
