"""Objects marked by hand in photos, in COCO's format, and how well boxes that were found fit them.

pycocotools judges and is an optional extra: `pip install "bitfab[detection]"`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitfab.data.detection import Boxes
from bitfab.errors import BitfabError

__all__ = ["CLASSES", "MAX_BYTES", "Marked", "Precision", "Truth", "mean_average_precision", "read"]

MAX_BYTES: Final = 1 << 30
"""Of a file of annotations: those of COCO's 118,000 training photos have less than half of it."""

_NAMES: Final = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
CLASSES: Final = tuple(_NAMES.split(","))
"""What the 80 classes of COCO are called."""


@dataclass(frozen=True, eq=False)
class Marked:
    """N marked objects of a photo: corners (N, 4) and classes (N,) as in `Boxes`; areas (N,) in pixels; crowds (N,).

    COCO sorts objects by the area of their outline; a crowd may be found any number of times, or not at all.
    """

    corners: NDArray[np.float64]
    classes: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The names of the classes, in the order of COCO's numbers for them, and the objects of each photo by its name."""

    classes: tuple[str, ...]
    photos: Mapping[str, Marked]


@dataclass(frozen=True)
class Precision:
    """Mean average precision in 0..1: over IoU from 0.5 to 0.95 in ten steps, and at IoU 0.5 alone."""

    map: float
    map50: float


def read(path: Path) -> Truth:
    """Return what a file such as COCO's instances_val2017.json tells.

    Raises:
        BitfabError: the file is absent, too large, or not in COCO's format.
    """
    remedy = "give annotations in COCO's format, such as instances_val2017.json"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BitfabError(f"{path}: more than {MAX_BYTES:,} bytes; give the annotations of fewer photos")
        return _truth(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BitfabError(f"{path}: unreadable ({' '.join(str(error).split())[:120]}); {remedy}") from error
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BitfabError(f"{path}: not in COCO's format ({error!r:.120}); {remedy}") from error


def _truth(content: Any) -> Truth:
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    number = {identity: index for index, identity in enumerate(sorted(names))}
    photos: dict[int, str] = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
    objects: dict[int, list[tuple[list[float], int, float, bool]]] = {identity: [] for identity in photos}
    for item in content["annotations"]:
        left, top, width, height = (float(length) for length in item["bbox"])
        corners = [left, top, left + width, top + height]
        area, crowd = float(item.get("area", width * height)), bool(item.get("iscrowd", 0))
        objects[int(item["image_id"])].append((corners, number[int(item["category_id"])], area, crowd))
    marked = {photos[identity]: _marked(found) for identity, found in objects.items()}
    return Truth(tuple(names[identity] for identity in sorted(names)), marked)


def _marked(objects: list[tuple[list[float], int, float, bool]]) -> Marked:
    corners, classes, areas, crowds = zip(*objects, strict=True) if objects else ([], [], [], [])
    found = np.array(corners, np.float64).reshape(-1, 4)
    if not np.isfinite(found).all():
        raise ValueError("a box that is not finite")
    return Marked(found, np.array(classes, np.int64), np.array(areas, np.float64), np.array(crowds, bool))


def mean_average_precision(truth: Truth, found: Mapping[str, Boxes]) -> Precision:
    """How well the boxes found in some photos, by their names, fit the truth; 100 boxes a photo count at most.

    It is the mean over classes of COCO's average precision (Lin et al. 2014, 1405.0312), by pycocotools.

    Raises:
        BitfabError: pycocotools is missing; a photo is not in the truth; a class is not; nothing is marked in them.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise BitfabError(
            'detection: pycocotools is not installed (it judges boxes): pip install "bitfab[detection]"'
        ) from error
    for name, boxes in found.items():
        if name not in truth.photos:
            raise BitfabError(f"{name}: has no annotations; give those of this photo, or leave it out")
        if len(boxes) and int(boxes.classes.max()) >= len(truth.classes):
            raise BitfabError(
                f"{name}: a box of class {int(boxes.classes.max())}, but the annotations know {len(truth.classes)} "
                "classes; give those that the network was trained on"
            )
    if not any(len(truth.photos[name].classes) for name in found):
        raise BitfabError("annotations: nothing is marked in these photos; give photos with objects")
    results = [entry for number, boxes in enumerate(found.values()) for entry in _entries(boxes, number)]
    if not results:
        return Precision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress
        expected = COCO()
        expected.dataset = _dataset(truth, found)
        expected.createIndex()
        judge = COCOeval(expected, expected.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return Precision(float(judge.stats[0]), float(judge.stats[1]))


def _dataset(truth: Truth, found: Mapping[str, Boxes]) -> dict[str, Any]:
    """The truth of those photos as pycocotools wants it; numbers of classes from 1."""
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(found):
        marked = truth.photos[name]
        for box, kind, area, crowd in zip(marked.corners, marked.classes, marked.areas, marked.crowds, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(kind) + 1,
                    "bbox": _sides(box),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "images": [{"id": number} for number in range(len(found))],
        "annotations": annotations,
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(truth.classes)],
    }


def _entries(boxes: Boxes, number: int) -> list[dict[str, Any]]:
    return [
        {"image_id": number, "category_id": int(kind) + 1, "bbox": _sides(box), "score": float(score)}
        for box, score, kind in zip(boxes.corners, boxes.scores, boxes.classes, strict=True)
    ]


def _sides(corners: NDArray[np.float64]) -> list[float]:
    left, top, right, bottom = (float(length) for length in corners)
    return [left, top, right - left, bottom - top]
