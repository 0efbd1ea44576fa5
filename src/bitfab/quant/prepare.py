"""Preparing quantization-aware training: a float network becomes a module that computes with what its codes mean."""

from __future__ import annotations

import copy
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from bitfab.dtypes import Rounding, ScaleKind
from bitfab.errors import BitfabError, choice
from bitfab.frontend.torch import capture
from bitfab.ir.ops import Shape
from bitfab.quant.calibrate import NO_DATA, Batches, as_batches
from bitfab.quant.fake_quant import QuantizedActivation, QuantizedLayer, Step
from bitfab.quant.fold import BatchNorm, fold, output_first
from bitfab.quant.lower import Choices
from bitfab.quant.plan import Plan, check_weights, make_plan
from bitfab.quant.ptq import choose
from bitfab.quant.recipe import BiasCorrection, ObserverKind, Recipe, WeightLevels, recipe_or

KEY = "bitfab"  # under which a prepared module's meta holds its `Preparation`
CODES, SCALES = "quantization.codes", "quantization.scales"  # where the modules of activations are


class StepRule(enum.StrEnum):
    """How scales follow the training."""

    FIXED = "fixed"  # those of activations stay; those of weights follow the weights (Jacob et al. 2018, section 3)
    LSQ = "lsq"  # learned step size (Esser et al. 2020); real scales
    LSQ_PLUS = "lsq+"  # the zero points of asymmetric activations too (Bhalgat et al. 2020); real scales
    PACT = "pact"  # activations learn where they clip (Choi et al. 2018), weights as with `fixed`; real scales
    TQT = "tqt"  # learned thresholds, scales the next power of two (Jain et al. 2020)
    QFX = "qfx"  # learned binary points, scales the nearest power of two (Dai et al. 2024)


@dataclass(frozen=True)
class Preparation:
    """What `prepare` was asked for: the recipe, the network's name, and the shape of an input (no batch axis)."""

    recipe: Recipe
    name: str
    shape: Shape


def prepare(
    net: nn.Module, calibration: Iterable[Any], recipe: Recipe | None = None, rule: StepRule | str | None = None
) -> fx.GraphModule:
    """A copy of the network that computes with what its codes mean, ready to be trained; in training mode.

    It is an ordinary module: any loop and optimizer, `state_dict`, devices, DistributedDataParallel, `torch.compile`.
    It starts from the result of post-training quantization. Batch norms are folded as they train (see
    `QuantizedLayer`); with `recipe.equalize` once, before. In eval mode it computes what the integer graph of
    `bitfab.lower` does.

    Args:
        net, calibration: as for `quantize`.
        recipe: as for `quantize`; by default 8 bits with scales of least squared error. Weights of 1 bit are binary
            (+-scale), of 2 bits ternary; `activations=1` with `symmetric_activations` gives signs, which suit
            networks with `nn.Hardtanh`.
        rule: how scales are learned; `lsq` by default, `tqt` where the recipe's scales are powers of two.

    Raises:
        BitfabError: as `quantize` does; for a rule that does not suit the kind of scale; for steps of the recipe that
            belong to post-training quantization alone.
    """
    recipe = recipe_or(recipe, Recipe(observer=ObserverKind.MSE))
    rule = _checked_rule(recipe, rule)
    batches = as_batches(calibration, net)
    first = next(batches, None)
    if first is None:
        raise BitfabError(NO_DATA)
    check_weights(net)
    captured = capture(net, first)
    choices = choose(fold(captured), Batches(chain([first], batches)), recipe)
    prepared = copy.deepcopy(choices.module)
    prepared.meta[KEY] = Preparation(recipe, type(net).__name__, tuple(first.shape[1:]))
    ShapeProp(prepared).propagate(first[:1])
    plan = make_plan(prepared, recipe)
    _check_levels(plan)
    scales = _insert_scales(plan, choices, rule)
    for node in plan.weighted():
        _replace_layer(plan, node, choices, rule, prepared if recipe.equalize else captured)
        node.args = (node.args[0], scales[owner(plan, plan.coded(node.all_input_nodes[0]))])
    for node in scales:
        _add_activation(plan, node, choices, rule)
    for node, output in plan.observed().items():
        behind = output if node.op != "placeholder" else list(scales.values())[-1]
        _round_output(prepared, output, owner(plan, node).name, scales[owner(plan, node)], behind)
    prepared.graph.lint()
    prepared.recompile()
    return prepared.train()


def owner(plan: Plan, node: fx.Node) -> fx.Node:
    """The node whose scale and codes a node's value has: itself, or the concat that it adopted them from."""
    while node in plan.adopted:
        node = plan.adopted[node]
    return node


