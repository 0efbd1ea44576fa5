"""Reduced floating-point formats, to compare integers with and to tell sizes: a network rounded to one of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from bitfab.errors import BitfabError
from bitfab.frontend.top_k import top_k
from bitfab.frontend.torch import capture
from bitfab.quant.fold import fold
from bitfab.quant.plan import check_weights

CHUNK = 1 << 16  # numbers rounded at once: all at once, out of the caches, takes four times as long


@dataclass(frozen=True)
class FloatFormat:
    """A sign, `exponent_bits` (2 to 8) and `mantissa_bits` (0 to 23), subnormals included; all fits in float32.

    The bias is `2**(exponent_bits - 1) - 1`. As in IEEE 754 the largest exponent is kept for infinities and NaN; with
    `infinities` false it counts too, and its largest mantissa alone is NaN (OCP 8-bit floating point, 2023, section
    5.1: e4m3, torch's float8_e4m3fn, whose largest number is 448).
    """

    exponent_bits: int
    mantissa_bits: int
    infinities: bool = True

    def __post_init__(self) -> None:
        if not (2 <= self.exponent_bits <= 8 and 0 <= self.mantissa_bits <= 23):
            raise BitfabError(
                f"float format of {self.exponent_bits} exponent and {self.mantissa_bits} mantissa bits: "
                "2 to 8 and 0 to 23 are supported"
            )
        if not self.infinities and (self.mantissa_bits == 0 or self.exponent_bits == 8):
            raise BitfabError(
                f"float format {self}: without infinities it needs a mantissa and at most 7 exponent bits"
            )

    @property
    def bits(self) -> int:
        """Of one number in all."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def least_exponent(self) -> int:
        """Of the smallest normal number, `2**least_exponent`; subnormals are multiples of `smallest`."""
        return 2 - 2 ** (self.exponent_bits - 1)

    @property
    def smallest(self) -> float:
        """The smallest positive number."""
        return 2.0 ** (self.least_exponent - self.mantissa_bits)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        bias = 2 ** (self.exponent_bits - 1) - 1
        steps = 2**self.mantissa_bits
        if self.infinities:
            return (2 * steps - 1) / steps * 2.0**bias
        return (2 * steps - 2) / steps * 2.0 ** (bias + 1)

    def __str__(self) -> str:
        return f"e{self.exponent_bits}m{self.mantissa_bits}"


FP16 = FloatFormat(5, 10)
BF16 = FloatFormat(8, 7)
FP8_E4M3 = FloatFormat(4, 3, infinities=False)
FP8_E5M2 = FloatFormat(5, 2)


def round_float(x: Tensor, format: FloatFormat) -> Tensor:
    """Each value rounded to the nearest number of the format, ties to the even one; dtype and shape stay.

    What is too large, infinity included, becomes the largest finite number of its sign (torch's casts to formats that
    have infinities give infinity there); NaN stays NaN.
    """
    parts = x.reshape(-1).split(CHUNK)
    return torch.cat([_rounded(part, format) for part in parts]).view(x.shape)


def _rounded(x: Tensor, format: FloatFormat) -> Tensor:
    exact = x.double()
    _, exponent = torch.frexp(exact)  # x = mantissa * 2**exponent, mantissa in [0.5, 1)
    step = torch.exp2((exponent - 1).clamp(min=format.least_exponent).double() - format.mantissa_bits)
    rounded = (exact / step).round() * step
    return rounded.clamp(-format.largest, format.largest).to(x.dtype)


def float_bytes(net: nn.Module, format: FloatFormat) -> int:
    """Bytes of the network's parameters in this format, packed."""
    return -(-sum(parameter.numel() for parameter in net.parameters()) * format.bits // 8)


class RoundFloat(nn.Module):
    """`round_float` as a layer."""

    def __init__(self, format: FloatFormat) -> None:
        super().__init__()
        self.format = format

    def forward(self, x: Tensor) -> Tensor:
        return round_float(x, self.format)

    def extra_repr(self) -> str:
        return str(self.format)


def reduce_floats(net: nn.Module, format: FloatFormat, activations: Tensor | None = None) -> nn.Module:
    """A copy of the network whose parameters are rounded to a format: what storing it so would do to its accuracy.

    Args:
        net: any module; left as it is.
        format: FP16, BF16, FP8_E4M3, FP8_E5M2 or any `FloatFormat`; nothing is scaled to suit it.
        activations: an example batch (N, *shape): the copy is then the float normal form in eval mode with batch norms
            folded, and its input and every layer's output is rounded too. Sums inside a layer stay float32.

    Raises:
        BitfabError: a parameter has no values, or holds NaN; or, for activations, the network cannot be captured.
    """
    check_weights(net)
    reduced = copy.deepcopy(net) if activations is None else fold(capture(net, activations))
    with torch.no_grad():
        for parameter in reduced.parameters():
            parameter.copy_(round_float(parameter, format))
    if isinstance(reduced, fx.GraphModule) and activations is not None:
        _round_values(reduced, format)
    return reduced


def _round_values(module: fx.GraphModule, format: FloatFormat) -> None:
    """Put a rounding behind each node."""
    module.add_submodule("round_float", RoundFloat(format))
    for node in list(module.graph.nodes):
        if node.op != "output" and node.target not in (torch.argmax, top_k):
            with module.graph.inserting_after(node):
                rounded = module.graph.call_module("round_float", (node,))
            node.replace_all_uses_with(rounded, delete_user_cb=lambda user, rounded=rounded: user is not rounded)
    module.recompile()
