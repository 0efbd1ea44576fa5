"""Test images of the applications beside what the float and the integer network make of them, as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfab.report import png

__all__ = ["ClassificationSample", "Panel", "Pictures", "SegmentationSample", "Thumbnail", "panels", "thumbnail"]

NIGHT = (20, 26, 38)
"""The darkest colour of every picture, so that images and masks look of one kind on a light page and on a dark one."""

# Night over slate and sand to paper: lightness rises evenly, so that it reads the same in print and to any eye.
RAMP = np.array([NIGHT, (46, 72, 98), (94, 124, 138), (178, 172, 150), (250, 244, 226)], np.float64)
# Neither network; both; integer alone; float alone (orange and sky blue: told apart by the colour-blind as well).
MASK_PALETTE = np.array([NIGHT, (226, 222, 208), (255, 138, 36), (86, 180, 255)], np.uint8)


@dataclass(frozen=True)
class SegmentationSample:
    """One test image, float (H, W), with its truth and both networks' masks, uint8 (H, W), 1 in the positive class."""

    image: NDArray[np.floating[Any]]
    truth: NDArray[np.uint8]
    float_mask: NDArray[np.uint8]
    integer_mask: NDArray[np.uint8]

    def __post_init__(self) -> None:
        shapes = [array.shape for array in (self.image, self.truth, self.float_mask, self.integer_mask)]
        if len(shapes[0]) != 2 or len(set(shapes)) != 1:
            raise ValueError(f"SegmentationSample: shapes {shapes}: all four must be the same (H, W)")


@dataclass(frozen=True)
class ClassificationSample:
    """One test image, float (H, W), with its label and both networks' predictions (a class's number or name)."""

    image: NDArray[np.floating[Any]]
    label: int | str
    float_prediction: int | str
    integer_prediction: int | str


Pictures = Sequence[SegmentationSample] | Sequence[ClassificationSample]


@dataclass(frozen=True)
class Panel:
    """One picture of a segmentation sample. `figure` is the text beside its title."""

    title: str
    figure: str
    alt: str
    source: str


@dataclass(frozen=True)
class Thumbnail:
    """One classification sample as the page shows it."""

    label: str
    float_prediction: str
    integer_prediction: str
    float_wrong: bool
    integer_wrong: bool
    alt: str
    source: str


def panels(sample: SegmentationSample) -> tuple[Panel, Panel, Panel, Panel]:
    """Input, truth, float mask and integer mask; in the last, pixels where the two networks disagree are coloured."""
    size = f"{sample.image.shape[1]} by {sample.image.shape[0]} pixels"
    masks = (sample.truth, sample.float_mask, sample.integer_mask)
    truth, with_float, with_integer = (mask != 0 for mask in masks)
    differing = int(np.count_nonzero(with_float != with_integer))
    float_iou, integer_iou = _percent(_iou(with_float, truth)), _percent(_iou(with_integer, truth))
    compared = np.where(with_float & with_integer, 1, np.where(with_integer, 2, np.where(with_float, 3, 0))).astype(
        np.uint8
    )
    covered = _percent(float(truth.mean()))
    return (
        Panel("Input", "", f"Input image, {size}", _image_uri(sample.image)),
        Panel("Truth", "", f"True mask, {covered} of the pixels", _mask_uri(truth)),
        Panel("Float", f"IoU {float_iou}", f"Mask of the float network, IoU {float_iou}", _mask_uri(with_float)),
        Panel(
            "Integer",
            f"IoU {integer_iou}",
            f"Mask of the integer network, IoU {integer_iou}; {differing} pixels differ from the float network's",
            png.data_uri(compared, MASK_PALETTE),
        ),
    )


def disagreement(sample: SegmentationSample) -> int:
    """Pixels in which the two masks differ."""
    return int(np.count_nonzero((sample.float_mask != 0) != (sample.integer_mask != 0)))


def thumbnail(sample: ClassificationSample) -> Thumbnail:
    """The image with its label and both predictions."""
    label, by_float, by_integer = str(sample.label), str(sample.float_prediction), str(sample.integer_prediction)
    return Thumbnail(
        label=label,
        float_prediction=by_float,
        integer_prediction=by_integer,
        float_wrong=by_float != label,
        integer_wrong=by_integer != label,
        alt=f"Image of class {label}; float predicts {by_float}, integer predicts {by_integer}",
        source=_image_uri(sample.image),
    )


def _iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """Intersection over union; None where both are empty."""
    union = int(np.count_nonzero(mask | truth))
    return int(np.count_nonzero(mask & truth)) / union if union else None


def _percent(fraction: float | None) -> str:
    return "\N{EN DASH}" if fraction is None else f"{100 * fraction:.1f} %"


def _image_uri(image: NDArray[np.floating[Any]]) -> str:
    """The image's own range over the ramp; one level of 64 is finer than the eye asks for and packs well."""
    low, high = float(image.min()), float(image.max())
    levels = np.zeros(image.shape) if high == low else (image - low) / (high - low)
    anchors = np.linspace(0, 63, len(RAMP))
    palette = np.stack([np.interp(np.arange(64), anchors, channel) for channel in RAMP.T], axis=1)
    return png.data_uri(np.rint(levels * 63).astype(np.uint8), np.rint(palette).astype(np.uint8))


def _mask_uri(mask: NDArray[np.bool_]) -> str:
    return png.data_uri(mask.astype(np.uint8), MASK_PALETTE)
