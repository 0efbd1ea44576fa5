"""What a module computes, operation by operation: multiplications counted, and a word on why each stays float."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Operations that move values or make constants, and count for nothing; views are known to torch.
_NAMES = """
    arange bernoulli_ bucketize cat clone constant_pad_nd contiguous copy_ detach embedding empty empty_like fill_
    full full_like gather index lift_fresh new_empty new_full new_zeros new_ones ones ones_like pixel_shuffle
    repeat scalar_tensor stack upsample_nearest2d where zero_ zeros zeros_like _to_copy _unsafe_index _unsafe_view
    eq ge gt le lt ne max_pool2d_with_indices
"""
_MOVING = frozenset(_NAMES.split())
_EXPONENTIAL = "exponentials: a table and a division in hardware, no integer operation here yet"
_STATISTICS = "mean and variance of its own input: a square root and a division"
_WHY: Mapping[str, str] = {
    "_softmax": _EXPONENTIAL,
    "_safe_softmax": _EXPONENTIAL,
    "exp": _EXPONENTIAL,
    "native_layer_norm": _STATISTICS,
    "native_group_norm": _STATISTICS,
    "rsqrt": _STATISTICS,
    "gelu": "acts on the float result; a table over codes in an integer graph",
    "sigmoid": "acts on the float result; a table over codes in an integer graph",
    "relu": "acts on the float result; no multiplications",
    "add": "joins branches of different scales; no multiplications",
    "mul": "scales the float result",
}
_PRODUCT = "a product of two activations outside a layer; write it with bitfab.quant.MatMul to make it integer"
_ATTENTION = "fused attention; write its two products with bitfab.quant.MatMul to make them integer"
_LAYER = "a layer left out: excluded by the recipe, or of a kind that has no integer form"
_OTHER = "no integer operation here yet"


@dataclass(frozen=True)
class FloatPart:
    """An operation that stays float: how often it is called, numbers it puts out, its products, and why."""

    operation: str
    calls: int
    numbers: int
    macs: int
    why: str


class Census(TorchDispatchMode):
    """While entered (under `torch.no_grad`), counts every operation on tensors; `parts` tells."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._muted = 0

    def mute(self, on: bool) -> None:
        """Begin or end a stretch in which nothing counts; stretches nest."""
        self._muted += 1 if on else -1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name = packet.__name__
        if not self._muted and not func.is_view and name not in _MOVING:
            first = result[0] if isinstance(result, tuple | list) else result
            count = self.counts[name.rstrip("_") if not name.startswith("_") else name]
            count[0] += 1
            count[1] += first.numel() if isinstance(first, Tensor) else 0
            if packet in flop_registry:
                count[2] += flop_registry[packet](*args, **(kwargs or {}), out_val=result) // 2
        return result

    def parts(self) -> tuple[FloatPart, ...]:
        """The operations, those with most products first, then those with most numbers."""
        found = [FloatPart(n, calls, size, macs, _why(n, macs)) for n, (calls, size, macs) in self.counts.items()]
        return tuple(sorted(found, key=lambda part: (-part.macs, -part.numbers)))


def _why(name: str, macs: int) -> str:
    if "attention" in name:
        return _ATTENTION
    if name in ("bmm", "baddbmm"):
        return _PRODUCT
    return _LAYER if macs else _WHY.get(name, _OTHER)


def layer_macs(layer: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Products of a Linear, Conv2d, ConvTranspose2d, or of two activations multiplied (inputs (..., K) first)."""
    match layer:
        case torch.nn.Linear():
            return output.numel() * layer.in_features
        case torch.nn.Conv2d():
            return output.numel() * layer.weight[0].numel()
        case torch.nn.ConvTranspose2d():
            return inputs[0].numel() * layer.weight[0].numel()
    return output.numel() * inputs[0].shape[-1]
