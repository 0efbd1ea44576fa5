"""ONNX's Resize by whole factors: where each output reads is calculated, and compared with what torch does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitfab.frontend.calls import Unsupported
from bitfab.frontend.torch import MAX_VALUES


def resize(node: Any, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    """Nearest or linear, by whole factors; raises Unsupported for all that is not what torch's own upsampling does.

    `nearest` must repeat each pixel equally often; `linear` must see pixels as squares (half_pixel), borders repeated.
    """
    mode = node.attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise Unsupported(f"mode {mode}: only nearest and linear; export the model with one of those")
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
    growth = math.prod(max(new, 1) / max(old, 1) for old, new in zip(before, after, strict=True))
    if x.numel() * growth > x.shape[0] * MAX_VALUES:
        raise Unsupported(f"from {before} to {after}: at most {MAX_VALUES:,} values for each image")
    factors = [1] * x.ndim
    for axis, old, new, ratio in zip(axes, before, after, ratios, strict=True):
        factors[axis] = (_repetition if mode == "nearest" else _interpolation)(node, old, new, ratio)
    if factors[:2] != [1, 1] or x.ndim != 4:
        raise Unsupported(f"of a value of shape {tuple(x.shape)} by {factors}: only of the height and width of images")
    if factors[2:] == [1, 1]:
        return x
    scales = [float(factor) for factor in factors[2:]]
    return F.interpolate(x, scale_factor=scales, mode="nearest" if mode == "nearest" else "bilinear")


def _repetition(node: Any, old: int, new: int, ratio: float) -> int:
    """How often each pixel is repeated along one axis."""
    factor = _whole(old, new)
    repeated = np.arange(new) // factor if factor else None
    found = _sources(node, old, new, ratio) if factor else None
    if repeated is None or found is None or not np.array_equal(found, repeated):
        coordinates = _coordinates(node)
        rounding = node.attributes.get("nearest_mode", "round_prefer_floor")
        raise Unsupported(
            f"from {old} to {new} with coordinates {coordinates} and rounding {rounding}, which does not repeat each "
            "pixel equally often: use whole factors with asymmetric and floor"
        )
    return factor


def _interpolation(node: Any, old: int, new: int, ratio: float) -> int:
    """By how much an axis grows whose outputs are interpolated between the middles of the pixels."""
    factor = _whole(old, new)
    squares = (np.arange(new) + 0.5) / factor - 0.5 if factor else None
    found = _places(node, old, new, ratio) if factor else None
    if squares is None or found is None or not np.allclose(found.clip(0, old - 1), squares.clip(0, old - 1)):
        raise Unsupported(
            f"mode linear from {old} to {new} with coordinates {_coordinates(node)}: use whole factors with half_pixel"
        )
    return factor


def _whole(old: int, new: int) -> int:
    """The factor by which an axis grows; 0 where it is no whole one."""
    return new // old if 0 < old <= new and new % old == 0 else 0


def _coordinates(node: Any) -> str:
    return str(node.attributes.get("coordinate_transformation_mode", "half_pixel"))


def _places(node: Any, old: int, new: int, ratio: float) -> NDArray[np.float64] | None:
    """Where each output reads along one axis, by the operator's specification; None for unknown coordinates."""
    x = np.arange(new, dtype=np.float64)
    match _coordinates(node):
        case "asymmetric":
            return x / ratio
        case "half_pixel":
            return (x + 0.5) / ratio - 0.5
        case "half_pixel_symmetric":
            adjust = new / (ratio * old)
            return old / 2 * (1 - adjust) + (x + 0.5) / ratio - 0.5
        case "pytorch_half_pixel":
            return (x + 0.5) / ratio - 0.5 if new > 1 else 0 * x
        case "align_corners":
            return x * (old - 1) / (new - 1) if new > 1 else 0 * x
    return None


def _sources(node: Any, old: int, new: int, ratio: float) -> NDArray[np.int64] | None:
    """Which pixel each output reads along one axis, by the operator's specification; None for unknown modes."""
    at = _places(node, old, new, ratio)
    if at is None:
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
