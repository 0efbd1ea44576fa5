"""Layers that compute in integers with codes fixed beforehand: linear, convolutions, and the product of activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.quant.activation_codes import ActivationCode, EvenCode, LogUniformCode
from bitfab.quant.dynamic import IntegerConv2d, IntegerLayer, integer_products
from bitfab.quant.fold import output_first
from bitfab.quant.recipe import LayerRecipe
from bitfab.quant.weights import two


class StaticLinear(IntegerLayer):
    """`y = sum_g s_g * s_w * sum((q_x - z_g) * q_w) + b` over the groups g of input channels, for inputs (..., I)."""

    def __init__(self, layer: nn.Linear, recipe: LayerRecipe, code: ActivationCode) -> None:
        super().__init__(layer, recipe, dynamic=True)
        self.code = code

    def forward(self, x: Tensor) -> Tensor:
        sums, scale = weighted_sums(self.code, x.detach(), self.codes)
        return self.scaled(sums, scale, x)


class StaticConv2d(IntegerConv2d):
    """The same for images (N, C, H, W) or (C, H, W), with one scale for all channels."""

    def __init__(self, layer: nn.Conv2d, recipe: LayerRecipe, code: EvenCode) -> None:
        super().__init__(layer, recipe, dynamic=True)
        self.code = code

    def encoded(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one = (1,) * images.ndim
        return self.code(images), self.code.scale.reshape(one), self.code.zero.reshape(one)


class StaticConvTranspose2d(IntegerLayer):
    """The same for a transposed convolution of one group; the codes of its weights have the outputs first."""

    def __init__(self, layer: nn.ConvTranspose2d, recipe: LayerRecipe, code: EvenCode) -> None:
        weights = nn.Conv2d(layer.in_channels, layer.out_channels, two(layer.kernel_size), bias=layer.bias is not None)
        weights.weight, weights.bias = nn.Parameter(output_first(layer).detach()), layer.bias
        super().__init__(weights, recipe, dynamic=True)
        self.code = code
        self.stride, self.padding, self.dilation = two(layer.stride), two(layer.padding), two(layer.dilation)
        self.output_padding = two(layer.output_padding)
        # Where outputs do not overlap each pixel becomes a patch of its own: one product of matrices.
        self.separate = (
            self.stride == two(layer.kernel_size)
            and self.dilation == (1, 1)
            and {*self.padding, *self.output_padding} == {0}
        )

    def forward(self, x: Tensor) -> Tensor:
        images = x if x.ndim == 4 else x[None]
        codes, zero = self.code(images.detach()), self.code.zero
        sums = self._patches(codes, zero) if self.separate else self._overlapping(codes - zero)
        y = self.scaled(sums.movedim(1, -1), self.code.scale, x).movedim(-1, 1)
        return y if x.ndim == 4 else y[0]

    def _patches(self, codes: Tensor, zero: Tensor) -> Tensor:
        down, across = self.codes.shape[2:]
        weight = self.codes.permute(0, 2, 3, 1).flatten(0, 2)
        sums = integer_products(codes.movedim(1, -1), zero, weight).unflatten(-1, (-1, down, across))
        return sums.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

    def _overlapping(self, codes: Tensor) -> Tensor:
        weight = self.codes.transpose(0, 1).double()
        return F.conv_transpose2d(
            codes.double(), weight, None, self.stride, self.padding, self.output_padding, 1, self.dilation
        )


class StaticMatMul(nn.Module):
    """`a @ b = s_a * s_b * sum((q_a - z_a) * (q_b - z_b))` for a (..., M, K) and b (..., K, N).

    The integers are held in floats wide enough for every sum to be exact.
    """

    def __init__(self, a: ActivationCode, b: EvenCode) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        left, scale = centred(self.a, a.detach())
        right, other = centred(self.b, b.detach())
        exact = exact_type(a.shape[-1], self.a, self.b)
        return ((left.to(exact) @ right.to(exact)) * (scale * other)).to(a.dtype)


def centred(code: ActivationCode, x: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (as floats) and the scale with which they mean x: zero points subtracted."""
    if isinstance(code, LogUniformCode):
        return code(x), code.unit
    return code(x).sub_(code.zero), code.scale


def exact_type(count: int, a: ActivationCode, b: EvenCode) -> torch.dtype:
    """The float in which sums of `count` products of two codes are exact, zero points subtracted."""
    narrow = isinstance(a, EvenCode) and count * (a.high - a.low) * (b.high - b.low) < 1 << 24
    return torch.float32 if narrow else torch.float64


def weighted_sums(code: ActivationCode, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (..., O) of x (..., I) and weight (O, I), and the scale by which to multiply them.

    They are exact integers, save that those of several groups are brought to one scale: `sum_g s_g * sums_g`, scale 1.
    """
    if isinstance(code, LogUniformCode):
        return F.linear(code(x), weight.double()), code.unit
    codes = code(x)
    if code.groups is None:
        return integer_products(codes, code.zero, weight), code.scale
    parts = [
        integer_products(codes[..., channels], zero, weight[:, channels]) * scale
        for channels, scale, zero in code.parts()
    ]
    return torch.stack(parts).sum(0), code.scale.new_ones(())
