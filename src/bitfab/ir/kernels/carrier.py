"""How the fast executor holds integers in torch tensors: which dtypes are exact for a value's proven range.

Floating point is exact on integers while every partial result stays below 2**24 (float32) or 2**53 (float64), whatever
the order of summation; range analysis tells which holds, and what fits neither is left to `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import Op, Pads
from bitfab.ir.run import run

Kernel = Callable[..., Tensor]


@dataclass(frozen=True)
class Carrier:
    """How a tensor holds integers: `integer = element + offset`."""

    dtype: torch.dtype
    offset: int = 0

    def store(self, exact: Tensor) -> Tensor:
        """A tensor of integers, in any float dtype that holds them, in this carrier."""
        return (exact - self.offset if self.offset else exact).to(self.dtype)

    def exact(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The integers themselves in a float dtype."""
        return tensor.to(dtype) + self.offset if self.offset else tensor.to(dtype)

    def largest(self, value: Value) -> int:
        """A bound on the magnitude of the elements."""
        return max(abs(value.low - self.offset), abs(value.high - self.offset), 1)


def carrier(value: Value) -> Carrier:
    """uint8 up to 8 bits, else the narrowest exact float."""
    if value.type.bits <= 8:
        return Carrier(torch.uint8, value.type.low)
    return Carrier(exact_float(max(abs(value.low), abs(value.high))) or torch.float64)


def exact_float(bound: int) -> torch.dtype | None:
    """The narrowest float dtype that holds every integer of magnitude `bound`; None where none does."""
    return torch.float32 if bound < 1 << 24 else torch.float64 if bound < 1 << 53 else None


def to_torch(x: IntArray, held: Carrier) -> Tensor:
    """An array of integers (batch, *shape) in this carrier; images become channels-last."""
    if held.dtype == torch.uint8:
        tensor = torch.from_numpy((x if held.offset == 0 else x.astype(np.int16) - held.offset).astype(np.uint8))
    else:
        tensor = torch.from_numpy(x.astype(np.float32 if held.dtype == torch.float32 else np.float64))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def by_definition(op: Op, inputs: Sequence[Value], output: Value) -> Kernel:
    """`run` on this one node, for what no float holds exactly."""
    distinct = tuple({value.name: value for value in inputs}.values())
    names = tuple(value.name for value in inputs)
    single = Graph("node", distinct, (Node(op, names, output),), (output.name,))

    def kernel(*tensors: Tensor) -> Tensor:
        arrays = {
            value.name: carrier(value).exact(tensor, torch.float64).numpy().astype(np.int64)
            for value, tensor in zip(inputs, tensors, strict=True)
        }
        result = run(single, *(arrays[value.name] for value in distinct))
        assert isinstance(result, np.ndarray)
        return to_torch(result, carrier(output))

    return kernel


def padded(t: Tensor, padding: Pads, fill: int) -> Tensor:
    """Images with `fill` around them."""
    top, left, bottom, right = padding
    return F.pad(t, (left, right, top, bottom), value=fill) if any(padding) else t
