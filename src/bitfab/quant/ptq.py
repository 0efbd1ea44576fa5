"""Post-training quantization: from a trained float module and calibration data to the integer graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bitfab.dtypes import FloatArray, IntArray, dequantize
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.ir import Graph
from bitfab.quant.adaround import adaround
from bitfab.quant.bias_correction import correct_bias, correct_bias_analytically
from bitfab.quant.calibrate import NO_DATA, Batches, as_batches, calibrate
from bitfab.quant.encodings import choose_encodings
from bitfab.quant.equalize import absorb_high_bias, equalize
from bitfab.quant.fold import fold
from bitfab.quant.lower import Choices, lower_choices
from bitfab.quant.plan import check_weights, make_plan
from bitfab.quant.recipe import BiasCorrection, Recipe, recipe_or
from bitfab.quant.reconstruct import reconstruct
from bitfab.quant.sample import Sample
from bitfab.quant.simulate import Progress
from bitfab.quant.weights import quantize_weights


@dataclass(frozen=True)
class Quantized:
    """A quantized network: its integer graph, what was chosen for it, and how its values relate to the float network.

    `meaning` maps each value of the graph to the node of `module` whose float output it stands for.
    """

    graph: Graph
    choices: Choices
    meaning: Mapping[str, str]

    @property
    def module(self) -> fx.GraphModule:
        """The folded float network."""
        return self.choices.module


def quantize(
    net: nn.Module,
    calibration: Iterable[Any],
    recipe: Recipe | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Graph:
    """The integer graph of a trained network.

    Args:
        net: a module of one tensor argument, (N, C, H, W), (N, F), (N, C, L) or (N, T, F); left as it is.
        calibration: typical inputs: an array whose first axis counts them, or an iterable of float arrays or tensors,
            with or without a batch axis (see `as_batches`); read once.
        recipe: bits, scales, observers and further steps; 8-bit weights and activations by default.
        name: the graph's name; the module's class by default.
        progress: called as (step, layers done, layers in all) by the steps that take long.

    Raises:
        BitfabError: one line that names the layer or item at fault, the reason and the remedy.
    """
    return quantize_with_reference(net, calibration, recipe, name, progress).graph


def quantize_with_reference(
    net: nn.Module,
    calibration: Iterable[Any],
    recipe: Recipe | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Like `quantize`, with what was chosen, and the float network whose values the graph's stand for."""
    recipe, batches = recipe_or(recipe), as_batches(calibration, net)
    first = next(batches, None)
    if first is None:
        raise BitfabError(NO_DATA)
    check_weights(net)
    choices = choose(fold(capture(net, first)), Batches(chain([first], batches)), recipe, progress)
    lowered = lower_choices(choices, name or type(net).__name__, tuple(first.shape[1:]))
    return Quantized(lowered.graph, choices, lowered.meaning)


def choose(
    module: fx.GraphModule, calibration: Iterable[Any], recipe: Recipe, progress: Progress | None = None
) -> Choices:
    """All that quantization decides for a folded network, step by step; the recipe switches steps on.

    The order is that of Nagel et al. 2021 (2106.08295), figure 4.4, but activations get their ranges first: learned
    rounding and bias correction then see the inputs that the integer network will see.
    """
    if recipe.equalize:
        module = absorb_high_bias(equalize(module))
    sample = Sample(recipe.images if recipe.adaround or recipe.bias_correction is BiasCorrection.EMPIRICAL else 0)
    ranges = calibrate(module, Batches(sample.passing(as_batches(calibration, module))), recipe)
    plan = make_plan(module, recipe)
    encodings = choose_encodings(plan, ranges)
    weights = quantize_weights(plan, encodings)
    if recipe.adaround:
        learn = reconstruct if recipe.adaround.blocks else adaround
        weights = learn(plan, weights, encodings, sample.images, recipe.adaround, progress)
    if recipe.bias_correction is BiasCorrection.EMPIRICAL:
        weights = correct_bias(plan, weights, encodings, sample.images, progress)
    if recipe.bias_correction is BiasCorrection.ANALYTIC:
        weights = correct_bias_analytically(plan, weights)
    return Choices(module, recipe, encodings, weights)


def float_reference(quantized: Quantized, x: Tensor | FloatArray) -> dict[str, FloatArray]:
    """For every value of the integer graph, the float array (batch, *shape) that it stands for, on the input x.

    x (batch, *shape) is the network's float input. The arrays are all in memory at once: give few images.
    """
    recorder = _Recorder(quantized.module)
    sample = next(quantized.module.parameters(), torch.zeros(()))
    with torch.inference_mode():
        recorder.run(torch.as_tensor(x).to(sample.device, sample.dtype))
    return {value: recorder.results[node].cpu().numpy() for value, node in quantized.meaning.items()}


def layer_sqnr(
    quantized: Quantized, reference: Mapping[str, FloatArray], values: Mapping[str, IntArray]
) -> dict[str, float]:
    """Signal to quantization noise in dB of each value that has a scale: `10 log10(sum x^2 / sum (x - x_int)^2)`.

    `reference` comes from `float_reference`, `values` from `bitfab.ir.trace` on the same images.
    """
    result = {}
    for name, value in quantized.graph.values.items():
        if value.qparams is not None:
            x = reference[name].astype(np.float64)
            noise = ((x - dequantize(values[name], value.qparams)) ** 2).sum()
            result[name] = float(10 * np.log10((x**2).sum() / noise)) if noise > 0 else float("inf")
    return result


class _Recorder(fx.Interpreter):
    """Keeps the result of every node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.results: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op != "output":
            self.results[n.name] = result
        return result
