"""Mixed precision: how many bits each layer's weights get, by an integer program over what each layer loses alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, fx, nn

from bitfab.dtypes import FloatArray
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant.calibrate import as_batches
from bitfab.quant.fold import fold
from bitfab.quant.metrics import outputs
from bitfab.quant.plan import check_weights, make_plan
from bitfab.quant.ptq import choose
from bitfab.quant.recipe import ObserverKind, Override, Recipe
from bitfab.quant.sample import keep
from bitfab.quant.simulate import Progress, Simulation

CANDIDATES = (2, 3, 4, 6, 8)
IMAGES = 32  # of the calibration data: the outputs that are compared


def choose_bits(
    net: nn.Module,
    calibration: Iterable[Any],
    average: float,
    candidates: Sequence[int] = CANDIDATES,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Recipe:
    """The recipe with an override for each layer: bits of its weights, on average over all weights at most `average`.

    As HAWQ-V3 does (Yao et al. 2021, 2011.10680), an integer program picks one number of bits for each
    layer so that the sum of their errors is least. A layer's error is measured, not taken from the Hessian: the squared
    error of the network's output with its weights alone quantized, on a sample of the calibration images.

    Args:
        net, calibration: as for `quantize`.
        average: bits a weight, between the least and the largest candidate.
        candidates: bits that a layer can have.
        recipe: all else; by default with scales of least squared error. Its overrides of weights are replaced.
        progress: called as ("bits", layers and candidates done, in all).

    Raises:
        BitfabError: as `quantize` does; an average that no choice reaches.
    """
    recipe = recipe or Recipe(observer=ObserverKind.MSE)
    candidates = sorted(set(candidates))
    if not candidates or not candidates[0] <= average:
        least = f"at least {candidates[0]}" if candidates else "and candidates"
        raise BitfabError(f"average of {average} bits: candidates {candidates} cannot reach it; choose {least}")
    check_weights(net)
    images = keep(as_batches(calibration, net), IMAGES)
    module = fold(capture(net, images[:1]))
    errors, sizes = _errors(module, images, candidates, recipe, progress)
    chosen = solve(np.array(list(errors.values())), np.array(list(sizes.values())), candidates, average)
    overrides = dict(recipe.overrides)
    for layer, bits in zip(errors, chosen, strict=True):
        overrides[layer] = replace(overrides.get(layer, Override()), weights=bits)
    return replace(recipe, overrides=overrides)


def solve(errors: FloatArray, sizes: FloatArray, candidates: Sequence[int], average: float) -> list[int]:
    """Bits for each layer: the least sum of errors (L, candidates) within the average; sizes (L,) in weights."""
    layers, choices = errors.shape
    one_each = np.kron(np.eye(layers), np.ones(choices))
    bits = (sizes[:, None] * np.asarray(candidates)).reshape(1, -1) / sizes.sum()
    scale = errors.max() or 1.0
    found = milp(
        errors.reshape(-1) / scale,
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(bits, -np.inf, average)],
        integrality=np.ones(errors.size),
        bounds=Bounds(0, 1),
    )
    assert found.success, found.message  # the least candidate everywhere is within the average
    return [candidates[i] for i in found.x.reshape(layers, choices).argmax(axis=1)]


def _errors(
    module: fx.GraphModule, images: Tensor, candidates: Sequence[int], recipe: Recipe, progress: Progress | None
) -> tuple[Mapping[str, FloatArray], Mapping[str, int]]:
    """For each layer the squared error of the output with each candidate, and how many weights it has."""
    plain = replace(recipe, overrides={name: replace(o, weights=None) for name, o in recipe.overrides.items()})
    errors: dict[str, FloatArray] = {}
    sizes: dict[str, int] = {}
    for column, bits in enumerate(candidates):
        choices = choose(module, images, replace(plain, weights=bits))
        plan = make_plan(choices.module, choices.recipe)
        expected = outputs(Simulation(plan), images)
        layers = plan.weighted()
        for row, (node, layer) in enumerate(layers.items()):
            name = str(node.meta["source"])
            found = outputs(Simulation(plan, {node.name: choices.weights[node.name]}), images)
            sizes[name] = layer.weight.numel()
            errors.setdefault(name, np.zeros(len(candidates)))[column] = float(
                (found - expected).double().square().sum()
            )
            if progress:
                progress("bits", column * len(layers) + row + 1, len(candidates) * len(layers))
    return errors, sizes