def _checked_rule(recipe: Recipe, rule: StepRule | str | None) -> StepRule:
    powers = (StepRule.FIXED, StepRule.TQT, StepRule.QFX)
    real = (StepRule.FIXED, StepRule.LSQ, StepRule.LSQ_PLUS, StepRule.PACT)
    suited = powers if recipe.scale is ScaleKind.PO2 else real
    rule = choice(StepRule, rule or suited[1], f"prepare: rule {rule!r}")
    if rule not in suited:
        raise BitfabError(
            f"prepare: rule '{rule}' does not suit scale='{recipe.scale}'; choose one of {', '.join(suited)}"
        )
    if recipe.adaround or recipe.bias_correction is not BiasCorrection.NONE:
        raise BitfabError("prepare: training learns roundings and biases; leave adaround and bias_correction out")
    return rule


def _check_levels(plan: Plan) -> None:
    for node in plan.weighted():
        levels, group_size = plan.recipes[node].levels, plan.recipes[node].group_size
        if levels is not WeightLevels.UNIFORM or group_size:
            found = f"levels='{levels}'" if levels is not WeightLevels.UNIFORM else f"group_size={group_size}"
            raise BitfabError(f"{node.meta['source']}: {found} is for bitfab.quantize; training takes uniform weights")


def _insert_scales(plan: Plan, choices: Choices, rule: StepRule) -> Mapping[fx.Node, fx.Node]:
    """A call of a `Step` for each activation with a scale of its own, right behind the network's input."""
    graph, learned, made = plan.module.graph, rule is not StepRule.FIXED, {}
    start = next(node for node in graph.nodes if node.op != "placeholder")
    dtype, device = _kind(plan.module)
    for node in plan.observed():
        if owner(plan, node) is node:
            scale = torch.tensor(choices.encodings[node.name].qparams.scale, dtype=dtype, device=device)
            step = Step(scale, choices.recipe.scale, learned, nearest=rule is StepRule.QFX)
            plan.module.add_submodule(f"{SCALES}.{node.name}", step)
            with graph.inserting_before(start):
                made[node] = graph.create_node("call_module", f"{SCALES}.{node.name}", name=f"{node.name}_scale")
                made[node].meta["source"] = node.meta["source"]
    return made


def _add_activation(plan: Plan, node: fx.Node, choices: Choices, rule: StepRule) -> None:
    """The module that rounds the node's output; the network's input is rounded as at the border (`dtypes.quantize`)."""
    encoding, output = choices.encodings[node.name], plan.fused.get(node, node)
    rounding = Rounding.HALF_EVEN if node.op == "placeholder" else choices.recipe.rounding
    zero, kind = encoding.qparams.zero_point, choices.recipe.scale
    activation = QuantizedActivation(encoding.type, zero, rounding, kind, rounds=rule is not StepRule.PACT)
    activation.zero.requires_grad_(rule is StepRule.LSQ_PLUS and zero > encoding.type.low)
    if encoding.type.bipolar and rule is not StepRule.FIXED and plan.layers[node] is not torch.cat:
        activation.shift = nn.Parameter(torch.zeros(output.meta["tensor_meta"].shape[1]))
    dtype, device = _kind(plan.module)
    plan.module.add_submodule(f"{CODES}.{node.name}", activation.to(device, dtype))


def _round_output(module: fx.GraphModule, output: fx.Node, name: str, scale: fx.Node, behind: fx.Node) -> None:
    """All who read the node's output get it rounded, by a call placed behind another node."""
    readers, graph = list(output.users), module.graph
    with graph.inserting_after(behind):
        made = graph.create_node("call_module", f"{CODES}.{name}", (output, scale), name=f"{output.name}_codes")
    made.meta["source"] = output.meta["source"]
    for reader in readers:
        reader.replace_input_with(output, made)


def _replace_layer(plan: Plan, node: fx.Node, choices: Choices, rule: StepRule, trained: fx.GraphModule) -> None:
    """A `QuantizedLayer` in the layer's place, with the weights and the batch norm of the network `trained`."""
    path, recipe = str(node.target), plan.recipes[node].weights
    original = next(n for n in trained.graph.nodes if n.name == node.name)
    layer: Any = trained.get_submodule(path)
    norms = [trained.get_submodule(str(n.target)) for n in original.users if n.op == "call_module"]
    norm = norms[0] if norms and isinstance(norms[0], BatchNorm) else None
    folded: Any = plan.module.get_submodule(path)
    scales = torch.from_numpy(choices.weights[node.name].scales).to(layer.weight)
    size = output_first(folded).detach().flatten(1).abs()
    size = size.mean(1) if recipe.bits == 1 else size.amax(1)
    share = torch.where(size > 0, scales / size, 1.0)
    step = None
    if rule not in (StepRule.FIXED, StepRule.PACT):
        step = Step(scales if recipe.per_channel else scales[:1], recipe.scale_kind, True, rule is StepRule.QFX)
    plan.module.set_submodule(path, QuantizedLayer(layer, norm, step, share, recipe.bits, recipe.scale_kind))


def _kind(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    sample: Tensor = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    return sample.dtype, sample.device
