"""Batch norms that follow no layer of their own get one: a depthwise convolution that passes every value on."""

from __future__ import annotations

import torch
from torch import fx, nn

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d)


def give_layers(module: fx.GraphModule) -> fx.GraphModule:
    """The normal form with an identity 1x1 convolution before each batch norm of images that could not be folded.

    A norm can be folded into a convolution that it alone reads. Changed in place; the values stay the same.
    """
    for node in list(module.graph.nodes):
        norm = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d) and not _folds(module, node.all_input_nodes[0]):
            path = f"{node.target}_identity"
            module.add_submodule(path, _identity(norm))
            with module.graph.inserting_before(node):
                made = module.graph.call_module(path, (node.all_input_nodes[0],))
            made.meta["source"] = path
            node.replace_input_with(node.all_input_nodes[0], made)
    module.graph.lint()
    module.recompile()
    return module


def _folds(module: fx.GraphModule, producer: fx.Node) -> bool:
    layer = module.get_submodule(str(producer.target)) if producer.op == "call_module" else None
    return isinstance(layer, WEIGHTED) and len(producer.users) == 1


def _identity(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A depthwise convolution by 1, of the norm's kind and on its device."""
    channels, mean = norm.num_features, norm.running_mean
    assert mean is not None
    with torch.device("meta"):
        layer = nn.Conv2d(channels, channels, 1, groups=channels)
    layer.weight = nn.Parameter(torch.ones(channels, 1, 1, 1, dtype=mean.dtype, device=mean.device))
    layer.bias = nn.Parameter(torch.zeros_like(mean))
    return layer.train(norm.training)
