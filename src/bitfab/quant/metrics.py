"""What a network is measured by: a metric of the user's own, its accuracy, or how close it is to the float network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.quant.calibrate import as_batches
from bitfab.quant.simulate import CHUNK

Predict = Callable[[Tensor], Tensor]  # a batch of inputs to the network's (first) output
Metric = Callable[[Predict], float]  # the task's own figure for a network, larger is better

SQNR_LIMIT = 140.0  # dB, about what float32 resolves: what is nearer to the float network counts as equal to it


class Sqnr:
    """Signal to quantization noise of a network's output in dB, against the float network's on the same images.

    `10 log10(sum y^2 / sum (y - y_q)^2)`, at most `SQNR_LIMIT`; images (N, *shape).
    """

    def __init__(self, network: Predict, images: Tensor) -> None:
        self.images, self.expected = images, outputs(network, images)

    def __call__(self, predict: Predict) -> float:
        noise = float((outputs(predict, self.images) - self.expected).double().square().sum())
        signal = float(self.expected.double().square().sum())
        return (
            min(SQNR_LIMIT, 10 * math.log10(signal / noise)) if signal and noise else -math.inf if noise else SQNR_LIMIT
        )


def top1(images: Tensor, labels: Any) -> Metric:
    """The share of images (N, *shape) whose largest output (N, classes) is that of the label (N,).

    Raises BitfabError where labels are not one whole number for each image; when called, where no output has them.
    """
    try:
        truth = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BitfabError(f"labels: a {type(labels).__name__} given; give one whole number for each image") from error
    if truth.is_floating_point() or truth.is_complex() or truth.dtype is torch.bool:
        raise BitfabError(f"labels: {truth.dtype} given; give the number of each image's class")
    if tuple(truth.shape) != (len(images),):
        raise BitfabError(f"labels: shape {tuple(truth.shape)} for {len(images)} images; give one label for each")

    def accuracy(predict: Predict) -> float:
        scores = outputs(predict, images).cpu()
        if scores.ndim != 2:
            raise BitfabError(
                f"labels: the network puts out {tuple(scores.shape[1:])} for an image, not one score for each class; "
                "give a metric of your own, or no labels"
            )
        if int(truth.min()) < 0 or int(truth.max()) >= scores.shape[1]:
            raise BitfabError(
                f"labels: {int(truth.min())} to {int(truth.max())}, but the network tells 0 to {scores.shape[1] - 1}"
            )
        return float((scores.argmax(dim=1) == truth).double().mean())

    return accuracy


def float_network(net: nn.Module) -> Predict:
    """The network as the user gave it, in eval mode and without gradients; left as it is."""

    def predict(x: Tensor) -> Tensor:
        modes = {module: module.training for module in net.modules()}
        net.eval()
        try:
            with torch.inference_mode():
                result = net(x)
        finally:
            for module, training in modes.items():
                module.training = training
        while isinstance(result, tuple | list):
            result = result[0]
        return result

    return predict


def outputs(network: Predict, images: Tensor) -> Tensor:
    """What the network puts out for images (N, *shape), computed few at a time."""
    return torch.cat([network(chunk) for chunk in images.split(CHUNK)])


def all_of(data: Iterable[Any], net: nn.Module, name: str) -> Tensor:
    """The data, as calibration data are given, in one tensor (N, *shape); errors call it `name`."""
    try:
        batches = list(as_batches(data, net))
    except BitfabError as error:
        raise BitfabError(str(error).replace("calibration", name)) from error
    if not batches:
        raise BitfabError(f"{name}: no data; give at least one batch of inputs")
    return torch.cat(batches)


def measured(metric: Metric, network: Predict) -> float:
    """The metric's figure; raises BitfabError where it is no finite number."""
    figure = metric(network)
    try:
        value = float(figure)
    except (TypeError, ValueError, RuntimeError):
        kind = "nothing" if figure is None else f"a {type(figure).__name__}"
        raise BitfabError(f"metric: gave {kind}; it must return a finite number, larger for a better network") from None
    if not math.isfinite(value):
        raise BitfabError(f"metric: gave {value}; it must return a finite number, larger for a better network")
    return value
