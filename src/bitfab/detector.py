"""A detector in float and as an integer graph on the same photos: calibration, boxes of both, how they compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfab.data import coco, photos
from bitfab.data.detection import Agreement, Boxes, Size, agreement, detect, letterbox, matches
from bitfab.dtypes import dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.ir.graph import Graph
from bitfab.ir.run_fast import run_fast
from bitfab.report.detections import (
    Box,
    DetectionSample,
    ResultsTable,
    write_detections,
)

__all__ = [
    "SHOWN",
    "Comparison",
    "boxes_of",
    "calibration",
    "compare",
    "float_predictor",
    "input_size",
    "inputs",
    "integer_predictor",
    "report",
    "samples",
]

SHOWN = 0.3
"""The score from which on a box is shown and compared; precision counts less likely ones as well."""

MOST_SHOWN = 8  # photos in a report
MOST_PHOTOS = 128  # of a folder: as many as calibration keeps

Predictor = Callable[[NDArray[np.float32]], NDArray[Any]]  # letterboxed photos (N, 3, H, W) -> outputs (N, A, 5 + C)


@dataclass(frozen=True)
class Comparison:
    """Boxes of both networks by the photos' names; agreement of the likely ones; precision where the truth is known."""

    float_boxes: Mapping[str, Boxes]
    integer_boxes: Mapping[str, Boxes]
    agreement: Agreement
    agreement75: Agreement
    float_precision: coco.Precision | None = None
    integer_precision: coco.Precision | None = None


def input_size(net: nn.Module) -> Size:
    """Height and width of the photos that a network takes, as its file declares; BitfabError where it does not."""
    shape = getattr(net, "input_shape", ())
    match tuple(shape):
        case (_, 3, int(height), int(width)):
            return height, width
    declared = f"an input of {tuple(shape)}" if shape else "no input size"
    raise BitfabError(f"detector: the network declares {declared}; export it for one size, such as (N, 3, 416, 416)")


def calibration(folder: Path, net: nn.Module) -> list[NDArray[np.float32]]:
    """The photos of a folder as the network takes them, (3, H, W) each; of many, 128 spread evenly over the folder.

    Raises:
        BitfabError: as `photos.folder` and `photos.read` do; the network declares no input size.
    """
    return list(inputs(_few(photos.folder(folder)), input_size(net)))


def report(path: Path, net: nn.Module, graph: Graph, folder: Path) -> str:
    """Write a page with the boxes of both networks in a folder's photos, 128 at most; return its essence in a line.

    Raises:
        BitfabError: as `calibration` does; the network is no YOLOX detector; the page cannot be written.
    """
    paths, size = _few(photos.folder(folder)), input_size(net)
    float_boxes = boxes_of(float_predictor(net), paths, size)
    compared = compare(float_boxes, boxes_of(integer_predictor(graph), paths, size))
    rows = tuple(
        (f"IoU at least {least}", str(found.reference), str(found.found), str(found.shared), f"{found.share:.1%}")
        for least, found in ((0.5, compared.agreement), (0.75, compared.agreement75))
    )
    columns = ("Boxes are the same from", "float", "integer", "in both", "share")
    table = ResultsTable(columns, rows, f"{len(paths)} photos, boxes with a score of at least {SHOWN}.")
    lead = "What the float network and its integer graph find in the same photos."
    write_detections(path, f"{graph.name}: float against integer", lead, table, samples(compared, paths))
    shared, score = compared.agreement.share, compared.agreement.score
    return f"{path}: {len(paths)} photos, {shared:.1%} of the boxes shared, their scores {score:.3f} apart"


def _few(paths: Sequence[Path]) -> list[Path]:
    """All paths, or as many as MOST_PHOTOS, evenly spread."""
    count = min(len(paths), MOST_PHOTOS)
    return [paths[index * len(paths) // count] for index in range(count)]


def inputs(paths: Sequence[Path], size: Size) -> Iterator[NDArray[np.float32]]:
    """Photos as calibration data: each letterboxed, (3, *size). Raises BitfabError as `photos.read` does."""
    for path in paths:
        yield letterbox(photos.read(path), size).image


def float_predictor(net: nn.Module) -> Predictor:
    """A float network as a function of letterboxed photos."""

    def predict(images: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            found = net(torch.from_numpy(images))
        if not isinstance(found, torch.Tensor):
            raise BitfabError(
                f"detector: puts out a {type(found).__name__}; one tensor (N, cells, 5 + classes) is needed"
            )
        return np.asarray(found.numpy())

    return predict


def integer_predictor(graph: Graph) -> Predictor:
    """An integer graph as a function of letterboxed photos, by `run_fast`."""
    (source, *more), (result, *others) = graph.inputs, graph.output_values
    if more or others or source.qparams is None or result.qparams is None:
        raise BitfabError(f"{graph.name}: is no detector's graph; one input and one output with scales are needed")
    scale, offset = source.qparams, result.qparams

    def predict(images: NDArray[np.float32]) -> NDArray[Any]:
        codes = run_fast(graph, quantize(images, scale, source.type))
        assert isinstance(codes, np.ndarray)
        return np.asarray(dequantize(codes, offset))

    return predict


def boxes_of(predict: Predictor, paths: Sequence[Path], size: Size) -> Mapping[str, Boxes]:
    """The boxes in each photo, by its name, photo after photo. Raises BitfabError as `photos.read`, `decode` do."""
    found = {}
    for path in paths:
        photo = photos.read(path)
        output = predict(letterbox(photo, size).image[None])
        found[path.name] = detect(output[0], size, (photo.shape[0], photo.shape[1]))
    return found


def compare(
    float_boxes: Mapping[str, Boxes], integer_boxes: Mapping[str, Boxes], truth: coco.Truth | None = None
) -> Comparison:
    """How the boxes of two networks on the same photos compare, and each with the truth where it is given."""
    pairs = [(boxes.above(SHOWN), integer_boxes[name].above(SHOWN)) for name, boxes in float_boxes.items()]
    known = [None if truth is None else coco.mean_average_precision(truth, x) for x in (float_boxes, integer_boxes)]
    return Comparison(float_boxes, integer_boxes, agreement(pairs), agreement(pairs, 0.75), *known)


def samples(
    comparison: Comparison, paths: Sequence[Path], classes: Sequence[str] = coco.CLASSES
) -> tuple[DetectionSample, ...]:
    """The first photos with both sets of boxes of at least `SHOWN`, as the report shows them."""
    return tuple(_sample(comparison, path, classes) for path in paths[:MOST_SHOWN])


def _sample(comparison: Comparison, path: Path, classes: Sequence[str]) -> DetectionSample:
    reference = comparison.float_boxes[path.name].above(SHOWN)
    found = comparison.integer_boxes[path.name].above(SHOWN)
    pairs = matches(reference, found)
    ours, theirs = {a for a, _ in pairs}, {b for _, b in pairs}
    return DetectionSample(
        path.name, photos.read(path), _drawn(reference, ours, classes), _drawn(found, theirs, classes)
    )


def _drawn(boxes: Boxes, shared: set[int], classes: Sequence[str]) -> tuple[Box, ...]:
    drawn = []
    for place, (corners, kind, score) in enumerate(zip(boxes.corners, boxes.classes, boxes.scores, strict=True)):
        left, top, right, bottom = (float(length) for length in corners)
        drawn.append(Box(left, top, right, bottom, _name(classes, int(kind)), float(score), place in shared))
    return tuple(drawn)


def _name(classes: Sequence[str], kind: int) -> str:
    return classes[kind] if kind < len(classes) else f"class {kind}"
