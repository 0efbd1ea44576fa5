"""The report as frozen dataclasses, field for field what `report.json` holds, and the figures derived from others.

One rule for all: every object is always there; a figure that does not apply, or was not measured, is None (JSON null).
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np

from bitfab.output import write_whole

__all__ = [
    "Accuracy",
    "Available",
    "Distribution",
    "Fifo",
    "FifoPeak",
    "Hop",
    "HopKind",
    "Layer",
    "Metric",
    "Network",
    "QuantizedLayer",
    "Report",
    "Resources",
    "SizeBytes",
    "Timing",
    "Verification",
    "fifo_peaks",
    "gops",
    "images_per_second",
    "latency_us",
    "timing",
    "to_json",
    "write_json",
]

Shape = tuple[int, ...]
Real = float  # two classes below have a field that is itself called `float`


class Metric(StrEnum):
    """What `Accuracy.float` and `Accuracy.integer` measure, each in [0, 1]."""

    IOU = "iou"
    ACCURACY = "accuracy"


class HopKind(StrEnum):
    """What a hop of the critical path spends its time on; the words are nextpnr's."""

    CLOCK_TO_Q = "clk-to-q"
    SOURCE = "source"
    LOGIC = "logic"
    ROUTING = "routing"
    SETUP = "setup"


@dataclass(frozen=True)
class Network:
    """Trainable parameters of the float network; multiply-accumulates of one image."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Accuracy:
    """Fractions in [0, 1] on the same test images; pixel accuracy and F1 (of the positive class) for segmentation."""

    metric: Metric | None = None
    float: Real | None = None
    integer: Real | None = None
    pixel_accuracy_float: Real | None = None
    pixel_accuracy_integer: Real | None = None
    f1_float: Real | None = None
    f1_integer: Real | None = None


@dataclass(frozen=True)
class SizeBytes:
    """Bytes of the parameters as float32 and as the integers that the design holds."""

    float: int
    integer: int


@dataclass(frozen=True)
class Fifo:
    """A FIFO of the design: depth and peak occupancy (seen in simulation) in words of `width_bits`."""

    name: str
    depth: int
    peak: int | None
    width_bits: int
    bram: int | None = None


@dataclass(frozen=True)
class FifoPeak:
    """The part of a FIFO that `verification.fifo_peaks` tells: its depth and its peak occupancy, in words."""

    depth: int
    peak: int | None


@dataclass(frozen=True)
class Verification:
    """Whole images through the simulated RTL; every value at the outputs and at every layer's stream is compared."""

    images: int
    values_compared: int
    mismatches: int
    simulator: str | None
    fifo_peaks: Mapping[str, FifoPeak]


@dataclass(frozen=True)
class Timing:
    """Speed of the design at its highest clock; `mac_utilization` is that of its slowest layer."""

    cycles_per_image: int
    latency_cycles: int
    fmax_mhz: Real | None
    latency_us: Real | None
    images_per_second: Real | None
    gops: Real | None
    mac_utilization: Real | None


@dataclass(frozen=True)
class Available:
    """What the part has."""

    lut: int
    ff: int
    dsp: int
    bram: int


@dataclass(frozen=True)
class Resources:
    """What the placed design uses (None where it was not synthesized) of what the part has.

    `note` says what the figures are where they are not those of placed cells with all their delays.
    """

    part: str
    lut: int | None
    ff: int | None
    dsp: int | None
    bram: int | None
    available: Available
    note: str | None = None


@dataclass(frozen=True)
class Layer:
    """One engine of the design.

    Shapes have no batch axis. `types` reads like "uint8 -> int8". `cycles` are the busy cycles for one image,
    `ideal_cycles` are macs / (pe * simd), `utilization` is their quotient (all None for a layer without MACs, save
    `cycles`). `multiplier` is dsp, packed (two products a DSP) or luts. `sqnr_db` compares the layer's output with the
    float network's (`bitfab.quant.layer_sqnr`).
    """

    name: str
    op: str
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    types: str
    macs: int
    pe: int | None
    simd: int | None
    cycles: int
    ideal_cycles: int | None
    utilization: Real | None
    lut: int | None
    ff: int | None
    dsp: int | None
    bram: int | None
    sqnr_db: Real | None
    multiplier: str | None = None


