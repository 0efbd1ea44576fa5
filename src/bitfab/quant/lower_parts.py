"""What single nodes and layers of the normal form say about shapes, padding and clipping, in the graph's terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from bitfab.dtypes import IntType, QParams, Rounding
from bitfab.ir import ops as ir
from bitfab.quant.fake_quant import round_real
from bitfab.quant.plan import Accumulating
from bitfab.quant.weights import layer_padding


def ends(layer: object) -> tuple[float, float]:
    """The real values between which an activation lets values pass."""
    return (layer.min_val, layer.max_val) if isinstance(layer, nn.Hardtanh) else (0.0, np.inf)  # ReLU6 is a Hardtanh


def clip_range(layer: object, qparams: QParams, type: IntType, rounding: Rounding) -> tuple[int, int]:
    """The codes between which an activation lets values pass, rounded as the requantize rounds."""
    reals = torch.tensor(ends(layer), dtype=torch.float64) / qparams.scale[0]
    low, high = (round_real(reals, rounding) + qparams.zero_point).clamp(type.low, type.high).tolist()
    return int(low), int(high)


def reaches_outside(layer: Accumulating, pads: ir.Pads) -> bool:
    """Whether the layer's windows see zeros around or between the pixels."""
    match layer:
        case nn.Conv2d():
            return any(pads) or any(layer_padding(layer))
        case nn.ConvTranspose2d():
            return layer.kernel_size != layer.stride
    return False


def transpose(node: fx.Node) -> ir.Transpose:
    """What a permute node does to each image."""
    axes = node.args[1]
    assert isinstance(axes, tuple)
    return ir.Transpose(tuple(axis - 1 for axis in axes[1:] if isinstance(axis, int)))


def trailing_shape(node: fx.Node) -> ir.Shape:
    """The shape a reshape node gives each image."""
    shape = node.args[1]
    assert isinstance(shape, tuple)
    return tuple(size for size in shape[1:] if isinstance(size, int))


def pair(value: Any) -> tuple[int, int]:
    """One number for both axes, or one for each."""
    if isinstance(value, tuple | list):
        return int(value[0]), int(value[-1])
    return int(value), int(value)
