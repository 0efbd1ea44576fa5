"""INT8 of a pre-trained detector: YOLOX-nano on COCO photos, its boxes compared with the float network's.

    python benchmarks/yolo.py [--photos N] [--page FILE] [--json FILE]

Data: ../shared/data/models/yolox_nano.onnx and 64 photos of ../shared/data/coco, shuffled with a fixed seed: the first
24 calibrate, the other 40 test (`--photos` takes fewer of these). Without the data nothing is measured, visibly.

Our static networks are integer graphs, by `run_fast`; the dynamic one is a module with integer weights and sums, whose
activations are quantized as they come, each photo's by itself, so nothing calibrates it. onnxruntime's are files of its
own static quantization (QDQ, unsigned activations, signed weights per channel, after its own preparation), also with
what follows the last convolutions left in float; the best of these counts. mAP is pycocotools'. 40 photos hold few
objects, so it wavers by a point with settings that should not matter: the agreement of likely boxes (score 0.3, same
class, IoU 0.5 and 0.75) with those of the float network stands beside. Times are of one photo at a time, one network
after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.common import ROOT, Check, Peer, main, peer_python
from bitfab import detector
from bitfab.data import coco, photos
from bitfab.data.detection import Boxes
from bitfab.frontend.onnx import load_onnx
from bitfab.frontend.torch import capture
from bitfab.quant import (
    FP16,
    BiasCorrection,
    Override,
    Recipe,
    choose,
    float_bytes,
    fold,
    lower_choices,
    quantize_dynamic,
    reduce_floats,
)
from bitfab.quant.analysis import sensitivity
from bitfab.quant.dynamic import IntegerLayer
from bitfab.quant.metrics import Sqnr
from bitfab.quant.plan import make_plan
from bitfab.quant.presets import detection
from bitfab.quant.simulate import Simulation
from bitfab.quant.weights import weight_bytes
from bitfab.report.detections import ResultsTable, write_detections

DATA = ROOT.parent / "shared" / "data"
MODEL, FOLDER, TRUTH = DATA / "models/yolox_nano.onnx", DATA / "coco/val2017", DATA / "coco/instances_val64.json"
SIZE = (416, 416)
CALIBRATION, SEED = 24, 0
ONNXRUNTIME = ["onnxruntime==1.31.0", "onnx==1.21.0", "qonnx==1.0.0", "numpy==2.4.6"]
THEIRS = {
    "onnxruntime INT8": {"method": "MinMax", "ends": False},
    "onnxruntime INT8, ends float": {"method": "MinMax", "ends": True},
}
FLOAT, STATIC, DYNAMIC = "FP32 (onnxruntime)", "static INT8 (preset detection)", "dynamic INT8"
IMAGES = 4  # on which sensitivities are measured
KEPT = 0.1  # of the weights that W4A8 leaves at 8 bits
DROP = 1.5  # points of mAP that static INT8 may lose


@dataclass(frozen=True)
class Result:
    """What a network gave: boxes by photo, bytes of its parameters (or file), ms a photo, seconds to quantize."""

    name: str
    boxes: Mapping[str, Boxes]
    bytes: int
    milliseconds: float | None
    seconds: float | None


class Timed:
    """A predictor that keeps the time it takes, the first photo aside, which prepares."""

    def __init__(self, predict: detector.Predictor) -> None:
        self.predict, self.times = predict, list[float]()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        found = self.predict(images)
        self.times.append(time.perf_counter() - start)
        return found

    @property
    def milliseconds(self) -> float:
        return 1000 * float(np.mean(self.times[1:]))


def split() -> tuple[list[Path], list[Path]]:
    """The photos that calibrate and those that test."""
    found = photos.folder(FOLDER)
    order = np.random.RandomState(SEED).permutation(len(found))
    return [found[i] for i in order[:CALIBRATION]], [found[i] for i in order[CALIBRATION:]]


def told(step: str, done: int, total: int) -> None:
    """Progress on stderr, where that is a terminal."""
    if sys.stderr.isatty():
        print(f"\r{step} {done}/{total}   ", end="\n" if done == total else "", file=sys.stderr, flush=True)


def recipes(net: nn.Module, images: np.ndarray) -> Iterator[tuple[str, Recipe, float]]:
    """Our settings, and the seconds that finding each took."""
    yield "INT8, all activations 8 bits", Recipe(), 0.0
    start = time.perf_counter()
    static = detection(net, [images], told)
    found = time.perf_counter() - start
    yield STATIC, static, found
    yield "W8A16", Recipe(activations=16), 0.0
    start = time.perf_counter()
    four = replace(static, weights=4, group_size=16, bias_correction=BiasCorrection.EMPIRICAL, images=CALIBRATION)
    overrides = dict(four.overrides)
    for layer in sensitive(net, images, four):
        overrides[layer] = replace(overrides.get(layer, Override()), weights=8, group_size=0)
    found += time.perf_counter() - start
    yield f"W4A8, groups of 16, {KEPT:.0%} of weights W8", replace(four, overrides=overrides), found


def sensitive(net: nn.Module, images: np.ndarray, recipe: Recipe) -> Iterator[str]:
    """The layers that hurt most at the recipe's bits, each alone, as far as their weights are few enough."""
    plain = replace(recipe, bias_correction=BiasCorrection.NONE)
    tests = torch.from_numpy(images[:IMAGES])
    choices = choose(fold(capture(net, tests[:1])), [images], plain)
    plan = make_plan(choices.module, plain)
    sizes = {str(node.meta["source"]): layer.weight.numel() for node, layer in plan.weighted().items()}
    left = KEPT * sum(sizes.values())
    for item in sensitivity(choices, tests, Sqnr(Simulation(plan), tests), told):
        if sizes[item.layer] <= left:
            left -= sizes[item.layer]
            yield item.layer


