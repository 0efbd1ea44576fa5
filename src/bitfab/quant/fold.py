"""Batch-norm folding: a batch norm behind a convolution or a linear layer becomes part of its weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from bitfab.errors import BitfabError
from bitfab.quant.statistics import KEY, Statistics

BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d)
Weighted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def fold(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the normal form without batch norms; the same function in eval mode, up to float rounding.

    With `g = gamma / sqrt(var + eps)`: `w' = g * w`, `b' = g * (b - mean) + beta`, per output channel (Jacob et al.
    2018, section 3.2). What the batch norm tells of its output stays in the node's `meta` (see
    `bitfab.quant.statistics`). Raises BitfabError for a batch norm that does not directly and alone follow a Conv2d,
    ConvTranspose2d or Linear.
    """
    folded = copy.deepcopy(module)
    layers = dict(folded.named_modules())
    for node in list(folded.graph.nodes):
        norm = layers.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, BatchNorm):
            continue
        producer = node.args[0]
        layer = layers.get(str(producer.target)) if producer.op == "call_module" else None
        if not isinstance(layer, Weighted) or len(producer.users) > 1:
            raise BitfabError(
                f"{node.meta['source']}: this batch norm does not directly follow a convolution or linear layer of its "
                f"own (its input is {producer.meta['source']}), so it cannot be folded; move it behind one"
            )
        _fold_into(layer, norm)
        channels = torch.ones(norm.num_features)
        mean, std = (norm.bias, norm.weight) if norm.affine else (0 * channels, channels)
        producer.meta[KEY] = Statistics.normal(mean, std)
        node.replace_all_uses_with(producer)
        folded.graph.erase_node(node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def output_first(layer: Weighted, weight: Tensor | None = None) -> Tensor:
    """The weight, or another of its shape, as (outputs, inputs / groups, ...): a view but for ConvTranspose2d."""
    weight = layer.weight if weight is None else weight
    if not isinstance(layer, nn.ConvTranspose2d):
        return weight
    groups = layer.groups
    inputs, outputs, *kernel = weight.shape
    return (
        weight.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2).reshape(-1, inputs // groups, *kernel)
    )


def per_output(layer: Weighted, vector: Tensor) -> Tensor:
    """A vector of one entry per output channel, shaped to multiply the layer's weight."""
    return _along(layer, vector, 1 if isinstance(layer, nn.ConvTranspose2d) else 0)


def per_input(layer: Weighted, vector: Tensor) -> Tensor:
    """A vector of one entry per input channel, shaped to multiply the layer's weight."""
    return _along(layer, vector, 0 if isinstance(layer, nn.ConvTranspose2d) else 1)


def _along(layer: Weighted, vector: Tensor, axis: int) -> Tensor:
    """Axis 0 of a weight holds all channels; axis 1 those of a group, the same for all rows of that group."""
    rows = len(layer.weight)
    if axis == 1:
        groups = 1 if isinstance(layer, nn.Linear) else layer.groups
        vector = vector.reshape(groups, 1, -1).expand(-1, rows // groups, -1)
    return vector.reshape(rows, -1, *(1,) * (layer.weight.ndim - 2))


@torch.no_grad()
def _fold_into(layer: Weighted, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """In float64, then back to the layer's own type."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    gain = (variance.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(gain)
    if norm.affine:
        gain, shift = gain * norm.weight.double(), norm.bias.double()
    weight = layer.weight.double()
    bias = torch.zeros_like(gain) if layer.bias is None else layer.bias.double()
    weight = weight * per_output(layer, gain)
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype))
    layer.bias = nn.Parameter((gain * (bias - mean.double()) + shift).to(dtype))
