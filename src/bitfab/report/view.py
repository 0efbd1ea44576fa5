"""What the page says, section by section: sentences, tiles and rows made from a report's figures."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from bitfab.report import text
from bitfab.report.histogram import Histogram, histogram
from bitfab.report.model import HopKind, Layer, Metric, QuantizedLayer, Report

__all__ = ["Comparison", "MemoryRow", "PathRow", "QuantizedRow", "Segment", "Share", "Tile", "page"]

METRIC_NAMES = {Metric.IOU: "Intersection over union", Metric.ACCURACY: "Accuracy"}


@dataclass(frozen=True)
class Tile:
    """One figure that counts: what it is, the figure with its unit, and what puts it into proportion."""

    name: str
    figure: str
    unit: str
    note: str
    alarm: bool = False


@dataclass(frozen=True)
class Comparison:
    """One quantity of the float network and of the integer network."""

    name: str
    float: str
    integer: str
    difference: str


@dataclass(frozen=True)
class Share:
    """How much of one kind of cell the design uses; `used` None where it was not synthesized."""

    name: str
    used: int | None
    available: int


@dataclass(frozen=True)
class MemoryRow:
    """Block RAMs of one layer or FIFO."""

    name: str
    kind: str
    bram: int


@dataclass(frozen=True)
class Segment:
    """A stretch of the critical path, in ns: spent in wires (routing) or in cells."""

    delay_ns: float
    routing: bool


@dataclass(frozen=True)
class PathRow:
    """Consecutive hops in one instance, `start_ns` after the clock edge."""

    instance: str
    layer: str | None
    start_ns: float
    segments: tuple[Segment, ...]

    @property
    def delay_ns(self) -> float:
        return sum(segment.delay_ns for segment in self.segments)


@dataclass(frozen=True)
class QuantizedRow:
    """What codes make of one layer: its signal to noise ratio, and its distributions where they were measured."""

    name: str
    sqnr_db: float | None
    weights: Histogram | None
    activation: Histogram | None


def page(report: Report) -> dict[str, object]:
    """Everything the template shows beside the report itself and the pictures."""
    path = path_rows(report)
    return {
        "report": report,
        "headline": headline(report),
        "lead": lead(report),
        "tiles": tiles(report),
        "shares": shares(report),
        "comparisons": comparisons(report),
        "bottleneck": bottleneck(report.layers),
        "memory": memory_rows(report),
        "quantized": quantized_rows(report.quantized),
        "sqnr_top": sqnr_top(report.quantized),
        "path": path,
        "path_ns": sum(row.delay_ns for row in path),
        "routing_ns": sum(s.delay_ns for row in path for s in row.segments if s.routing),
    }


def headline(report: Report) -> str:
    """The verdict of the verification, then the speed where it is known."""
    timing = report.timing
    words = [f"{report.application} on {report.resources.part}: {_verdict(report)}"]
    if timing.fmax_mhz is not None:
        words.append(f"{text.fixed(timing.fmax_mhz)}{text.NARROW}MHz")
        words.append(f"{text.rate(timing.images_per_second)} images per second")
    return ", ".join(words)


def lead(report: Report) -> str:
    """Two sentences: what integers cost in accuracy, and what was proved."""
    accuracy, proof = report.accuracy, report.verification
    sentences = [
        f"A network of {text.count(report.network.parameters)} parameters and {text.count(report.network.macs)} "
        f"multiply-accumulates per image"
    ]
    if accuracy.metric is not None and accuracy.integer is not None and accuracy.float is not None:
        sentences[0] += (
            f" reaches {text.percent(accuracy.integer)} {METRIC_NAMES[accuracy.metric].lower()} in integers, "
            f"against {text.percent(accuracy.float)} in float"
        )
    if proof.values_compared:
        equal = "all" if proof.mismatches == 0 else f"all but {text.count(proof.mismatches)}"
        sentences.append(
            f"Simulated with {proof.simulator} on {proof.images} whole images, {equal} of the "
            f"{text.count(proof.values_compared)} values at the outputs and in every layer's stream "
            f"equal the integer definition"
        )
    return " ".join(f"{sentence}." for sentence in sentences)


def tiles(report: Report) -> list[Tile]:
    """The few figures that count."""
    accuracy, timing = report.accuracy, report.timing
    name = METRIC_NAMES[accuracy.metric] if accuracy.metric is not None else "Accuracy"
    worse = f"float {text.percent(accuracy.float)} · {text.points(accuracy.float, accuracy.integer)}"
    where = "highest clock" if report.critical_layer is None else f"critical path in {report.critical_layer}"
    clock = "not placed and routed" if timing.fmax_mhz is None else where
    return [
        Tile(
            f"{name}, integer",
            *_split(text.percent(accuracy.integer)),
            "not measured" if accuracy.integer is None else worse,
        ),
        _proof_tile(report),
        Tile("Clock, at most", text.fixed(timing.fmax_mhz), "MHz", clock),
        Tile(
            "Throughput",
            text.rate(timing.images_per_second),
            "images/s",
            f"{text.count(timing.cycles_per_image)} cycles per image",
        ),
        Tile(
            "Latency",
            *_split(text.latency(timing.latency_us)),
            f"{text.count(timing.latency_cycles)} cycles, in to out",
        ),
        Tile(
            "Multipliers at work",
            *_split(text.percent(timing.mac_utilization)),
            "in the slowest layer" + ("" if timing.gops is None else f" · {text.fixed(timing.gops)} GOP/s"),
        ),
    ]


def shares(report: Report) -> list[Share]:
    """LUT, FF, DSP and BRAM of the part."""
    used, has = report.resources, report.resources.available
    return [
        Share("LUT", used.lut, has.lut),
        Share("FF", used.ff, has.ff),
        Share("DSP", used.dsp, has.dsp),
        Share("BRAM", used.bram, has.bram),
    ]


def comparisons(report: Report) -> list[Comparison]:
    """Float against integer in every figure that was measured."""
    a, bytes_ = report.accuracy, report.size_bytes
    name = METRIC_NAMES[a.metric] if a.metric is not None else "Accuracy"
    fractions = (
        (name, a.float, a.integer),
        ("F1 of the positive class", a.f1_float, a.f1_integer),
        ("Pixel accuracy", a.pixel_accuracy_float, a.pixel_accuracy_integer),
    )
    rows = [
        Comparison(label, text.percent(before, 2), text.percent(after, 2), text.points(before, after))
        for label, before, after in fractions
        if before is not None and after is not None
    ]
    smaller = f"{text.fixed(bytes_.float / bytes_.integer, 2)}{text.TIMES} smaller" if bytes_.integer else text.NOTHING
    return [*rows, Comparison("Parameters", text.size(bytes_.float), text.size(bytes_.integer), smaller)]


def bottleneck(layers: Iterable[Layer]) -> str | None:
    """Name of the layer that is busy the longest and so sets the rate of the whole stream."""
    return max(layers, key=lambda layer: layer.cycles).name if layers else None


def memory_rows(report: Report) -> list[MemoryRow]:
    """Layers and FIFOs that hold block RAMs, the largest first."""
    rows = [MemoryRow(layer.name, layer.op, layer.bram) for layer in report.layers if layer.bram]
    rows += [MemoryRow(fifo.name, "FIFO", fifo.bram) for fifo in report.fifos if fifo.bram]
    return sorted(rows, key=lambda row: -row.bram)


def quantized_rows(layers: Iterable[QuantizedLayer]) -> list[QuantizedRow]:
    """The layers, the worst ratio of signal to noise first; those without one last."""
    rows = [
        QuantizedRow(
            layer.name,
            layer.sqnr_db,
            histogram(layer.weights, f"Weights of {layer.name}"),
            histogram(layer.activation, f"Activation of {layer.name}"),
        )
        for layer in layers
    ]
    return sorted(rows, key=lambda row: (row.sqnr_db is None, row.sqnr_db))


def sqnr_top(layers: Iterable[QuantizedLayer]) -> int:
    """Upper end of the SQNR axis in dB: the next multiple of 10 above every figure."""
    known = [layer.sqnr_db for layer in layers if layer.sqnr_db is not None]
    return 10 * (int(max(known, default=0) // 10) + 1) if known else 0


def path_rows(report: Report) -> list[PathRow]:
    """The critical path with consecutive hops in one instance taken together."""
    rows: list[PathRow] = []
    start = 0.0
    for (instance, layer), hops in groupby(report.critical_path, key=lambda hop: (hop.instance, hop.layer)):
        runs = groupby(hops, key=lambda hop: hop.kind is HopKind.ROUTING)
        segments = tuple(Segment(sum(hop.delay_ns for hop in run), routing) for routing, run in runs)
        rows.append(PathRow(instance, layer, start, segments))
        start += rows[-1].delay_ns
    return rows


def _verdict(report: Report) -> str:
    proof = report.verification
    if proof.mismatches:
        return f"NOT bit-exact, {text.count(proof.mismatches)} values differ"
    return "bit-exact" if proof.values_compared else "not simulated"


def _proof_tile(report: Report) -> Tile:
    proof = report.verification
    if not proof.values_compared:
        return Tile("Mismatches in simulation", text.NOTHING, "", "not simulated")
    note = f"of {text.count(proof.values_compared)} values · {proof.images} whole images"
    return Tile("Mismatches in simulation", text.count(proof.mismatches), "", note, alarm=proof.mismatches > 0)


def _split(figure: str) -> tuple[str, str]:
    """A figure and its unit."""
    number, _, unit = figure.partition(text.NARROW)
    return number, unit
