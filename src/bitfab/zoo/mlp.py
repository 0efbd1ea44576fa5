"""A small multilayer perceptron: the float reference of the LUT networks."""

import itertools

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """`(x - mean) / deviation` for x (N, features), both as `fit` found them."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def fit(self, x: Tensor, each: bool) -> None:
        """Take the mean and standard deviation of each feature of x (N, features), or, of one kind, of all together."""
        axes = 0 if each else (0, 1)
        self.mean.copy_(x.mean(axes))
        self.deviation.copy_(x.std(axes))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


def mlp(*widths: int) -> nn.Sequential:
    """Normalization, then linear layers with ReLU between them: (N, widths[0]) to logits (N, widths[-1])."""
    layers: list[nn.Module] = [Normalize(widths[0])]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