@dataclass(frozen=True)
class Distribution:
    """Float values of a tensor beside what its codes cover; empty where the layer has no such tensor.

    `counts` are the values in equal bins over [low, high], the smallest and the largest value. The codes cover
    [range_low, range_high] (of weights: in the channel of widest range). `clipped` is the share of the values more than
    half a step outside of it, `clipping_error` their share of the squared error, the rest of which is rounding.
    """

    low: Real | None = None
    high: Real | None = None
    counts: tuple[Real, ...] = ()
    range_low: Real | None = None
    range_high: Real | None = None
    clipped: Real | None = None
    clipping_error: Real | None = None


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer with codes of its own, by its path in the user's network; `activation` is what it puts out.

    `sqnr_db` compares the integer graph's activation with the float network's, on the same input.
    """

    name: str
    sqnr_db: Real | None
    weights: Distribution
    activation: Distribution


@dataclass(frozen=True)
class Hop:
    """One step of the critical path, in its order: the instance it is in, its layer where it is in one, its delay."""

    instance: str
    layer: str | None
    kind: HopKind
    delay_ns: Real


@dataclass(frozen=True)
class Report:
    """Everything a build found out. `wall_seconds` keeps the order of the stages; `command` reproduces the build."""

    application: str
    network: Network
    accuracy: Accuracy
    size_bytes: SizeBytes
    verification: Verification
    timing: Timing
    resources: Resources
    wall_seconds: Mapping[str, Real]
    layers: tuple[Layer, ...] = ()
    fifos: tuple[Fifo, ...] = ()
    critical_layer: str | None = None
    critical_path: tuple[Hop, ...] = ()
    command: str | None = None
    recipe: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    quantized: tuple[QuantizedLayer, ...] = ()


def latency_us(latency_cycles: int, fmax_mhz: float) -> float:
    """Microseconds from the first value of an image going in to its last value coming out."""
    return latency_cycles / fmax_mhz


def images_per_second(cycles_per_image: int, fmax_mhz: float) -> float:
    """Steady state: one image every `cycles_per_image` cycles."""
    return fmax_mhz * 1e6 / cycles_per_image


def gops(macs: int, images_per_second: float) -> float:
    """Billions of operations a second; a multiply-accumulate counts as two."""
    return 2 * macs * images_per_second / 1e9


def timing(
    *, cycles_per_image: int, latency_cycles: int, fmax_mhz: float | None, macs: int, layers: Iterable[Layer]
) -> Timing:
    """The measured figures and all that follows from them; what needs the clock is None while `fmax_mhz` is.

    The slowest layer is the one, among those with MACs, that is busy for the most cycles.
    """
    slowest = max((layer for layer in layers if layer.utilization is not None), key=lambda x: x.cycles, default=None)
    rate = None if fmax_mhz is None else images_per_second(cycles_per_image, fmax_mhz)
    return Timing(
        cycles_per_image=cycles_per_image,
        latency_cycles=latency_cycles,
        fmax_mhz=fmax_mhz,
        latency_us=None if fmax_mhz is None else latency_us(latency_cycles, fmax_mhz),
        images_per_second=rate,
        gops=None if rate is None else gops(macs, rate),
        mac_utilization=None if slowest is None else slowest.utilization,
    )


def fifo_peaks(fifos: Iterable[Fifo]) -> dict[str, FifoPeak]:
    """Depth and peak occupancy by name, as `Verification` holds them."""
    return {fifo.name: FifoPeak(fifo.depth, fifo.peak) for fifo in fifos}


def write_json(report: Report, path: Path) -> None:
    """Write `report.json`, whole or not at all: keys in the order of the fields; same report, same bytes.

    Raises:
        ValueError: a figure is NaN or infinite (the message names it), or is no plain value.
        BitfabError: the file cannot be written.
    """
    write_whole(path, to_json(report, "report"))


def to_json(value: object, name: str) -> bytes:
    """Dataclasses, mappings, sequences and numbers as JSON; `name` stands for the value in the ValueError.

    Raises:
        ValueError: a figure is NaN or infinite, or is no plain value.
    """
    return (json.dumps(_plain(value, name), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(value: object, place: str) -> object:
    """`value` as JSON's own types; `place` names it in the error."""
    if isinstance(value, np.generic):
        value = value.item()
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name), f"{place}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: is {value}: a report holds finite numbers, or None for what does not apply")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{place}: a {type(value).__name__} is no plain value")
