"""ONNX operators with weights or windows as torch calls: convolutions, dense layers, norms and pools."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitfab.frontend.calls import Unsupported
from bitfab.frontend.onnx_values import Node, Value, operand, padded


def _window(node: Node, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations, and padding (all beginnings, then all ends) of a convolution or pool."""
    axes = len(kernel)
    strides = node.attributes.get("strides") or [1] * axes
    dilations = node.attributes.get("dilations") or [1] * axes
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = node.attributes.get("pads") or [0] * (2 * axes)
    elif mode == "VALID":
        pads = [0] * (2 * axes)
    else:
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        totals = [
            max((math.ceil(size / stride) - 1) * stride + span - size, 0)
            for size, stride, span in zip(x.shape[2:], strides, spans, strict=True)
        ]
        less = [total // 2 for total in totals]
        more = [total - half for total, half in zip(totals, less, strict=True)]
        pads = less + more if mode == "SAME_UPPER" else more + less
    if min(strides) < 1 or min(dilations) < 1 or len(strides) != axes or len(pads) != 2 * axes:
        raise Unsupported(f"strides {strides}, dilations {dilations}, pads {pads}")
    return list(strides), list(dilations), list(pads)


def _flat(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same for signals (N, C, L), as images of one row."""

    @functools.wraps(function)
    def whole(node: Node, x: Tensor, *others: Tensor | None) -> Tensor:
        if x.ndim != 3:
            return function(node, x, *others)
        rows = dict(node.attributes)
        for name, first in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0)):
            if name in rows:
                rows[name] = [first, *rows[name]]
        if "pads" in rows:
            rows["pads"] = [0, rows["pads"][0], 0, rows["pads"][1]]
        image = _Image(node.kind, rows, node.opset, node.batch, node.outputs)
        weights = [other[:, :, None] if other is not None and other.ndim == 3 else other for other in others]
        y = function(image, x.reshape(x.shape[0], x.shape[1], 1, x.shape[2]), *weights)
        return y.reshape(y.shape[0], y.shape[1], y.shape[3])

    return whole


class _Image:
    def __init__(self, kind: str, attributes: dict[str, Any], opset: int, batch: int | None, outputs: int) -> None:
        self.kind, self.attributes, self.opset, self.batch, self.outputs = kind, attributes, opset, batch, outputs


def _image(x: Tensor) -> None:
    if x.ndim != 4:
        raise Unsupported(f"its input has {x.ndim} axes, (N, C, H, W) expected")


@_flat
def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv of images or signals; uneven padding is done before."""
    _image(x)
    strides, dilations, pads = _window(node, x, weight.shape[2:])
    padding = pads[:2] if pads[:2] == pads[2:] else [0, 0]
    x = x if padding == pads[:2] else padded(x, pads)
    return F.conv2d(x, weight, bias, strides, padding, dilations, node.attributes.get("group", 1))


@_flat
def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What ends of the full result are cropped differently is cut off afterwards."""
    _image(x)
    strides, dilations, pads = _window(node, x, weight.shape[2:])
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "") or "output_shape" in node.attributes:
        raise Unsupported("auto_pad or output_shape: export it with explicit pads")
    extra = node.attributes.get("output_padding") or [0, 0]
    ends = [end - out for end, out in zip(pads[2:], extra, strict=True)]  # rows that go at the end, or come
    both = [
        begin if begin - end < stride else max(end, 0)
        for begin, end, stride in zip(pads[:2], ends, strides, strict=True)
    ]
    grown = [max(pad - end, 0) for pad, end in zip(both, ends, strict=True)]
    y = F.conv_transpose2d(x, weight, bias, strides, both, grown, node.attributes.get("group", 1), dilations)
    top, left = (begin - pad for begin, pad in zip(pads[:2], both, strict=True))
    height, width = (size - max(end - pad, 0) for size, end, pad in zip(y.shape[2:], ends, both, strict=True))
    return y[:, :, top:height, left:width]


def gemm(node: Node, a: Tensor, b: Value, c: Value = None) -> Tensor:
    """Gemm with constant weights, as a linear layer."""
    if not isinstance(b, Tensor):
        raise Unsupported("its weights are no floats")
    weight = (b if node.attributes.get("transB", 0) else b.t()) * node.attributes.get("alpha", 1.0)
    a = a.t() if node.attributes.get("transA", 0) else a
    if c is None:
        return F.linear(a, weight)
    bias = torch.as_tensor(operand(c), dtype=weight.dtype) * node.attributes.get("beta", 1.0)
    if bias.numel() not in (1, len(weight)):
        raise Unsupported(f"a bias of shape {tuple(bias.shape)}")
    return F.linear(a, weight, bias.reshape(-1).expand(len(weight)))


def matmul(node: Node, a: Value, b: Value) -> Tensor:
    """MatMul; with constant weights (I, O) a linear layer."""
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    weights = isinstance(b, torch.nn.Parameter) and b.ndim == 2
    return F.linear(a, b.t()) if weights else torch.matmul(a, b)


def batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """BatchNormalization for inference."""
    if node.attributes.get("training_mode", 0):
        raise Unsupported("in training mode: export the model for inference")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, node.attributes.get("epsilon", 1e-5))


@_flat
def max_pool(node: Node, x: Tensor) -> Tensor:
    """MaxPool; what padding adds never wins."""
    _image(x)
    kernel = node.attributes["kernel_shape"]
    strides, dilations, pads = _window(node, x, kernel)
    if node.outputs > 1:
        raise Unsupported("with the indices as a second output")
    inside = pads[:2] == pads[2:] and all(2 * pad <= size for pad, size in zip(pads, kernel * 2, strict=True))
    x = x if inside else padded(x, pads, -math.inf)
    ceil = bool(node.attributes.get("ceil_mode", 0))
    return F.max_pool2d(x, kernel, strides, pads[:2] if inside else 0, dilations, ceil)


@_flat
def average_pool(node: Node, x: Tensor) -> Tensor:
    """AveragePool, where all windows have one divisor."""
    _image(x)
    kernel = node.attributes["kernel_shape"]
    strides, dilations, pads = _window(node, x, kernel)
    counted = bool(node.attributes.get("count_include_pad", 0))
    even = pads[:2] == pads[2:] and all(2 * pad <= size for pad, size in zip(pads, kernel * 2, strict=True))
    if set(dilations) != {1} or not (even or counted):
        raise Unsupported(
            f"pads {pads} that are not counted, or dilations {dilations}: windows would differ in their divisor"
        )
    x = x if even else padded(x, pads)
    ceil = bool(node.attributes.get("ceil_mode", 0))
    return F.avg_pool2d(x, kernel, strides, pads[:2] if even else 0, ceil, counted or not any(pads))


def global_average(node: Node, x: Tensor) -> Tensor:
    """GlobalAveragePool: (N, C, ...) to (N, C, 1, ...)."""
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def global_max(node: Node, x: Tensor) -> Tensor:
    """GlobalMaxPool: (N, C, H, W) to (N, C, 1, 1)."""
    _image(x)
    return F.max_pool2d(x, tuple(x.shape[2:]))


def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """LayerNormalization over the last axes."""
    axis = node.attributes.get("axis", -1) % x.ndim
    return F.layer_norm(x, x.shape[axis:], scale, bias, node.attributes.get("epsilon", 1e-5))
