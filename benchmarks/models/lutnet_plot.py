"""Draws accuracy over LUTs and over latency as SVG, a row for each application, beside the literature's points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

PANEL = (430, 250)  # width and height, in pixels
MARGIN = (60, 40)  # left and right; above and below
OURS, THEIRS = "#0a6", "#888"


@dataclass(frozen=True)
class Point:
    """A network: its application, test accuracy in percent, LUT6, and latency where known; `where` it was measured."""

    task: str
    name: str
    accuracy: float
    luts: float
    nanoseconds: float | None
    ours: bool = False
    where: str = "xcvu9p"


# As the papers give them, by a vendor's tools; their jets are those of OpenML, which networks tell apart better than
# ours. HCL4BNN guesses after 21 minutes of genetic search; its LUTs and delay are about those of its logic alone.
LITERATURE = (
    Point("jets", "NeuraLUT-Assemble", 76.0, 1780, 2.1),
    Point("jets", "DWN lg", 76.3, 7011, 2.1),
    Point("jets", "DWN sm-50", 74.0, 311, 2.0),
    Point("jets", "TreeLUT I", 76.0, 2234, 2.7),
    Point("jets", "TreeLUT II", 75.0, 796, 1.1),
    Point("pulses", "HCL4BNN", 50.0, 33100, 9.5, where="logic alone"),
    Point("mnist", "DWN sm, core", 97.1, 692, 2.4),
    Point("mnist", "DWN lg, core", 98.3, 4082, 6.0),
    Point("mnist", "TreeLUT I", 97.0, 4478, 2.5),
    Point("mnist", "NeuraLUT", 96.0, 54798, 12.0),
    Point("mnist", "FINN SFC-max", 95.8, 91131, 310.0, where="XC7Z045"),
)


def plotted(points: Sequence[Point]) -> str:
    """The SVG: for each application of our points accuracy over LUT6, and over nanoseconds."""
    tasks = list(dict.fromkeys(point.task for point in points if point.ours))
    width, height = 2 * PANEL[0], 30 + PANEL[1] * len(tasks)
    rows = [
        _panels(task, [point for point in points if point.task == task], 30 + i * PANEL[1])
        for i, task in enumerate(tasks)
    ]
    note = (
        "green: bitfab, Yosys and nextpnr, ecp5-85k (LUTs by synth_xilinx); "
        "grey: the papers', other parts and tools, for jets an easier set of data"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="11"><rect width="{width}" height="{height}" fill="white"/><text x="10" y="18">{note}</text>'
        + "".join(rows)
        + "</svg>\n"
    )


def _panels(task: str, points: Sequence[Point], top: int) -> str:
    placed = [point for point in points if point.nanoseconds is not None]
    return _panel(f"{task}: LUT6", points, lambda point: point.luts, 0, top) + _panel(
        f"{task}: ns, register to register", placed, lambda point: point.nanoseconds or 1.0, PANEL[0], top
    )


def _panel(title: str, points: Sequence[Point], value: Callable[[Point], float], left: int, top: int) -> str:
    if not points:
        return ""
    places, accuracies = [math.log10(value(point)) for point in points], [point.accuracy for point in points]
    low, high = min(places) - 0.1, max(places) + 0.5
    worst, best = min(accuracies) - 0.5, max(accuracies) + 0.5
    x0, y0 = left + MARGIN[0], top + PANEL[1] - MARGIN[1]
    across, up = PANEL[0] - 2 * MARGIN[0], PANEL[1] - 2 * MARGIN[1]

    def drawn() -> Iterator[str]:
        yield f'<path d="M{x0} {y0 - up}V{y0}H{x0 + across}" fill="none" stroke="#333"/>'
        yield f'<text x="{x0}" y="{y0 + 30}">{escape(title)} (logarithmic)</text>'
        for end, height in ((worst, y0), (best, y0 - up)):
            yield f'<text x="{x0 - 6}" y="{height}" text-anchor="end">{end:.1f} %</text>'
        for point, place in zip(points, places, strict=True):
            x = x0 + across * (place - low) / (high - low)
            y = y0 - up * (point.accuracy - worst) / (best - worst)
            color = OURS if point.ours else THEIRS
            label = f"{point.name} ({value(point):,.4g})"
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>'
            yield f'<text x="{x + 6:.1f}" y="{y - 4:.1f}" fill="{color}">{escape(label)}</text>'

    return "".join(drawn())
