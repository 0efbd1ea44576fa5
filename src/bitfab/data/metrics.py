"""How well a binary segmentation or a classification matches its ground truth."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MaskScores", "mask_scores", "top1_accuracy"]


@dataclass(frozen=True)
class MaskScores:
    """Scores of a predicted mask, each in 0..1; `iou` and `f1` are those of the class 1."""

    pixel_accuracy: float
    iou: float
    f1: float


def mask_scores(predicted: NDArray[Any], truth: NDArray[Any]) -> MaskScores:
    """Score masks of equal shape over all their pixels at once (not the mean of each image's scores).

    A pixel is of class 1 where it is not 0. With TP, FP, FN counted over everything, `iou = TP / (TP + FP + FN)` and
    `f1 = 2 TP / (2 TP + FP + FN)`; both are 1 if neither mask holds a pixel of class 1. Pixel accuracy flatters where
    class 1 is rare: a mask of zeros reaches 0.95 where 5 % of the pixels are of class 1, with iou = f1 = 0.

    Raises:
        ValueError: the shapes differ or are empty.
    """
    if predicted.shape != truth.shape or truth.size == 0:
        raise ValueError(
            f"masks of shape {predicted.shape} and {truth.shape}: need equal shapes with at least one pixel"
        )
    guess, target = predicted != 0, truth != 0
    hits = int(np.count_nonzero(guess & target))
    errors = int(np.count_nonzero(guess ^ target))
    found = hits + errors
    return MaskScores(
        pixel_accuracy=1 - errors / target.size,
        iou=hits / found if found else 1.0,
        f1=2 * hits / (2 * hits + errors) if found else 1.0,
    )


def top1_accuracy(scores: NDArray[Any], labels: NDArray[np.integer[Any]]) -> float:
    """Share of the rows of `scores` (N, classes) whose first largest entry is at the index `labels` (N,) says."""
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(scores)} rows of scores and {len(labels)} labels: need as many of both, at least one")
    return float(np.mean(scores.argmax(axis=1) == labels))
