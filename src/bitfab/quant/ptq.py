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
from bitfab.quant.calibrate import NO_DATA, as_batches, calibrate
from bitfab.quant.fold import fold
from bitfab.quant.lower import lower
from bitfab.quant.plan import check_weights
from bitfab.quant.recipe import Recipe


@dataclass(frozen=True)
class Quantized:
    """A quantized network: its integer graph, the folded float network it comes from, and how their values relate.

    `meaning` maps each value of the graph to the node of `module` whose float output it stands for.
    """

    graph: Graph
    module: fx.GraphModule
    meaning: Mapping[str, str]


def quantize(
    net: nn.Module, calibration: Iterable[Any], recipe: Recipe | None = None, name: str | None = None
) -> Graph:
    """The integer graph of a trained network.

    Args:
        net: a module of one tensor argument, (N, C, H, W) or (N, F); left as it is.
        calibration: typical inputs: an iterable of float arrays or tensors, with or without a batch axis; read once.
        recipe: bits, scales, observers; 8-bit weights and activations by default.
        name: the graph's name; the module's class by default.

    Raises:
        BitfabError: one line that names the layer or item at fault, the reason and the remedy.
    """
    return quantize_with_reference(net, calibration, recipe, name).graph


def quantize_with_reference(
    net: nn.Module, calibration: Iterable[Any], recipe: Recipe | None = None, name: str | None = None
) -> Quantized:
    """Like `quantize`, with the float network whose values the graph's stand for (see `float_reference`)."""
    recipe = recipe or Recipe()
    batches = as_batches(calibration, net)
    first = next(batches, None)
    if first is None:
        raise BitfabError(NO_DATA)
    check_weights(net)
    module = fold(capture(net, first))
    ranges = calibrate(module, chain([first], batches), recipe)
    lowered = lower(module, ranges, recipe, name or type(net).__name__, tuple(first.shape[1:]))
    return Quantized(lowered.graph, module, lowered.meaning)


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