def ours(net: nn.Module, images: np.ndarray, tests: Sequence[Path]) -> Iterator[Result]:
    """Our networks: rounded to FP16, quantized at run time, and each recipe's integer graph."""
    reduced = reduce_floats(net, FP16, torch.from_numpy(images[:1]))
    boxes = detector.boxes_of(detector.float_predictor(reduced), tests, SIZE)
    yield Result("FP16", boxes, float_bytes(net, FP16), None, None)
    yield dynamic(net, tests)
    for name, recipe, searched in recipes(net, images):
        start = time.perf_counter()
        choices = choose(fold(capture(net, torch.from_numpy(images[:1]))), [images], recipe, told)
        graph = lower_choices(choices, "yolox", (3, *SIZE)).graph
        seconds = searched + time.perf_counter() - start
        predict = Timed(detector.integer_predictor(graph))
        boxes = detector.boxes_of(predict, tests, SIZE)
        size = weight_bytes(make_plan(choices.module, recipe), choices.weights)
        yield Result(name, boxes, size, predict.milliseconds, seconds)


def dynamic(net: nn.Module, tests: Sequence[Path]) -> Result:
    """Weights of 8 bits, activations quantized at run time; bytes as `weight_bytes` counts them."""
    start = time.perf_counter()
    quantized = quantize_dynamic(net)
    seconds = time.perf_counter() - start
    predict = Timed(detector.float_predictor(quantized))
    boxes = detector.boxes_of(predict, tests, SIZE)
    codes = [layer.codes for layer in quantized.modules() if isinstance(layer, IntegerLayer)]
    return Result(DYNAMIC, boxes, sum(c.numel() + 4 * len(c) for c in codes), predict.milliseconds, seconds)


def theirs(images: np.ndarray, tests: Sequence[Path]) -> Iterator[Result]:
    """The float file and onnxruntime's quantized ones, in onnxruntime."""
    inputs = np.concatenate([images, np.stack(list(detector.inputs(tests, SIZE)))])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.save(folder / "photos.npy", inputs)
        script = Path(__file__).parent / "peers" / "yolo_onnxruntime.py"
        arguments = (MODEL, folder / "photos.npy", str(CALIBRATION), folder)
        peer = Peer(peer_python("onnx", ONNXRUNTIME), script, *arguments)
        for name, line in {FLOAT: {"method": "float"}, **THEIRS}.items():
            answer = peer.ask(json.dumps(line))
            outputs = iter(np.load(folder / "outputs.npy"))
            boxes = detector.boxes_of(lambda _, outputs=outputs: next(outputs)[None], tests, SIZE)
            seconds = None if name == FLOAT else answer["seconds"]
            yield Result(name, boxes, int(answer["bytes"]), answer["milliseconds"], seconds)
        peer.close()


