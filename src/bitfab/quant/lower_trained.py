"""From a network trained under quantization to the exact integer graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from bitfab.dtypes import QParams, storage
from bitfab.errors import BitfabError
from bitfab.ir import Graph
from bitfab.quant.encodings import Encoding
from bitfab.quant.fake_quant import QuantizedActivation, QuantizedLayer, Step
from bitfab.quant.fold import Weighted
from bitfab.quant.lower import Choices, lower_choices
from bitfab.quant.plan import check_weights, make_plan
from bitfab.quant.prepare import CODES, KEY, SCALES, Preparation, owner
from bitfab.quant.weights import LayerWeights


def lower(net: nn.Module, name: str | None = None) -> Graph:
    """The exact integer graph of a prepared network: with powers of two what it computes in eval mode, bit for bit.

    With real scales a code can differ by the rounding of the requantize multipliers. The network may be wrapped by
    DistributedDataParallel or torch.compile. Raises BitfabError for a module that `prepare` did not make, and for
    parameters that are NaN or infinite.
    """
    inner = _unwrapped(net)
    preparation: Preparation = inner.meta[KEY]
    return lower_choices(trained_choices(inner), name or preparation.name, preparation.shape).graph


def trained_choices(net: nn.Module) -> Choices:
    """What a prepared network has learned, as choices for its folded float network."""
    inner = _unwrapped(net)
    check_weights(inner)
    module = copy.deepcopy(inner).cpu().eval()
    recipe = module.meta.pop(KEY).recipe
    scales = {name: step().detach() for name, step in _children(module, SCALES).items() if isinstance(step, Step)}
    codes = {name: child for name, child in _children(module, CODES).items() if isinstance(child, QuantizedActivation)}
    layers = _strip(module)
    plan = make_plan(module, recipe)
    owners = {node: owner(plan, node).name for node in plan.observed()}
    encodings = {node.name: _encoding(codes[name], scales[name]) for node, name in owners.items()}
    weights = {}
    for node in plan.weighted():
        scale = scales[owners[plan.coded(node.all_input_nodes[0])]]
        weights[node.name] = _weights(layers[node.name], scale, storage(plan.recipes[node].weights.type))
    return Choices(module, recipe, encodings, weights, trained=True)


def _unwrapped(net: nn.Module) -> fx.GraphModule:
    inner = net
    for wrapper in ("_orig_mod", "module"):  # of torch.compile, of DistributedDataParallel
        inner = getattr(inner, wrapper, inner)
    if not isinstance(inner, fx.GraphModule) or KEY not in inner.meta:
        raise BitfabError(f"{type(net).__name__}: not prepared for training; give what bitfab.prepare returned")
    return inner


def _children(module: nn.Module, path: str) -> Mapping[str, nn.Module]:
    return dict(module.get_submodule(path).named_children())


def _strip(module: fx.GraphModule) -> Mapping[str, QuantizedLayer]:
    """Make it the folded float network again, in place; the layers taken out of it by their nodes' names."""
    layers, scales = {}, []
    for node in list(module.graph.nodes):
        found = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        match found:
            case QuantizedLayer():
                layers[node.name] = found
                module.set_submodule(str(node.target), _float_layer(found))
                node.args = node.args[:1]
            case QuantizedActivation():
                node.replace_all_uses_with(node.args[0])
                module.graph.erase_node(node)
            case Step():
                scales.append(node)
    for node in scales:
        module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
    return layers


def _float_layer(quantized: QuantizedLayer) -> Weighted:
    """The layer with its batch norm folded in."""
    layer = copy.deepcopy(quantized.layer)
    weight, bias = quantized.folded()
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer


def _encoding(codes: QuantizedActivation, scale: Tensor) -> Encoding:
    shift = () if codes.shift is None else tuple(codes.shift.detach().double().tolist())
    return Encoding(QParams((float(scale),), int(codes.zero_point)), codes.int_type, shift)


@torch.no_grad()
def _weights(layer: QuantizedLayer, input_scale: Tensor, dtype: type) -> LayerWeights:
    codes, scale, bias = (part.double().numpy() for part in layer.codes(input_scale))
    return LayerWeights(codes.astype(dtype), scale, bias * scale * float(input_scale))
