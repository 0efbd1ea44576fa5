"""ONNX operators that move values and change none, as torch calls."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitfab.frontend.calls import Unsupported
from bitfab.frontend.onnx_values import Node, Value, number, numbers, operand, padded


def identity(node: Node, x: Tensor, *_: Value) -> Tensor:
    """The first input as it is."""
    return x


def concat(node: Node, *values: Value) -> Tensor:
    """Concat along any axis."""
    operands = (operand(value) for value in values)
    tensors = [value if isinstance(value, Tensor) else torch.tensor([value]) for value in operands]
    return torch.cat(tensors, dim=node.attributes["axis"])


def split(node: Node, x: Tensor, sizes: Value = None) -> tuple[Tensor, ...]:
    """Split into parts of given sizes, or as equal as can be."""
    axis = node.attributes.get("axis", 0)
    parts = numbers(node, sizes, "split")
    if parts is None:
        each = math.ceil(x.shape[axis] / node.outputs)
        parts = [min(each, x.shape[axis] - each * i) for i in range(node.outputs)]
    return torch.split(x, parts, dim=axis)


def slice_axes(node: Node, x: Tensor, *given: Value) -> Tensor:
    """Slice forwards, one axis after the other."""
    starts, ends, axes, steps = (
        numbers(node, value, name)
        for value, name in zip((*given, None, None)[:4], ("starts", "ends", "axes", "steps"), strict=True)
    )
    assert starts is not None and ends is not None
    for start, end, axis, step in zip(
        starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True
    ):
        if step < 1:
            raise Unsupported(f"with step {step}: only forwards")
        x = x[(slice(None),) * (axis % x.ndim) + (slice(start, end, step),)]
    return x


def gather(node: Node, x: Tensor, indices: Value) -> Tensor:
    """Elements of an axis by constant numbers."""
    if not isinstance(indices, np.ndarray):
        raise Unsupported("its indices are computed from the network's input")
    axis = node.attributes.get("axis", 0) % x.ndim
    if indices.ndim == 0:
        return x.select(axis, int(indices))
    if indices.ndim > 1:
        raise Unsupported(f"indices of shape {indices.shape}: only one number, or a list")
    wanted = [int(index) % x.shape[axis] for index in indices]
    step = wanted[1] - wanted[0] if len(wanted) > 1 else 1
    if step > 0 and wanted == list(range(wanted[0], wanted[0] + step * len(wanted), step)):
        return x[(slice(None),) * axis + (slice(wanted[0], wanted[-1] + 1, step),)]
    return torch.cat([x.narrow(axis, index, 1) for index in wanted], dim=axis)


def reshape(node: Node, x: Tensor, target: Value) -> Tensor:
    """The batch size that the file was exported with stands for any."""
    sizes = numbers(node, target, "shape")
    assert sizes is not None
    if not node.attributes.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if sizes and sizes[0] == node.batch:
        sizes[0] = x.shape[0]
    known = math.prod(size for size in sizes if size != -1)
    if min(sizes, default=0) < -1 or known == 0 or x.numel() % known or (-1 not in sizes and x.numel() != known):
        raise Unsupported(f"{tuple(x.shape)} to {tuple(sizes)} changes the number of values")
    return x.reshape(sizes)


def flatten(node: Node, x: Tensor) -> Tensor:
    """Flatten to two axes."""
    axis = node.attributes.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


def squeeze(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    """Squeeze: axes of size 1 go."""
    chosen = numbers(node, axes, "axes")
    gone = [axis for axis in range(1, x.ndim) if x.shape[axis] == 1] if chosen is None else [a % x.ndim for a in chosen]
    if any(x.shape[axis] != 1 for axis in gone):
        raise Unsupported(f"of axes {gone} of a value of shape {tuple(x.shape)}: the batch axis must stay")
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])


def unsqueeze(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    """Unsqueeze: axes of size 1 come."""
    chosen = numbers(node, axes, "axes")
    assert chosen is not None
    rank = x.ndim + len(chosen)
    made, sizes = [axis % rank for axis in chosen], iter(x.shape)
    return x.reshape([1 if axis in made else next(sizes) for axis in range(rank)])


def transpose(node: Node, x: Tensor) -> Tensor:
    """Transpose, by default the axes reversed."""
    return x.permute(node.attributes.get("perm") or tuple(reversed(range(x.ndim))))


def pad(node: Node, x: Tensor, pads: Value = None, value: Value = None, axes: Value = None) -> Tensor:
    """Pad with a constant."""
    sides = numbers(node, pads, "pads")
    assert sides is not None
    chosen = numbers(node, axes, "axes") or list(range(x.ndim))
    whole = [0] * (2 * x.ndim)
    for position, axis in enumerate(chosen):
        whole[axis % x.ndim], whole[x.ndim + axis % x.ndim] = sides[position], sides[len(chosen) + position]
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        raise Unsupported(f"mode {mode}: only padding with zeros")
    first = next((axis for axis in range(x.ndim) if whole[axis] or whole[x.ndim + axis]), x.ndim)
    return padded(x, whole[first : x.ndim] + whole[x.ndim + first :], number(value, 0.0) or 0.0)


def expand(node: Node, x: Tensor, target: Value) -> Tensor:
    """Expand: values repeated along axes of size 1."""
    sizes = numbers(node, target, "shape")
    assert sizes is not None
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(sizes)))


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """SpaceToDepth: (N, C, H b, W b) to (N, b b C, H, W)."""
    batch, channels, height, width = x.shape
    size = node.attributes["blocksize"]
    blocks = x.reshape(batch, channels, height // size, size, width // size, size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * size**2, height // size, width // size)


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """DepthToSpace, the inverse, in either order of channels."""
    batch, channels, height, width = x.shape
    size = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    blocks = x.reshape(batch, size, size, channels // size**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // size**2, height * size, width * size)
