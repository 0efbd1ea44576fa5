"""Quantization without data: what the batch norms tell stands in for calibration (Nagel et al. 2019, 1906.04721)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bitfab.errors import BitfabError
from bitfab.ir import Graph
from bitfab.ir.ops import Shape
from bitfab.quant.fold import BatchNorm
from bitfab.quant.ptq import quantize
from bitfab.quant.recipe import BiasCorrection, ObserverKind, Recipe
from bitfab.quant.scales import Range

IMAGES = 32  # of noise, for the few activations that no batch norm tells of

DATA_FREE = Recipe(observer=ObserverKind.BATCH_NORM, equalize=True, bias_correction=BiasCorrection.ANALYTIC)


def quantize_without_data(
    net: nn.Module, shape: Shape, limits: Range, recipe: Recipe = DATA_FREE, name: str | None = None
) -> Graph:
    """The integer graph of a trained network, its ranges from its batch norms.

    Ranges reach six standard deviations from the mean of each batch norm. Activations that no batch norm tells of (the
    output, say) get the range that uniform noise within `limits` gives them, from a fixed seed.

    Args:
        net: as for `quantize`.
        shape: of an input, without the batch axis.
        limits: the least and the largest value of inputs.
        recipe: by default equalization, and analytic bias correction, with 8 bits; its observer must be `batch_norm`.

    Raises:
        BitfabError: as `quantize` does; a network without batch norms; limits that are no range; a recipe that needs
            data.
    """
    if not any(isinstance(module, BatchNorm) for module in net.modules()):
        raise BitfabError(f"{type(net).__name__}: has no batch norm that tells its ranges; quantize it with data")
    if not (np.isfinite(limits).all() and limits[0] < limits[1]):
        raise BitfabError(f"limits {limits}: give the least and the largest value of inputs, such as (0, 1)")
    if recipe.observer is not ObserverKind.BATCH_NORM or recipe.bias_correction is BiasCorrection.EMPIRICAL:
        raise BitfabError("recipe: needs data; without, use observer='batch_norm' and no empirical bias correction")
    low, high = limits
    noise = torch.from_numpy(np.random.default_rng(0).uniform(low, high, (IMAGES, *shape)))
    noise.view(-1)[:2] = torch.tensor(limits, dtype=noise.dtype)
    return quantize(net, [noise.to(torch.float32)], recipe, name)
