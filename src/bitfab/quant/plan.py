"""The plan: which nodes of the float normal form put out codes of their own, and with which others they become one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from bitfab.errors import BitfabError
from bitfab.frontend.bilinear import Bilinear
from bitfab.frontend.pointwise import Pointwise
from bitfab.quant.recipe import LayerRecipe, Recipe

Accumulating = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
Averaging = nn.AvgPool2d | nn.AdaptiveAvgPool2d | Bilinear
Clipping = nn.ReLU | nn.ReLU6 | nn.Hardtanh
Unary = (
    nn.Sigmoid
    | nn.Tanh
    | nn.SiLU
    | nn.GELU
    | nn.Hardswish
    | nn.Hardsigmoid
    | nn.LeakyReLU
    | nn.ELU
    | nn.SELU
    | nn.Softplus
    | nn.Mish
    | Pointwise
)
Passing = nn.MaxPool2d | nn.Upsample | nn.Flatten
Moving = (torch.reshape, torch.permute, operator.getitem)  # functions that put the same values elsewhere

Layer = nn.Module | Callable[..., Any] | None


@dataclass(frozen=True)
class Plan:
    """What each node becomes.

    `fused` maps a requantizing node to the activation that becomes its clip range; `adopted` maps a node to the concat
    whose scale it takes over, being read by nothing else; `layers` gives each node's module or function (None for the
    input and the output); `recipes` each node's choices; `module` is the normal form itself.
    """

    module: fx.GraphModule
    layers: Mapping[fx.Node, Layer]
    fused: Mapping[fx.Node, fx.Node]
    adopted: Mapping[fx.Node, fx.Node]
    recipes: Mapping[fx.Node, LayerRecipe]

    def observed(self) -> Mapping[fx.Node, fx.Node]:
        """Each node with codes of its own, and the node whose float output they stand for."""
        absorbed = set(self.fused.values())
        return {
            node: self.fused.get(node, node)
            for node, layer in self.layers.items()
            if node not in absorbed and (node.op == "placeholder" or _has_own_codes(layer))
        }

    def coded(self, node: fx.Node) -> fx.Node:
        """The node with codes of its own that the node's value consists of: itself, or where it takes them from."""
        absorbed = {activation: producer for producer, activation in self.fused.items()}
        while node not in absorbed and node.op != "placeholder" and not _has_own_codes(self.layers[node]):
            node = node.all_input_nodes[0]
        return absorbed.get(node, node)

    def weighted(self) -> Mapping[fx.Node, Accumulating]:
        """The nodes with weights and their layers, in the order in which they are computed."""
        return {node: layer for node, layer in self.layers.items() if isinstance(layer, Accumulating)}


def make_plan(module: fx.GraphModule, recipe: Recipe) -> Plan:
    """The plan for a folded normal form; raises BitfabError for a name in the recipe that fits no layer."""
    nodes = [node for node in module.graph.nodes if node.op != "output"]
    recipe.check([node.meta["source"] for node in nodes])
    layers = {node: _layer(module, node) for node in nodes}
    fused = {
        node.args[0]: node for node, layer in layers.items() if isinstance(layer, Clipping) and _fuses(layers, node)
    }
    sources = {node: tuple(n.meta["source"] for n in (node, fused.get(node)) if n is not None) for node in nodes}
    ends = _boundary(module, layers, fused)
    recipes = {node: recipe.layer(*names, boundary=node in ends) for node, names in sources.items()}
    adopted = {}
    for node, layer in layers.items():
        if node.op != "placeholder" and _has_own_codes(layer):
            concat = _sole_concat(layers, fused.get(node, node))
            if concat is not None and recipes[concat].activations == recipes[node].activations:
                adopted[node] = concat
    return Plan(module, layers, fused, adopted, recipes)


def _boundary(
    module: fx.GraphModule, layers: Mapping[fx.Node, Layer], fused: Mapping[fx.Node, fx.Node]
) -> set[fx.Node]:
    """The network's inputs, and the nodes whose codes are its outputs."""
    plan = Plan(module, layers, fused, {}, {})
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    return {node for node in layers if node.op == "placeholder"} | {plan.coded(n) for n in output.all_input_nodes}


def _layer(module: fx.GraphModule, node: fx.Node) -> Layer:
    if node.op == "call_module":
        return module.get_submodule(str(node.target))
    return None if node.op == "placeholder" else node.target  # type: ignore[return-value]


def requantizes(layer: Layer) -> bool:
    """Whether the layer's exact result is brought to codes by a requantize, which can clip as well."""
    return isinstance(layer, Accumulating | Averaging) or layer in (torch.add, torch.mul)


def _has_own_codes(layer: Layer) -> bool:
    return requantizes(layer) or isinstance(layer, Clipping | Unary) or layer is torch.cat


def _fuses(layers: Mapping[fx.Node, Layer], activation: fx.Node) -> bool:
    producer = activation.args[0]
    assert isinstance(producer, fx.Node)
    return requantizes(layers[producer]) and len(producer.users) == 1


def _sole_concat(layers: Mapping[fx.Node, Layer], node: fx.Node) -> fx.Node | None:
    """The concat that alone reads the node, directly or through layers that pass their codes on."""
    while len(node.users) == 1:
        (user,) = node.users
        layer = layers.get(user)
        if layer is torch.cat:
            return user
        if not (isinstance(layer, Passing) or layer in Moving):
            return None
        node = user
    return None


def check_module(net: object) -> None:
    """Raise BitfabError unless the network is a module."""
    if not isinstance(net, nn.Module):
        kind = f"class {net.__name__}" if isinstance(net, type) else type(net).__name__
        raise BitfabError(f"network: a {kind} given; give a torch.nn.Module, such as Net() of a class Net")


def check_weights(module: nn.Module) -> None:
    """Raise BitfabError for what is no module, a parameter or buffer without values, or with NaN or infinite ones."""
    check_module(module)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise BitfabError(f"{name}: has no values yet; run the network once, or load its parameters")
        if not bool(torch.isfinite(tensor).all()):
            raise BitfabError(f"{name}: holds NaN or infinite values; train again or load a sound checkpoint")
