"""ONNX's Resize where it repeats pixels: which pixel each output reads is calculated, and compared with repetition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitfab.frontend.calls import Unsupported


def resize(node: Any, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    """Nearest neighbour by whole factors; raises Unsupported for all that is no repetition of pixels."""
    mode = node.attributes.get("mode", "nearest")
    if mode != "nearest":
        raise Unsupported(f"mode {mode}: only nearest; export the model with that")
    if isinstance(scales, Tensor) or isinstance(sizes, Tensor):
        raise Unsupported("its scales are computed from the network's input")
    axes = [axis % x.ndim for axis in node.attributes.get("axes", range(x.ndim))]
    before = [x.shape[axis] for axis in axes]
    if sizes is not None and sizes.size:
        if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise Unsupported("keep_aspect_ratio_policy: only stretch")
        after = [int(size) for size in sizes]
        after = [
            x.shape[0] if axis == 0 and size == node.batch else size for axis, size in zip(axes, after, strict=True)
        ]
        ratios = [new / old for new, old in zip(after, before, strict=True)]
    else:
        ratios = [float(scale) for scale in np.asarray(scales).reshape(-1)]
        after = [math.floor(size * ratio) for size, ratio in zip(before, ratios, strict=True)]
    factors = [1] * x.ndim
    for axis, old, new, ratio in zip(axes, before, after, ratios, strict=True):
        factors[axis] = _factor(node, old, new, ratio)
    if factors[:2] != [1, 1] or x.ndim != 4:
        raise Unsupported(f"of a value of shape {tuple(x.shape)} by {factors}: only of the height and width of images")
    return F.interpolate(x, scale_factor=[float(f) for f in factors[2:]]) if factors[2:] != [1, 1] else x


def _factor(node: Any, old: int, new: int, ratio: float) -> int:
    """How often each pixel is repeated along one axis."""
    factor = new // old if old else 0
    repeated = np.arange(new) // factor if factor and new % old == 0 else None
    found = _sources(node, old, new, ratio) if repeated is not None else None
    if repeated is None or found is None or not np.array_equal(found, repeated):
        coordinates = node.attributes.get("coordinate_transformation_mode", "half_pixel")
        rounding = node.attributes.get("nearest_mode", "round_prefer_floor")
        raise Unsupported(
            f"from {old} to {new} with coordinates {coordinates} and rounding {rounding}, which does not repeat each "
            "pixel equally often: use whole factors with asymmetric and floor"
        )
    return factor


def _sources(node: Any, old: int, new: int, ratio: float) -> NDArray[np.int64] | None:
    """Which pixel each output reads along one axis, by the operator's specification; None for unknown modes."""
    x = np.arange(new, dtype=np.float64)
    match node.attributes.get("coordinate_transformation_mode", "half_pixel"):
        case "asymmetric":
            at = x / ratio
        case "half_pixel":
            at = (x + 0.5) / ratio - 0.5
        case "half_pixel_symmetric":
            adjust = new / (ratio * old)
            at = old / 2 * (1 - adjust) + (x + 0.5) / ratio - 0.5
        case "pytorch_half_pixel":
            at = (x + 0.5) / ratio - 0.5 if new > 1 else 0 * x
        case "align_corners":
            at = x * (old - 1) / (new - 1) if new > 1 else 0 * x
        case _:
            return None
    match node.attributes.get("nearest_mode", "round_prefer_floor"):
        case "floor":
            near = np.floor(at)
        case "ceil":
            near = np.ceil(at)
        case "round_prefer_floor":
            near = np.ceil(at - 0.5)
        case "round_prefer_ceil":
            near = np.floor(at + 0.5)
        case _:
            return None
    return near.clip(0, old - 1).astype(np.int64)
