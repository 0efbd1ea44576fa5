"""Photos with the boxes of a float and of an integer detector side by side, as one self-contained HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError
from bitfab.output import write_whole
from bitfab.report import jpeg

__all__ = ["Box", "DetectionSample", "ResultsTable", "render_detections", "write_detections"]

LIMIT_BYTES = 6_000_000
"""A page is smaller than this."""

TEXT = 0.026  # height of a label, as a share of the photo's longer side


@dataclass(frozen=True)
class Box:
    """A box in pixels of its photo, of a class, with a score in 0..1; `shared`: the other network has it as well."""

    left: float
    top: float
    right: float
    bottom: float
    label: str
    score: float
    shared: bool


@dataclass(frozen=True, eq=False)
class DetectionSample:
    """A photo, uint8 (H, W, 3) of red, green, blue, with the boxes that both networks find in it."""

    name: str
    photo: NDArray[np.uint8]
    float_boxes: tuple[Box, ...]
    integer_boxes: tuple[Box, ...]


@dataclass(frozen=True)
class ResultsTable:
    """Figures beside the pictures, as text: the first column names what was measured."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"ResultsTable: rows must have {len(self.columns)} cells")


@dataclass(frozen=True)
class _Panel:
    """One of the two pictures of a sample; `kind` is the style of boxes that this network alone has."""

    title: str
    kind: str
    boxes: tuple[Box, ...]
    alt: str


def write_detections(
    path: Path, title: str, lead: str, table: ResultsTable, samples: Sequence[DetectionSample]
) -> None:
    """Write the page of `render_detections`; the file appears whole or not at all.

    Raises:
        BitfabError: Pillow is missing, the page would reach 6 MB, or the file cannot be written.
    """
    page = render_detections(title, lead, table, samples).encode()
    if len(page) >= LIMIT_BYTES:
        raise BitfabError(f"{path}: would have {len(page)} bytes, the limit is {LIMIT_BYTES}: show fewer photos")
    write_whole(path, page)


def render_detections(title: str, lead: str, table: ResultsTable, samples: Sequence[DetectionSample]) -> str:
    """The page as text; same input, same text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bitfab.report", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("detections.html").render(
        title=title,
        lead=lead,
        table=table,
        samples=[
            {
                "sample": sample,
                "source": jpeg.data_uri(sample.photo),
                "width": sample.photo.shape[1],
                "height": sample.photo.shape[0],
                "text": TEXT * max(sample.photo.shape[:2]),
                "panels": _panels(sample),
                "differing": sum(not box.shared for box in (*sample.float_boxes, *sample.integer_boxes)),
            }
            for sample in samples
        ],
    )


def _panels(sample: DetectionSample) -> tuple[_Panel, _Panel]:
    def told(network: str, boxes: tuple[Box, ...]) -> str:
        found = ", ".join(f"{box.label} {box.score:.2f}" for box in boxes) or "nothing"
        return f"{sample.name}: the {network} network finds {found}"

    return (
        _Panel("Float", "float", sample.float_boxes, told("float", sample.float_boxes)),
        _Panel("Integer", "integer", sample.integer_boxes, told("integer", sample.integer_boxes)),
    )
