"""A distribution as a picture: bars, those beyond the codes' range apart, and where the ends of the range lie."""

import math
from dataclasses import dataclass
from itertools import pairwise

from bitfab.report import text
from bitfab.report.model import Distribution

__all__ = ["HEIGHT", "WIDTH", "Histogram", "histogram"]

WIDTH, HEIGHT = 200, 40
"""Size of the picture in its own units; the page stretches it."""

LEAST_SHARE = 1e-4
"""Of the error, in what is clipped: less is not worth a word."""


@dataclass(frozen=True)
class Histogram:
    """Paths of the bars within the range and beyond it, the positions of the range's ends, and two lines of text.

    The axis spans values and range; bars are as high as the logarithm of the counts, for tails are what matters.
    """

    inside: str
    beyond: str
    ends: tuple[float, float]
    note: str
    alt: str
    clips: bool


def histogram(distribution: Distribution, name: str) -> Histogram | None:
    """The picture of a distribution, `name` says of what in its alternative text; None where nothing was measured."""
    low, high, range_low, range_high, clipped = (
        distribution.low,
        distribution.high,
        distribution.range_low,
        distribution.range_high,
        distribution.clipped,
    )
    if low is None or high is None or range_low is None or range_high is None or clipped is None:
        return None
    left, right = min(low, range_low), max(high, range_high)
    unit = WIDTH / (right - left) if right > left else 0.0
    bins = len(distribution.counts)
    edges = [low + (high - low) * index / bins for index in range(bins + 1)]
    most = math.log1p(max(distribution.counts, default=0)) or 1.0
    heights = [HEIGHT * math.log1p(count) / most for count in distribution.counts]
    covered = [range_low <= (a + b) / 2 <= range_high for a, b in pairwise(edges)]
    places = [unit * (edge - left) for edge in edges]
    share = f"{text.share(clipped)} clipped"
    if distribution.clipping_error is not None and distribution.clipping_error >= LEAST_SHARE:
        share += f", {text.share(distribution.clipping_error)} of the error"
    span = f"{text.real(range_low)} to {text.real(range_high)}"
    return Histogram(
        inside=_steps(places, [height if inside else 0 for height, inside in zip(heights, covered, strict=True)]),
        beyond=_steps(places, [0 if inside else height for height, inside in zip(heights, covered, strict=True)]),
        ends=(unit * (range_low - left), unit * (range_high - left)),
        note=f"{span} · {share}",
        alt=f"{name}: values from {text.real(low)} to {text.real(high)}, codes cover {span}, {share}",
        clips=clipped > 0,
    )


def _steps(places: list[float], heights: list[float]) -> str:
    """The outline of bars as an SVG path, from the base line up; empty where all are."""
    if not any(heights):
        return ""
    words, level = [f"M{places[0]:.1f} {HEIGHT}"], 0.0
    for (start, _), height in zip(pairwise(places), heights, strict=True):
        if height != level:
            words.append(f"H{start:.1f}V{HEIGHT - height:.1f}")
        level = height
    return "".join([*words, f"H{places[-1]:.1f}V{HEIGHT}Z"])
