"""Calls that move values and change none: reshapes, transposes, slices, splits, concats and padding."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from bitfab.frontend.calls import Call, Function, Steps, Unsupported

aten = torch.ops.aten


def reshape(call: Call) -> Steps:
    return _reshaped(call.input_shape, call.shape)


def _reshaped(before: tuple[int, ...], after: tuple[int, ...]) -> Steps:
    if before == after:
        return []
    if len(after) < 2 or after[0] != before[0]:
        raise Unsupported(
            f"{before[1:]} to {after}: the batch axis must stay as it is, with at least one axis behind it"
        )
    return [nn.Flatten()] if len(after) == 2 else [Function(torch.reshape, ((-1, *after[1:]),))]


def permute(call: Call) -> Steps:
    return _permuted([axis % len(call.input_shape) for axis in call["dims"]])


def transpose(call: Call) -> Steps:
    """Two axes change places."""
    axes = list(range(len(call.input_shape)))
    one, other = call.axis("dim0"), call.axis("dim1")
    axes[one], axes[other] = other, one
    return _permuted(axes)


def _permuted(axes: list[int]) -> Steps:
    if axes == sorted(axes):
        return []
    if axes[0] != 0:
        raise Unsupported("the batch axis must stay the first")
    return [Function(torch.permute, (tuple(axes),))]


def slice_axis(call: Call) -> Steps:
    size = call.input_shape[call.axis()]
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(size)
    return _sliced(call.axis(), start, min(stop, size), step, size)


def _sliced(axis: int, start: int, stop: int, step: int, size: int) -> Steps:
    if (start, stop, step) == (0, size, 1):
        return []
    if axis == 0:
        raise Unsupported("of the batch axis")
    if start >= stop:
        raise Unsupported(f"{start}:{stop} of {size}, which is empty")
    return [Function(operator.getitem, ((*[slice(None)] * axis, slice(start, stop, step)),))]


def select(call: Call) -> Steps:
    """One element of an axis, which goes."""
    axis, index = call.axis(), call["index"]
    size = call.input_shape[axis]
    index %= size
    one = (*call.input_shape[:axis], 1, *call.input_shape[axis + 1 :])
    return [*_sliced(axis, index, index + 1, 1, size), *_reshaped(one, call.shape)]


def item(call: Call) -> Steps:
    """One result of a call that has several: a part of a split, the indices of a topk, or the first result of a batch
    norm in eval mode."""
    source = call.node.all_input_nodes[0]
    if source.target is aten.topk.default:  # `top_k.from_topk` refuses where the values are read
        return []
    if source.target not in SPLITS:
        if call["1"] != 0:
            raise Unsupported("a result other than the first")
        return []
    whole = source.all_input_nodes[0].meta["val"].shape
    parts = [tuple(part.shape) for part in source.meta["val"]]
    arguments = Call(source, source.args, dict(source.kwargs))
    axis, index = arguments.axis(), call["1"] % len(parts)
    if source.target is aten.unbind.int:
        one = (*whole[:axis], 1, *whole[axis + 1 :])
        return [*_sliced(axis, index, index + 1, 1, whole[axis]), *_reshaped(one, call.shape)]
    start = sum(part[axis] for part in parts[:index])
    return _sliced(axis, start, start + parts[index][axis], 1, whole[axis])


def cat(call: Call) -> Steps:
    operands, axis = call["tensors"], call.axis()
    if axis == 0:
        raise Unsupported("along the batch axis")
    if not all(isinstance(operand, fx.Node) for operand in operands):
        raise Unsupported("one operand is a constant")
    if len(set(operands)) != len(operands):
        raise Unsupported("one tensor occurs twice")
    return [Function(torch.cat, (axis,), packed=True)]


def pad(call: Call) -> Steps:
    """Zeros, or -inf before a max pool, around the image."""
    pads, value = list(call["pad"]), call["value"] or 0
    negative_infinity = value == float("-inf")
    mode = call.arguments.get("mode", "constant")
    if mode != "constant" or (value != 0 and not negative_infinity) or len(pads) > 4 or min(pads) < 0:
        raise Unsupported("only padding of the image with zeros, as `torch.nn.ZeroPad2d` does")
    if not any(pads):
        return []
    if len(call.input_shape) != 4:
        raise Unsupported(f"of values of shape {call.input_shape[1:]} per image, (C, H, W) expected")
    left, right, top, bottom = pads + [0] * (4 - len(pads))
    sides = (left, right, top, bottom)
    return [nn.ConstantPad2d(sides, value) if negative_infinity else nn.ZeroPad2d(sides)]


def pixel_shuffle(call: Call) -> Steps:
    """Depth to space, (C r r, H, W) to (C, H r, W r)."""
    (batch, channels, height, width), factor = call.input_shape, call["upscale_factor"]
    split = (batch, channels // factor**2, factor, factor, height, width)
    return [
        Function(torch.reshape, ((-1, *split[1:]),)),
        Function(torch.permute, ((0, 1, 4, 2, 5, 3),)),
        Function(torch.reshape, ((-1, *call.shape[1:]),)),
    ]


def pixel_unshuffle(call: Call) -> Steps:
    """Space to depth, (C, H r, W r) to (C r r, H, W)."""
    (batch, channels, height, width), factor = call.input_shape, call["downscale_factor"]
    split = (batch, channels, height // factor, factor, width // factor, factor)
    return [
        Function(torch.reshape, ((-1, *split[1:]),)),
        Function(torch.permute, ((0, 1, 3, 5, 2, 4),)),
        Function(torch.reshape, ((-1, *call.shape[1:]),)),
    ]


def expand(call: Call) -> Steps:
    if call.shape != call.input_shape:
        raise Unsupported(f"{call.input_shape[1:]} to {call.shape[1:]}: repeated values")
    return []


SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int)
