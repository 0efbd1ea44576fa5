"""What batch norm tells about activations without data: mean, spread and range of each channel, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

SIGMAS = 6.0  # how many standard deviations a range reaches (Nagel et al. 2019, section 5.1)
KEY = "statistics"  # under which `fold` keeps them in a node's meta

_GRID = torch.linspace(-SIGMAS, SIGMAS, 481, dtype=torch.float64)
_DENSITY = torch.exp(-(_GRID**2) / 2) / torch.exp(-(_GRID**2) / 2).sum()


@dataclass(frozen=True)
class Statistics:
    """Mean, standard deviation, and the least and largest value of each channel (C,), float64, as far as a normal
    distribution of the pre-activations tells."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def normal(cls, mean: Tensor, std: Tensor) -> Statistics:
        """A normal distribution, cut off at `SIGMAS` standard deviations."""
        mean, std = mean.detach().double().cpu(), std.detach().double().cpu().abs()
        return cls(mean, std, mean - SIGMAS * std, mean + SIGMAS * std)

    def affine(self, gain: Tensor, shift: Tensor) -> Statistics:
        """Those of `gain * x + shift`, gain > 0."""
        return Statistics(gain * self.mean + shift, gain * self.std, gain * self.low + shift, gain * self.high + shift)


def propagate(module: fx.GraphModule) -> Mapping[fx.Node, Statistics]:
    """The statistics of each node's output where batch norms tell them; channels count as independent of each other.

    Behind a folded batch norm they are those of its output, normal with mean beta and spread |gamma| (Nagel et al.
    2019, section 4.2.1). An activation's are integrated over that normal distribution; sums add means and variances.
    """
    known: dict[fx.Node, Statistics] = {}
    for node in module.graph.nodes:
        inputs = [known.get(n) for n in node.all_input_nodes]
        found = node.meta.get(KEY)
        if found is None and inputs and all(i is not None for i in inputs) and node.op != "output":
            found = _through(module, node, [i for i in inputs if i is not None])
        if found is not None:
            known[node] = found
    return known


def _through(module: fx.GraphModule, node: fx.Node, inputs: list[Statistics]) -> Statistics | None:
    layer = module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
    x = inputs[0]
    match layer:
        case nn.Conv2d() | nn.ConvTranspose2d() | nn.Linear() | nn.ConstantPad2d():
            return x if isinstance(layer, nn.ConstantPad2d) else None
        case nn.MaxPool2d() | nn.AvgPool2d() | nn.AdaptiveAvgPool2d() | nn.Upsample():
            return x
        case nn.Flatten():
            return x if isinstance(_producer(module, node), nn.AdaptiveAvgPool2d) else None
        case nn.Module():
            return _activated(layer, x)
        case torch.add:
            terms = inputs * (len(node.args) if len(inputs) == 1 else 1)  # x + x has one input node
            std = terms[0].std * 2 if len(inputs) == 1 else torch.stack([i.std**2 for i in terms]).sum(0).sqrt()
            parts = [torch.stack([getattr(i, key) for i in terms]).sum(0) for key in ("mean", "low", "high")]
            return Statistics(parts[0], std, parts[1], parts[2])
        case torch.cat if node.args[1] == 1:
            return Statistics(*(torch.cat([getattr(i, key) for i in inputs]) for key in ("mean", "std", "low", "high")))
    return None


def _producer(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    producer = node.args[0]
    is_module = isinstance(producer, fx.Node) and producer.op == "call_module"
    return module.get_submodule(str(producer.target)) if is_module else None  # type: ignore[union-attr]


@torch.no_grad()
def _activated(activation: nn.Module, x: Statistics) -> Statistics:
    """An activation of normally distributed values, by quadrature; its range over `SIGMAS` and the known range."""
    points = x.mean[:, None] + x.std[:, None] * _GRID
    points = torch.minimum(torch.maximum(points, x.low[:, None]), x.high[:, None])
    images = activation(points)
    mean = images @ _DENSITY
    std = ((images - mean[:, None]) ** 2 @ _DENSITY).sqrt()
    ends = torch.stack([activation(x.low), activation(x.high), images.amin(1), images.amax(1)])
    return replace(x, mean=mean, std=std, low=ends.amin(0), high=ends.amax(0))
