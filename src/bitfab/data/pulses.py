"""Frames of a silicon photomultiplier (SiPM) with one pulse or two overlapping ones, generated or read from a file.

A pulse that starts at sample `s` rises with the time constant `r` and decays with `d`, both in samples, `r < d`:

    v(t) = A (exp(-(t - s) / d) - exp(-(t - s) / r))   for t >= s, else 0,

the response of a quenched cell and its readout, two RC stages (S. Seifert et al., IEEE TNS 56(6), 2009, section II).
It peaks `d r / (d - r) ln(d / r)` samples after its start. A frame has 128 samples of 7 bits: the first pulse starts at
sample 1, the second 5 to 30 samples later, and the converter cuts `BASELINE + v + noise` to 0..127 towards zero.
The ranges of the parameters below were fitted to 2,000 frames of an independent simulation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bitfab.data import npz
from bitfab.errors import BitfabError

__all__ = ["BASELINE", "LEVELS", "OFFSETS", "SAMPLES", "SPLIT_SEEDS", "generate", "load"]

SPLIT_SEEDS: Final = {"train": 1, "validation": 2, "test": 3}
"""The dataset seed of each split. Different seeds give independent frames, so the splits are disjoint."""

SAMPLES: Final = 128
"""Samples in a frame."""

LEVELS: Final = 128
"""Codes of a sample, 0..127."""

BASELINE: Final = 8
"""The code of a sample without light."""

OFFSETS: Final = (5, 30)
"""Fewest and most samples from the first pulse's start to the second's, both included."""

_START: Final = 1
_DECAY: Final = (2.4, 19.35)
_RISE_RATE: Final = (1 / 6.1, 1 / 2.37)
_AMPLITUDE: Final = 165.5
_AMPLITUDE_PER_DECAY: Final = 8.55
_HEIGHTS: Final = (2.0, 105.0)
_SOFTENING: Final = 2.0
_BLOCK: Final = 2048
_PROPOSALS: Final = 8
_BIN: Final = 4.0


def generate(count: int, seed: int, noise: float = 0.0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `count` frames, half of them with two pulses (ten thousand a second and more).

    Shapes: `d` is uniform in 2.4..19.35, `A` uniform in 8.55 d..165.5 (slow pulses carry more charge), `1 / r` uniform
    in 1/6.1..1/2.37. A lone pulse's height is uniform in 2..105. The heights of two pulses are independent, each of
    density 1 / (h + 2), most of them small as dark counts are; such pairs are thinned until the highest sample of their
    sum is about uniform too, so that the height alone tells little about the class. Frame `i` depends on
    `(seed, i, noise)` alone, so a shorter set is a prefix of a longer one; no global random state is read or changed.

    Args:
        count: number of frames N, at least 1.
        seed: non-negative dataset seed, see `SPLIT_SEEDS`.
        noise: standard deviation of white electronic noise before the converter, in codes; 0 is none.

    Returns:
        frames, uint8 (N, 128) in 0..127, and labels, int64 (N,): 0 = one pulse, 1 = two. Any even number of first
        frames holds as many of both.

    Raises:
        BitfabError: an argument is out of range.
    """
    if count < 1 or seed < 0 or not 0 <= noise < np.inf:
        raise BitfabError(
            f"pulses.generate: count={count}, seed={seed}, noise={noise} is out of range: "
            "choose count >= 1, seed >= 0, a finite noise >= 0"
        )
    frames = np.empty((count, SAMPLES), np.uint8)
    labels = np.empty(count, np.int64)
    for index, start in enumerate(range(0, count, _BLOCK)):
        voltages, which = _block(np.random.default_rng([seed, index, 0]))
        voltages += noise * np.random.default_rng([seed, index, 1]).standard_normal(voltages.shape)
        here = slice(start, min(start + _BLOCK, count))
        frames[here] = np.clip(voltages + BASELINE, 0, LEVELS - 1)[: here.stop - start]
        labels[here] = which[: here.stop - start]
    return frames, labels


