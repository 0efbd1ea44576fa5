"""ONNX nodes that are an ordinary torch layer: `Conv2d`, `Linear`, `MatMul`, as a user would have written them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfab.frontend.matmul import MatMul

Constants = Mapping[int, NDArray[Any]]


def layer(kind: str, attributes: Mapping[str, Any], constants: Constants) -> nn.Module | None:
    """The layer whose `forward` takes the node's computed inputs, or None where the node is more than one.

    `constants` are the node's constant inputs by position; weights among them become parameters, as float32.
    """
    weight, bias = constants.get(1), constants.get(2)
    if kind == "MatMul" and not constants:
        return MatMul()
    if 0 in constants or weight is None or weight.dtype.kind != "f" or (bias is not None and bias.dtype.kind != "f"):
        return None
    match kind:
        case "MatMul" if weight.ndim == 2:
            return _linear(weight.T, None)
        case "Gemm" if weight.ndim == 2 and not attributes.get("transA", 0):
            rows = weight if attributes.get("transB", 0) else weight.T
            scaled = rows * np.float32(attributes.get("alpha", 1.0))
            return (
                None
                if bias is not None and bias.shape != rows.shape[:1]
                else _linear(scaled, _scaled(bias, attributes))
            )
        case "Conv" if weight.ndim == 4:
            return _conv2d(weight, bias, attributes)
    return None


def _scaled(bias: NDArray[Any] | None, attributes: Mapping[str, Any]) -> NDArray[Any] | None:
    return None if bias is None else bias * np.float32(attributes.get("beta", 1.0))


def _linear(weight: NDArray[Any], bias: NDArray[Any] | None) -> nn.Module:
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return _filled(made, weight, bias)


def _conv2d(weight: NDArray[Any], bias: NDArray[Any] | None, attributes: Mapping[str, Any]) -> nn.Module | None:
    """Where the padding is even and known; what depends on the image's size is done node by node."""
    pads = attributes.get("pads") or [0, 0, 0, 0]
    strides, dilations = attributes.get("strides") or [1, 1], attributes.get("dilations") or [1, 1]
    groups = attributes.get("group", 1)
    explicit = attributes.get("auto_pad", "NOTSET") in ("NOTSET", "")
    lists = (strides, dilations, pads[:2])
    whole = all(len(values) == 2 and all(isinstance(value, int) for value in values) for values in lists)
    if not explicit or not whole or pads[:2] != pads[2:] or min(*strides, *dilations) < 1 or min(pads) < 0:
        return None
    if (
        groups < 1
        or weight.shape[0] % groups
        or 0 in weight.shape
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        return None
    kernel = (weight.shape[2], weight.shape[3])
    channels, outputs = weight.shape[1] * groups, weight.shape[0]
    with torch.device("meta"):
        geometry = (kernel, tuple(strides), tuple(pads[:2]), tuple(dilations), groups, bias is not None)
        made = nn.Conv2d(channels, outputs, *geometry)
    return _filled(made, weight, bias)


def _filled(made: nn.Conv2d | nn.Linear, weight: NDArray[Any], bias: NDArray[Any] | None) -> nn.Module:
    """The layer, made without values, with these."""
    made.weight = nn.Parameter(torch.from_numpy(np.array(weight, dtype=np.float32, order="C")))
    if bias is not None:
        made.bias = nn.Parameter(torch.from_numpy(np.array(bias, dtype=np.float32)))
    return made
