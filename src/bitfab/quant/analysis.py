"""Seeing where accuracy goes: each layer quantized alone, and the white paper's flow chart tried step by step.

Everything here is computed by `bitfab.quant.simulate`: float arithmetic on what the integer codes mean. The integer
graph of the recipe found best is a `bitfab.quantize` away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant.calibrate import NO_DATA, as_batches
from bitfab.quant.fold import fold
from bitfab.quant.lower import Choices
from bitfab.quant.plan import check_weights, make_plan
from bitfab.quant.ptq import choose
from bitfab.quant.recipe import AdaRound, BiasCorrection, ObserverKind, Recipe
from bitfab.quant.sample import Sample
from bitfab.quant.simulate import Progress, Simulation

Predict = Callable[[Tensor], Tensor]  # a batch of inputs to the network's (first) output
Metric = Callable[[Predict], float]  # the task's own figure for a network, larger is better

OBSERVERS = (ObserverKind.MIN_MAX, ObserverKind.PERCENTILE, ObserverKind.MSE, ObserverKind.ENTROPY)


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer alone does: its weights and the activation it puts out.

    `sqnr_db` is the signal to noise ratio of the network's output, `10 log10(sum y^2 / sum (y - y_q)^2)`, on the
    images kept; `metric` the task's figure.
    """

    layer: str
    sqnr_db: float
    metric: float


@dataclass(frozen=True)
class Trial:
    """One line of the table: what was tried, and the metric it gave."""

    name: str
    metric: float


@dataclass(frozen=True)
class Diagnosis:
    """What `debug` found: every trial; layers, the most sensitive first; and what helps most.

    `remedy` is the name of the best trial of the whole network, `recipe` the recipe to repeat it with.
    """

    trials: tuple[Trial, ...]
    layers: tuple[LayerSensitivity, ...]
    worst_layer: str
    remedy: str
    recipe: Recipe

    def __str__(self) -> str:
        rows = [f"{trial.name:<34}{trial.metric:10.4f}" for trial in self.trials]
        layers = [f"{item.layer:<34}{item.metric:10.4f}{item.sqnr_db:10.1f} dB" for item in self.layers]
        return "\n".join([*rows, "", *layers, "", f"worst layer: {self.worst_layer}; what helps most: {self.remedy}"])


def sensitivity(choices: Choices, images: Tensor, metric: Metric) -> tuple[LayerSensitivity, ...]:
    """How much each layer with weights hurts when it alone is quantized; the worst first.

    images (N, *shape) are inputs for the SQNR; the metric is called once a layer.
    """
    plan = make_plan(choices.module, choices.recipe)
    expected = Simulation(plan)(images)
    found = []
    for node in plan.weighted():
        weights = {node.name: choices.weights[node.name]}
        alone = Simulation(plan, weights, {node.name: choices.encodings[node.name]})
        noise = float((alone(images) - expected).double().square().sum())
        ratio = float(expected.double().square().sum()) / noise if noise else float("inf")
        decibels = float(10 * torch.log10(torch.tensor(ratio)))
        found.append(LayerSensitivity(str(node.meta["source"]), decibels, _measured(metric, alone)))
    return tuple(sorted(found, key=lambda item: (item.metric, item.sqnr_db)))


def debug(
    net: nn.Module,
    calibration: Iterable[Any],
    metric: Metric,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Which layer hurts, and what helps: the flow chart of Nagel et al. 2021 (2106.08295), figure 7.1, as a table.

    Tried: float; the recipe; its weights alone and its activations alone; per channel, equalization, the range
    methods, bias correction (from data and without) and AdaRound, each added alone to the recipe; then all that
    helped together. At most `recipe.images` calibration images are kept for it; give the metric few images too, since
    it is called about 15 times, and once for each layer.

    Raises BitfabError as `quantize` does, and where the metric gives no finite number.
    """
    recipe = recipe or Recipe()
    check_weights(net)
    images = _some_of(as_batches(calibration, net), recipe.images)
    module = fold(capture(net, images[:1]))
    changes = {"the recipe": {}, **_remedies(recipe)}
    recipes = {name: replace(recipe, **change) for name, change in changes.items()}
    trials: dict[str, float] = {}

    def attempt(name: str) -> Choices:
        choices = choose(module, [images], recipes[name], progress)
        trials[name] = _measured(metric, _simulated(choices))
        return choices

    base = attempt("the recipe")
    plan = make_plan(base.module, recipe)
    parts = {"float": ({}, {}), "weights only": (base.weights, {}), "activations only": ({}, base.encodings)}
    rows = {name: _measured(metric, Simulation(plan, *part)) for name, part in parts.items()}
    for name in list(recipes)[1:]:
        attempt(name)
    helpful = sorted((name for name in trials if trials[name] > trials["the recipe"]), key=trials.__getitem__)
    if len(helpful) > 1:
        together = {key: value for name in helpful for key, value in changes[name].items()}  # the better of two stays
        recipes["all that helped"] = replace(recipe, **together)
        attempt("all that helped")
    best = max(trials, key=trials.__getitem__)
    layers = sensitivity(base, images, metric)
    table = tuple(Trial(name, value) for name, value in {**rows, **trials}.items())
    return Diagnosis(table, layers, layers[0].layer if layers else "", best, recipes[best])


def _some_of(batches: Iterable[Tensor], count: int) -> Tensor:
    sample = Sample(count)
    for _ in sample.passing(batches):
        pass
    if not sample.seen:
        raise BitfabError(NO_DATA)
    return sample.images


def _remedies(recipe: Recipe) -> Mapping[str, dict[str, Any]]:
    """What the flow chart tries, as changes to the recipe; nothing that the recipe does already."""
    changes: dict[str, dict[str, Any]] = {
        "per channel": {"per_channel": True},
        "equalization": {"equalize": True},
        **{f"range: {kind}": {"observer": kind} for kind in OBSERVERS},
        "bias correction, from data": {"bias_correction": BiasCorrection.EMPIRICAL, "adaround": None},
        "bias correction, from batch norm": {"bias_correction": BiasCorrection.ANALYTIC, "adaround": None},
        "adaround": {"adaround": recipe.adaround or AdaRound(), "bias_correction": BiasCorrection.NONE},
    }
    return {name: change for name, change in changes.items() if replace(recipe, **change) != recipe}


def _simulated(choices: Choices) -> Simulation:
    return Simulation(make_plan(choices.module, choices.recipe), choices.weights, choices.encodings)


def _measured(metric: Metric, network: Predict) -> float:
    value = float(metric(network))
    if not torch.isfinite(torch.tensor(value)):
        raise BitfabError(f"metric: gave {value}; it must give a finite number, larger for a better network")
    return value