def load(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read measured or simulated frames from an .npz file with the arrays `x` (N, 128) and `y` (N,).

    Returns:
        frames and labels as `generate` returns them, in the file's order.

    Raises:
        BitfabError: the file is absent or unreadable, or an array has another shape, type or range.
    """
    frames, labels = npz.read(path, "x", "y")
    if frames.dtype != np.uint8 or frames.ndim != 2 or frames.shape[1] != SAMPLES or len(frames) == 0:
        raise BitfabError(
            f"{path}: x is {frames.dtype} of shape {frames.shape}: frames are uint8 of shape (N, {SAMPLES}), N >= 1"
        )
    if frames.max() >= LEVELS:
        raise BitfabError(f"{path}: x holds {frames.max()}: samples have 7 bits, 0..{LEVELS - 1}")
    return frames, npz.labels(path, labels, len(frames), classes=2)


@dataclass(frozen=True)
class _Pulses:
    """Amplitude `A` in codes, decay `d` and rise `r` in samples, and the height of the peak in codes; each (N,)."""

    amplitude: NDArray[np.float64]
    decay: NDArray[np.float64]
    rise: NDArray[np.float64]
    height: NDArray[np.float64]

    def at(self, start: NDArray[np.int64]) -> NDArray[np.float64]:
        """The voltages (N, 128), in codes, of the pulses that start at the samples `start` (N,)."""
        time = np.maximum(np.arange(SAMPLES) - start[:, None], 0)
        decayed, risen = np.exp(-time / self.decay[:, None]), np.exp(-time / self.rise[:, None])
        return self.amplitude[:, None] * (decayed - risen)


def _block(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Voltages (2048, 128) and labels (2048,), of which each adjacent pair has one of either class."""
    shapes = _shapes(rng)
    half = _BLOCK // 2
    single = _of_height(shapes, rng.uniform(*_HEIGHTS, half), rng).at(np.full(half, _START))
    labels = rng.permuted(np.tile(np.arange(2), (half, 1)), axis=1).ravel()
    voltages = np.empty((_BLOCK, SAMPLES))
    voltages[labels == 0], voltages[labels == 1] = single, _pairs(shapes, half, rng)
    return voltages, labels


def _pairs(shapes: _Pulses, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Voltages (count, 128) of two pulses: proposals, thinned to a uniform height of the sum."""
    proposals = _PROPOSALS * count
    first = _of_height(shapes, _small_heights(rng, proposals), rng)
    second = _of_height(shapes, _small_heights(rng, proposals), rng)
    offset = rng.integers(OFFSETS[0], OFFSETS[1] + 1, proposals)
    start = np.full(proposals, _START)
    voltages = first.at(start) + second.at(start + offset)
    peak = np.minimum(voltages.max(axis=1), LEVELS - 1 - BASELINE)
    bins = ((peak - _HEIGHTS[0]) / _BIN).astype(np.int64)
    weight = np.where(peak >= _HEIGHTS[0], 1 / np.bincount(bins.clip(0))[bins.clip(0)], 0)
    return voltages[rng.choice(proposals, count, replace=False, p=weight / weight.sum())]


def _shapes(rng: np.random.Generator) -> _Pulses:
    """Pulses of the parameters' joint distribution, ordered by height."""
    count = 16 * _BLOCK
    decay = rng.uniform(*_DECAY, count)
    amplitude = rng.uniform(_AMPLITUDE_PER_DECAY * decay, _AMPLITUDE)
    rise = 1 / rng.uniform(*_RISE_RATE, count)
    fast = rise < decay / 1.01
    amplitude, decay, rise = amplitude[fast], decay[fast], rise[fast]
    ratio = decay / rise
    height = amplitude * ratio ** (-1 / (ratio - 1)) * (1 - 1 / ratio)
    order = height.argsort()
    return _Pulses(amplitude[order], decay[order], rise[order], height[order])


def _of_height(shapes: _Pulses, height: NDArray[np.float64], rng: np.random.Generator) -> _Pulses:
    """Pulses of the wanted heights (N,), each with one of the sixteen shapes nearest in height, scaled to fit."""
    near = np.searchsorted(shapes.height, height) + rng.integers(-8, 8, len(height))
    near = near.clip(0, len(shapes.height) - 1)
    amplitude = shapes.amplitude[near] * height / shapes.height[near]
    return _Pulses(amplitude, shapes.decay[near], shapes.rise[near], height)


def _small_heights(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Heights in 0..105 codes of density proportional to 1 / (h + 2), by inversion of its distribution function."""
    return _SOFTENING * ((_HEIGHTS[1] / _SOFTENING + 1) ** rng.random(count) - 1)
