"""Activations that few bits would spoil: which they are, and a recipe with more bits for them and for the outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from bitfab.frontend.torch import capture
from bitfab.quant.calibrate import as_batches
from bitfab.quant.fold import fold
from bitfab.quant.lower import Choices
from bitfab.quant.metrics import SQNR_LIMIT
from bitfab.quant.plan import Plan, check_weights, make_plan
from bitfab.quant.ptq import choose
from bitfab.quant.recipe import Override, Recipe, recipe_or
from bitfab.quant.sample import keep
from bitfab.quant.simulate import Progress, Simulation, Values

WIDE_BITS = 16
LEAST_DB = 15.0
IMAGES = 4  # whose outputs are compared: what is wanted is which activations are far worse than others


def widen(
    net: nn.Module,
    calibration: Iterable[Any],
    recipe: Recipe | None = None,
    least_db: float = LEAST_DB,
    progress: Progress | None = None,
) -> Recipe:
    """The recipe with 16 bits for the network's outputs and for the activations that alone spoil them.

    Few do: of YOLOX-nano, seven at its beginning, where channels of very unequal ranges share a scale. The
    others keep the recipe's bits. What a concatenation reads, and nothing else does, gets as many bits as its output.

    Args:
        net, calibration: as for `quantize`; at most `recipe.images` of the images are kept.
        recipe: what to begin with; 8 bits by default. Overrides that it has for other bits of activations stay.
        least_db: an activation is widened if, quantized alone, it leaves the output less SQNR than this.
        progress: called as (what, done, in all).

    Raises:
        BitfabError: as `quantize` does.
    """
    recipe = recipe_or(recipe)
    check_weights(net)
    images = keep(as_batches(calibration, net), recipe.images)
    module = fold(capture(net, images[:1]))
    plan = make_plan(module, recipe)
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    wide = [name for node in output.all_input_nodes for name in _names(plan, plan.coded(node))]
    recipe = _widened(recipe, wide)
    worst = activation_sqnr(choose(module, images, recipe, progress), images[:IMAGES], progress)
    plan = make_plan(module, recipe)
    sources = {str(node.meta["source"]): node for node in plan.observed()}
    found = [name for source, figure in worst.items() if figure < least_db for name in _names(plan, sources[source])]
    return _widened(recipe, found)


def activation_sqnr(choices: Choices, images: Tensor, progress: Progress | None = None) -> Mapping[str, float]:
    """SQNR in dB of the network's output with each activation alone quantized, by the layer's name; the worst first.

    images (N, *shape) are inputs of the network, few. Weights stay float; what takes its codes from a concatenation
    counts as one with it. What comes before an activation is computed once.
    """
    plan = make_plan(choices.module, choices.recipe)
    exact = Simulation(plan)
    place = {node: index for index, node in enumerate(exact.nodes)}
    groups = {}
    for node in plan.observed():
        if node not in plan.adopted:
            members = _members(plan, node)
            groups[min(members, key=place.__getitem__)] = members
    images = images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
    expected, before, found = _finish(exact, exact.nodes, {}, images), Values(), {}
    for done, node in enumerate(exact.nodes):
        if progress:
            progress("activations alone", done + 1, len(exact.nodes))
        if node in groups:
            alone = Simulation(plan, {}, {member.name: choices.encodings[member.name] for member in groups[node]})
            noisy = _finish(alone, exact.nodes[done:], dict(before), images)
            found[str(groups[node][0].meta["source"])] = _sqnr(expected, noisy)
        with torch.inference_mode():
            exact.compute(node, before, images)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _finish(simulation: Simulation, nodes: Sequence[fx.Node], values: Values, images: Tensor) -> Tensor:
    """The network's (first) output, the nodes before these computed already."""
    with torch.inference_mode():
        for node in nodes:
            simulation.compute(node, values, images)
    (output,) = (node for node in simulation.plan.module.graph.nodes if node.op == "output")
    return values[output.all_input_nodes[0]]


def _sqnr(expected: Tensor, found: Tensor) -> float:
    signal, noise = (float(x.double().square().sum()) for x in (expected, found - expected))
    return 10 * math.log10(signal / noise) if signal and noise else -math.inf if noise else SQNR_LIMIT


def _members(plan: Plan, node: fx.Node) -> list[fx.Node]:
    """The node and all that takes its codes from it."""
    return [node, *(other for source, by in plan.adopted.items() if by is node for other in _members(plan, source))]


def _names(plan: Plan, node: fx.Node) -> list[str]:
    """The layers whose activations share the node's codes, whichever of them it is."""
    while node in plan.adopted:
        node = plan.adopted[node]
    return [str(member.meta["source"]) for member in _members(plan, node) if member.op != "placeholder"]


def _widened(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """The recipe with wide activations for these layers, but for those for which it names bits itself."""
    overrides = dict(recipe.overrides)
    for name in names:
        present = overrides.get(name, Override())
        overrides[name] = replace(present, activations=present.activations or WIDE_BITS)
    return replace(recipe, overrides=overrides)