def measure(arguments: argparse.Namespace) -> list[Check]:
    missing = [path for path in (MODEL, FOLDER, TRUTH) if not path.exists()]
    if missing:
        print(f"left out: {missing[0]} is absent", file=sys.stderr)
        return []
    calibrating, tests = split()
    tests = tests[: arguments.photos]
    truth, net = coco.read(TRUTH), load_onnx(MODEL)
    images = np.stack(list(detector.inputs(calibrating, SIZE)))
    found: dict[str, tuple[Result, detector.Comparison]] = {}
    for result in chain(theirs(images, tests), ours(net, images, tests)):
        reference = found[FLOAT][0].boxes if found else result.boxes
        found[result.name] = result, detector.compare(reference, result.boxes, truth)
        print(f"{result.name}: mAP {precision(found[result.name]).map:.4f}", file=sys.stderr, flush=True)
    shown = table(found, len(tests))
    show(shown)
    page(arguments.page, found[STATIC][1], shown, tests, truth)
    return [check for name in found for check in figures(name, *found[name])] + bounds(found)


def precision(entry: tuple[Result, detector.Comparison]) -> coco.Precision:
    found = entry[1].integer_precision
    assert found is not None
    return found


def figures(name: str, result: Result, comparison: detector.Comparison) -> Iterator[Check]:
    """All that was measured of a network."""
    found = precision((result, comparison))
    yield Check(f"{name}: mAP %", 100 * found.map)
    yield Check(f"{name}: mAP50 %", 100 * found.map50)
    yield Check(f"{name}: boxes shared at IoU 0.5 %", 100 * comparison.agreement.share)
    yield Check(f"{name}: boxes shared at IoU 0.75 %", 100 * comparison.agreement75.share)
    yield Check(f"{name}: kB", result.bytes / 1000)
    if result.milliseconds is not None:
        yield Check(f"{name}: ms a photo", result.milliseconds)
    if result.seconds is not None:
        yield Check(f"{name}: s to quantize", result.seconds)


def bounds(found: Mapping[str, tuple[Result, detector.Comparison]]) -> list[Check]:
    """What must hold: points of mAP lost, and not worse than the best of onnxruntime's."""
    exact, got = precision(found[FLOAT]).map, precision(found[STATIC]).map
    best = max(THEIRS, key=lambda name: precision(found[name]).map)
    shared = found[STATIC][1].agreement.share - max(found[name][1].agreement.share for name in THEIRS)
    return [
        Check.at_most("static INT8: mAP lost, points", 100 * (exact - got), DROP),
        Check.at_least("static INT8: mAP, ours - onnxruntime's, points", 100 * (got - precision(found[best]).map), 0),
        Check.at_least("static INT8: shared boxes, ours - onnxruntime's, points", 100 * shared, 0),
    ]


def table(found: Mapping[str, tuple[Result, detector.Comparison]], count: int) -> ResultsTable:
    """Model, precision, size, speed and quality of each network."""
    columns = ("YOLOX-nano", "kB", "ms a photo", "mAP", "mAP50", "boxes shared", "at IoU 0.75")
    rows = []
    for name, (result, comparison) in found.items():
        got = precision((result, comparison))
        speed = "\N{EN DASH}" if result.milliseconds is None else f"{result.milliseconds:.0f}"
        shares = (f"{100 * x.share:.1f} %" for x in (comparison.agreement, comparison.agreement75))
        rows.append((name, f"{result.bytes / 1000:,.0f}", speed, f"{got.map:.3f}", f"{got.map50:.3f}", *shares))
    caption = (
        f"{count} COCO photos that did not calibrate; boxes of score {detector.SHOWN} shared with the float network."
    )
    return ResultsTable(columns, tuple(rows), caption)


def show(results: ResultsTable) -> None:
    printed = Table(*results.columns, title=results.caption)
    for row in results.rows:
        printed.add_row(*row)
    Console(width=130).print(printed)


def page(
    path: Path, comparison: detector.Comparison, results: ResultsTable, tests: Sequence[Path], truth: coco.Truth
) -> None:
    """The report: the table, and photos with both sets of boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lead = "Static INT8 of a pre-trained detector: weights of 8 bits, activations of 8 bits but for the sensitive ends."
    drawn: Any = detector.samples(comparison, tests, truth.classes)
    write_detections(path, "YOLOX-nano, float against integer", lead, results, drawn)
    print(f"pictures: {path}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Static INT8 of a detector: YOLOX-nano on COCO photos")
    parser.add_argument("--photos", type=int, default=40, metavar="N", help="test on the first N of the 40 photos")
    parser.add_argument("--page", type=Path, default=ROOT / "build/bench/yolo.html", metavar="FILE", help="the report")
    main(measure, parser)
