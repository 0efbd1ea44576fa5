"""Multilayer perceptrons: MNIST's 3 x 256 and 3 x 64 neurons, and the jets' 64-32-32."""

from __future__ import annotations

import itertools

from torch import nn

MNIST = (784, 256, 256, 256, 10)
TFC = (784, 64, 64, 64, 10)  # as FINN's smallest (Umuroglu et al. 2017, 1612.07119)
JETS = (16, 64, 32, 32, 5)


def mlp(widths: tuple[int, ...] = MNIST, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers, each with a batch norm, and an activation after all but the last: (N, widths[0]) to logits."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), activation()]
    return nn.Sequential(*layers[:-1])


def binary_mlp(widths: tuple[int, ...] = MNIST) -> nn.Sequential:
    """The same with Hardtanh, whose slope is the usual stand-in for that of the sign."""
    return mlp(widths, nn.Hardtanh)
