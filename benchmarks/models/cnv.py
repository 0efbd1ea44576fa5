"""FINN's CNV for 32x32 images: 3x3 convolutions without padding, two max pools, three linear layers."""

from __future__ import annotations

from torch import nn


def cnv(width: int = 16, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Umuroglu et al. 2017 (1612.07119, section 6.1), where `width` is 64; a batch norm after each layer."""
    layers: list[nn.Module] = []
    inputs = 3
    for i, outputs in enumerate((width, width, 2 * width, 2 * width, 4 * width, 4 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs), activation()]
        layers += [nn.MaxPool2d(2)] if i in (1, 3) else []
        inputs = outputs
    layers.append(nn.Flatten())
    for outputs in (8 * width, 8 * width, 10):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), activation()]
        inputs = outputs
    return nn.Sequential(*layers[:-1])
