"""What stands around a YOLOX detector: photos brought to its input, its output made boxes, two sets of boxes compared.

The network takes (3, H, W) in blue, green, red, 0..255, and puts out (A, 5 + C): for every cell of the grids of its
strides four numbers of a box, how likely an object is there, and of which of C classes. What the numbers mean, and
the preparation of photos: Ge et al. 2021, "YOLOX: Exceeding YOLO Series in 2021" (2107.08430), and its public code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = [
    "Agreement",
    "Boxes",
    "Letterboxed",
    "agreement",
    "cells",
    "decode",
    "detect",
    "iou",
    "letterbox",
    "matches",
    "suppress",
]

STRIDES = (8, 16, 32)
PAD = 114  # grey beside a photo
LEAST_SCORE, OVERLAP, MOST = 0.01, 0.65, 100  # as YOLOX is evaluated; COCO counts a photo's 100 best boxes

Size = tuple[int, int]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Boxes:
    """N boxes: corners (N, 4) as left, top, right, bottom in pixels; scores (N,) in 0..1; classes (N,) from 0."""

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.corners.shape != (count, 4) or self.scores.shape != (count,) or self.classes.shape != (count,):
            shapes = self.corners.shape, self.scores.shape, self.classes.shape
            raise ValueError(f"Boxes: shapes {shapes}: need (N, 4), (N,), (N,)")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: NDArray[Any]) -> Boxes:
        """Those that an array of indices or of truth values selects."""
        return Boxes(self.corners[index], self.scores[index], self.classes[index])

    def above(self, score: float) -> Boxes:
        """Those of at least that score."""
        return self[self.scores >= score]


@dataclass(frozen=True, eq=False)
class Letterboxed:
    """A photo as the network takes it: image float32 (3, H, W), and by how much it was scaled to fit."""

    image: NDArray[np.float32]
    ratio: float


def letterbox(photo: NDArray[np.uint8], size: Size) -> Letterboxed:
    """A photo (h, w, 3) of red, green, blue in the top left corner of (3, *size), its ratio of sides kept.

    `ratio = min(H / h, W / w)`; scaled bilinearly between the centres of pixels, rounded to 0..255; the rest is 114.
    """
    height, width = photo.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    target = max(1, int(height * ratio)), max(1, int(width * ratio))
    image = np.full((3, *size), PAD, np.float32)
    image[:, : target[0], : target[1]] = np.rint(_scaled(photo, target)).transpose(2, 0, 1)[::-1]
    return Letterboxed(image, ratio)


def _scaled(photo: NDArray[np.uint8], target: Size) -> NDArray[np.float32]:
    """The photo (h, w, 3) at another size, each pixel a weighted mean of the four nearest."""
    pixels = photo.astype(np.float32)
    for axis, length in enumerate(target):
        place = ((np.arange(length) + 0.5) * (photo.shape[axis] / length) - 0.5).clip(0, photo.shape[axis] - 1)
        first = place.astype(np.int64)
        share = (place - first).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        following = pixels.take(np.minimum(first + 1, photo.shape[axis] - 1), axis)
        pixels = pixels.take(first, axis) * (1 - share) + following * share
    return pixels


def cells(size: Size, strides: Sequence[int] = STRIDES) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The column and row (A, 2) and the stride (A, 1) of every cell: grids in the order of strides, row by row."""
    corners, sides = [], []
    for stride in strides:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        corners.append(np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64))
        sides.append(np.full((rows.size, 1), float(stride)))
    return np.concatenate(corners), np.concatenate(sides)


