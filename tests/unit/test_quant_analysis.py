"""The analysis names the layer that hurts and the remedy that helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant import AdaRound, Recipe, choose, debug, fold, sensitivity
from bitfab.quant.analysis import Metric, Predict


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5)
    ).eval()


IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(48, 2, 8, 8)).astype(np.float32))


def _closeness(net: nn.Module) -> Metric:
    def metric(predict: Predict) -> float:
        with torch.no_grad():
            return -float((predict(IMAGES) - net(IMAGES)).square().mean())

    return metric


def test_the_layer_with_unequal_channels_is_the_worst_and_equalization_its_remedy() -> None:
    net = _net()
    with torch.no_grad():  # the same function, hard to quantize with one scale
        scale = torch.logspace(-1.5, 1.5, 6)
        net[0].weight.mul_(scale[:, None, None, None])
        net[0].bias.mul_(scale)
        net[2].weight.div_(scale[None, :, None, None])
    found = debug(net, [IMAGES], _closeness(net), Recipe(per_channel=False, adaround=AdaRound(5)))
    assert [trial.name for trial in found.trials[:3]] == ["float", "weights only", "activations only"]
    figures = {trial.name: trial.metric for trial in found.trials}
    assert figures["float"] == pytest.approx(0, abs=1e-9)
    assert figures["equalization"] > 0.1 * figures["the recipe"]  # ten times less error
    assert found.remedy in ("equalization", "all that helped") and found.recipe.equalize
    assert found.worst_layer in ("0", "2") and found.layers[-1].layer == "5"
    assert "worst layer" in str(found)


def test_sensitivity_of_each_layer() -> None:
    net = _net()
    choices = choose(fold(capture(net, IMAGES)), [IMAGES], Recipe(weights=3))
    layers = sensitivity(choices, IMAGES, _closeness(net))
    assert {item.layer for item in layers} == {"0", "2", "5"}
    assert all(5 < item.sqnr_db < 40 and item.metric < 0 for item in layers)
    assert list(layers) == sorted(layers, key=lambda item: item.metric)


def test_a_metric_must_be_finite() -> None:
    with pytest.raises(BitfabError, match="metric: gave nan"):
        debug(_net(), [IMAGES], lambda _: float("nan"))
    with pytest.raises(BitfabError, match="no data"):
        debug(_net(), [], lambda _: 0.0)
