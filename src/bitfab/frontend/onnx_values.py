"""What the functions of ONNX operators are given: their node, tensors, and numbers known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitfab.frontend.calls import Unsupported

Value = Tensor | NDArray[Any] | None  # computed values and weights, numbers known beforehand, inputs left out


class Node(Protocol):
    """What a function of the table knows of its node besides its inputs."""

    kind: str
    attributes: dict[str, Any]
    opset: int
    batch: int | None  # the batch size that the file was exported with; None where it is free
    outputs: int


def numbers(node: Node, given: Value, name: str) -> list[int] | None:
    """Integers that are an input in newer opsets and an attribute in older ones."""
    if given is None:
        found = node.attributes.get(name)
        return None if found is None else [int(size) for size in found]
    if isinstance(given, Tensor):
        raise Unsupported(f"its {name} are computed from the network's input")
    return [int(size) for size in given.reshape(-1)]


def operand(value: Value) -> Any:
    """An operand of arithmetic: a tensor, or a number where it is one."""
    assert value is not None
    if isinstance(value, Tensor):
        return value
    return float(value.reshape(())) if value.size == 1 and value.ndim <= 1 else torch.from_numpy(np.array(value))


def number(value: Value, default: float | None) -> float | None:
    """A number that is an input, or the default where it is left out."""
    if isinstance(value, Tensor):
        raise Unsupported("one of its numbers is computed from the network's input")
    return default if value is None or not value.size else float(value.reshape(-1)[0])


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Padding of the last axes, given as in ONNX."""
    half = len(pads) // 2
    sides = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
    return F.pad(x, sides, value=value) if any(sides) else x
