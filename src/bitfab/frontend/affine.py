"""Sums and products with constants: into the layer before where it is alone, else a convolution channel by channel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bitfab.frontend.calls import Affine, Call, Function, Unsupported


def affine(call: Call, constant: Tensor | float, product: bool) -> Affine:
    """`x * constant` or `x + constant`; raises Unsupported unless the constant is one number, or one per channel."""
    vector = torch.as_tensor(constant, dtype=torch.float64).detach().cpu()
    sizes = (1,) * (len(call.shape) - vector.ndim) + tuple(vector.shape)
    if call.shape != call.input_shape or any(size != 1 for axis, size in enumerate(sizes) if axis != 1):
        raise Unsupported(
            f"a constant of shape {tuple(vector.shape)} with values of shape {call.input_shape[1:]} per image: only "
            "one number, or one for each channel"
        )
    vector = vector.reshape(-1)
    return Affine(vector, torch.zeros_like(vector)) if product else Affine(torch.ones_like(vector), vector)


def merge(step: Affine, layer: nn.Module) -> bool:
    """Put the step into the weights of the layer whose output it alone reads; False where the layer has none."""
    found: Any = layer
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
        return False
    if found.weight is None:
        return False
    weight = found.weight.detach().double()
    channels = weight.shape[1] * layer.groups if isinstance(layer, nn.ConvTranspose2d) else len(weight)
    scale, shift = (part.to(weight.device).expand(channels) for part in (step.scale, step.shift))
    bias = torch.zeros_like(scale) if found.bias is None else found.bias.detach().double()
    if isinstance(layer, nn.ConvTranspose2d):  # inputs first, outputs by groups
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        factors = scale.reshape(layer.groups, 1, -1, *(1,) * (weight.ndim - 2))
        scaled = (grouped * factors).reshape(weight.shape)
    else:
        scaled = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    dtype = found.weight.dtype
    found.weight = nn.Parameter(scaled.to(dtype))
    found.bias = nn.Parameter((bias * scale + shift).to(dtype))
    return True


def layers(step: Affine, like: Tensor) -> list[nn.Module | Function]:
    """The step as a 1x1 convolution with one weight a channel, for values such as `like` (batch axis included)."""
    shape = tuple(like.shape)
    channels = shape[1]
    with torch.device("meta"):
        layer = nn.Conv2d(channels, channels, 1, groups=channels)
    scale, shift = (part.to(like.device, like.dtype).expand(channels).clone() for part in (step.scale, step.shift))
    layer.weight, layer.bias = nn.Parameter(scale.reshape(-1, 1, 1, 1)), nn.Parameter(shift)
    if len(shape) == 4:
        return [layer]
    image = Function(torch.reshape, ((-1, channels, math.prod(shape[2:]), 1),))
    back = nn.Flatten() if len(shape) == 2 else Function(torch.reshape, ((-1, *shape[1:]),))
    return [image, layer, back]
