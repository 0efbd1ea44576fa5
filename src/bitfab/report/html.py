"""The report as one self-contained HTML page: no script, no request, a few hundred kilobytes at most."""

from pathlib import Path

import jinja2

from bitfab.errors import BitfabError
from bitfab.output import write_whole
from bitfab.report import histogram, text, view
from bitfab.report.model import Report
from bitfab.report.pictures import ClassificationSample, Pictures, SegmentationSample, disagreement, panels, thumbnail

__all__ = ["render_html", "write_html"]

LIMIT_BYTES = 3_000_000
"""A page is smaller than this."""


def write_html(report: Report, pictures: Pictures, path: Path) -> None:
    """Write the page of `render_html`; the file appears whole or not at all.

    Raises:
        BitfabError: the page would reach 3 MB, or the file cannot be written.
    """
    page = render_html(report, pictures)
    size = len(page.encode())
    if size >= LIMIT_BYTES:
        raise BitfabError(
            f"{path}: would have {size} bytes, the limit is {LIMIT_BYTES}: show fewer or smaller pictures"
        )
    write_whole(path, page.encode())


def render_html(report: Report, pictures: Pictures) -> str:
    """The page as text; same input, same text. `pictures` are about six segmentation samples or a few dozen
    classification samples, and may be empty."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bitfab.report", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(text, name) for name in text.__all__}
    segmented = [sample for sample in pictures if isinstance(sample, SegmentationSample)]
    classified = [sample for sample in pictures if isinstance(sample, ClassificationSample)]
    return environment.get_template("report.html").render(
        **view.page(report),
        width=histogram.WIDTH,
        height=histogram.HEIGHT,
        segmented=[(panels(sample), disagreement(sample)) for sample in segmented],
        classified=[thumbnail(sample) for sample in classified],
    )