def decode(
    output: Floats, size: Size, strides: Sequence[int] = STRIDES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners (A, 4) in pixels of the network's input, and scores (A, C), from its output (A, 5 + C).

    With the first numbers x, y, w, h of the cell in column i and row j of a grid of stride s, the box has its centre
    at `(i + x) s, (j + y) s` and the size `exp(w) s, exp(h) s`; the score of a class is its likelihood times that of
    an object. Raises BitfabError where the output does not have a row for each cell, or holds NaN.
    """
    places, sides = cells(size, strides)
    if output.ndim != 2 or len(output) != len(places) or output.shape[1] < 6:
        raise BitfabError(
            f"detector: output of shape {output.shape} for an input of {size[0]}x{size[1]}; "
            f"a YOLOX network, without its decoding, puts out ({len(places)}, 5 + classes)"
        )
    values = output.astype(np.float64)
    if not np.isfinite(values).all():
        raise BitfabError("detector: its output holds NaN or infinite values; check the network and its input")
    centres = (places + values[:, :2]) * sides
    halves = np.exp(values[:, 2:4].clip(max=20)) * sides / 2  # e**20 strides are beyond any photo
    return np.concatenate([centres - halves, centres + halves], axis=1), values[:, 4:5] * values[:, 5:]


def detect(
    output: Floats,
    size: Size,
    photo: Size,
    score: float = LEAST_SCORE,
    overlap: float = OVERLAP,
    most: int = MOST,
) -> Boxes:
    """The boxes in a photo of (height, width), best first, from the output (A, 5 + C) for its letterboxed image.

    A cell stands for its likeliest class (the first of equal ones). Boxes are clipped to the photo; left out are those
    outside of it or below `score`, then those that `suppress` finds, then all but the `most` best. Raises BitfabError
    as `decode` does.
    """
    corners, likely = decode(output, size)
    classes = likely.argmax(axis=1)
    scores = likely[np.arange(len(likely)), classes]
    ratio = min(size[0] / photo[0], size[1] / photo[1])
    limits = np.array([photo[1], photo[0], photo[1], photo[0]], np.float64)
    corners = (corners / ratio).clip(0, limits)
    inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    found = Boxes(corners, scores, classes)[inside & (scores >= score)]
    return found[suppress(found, overlap)[:most]]


def suppress(boxes: Boxes, overlap: float) -> NDArray[np.int64]:
    """Indices of the boxes that stay, best first: none whose IoU with a better one that stays, of its class, is larger.

    Of equal scores the first is the better.
    """
    order = np.argsort(-boxes.scores, kind="stable")
    corners, classes = boxes.corners[order], boxes.classes[order]
    left, stay = np.ones(len(order), bool), []
    for place in range(len(order)):
        if left[place]:
            stay.append(place)
            rest = np.flatnonzero(left & (classes == classes[place]))
            rest = rest[rest > place]
            left[rest[iou(corners[place : place + 1], corners[rest])[0] > overlap]] = False
    return np.asarray(order[stay], np.int64)


def iou(ones: Floats, others: Floats) -> NDArray[np.float64]:
    """Intersection over union of each of (N, 4) corners with each of (M, 4): (N, M); 0 where both are empty."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    union = _areas(ones)[:, None] + _areas(others)[None, :] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def _areas(corners: Floats) -> Floats:
    return np.asarray((corners[:, 2:] - corners[:, :2]).clip(min=0).prod(axis=1))


def matches(reference: Boxes, found: Boxes, least: float = 0.5) -> tuple[tuple[int, int], ...]:
    """Pairs of indices of equal boxes: of one class, IoU at least `least`, each in one pair, closest first."""
    close = iou(reference.corners, found.corners) * (reference.classes[:, None] == found.classes[None, :])
    pairs: list[tuple[int, int]] = []
    for place in np.argsort(-close, axis=None, kind="stable"):
        one, other = divmod(int(place), len(found))
        if close[one, other] < least or close[one, other] == 0:
            break
        if all(one != a and other != b for a, b in pairs):
            pairs.append((one, other))
    return tuple(pairs)


@dataclass(frozen=True)
class Agreement:
    """How many boxes two networks share, and how many each has. `score` is the mean difference of a pair's scores."""

    shared: int
    reference: int
    found: int
    score: float

    @property
    def share(self) -> float:
        """`2 shared / (reference + found)` in 0..1: 1 where all boxes have a partner, or where there are none."""
        return 2 * self.shared / (self.reference + self.found) if self.reference + self.found else 1.0


def agreement(pairs: Iterable[tuple[Boxes, Boxes]], least: float = 0.5) -> Agreement:
    """How well the boxes agree over all photos: for each those of the reference, and those found."""
    shared, references, others, differences = 0, 0, 0, 0.0
    for reference, found in pairs:
        same = matches(reference, found, least)
        shared, references, others = shared + len(same), references + len(reference), others + len(found)
        differences += sum(abs(float(reference.scores[a] - found.scores[b])) for a, b in same)
    return Agreement(shared, references, others, differences / shared if shared else 0.0)
