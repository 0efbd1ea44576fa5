"""The table from ONNX operators to torch calls: each computes one node on torch tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from bitfab.frontend import onnx_layers as layers
from bitfab.frontend import onnx_layout as layout
from bitfab.frontend.calls import Unsupported
from bitfab.frontend.onnx_resize import resize
from bitfab.frontend.onnx_values import Node, Value, number, numbers, operand


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Value]:
    def whole(node: Node, x: Tensor, axes: Value = None) -> Tensor:
        chosen = numbers(node, axes, "axes")
        if not chosen and node.attributes.get("noop_with_empty_axes", 0):
            return x
        keep = bool(node.attributes.get("keepdims", 1))
        return function(x, dim=tuple(chosen or range(x.ndim)), keepdim=keep)

    return whole


def _clip(node: Node, x: Tensor, low: Value = None, high: Value = None) -> Tensor:
    bottom, top = number(low, None), number(high, None)
    return x if bottom is None and top is None else torch.clamp(x, bottom, top)


def _extreme(function: Callable[..., Tensor], end: str) -> Callable[..., Tensor]:
    """Max or Min of any number of operands; with a number it is a clamp."""

    def whole(node: Node, *values: Value) -> Tensor:
        found, *others = sorted((operand(value) for value in values), key=lambda v: not isinstance(v, Tensor))
        for other in others:
            found = function(found, other) if isinstance(other, Tensor) else torch.clamp(found, **{end: other})
        return found

    return whole


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    def whole(node: Node, *values: Value) -> Any:
        return functools.reduce(function, [operand(value) for value in values])

    return whole


def _prelu(node: Node, x: Tensor, slope: Value) -> Tensor:
    """`x` where positive, else `slope * x`; with a slope for each channel as `s x + (1 - s) relu(x)`."""
    factor = operand(slope)
    if not isinstance(factor, Tensor) or factor.numel() == 1:
        return F.leaky_relu(x, float(factor))
    return x * factor + F.relu(x) * (1 - factor)


def _leaky(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.attributes.get("alpha", 0.01))


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return F.hardsigmoid(x) if abs(6 * alpha - 1) < 1e-6 and beta == 0.5 else torch.clamp(x * alpha + beta, 0.0, 1.0)


def _elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.attributes.get("alpha", 1.0))


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.attributes.get("alpha", 1.6732632), node.attributes.get("gamma", 1.0507010)
    standard = abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.0507010) < 1e-6
    return F.selu(x) if standard else gamma * F.elu(x, alpha)


def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.attributes.get("approximate", "none"))


def _softmax(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def whole(node: Node, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return function(x, dim=node.attributes.get("axis", -1))
        axis = node.attributes.get("axis", 1) % x.ndim  # over all axes from this one on
        return function(x, dim=axis) if axis == x.ndim - 1 else function(x.flatten(axis), dim=-1).reshape(x.shape)

    return whole


def _argmax(node: Node, x: Tensor) -> Tensor:
    if node.attributes.get("select_last_index", 0):
        raise Unsupported("the last of the largest: only the first")
    return torch.argmax(x, node.attributes.get("axis", 0), keepdim=bool(node.attributes.get("keepdims", 1)))


def _top_k(node: Node, x: Tensor, count: Value) -> tuple[Tensor, Tensor]:
    found = numbers(node, count, "k")
    assert found is not None
    values, indices = torch.topk(x, found[0], node.attributes.get("axis", -1), bool(node.attributes.get("largest", 1)))
    return values, indices


def _cast(node: Node, x: Tensor) -> Tensor:
    """All floats are computed in one type, all integers in another."""
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    whole = x.is_floating_point() == (node.attributes["to"] in floats)
    return x if whole else x.to(torch.float32 if node.attributes["to"] in floats else torch.int64)


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda node, x: function(x)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": _unary(torch.abs),
    "Add": _arithmetic(torch.add),
    "ArgMax": _argmax,
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": _cast,
    "Celu": lambda node, x: F.celu(x, node.attributes.get("alpha", 1.0)),
    "Clip": _clip,
    "Concat": layout.concat,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Cos": _unary(torch.cos),
    "DepthToSpace": layout.depth_to_space,
    "Div": _arithmetic(torch.div),
    "Dropout": layout.identity,
    "Elu": _elu,
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": layout.expand,
    "Flatten": layout.flatten,
    "Gather": layout.gather,
    "Gelu": _gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": layers.global_average,
    "GlobalMaxPool": layers.global_max,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Identity": layout.identity,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": _leaky,
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": layers.matmul,
    "Max": _extreme(torch.maximum, "min"),
    "MaxPool": layers.max_pool,
    "Min": _extreme(torch.minimum, "max"),
    "Mish": _unary(F.mish),
    "Mul": _arithmetic(torch.mul),
    "Neg": _unary(torch.neg),
    "PRelu": _prelu,
    "Pad": layout.pad,
    "Pow": _arithmetic(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _unary(F.relu),
    "Reshape": layout.reshape,
    "Resize": resize,
    "Selu": _selu,
    "Sigmoid": _unary(torch.sigmoid),
    "Sin": _unary(torch.sin),
    "Slice": layout.slice_axes,
    "Softmax": _softmax(F.softmax),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "SpaceToDepth": layout.space_to_depth,
    "Split": layout.split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": layout.squeeze,
    "Sub": _arithmetic(torch.sub),
    "Sum": _arithmetic(torch.add),
    "Swish": lambda node, x: x * torch.sigmoid(x * node.attributes.get("alpha", 1.0)),
    "Tanh": _unary(torch.tanh),
    "TopK": _top_k,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.unsqueeze,
}
