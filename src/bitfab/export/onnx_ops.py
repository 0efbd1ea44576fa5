"""The ONNX operators and attributes of the integer operations that need no rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.export.onnx_model import Attributes, Model, batched
from bitfab.ir.graph import Node
from bitfab.ir.ops import (
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Reshape,
    Shape,
    Slice,
    SumPool2d,
    Transpose,
    Upsample,
)


def output_sums(op: Conv2d | ConvTranspose2d | Dense) -> IntArray:
    """The sum of the weights of each output channel, int64 (O,)."""
    weight = op.weight.astype(np.int64)
    if isinstance(op, ConvTranspose2d):
        return weight.reshape(op.groups, len(weight) // op.groups, weight.shape[1], -1).sum(axis=(1, 3)).ravel()
    return weight.reshape(len(weight), -1).sum(axis=1)


def convolution(node: Node, op: Conv2d | ConvTranspose2d | Dense) -> tuple[str, Attributes]:
    """Conv, ConvTranspose or Gemm with its attributes; real zeros lie around the image."""
    if isinstance(op, Dense):
        return "Gemm", {"transB": 1}
    attributes: Attributes = {"kernel_shape": op.weight.shape[2:], "strides": op.stride, "group": op.groups}
    if isinstance(op, Conv2d):
        return "Conv", attributes | {"pads": op.padding, "dilations": op.dilation}
    top, left, bottom, right = op.padding
    more = max(-bottom, 0), max(-right, 0)
    if top < 0 or left < 0 or more[0] >= op.stride[0] or more[1] >= op.stride[1]:
        raise BitfabError(
            f"{node.source or node.name}: padding {op.padding} around a transposed convolution is more than "
            "ONNX has; use padding >= 0 and output_padding < stride"
        )
    pads = (top, left, max(bottom, 0), max(right, 0))
    return "ConvTranspose", attributes | {"pads": pads, "output_padding": more}


def pooling(op: SumPool2d, image: Shape) -> tuple[str, Attributes]:
    """The average pool of an image (C, H, W), padding counted; the global one where a window is all of the image."""
    if op.kernel == tuple(image[1:]) and not any(op.padding):
        return "GlobalAveragePool", {}
    window: Attributes = {"kernel_shape": op.kernel, "strides": op.stride, "pads": op.padding}
    return "AveragePool", window | {"count_include_pad": 1}


def passing(model: Model, node: Node, inputs: Sequence[str], output: str, type: int) -> str:
    """An operation that moves or selects values, on tensors of any type; returns its output's name."""

    def constant(what: str, numbers: Sequence[int]) -> str:
        return model.constant(f"{node.name}_{what}", np.asarray(numbers, dtype=np.int64))

    more, attributes = [], Attributes()
    match op := node.op:
        case MaxPool2d():
            kind, attributes = "MaxPool", {"kernel_shape": op.kernel, "strides": op.stride, "pads": op.padding}
        case Upsample():
            factor = np.asarray([1, 1, *op.factor], np.float32)
            kind, more = "Resize", ["", model.constant(f"{node.name}_factor", factor)]
            attributes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        case Reshape():
            kind, more = "Reshape", [constant("shape", (0, *op.shape))]
        case Transpose():
            kind, attributes = "Transpose", {"perm": (0, *(axis + 1 for axis in op.axes))}
        case Slice():
            kind, axis = "Slice", op.axis + 1
            parts = {"start": op.start, "stop": op.stop, "axis": axis, "step": op.step}
            more = [constant(what, [number]) for what, number in parts.items()]
        case Concat():
            kind, attributes = "Concat", {"axis": op.axis + 1}
        case _:
            raise BitfabError(f"{node.source or node.name}: {op.__class__.__name__} cannot be exported; leave it out")
    shape = batched(node.output.shape)
    return model.node(kind, [*inputs, *more], output, shape, type, source=node.source, **attributes)
