"""The shipped applications: a trained network with its data, how it is judged, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bitfab import zoo
from bitfab.data import digits, jets, mnist, pulses, qubit
from bitfab.data.metrics import mask_scores, top1_accuracy
from bitfab.dtypes import FloatArray, IntArray
from bitfab.errors import BitfabError
from bitfab.ir.graph import Graph
from bitfab.report import Accuracy, ClassificationSample, Metric, Pictures, SegmentationSample

CALIBRATION_IMAGES = 64
TEST_IMAGES = 200
SHOWN_MASKS = 6
SHOWN_DIGITS = 24
TEST_FRAMES = 10_000
TEST_JETS = 1000  # simulated as the demo runs, some ten a second


@dataclass(frozen=True)
class Application:
    """A network and its data, all images float32 (N, C, H, W).

    `judge` and `show` take the float network's and the integer graph's real outputs on the test images. `images` is how
    many test images are proved in simulation, `parallelism` how many multipliers the design may use.
    """

    name: str
    network: nn.Module
    calibration: FloatArray
    tests: FloatArray
    judge: Callable[[FloatArray, FloatArray], Accuracy]
    show: Callable[[FloatArray, FloatArray], Pictures]
    images: int
    parallelism: int


@dataclass(frozen=True)
class LutApplication:
    """A LUT network, its float reference, and test samples (N, features) with their labels (N,).

    `frames` is how many samples are proved in simulation.
    """

    name: str
    graph: Graph
    reference: nn.Module
    tests: NDArray[np.generic]
    labels: IntArray
    frames: int


def load(name: str) -> Application | LutApplication:
    """The application of that name, its test data generated or loaded.

    Raises BitfabError for an unknown name, or where an optional package is missing.
    """
    if name not in _LOADERS:
        raise BitfabError(f"{name}: no such application; choose one of {', '.join(_LOADERS)}")
    return _LOADERS[name]()


def _qubit(name: str, parallelism: int) -> Application:
    calibration, _ = qubit.generate(CALIBRATION_IMAGES, qubit.SPLIT_SEEDS["train"])
    tests, truth = qubit.generate(TEST_IMAGES, qubit.SPLIT_SEEDS["test"])

    def judge(real: FloatArray, quantized: FloatArray) -> Accuracy:
        a, b = mask_scores(_masks(real), truth), mask_scores(_masks(quantized), truth)
        return Accuracy(Metric.IOU, a.iou, b.iou, a.pixel_accuracy, b.pixel_accuracy, a.f1, b.f1)

    def show(real: FloatArray, quantized: FloatArray) -> Pictures:
        chosen = np.flatnonzero(truth.any(axis=(1, 2)))[:SHOWN_MASKS]
        masks = _masks(real), _masks(quantized)
        return [SegmentationSample(tests[i, 0], truth[i], masks[0][i], masks[1][i]) for i in chosen]

    return Application(name, zoo.load(name), calibration, tests, judge, show, images=20, parallelism=parallelism)


def _masks(logits: FloatArray) -> IntArray:
    """A pixel is a transition where its logit is positive."""
    return (logits[:, 0] > 0).astype(np.uint8)


def _digits() -> Application:
    data = digits.load()

    def judge(real: FloatArray, quantized: FloatArray) -> Accuracy:
        labels = data.test_labels
        return Accuracy(Metric.ACCURACY, top1_accuracy(real, labels), top1_accuracy(quantized, labels))

    def show(real: FloatArray, quantized: FloatArray) -> Pictures:
        return [
            ClassificationSample(
                data.test_images[i, 0], int(data.test_labels[i]), int(real[i].argmax()), int(quantized[i].argmax())
            )
            for i in range(SHOWN_DIGITS)
        ]

    calibration = data.train_images[:CALIBRATION_IMAGES]
    return Application(
        "digits", zoo.load("digits"), calibration, data.test_images, judge, show, images=100, parallelism=16
    )


def _pulses() -> LutApplication:
    frames, labels = pulses.generate(TEST_FRAMES, pulses.SPLIT_SEEDS["test"])
    return LutApplication("pulses", zoo.load_graph("pulses"), zoo.load("pulses"), frames, labels, frames=1000)


def _jets() -> LutApplication:
    observables, labels = jets.generate(TEST_JETS, jets.SPLIT_SEEDS["test"])
    return LutApplication("jets", zoo.load_graph("jets"), zoo.load("jets"), observables, labels, frames=1000)


def _mnist() -> LutApplication:
    data = mnist.load()
    images = data.test_images.reshape(len(data.test_images), -1)
    return LutApplication("mnist", zoo.load_graph("mnist"), zoo.load("mnist"), images, data.test_labels, frames=1000)


_LOADERS: dict[str, Callable[[], Application | LutApplication]] = {
    "qubit": lambda: _qubit("qubit", parallelism=100),
    "qubit-447": lambda: _qubit("qubit-447", parallelism=32),
    "digits": _digits,
    "pulses": _pulses,
    "jets": _jets,
    "mnist": _mnist,
}
NAMES = tuple(_LOADERS)
