"""The analysis names the layer that hurts and the remedy that helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bitfab
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant import AdaRound, Diagnosis, Recipe, choose, debug, fold, sensitivity
from bitfab.quant.analysis import Metric, Predict
from bitfab.quant.metrics import SQNR_LIMIT


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
    names = [trial.name for trial in found.trials]
    assert names[:5] == ["float", "nothing quantized", "weights only", "activations only", "the recipe"]
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


def _broken(net: nn.Module) -> nn.Module:
    """The same function with one channel between the first two layers 1000 times as large."""
    with torch.no_grad():
        net[0].weight[2] *= 1000
        net[0].bias[2] *= 1000
        net[2].weight[:, 2] /= 1000
    return net


PER_LAYER = Recipe(per_channel=False, adaround=AdaRound(5))


@pytest.fixture(scope="module")
def broken() -> Diagnosis:
    return bitfab.debug(_broken(_net()), [IMAGES], recipe=PER_LAYER)


def test_a_channel_1000_times_as_large_is_found_and_equalized(broken: Diagnosis) -> None:
    assert broken.worst_layer == "0" and broken.layers[0].metric < broken.layers[1].metric
    assert broken.recipe.equalize or broken.recipe.per_channel
    closes = {trial.name: trial.closes for trial in broken.trials}
    assert closes["equalization"] is not None and closes["equalization"] > 0.99
    assert "equalization" in broken.combined and sum(name.startswith("range") for name in broken.combined) <= 1
    text = " ".join(broken.findings)
    assert "the layer that hurts most is 0" in text and "of the gap" in text and "equalization" in text


def test_an_output_1000_times_as_large_is_told_right_with_a_scale_per_channel() -> None:
    net, size = _net(), torch.tensor([1.0, 1000.0, 1.0, 1.0, 1.0])
    with torch.no_grad():  # the last layer: nothing behind it to equalize with
        net[5].weight.mul_(size[:, None])
        net[5].bias.mul_(size)
        expected = net(IMAGES)

    def metric(predict: Predict) -> float:
        return -float(((predict(IMAGES) - expected) / size).square().mean())

    wide = replace(PER_LAYER, overrides={"5": bitfab.Override(activations=16)})
    found = debug(net, [IMAGES], metric, wide)
    closes = {trial.name: trial.closes or 0.0 for trial in found.trials}
    assert found.worst_layer == "5" and found.recipe.per_channel
    assert closes["per channel"] > 0.9 > max(closes["equalization"], closes["bias correction from data"])


def test_shares_of_the_gap(broken: Diagnosis) -> None:
    trials = {trial.name: trial for trial in broken.trials}
    assert trials["float"].metric == SQNR_LIMIT and trials["float"].closes == pytest.approx(1)
    assert trials["the recipe"].closes == pytest.approx(0)
    noise = {name: 10 ** (-trial.metric / 10) for name, trial in trials.items()}  # an SQNR tells the noise left
    for name in ("per channel", "bias correction from data"):
        assert trials[name].closes == pytest.approx(1 - noise[name] / noise["the recipe"])

    scores = {"float": 0.9, "nothing quantized": 0.9, "the recipe": 0.5, "equalization": 0.8, "range: mse": 0.4}
    order = iter([0.9, 0.5, 0.9, 0.9, 0.9, 0.8, *[0.4] * 50])  # float, the recipe, three parts, then the remedies
    found = debug(_net(), [IMAGES], lambda _: next(order), replace(PER_LAYER, per_channel=True))
    shares = {trial.name: trial.closes for trial in found.trials if trial.name in scores}
    expected = {"float": 1.0, "nothing quantized": 1.0, "the recipe": 0.0, "equalization": 0.75, "range: mse": -0.25}
    assert shares == pytest.approx(expected)
    assert trials["per channel"].sqnr_db == trials["per channel"].metric
    assert [trial.sqnr_db > 20 for trial in found.trials] == [True] * len(found.trials)  # whatever the metric says
    assert found.remedy == "equalization" and found.findings[-1].startswith("the rest: more bits for ")


def test_the_fp32_check(broken: Diagnosis) -> None:
    assert 0 <= broken.fp32_difference < 1e-5
    assert broken.findings[0].startswith("FP32 check: equal to the network")
    wrong = replace(broken, fp32_difference=0.2)
    assert len(wrong.findings) == 1 and "differs from the network's by 20.0%" in wrong.findings[0]


def test_a_recipe_that_loses_nothing_needs_no_remedy() -> None:
    found = debug(_net(), [IMAGES], lambda _: 0.5, PER_LAYER)
    assert found.remedy == "the recipe" and found.recipe == PER_LAYER
    assert all(trial.closes is None for trial in found.trials)
    assert "the recipe loses nothing" in found.findings[-1]


def test_a_loss_that_may_be_chance_is_called_so(broken: Diagnosis) -> None:
    scores = iter([0.9, 0.899, *[0.9] * 50])
    found = debug(_net(), [IMAGES], lambda _: next(scores), PER_LAYER)
    assert found.findings[1] == "the recipe loses 0.001 of 0.9: so little may be chance; the SQNR is steadier"
    assert not any("chance" in finding for finding in broken.findings)


def test_labels_in_place_of_a_metric() -> None:
    net, tests = _net().train(), IMAGES[:20]
    with torch.no_grad():
        labels = net(tests).argmax(dim=1)
    progress: list[tuple[str, int, int]] = []
    found = debug(
        *(net, [IMAGES], None, replace(PER_LAYER, weights=2), lambda *step: progress.append(step)),
        tests=tests.numpy(),
        labels=labels.tolist(),
    )
    assert found.trials[0].metric == 1.0 and found.trials[4].metric < 1.0
    assert net.training  # left as it was
    assert progress[0][:2] == ("trying: float", 0) and ("layers: 5 alone", 2, 3) in progress
    assert all(done < total for step, done, total in progress if step.startswith("trying"))


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        ([IMAGES[:1]], {}, "calibration: a single image tells no ranges"),
        ([IMAGES], {"labels": [1, 2]}, "labels: given without tests"),
        ([IMAGES], {"tests": IMAGES, "labels": [1, 2]}, r"labels: shape \(2,\) for 48 images"),
        ([IMAGES], {"tests": IMAGES, "labels": [0.5] * 48}, "labels: torch.float32 given"),
        ([IMAGES], {"tests": IMAGES, "labels": "cats"}, "labels: a str given"),
        ([IMAGES], {"tests": IMAGES, "labels": [5] * 48}, "labels: 5 to 5, but the network tells 0 to 4"),
        ([IMAGES], {"tests": [], "labels": []}, "tests: no data"),
        ([IMAGES], {"tests": IMAGES[:, :1]}, r"tests: shape \(1, 8, 8\), but the calibration images have \(2, 8, 8\)"),
        ([IMAGES], {"tests": [IMAGES * np.nan]}, "tests item 0: holds NaN"),
        ([IMAGES], {"metric": lambda _: 1.0, "tests": IMAGES}, "metric: given with tests or labels"),
        ([IMAGES], {"metric": 0.9}, "metric: a float given"),
        ([IMAGES], {"metric": lambda _: None}, "metric: gave nothing; it must return a finite number"),
        ([IMAGES], {"metric": lambda predict: predict(IMAGES)}, "metric: gave a Tensor; it must"),
        ([IMAGES], {"metric": lambda _: float("nan")}, "metric: gave nan"),
        ([], {}, "no data"),
    ],
)
def test_what_debug_refuses(data: list[torch.Tensor], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BitfabError, match=reason) as error:
        debug(_net(), data, **options)
    assert "\n" not in str(error.value)


def test_labels_need_one_score_for_each_class() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3)).eval()
    with pytest.raises(BitfabError, match=r"labels: the network puts out \(3, 6, 6\) for an image"):
        debug(net, [IMAGES], tests=IMAGES, labels=[0] * 48)
