"""Dynamic and weight-only quantization: ordinary modules whose linear layers and convolutions hold integer weights."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.dtypes import QuantSpec
from bitfab.errors import BitfabError
from bitfab.quant.levels import choose_codes, choose_scales
from bitfab.quant.plan import check_weights
from bitfab.quant.recipe import EXCLUDED_BITS, FACTOR_BITS, BiasCorrection, LayerRecipe, Recipe, matches, recipe_or
from bitfab.quant.weights import layer_padding

EXACT_FLOAT32 = 1 << 24  # sums of integers are exact in float32 while none goes beyond
LARGEST_SUM = 1 << 31
LARGEST_BITS = 8
LARGEST_WEIGHT = 127
LARGEST_CODE = 255  # of an activation, its zero point subtracted

Layer = nn.Linear | nn.Conv2d


def quantize_dynamic(net: nn.Module, recipe: Recipe | None = None) -> nn.Module:
    """A copy whose `Linear` and `Conv2d` layers compute in integers; activations are quantized as they come.

    Weights are as the recipe has them: 1 to 8 bits, per channel or not, on any levels, their scales searched under the
    `mse` observer. A layer's inputs get `activations` bits (2 to 8) and scales of their own from their least and
    largest value: one for each row of a `Linear` (over all leading axes), one for each image of a `Conv2d`, so no
    result depends on what else is in the batch. Products are summed exactly, then scaled:
    `y = s_x * s_w * sum((q_x - z_x) * q_w) + b`.

    On a CPU the sums are int8 products of matrices; convolutions in groups and other devices use floats that are exact
    for these integers. Codes, scales and biases are buffers, so `state_dict`, `to` and `deepcopy` work; gradients stop
    there. Layers that the recipe excludes stay float; so do `nn.MultiheadAttention` and `nn.TransformerEncoderLayer`
    with all inside (their own code reads the float weights), subclasses of the two layers, `ConvTranspose2d` and all
    else. The recipe's scale kind is that of the weights.

    Raises:
        BitfabError: there is no layer to quantize; a name in the recipe fits none; the recipe has bits, or a step
            (equalize, adaround, bias_correction) that this mode has not; weights are NaN or missing.
    """
    return _quantized(net, recipe_or(recipe), dynamic=True)


def quantize_weight_only(net: nn.Module, recipe: Recipe | None = None) -> nn.Module:
    """A copy whose `Linear` and `Conv2d` layers hold integer weights and compute with `s_w * q_w` in float.

    For memory, and to see what the weights alone cost; all else is as in `quantize_dynamic`. Codes are held in int8,
    or in int16 where a group's factor makes them larger.
    """
    return _quantized(net, recipe_or(recipe), dynamic=False)


class IntegerLayer(nn.Module):
    """A layer of integer weights: codes (O, I / groups, ...), scales (O,) and bias (O,) or None, all buffers.

    `activations` says how its inputs are quantized; None leaves them float. `bits` is what a weight takes, its share of
    a group's factor included.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, layer: Layer, recipe: LayerRecipe, dynamic: bool) -> None:
        super().__init__()
        weight = layer.weight.detach()
        rows = weight.double().cpu().numpy().reshape(len(weight), -1)
        scales = np.maximum(choose_scales(rows, recipe), np.finfo(np.float32).tiny)  # of a channel of zeros
        codes = torch.from_numpy(choose_codes(rows, scales, recipe)).reshape(weight.shape)
        precision = torch.promote_types(weight.dtype, torch.float32)
        self.register_buffer("codes", codes.to(weight.device))
        self.register_buffer("scales", torch.from_numpy(scales).to(weight.device, precision))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.bits = recipe.weights.bits + (FACTOR_BITS / recipe.group_size if recipe.group_size else 0)
        self.activations = recipe.activations if dynamic else None

    @property
    def weight(self) -> Tensor:
        """The real weights that the codes mean."""
        return self.codes * self.scales.reshape(-1, *(1,) * (self.codes.ndim - 1))

    def largest_sum(self) -> int:
        """A bound on every sum of products, in any order, whatever int8 codes `load_state_dict` brings."""
        return self.codes[0].numel() * LARGEST_WEIGHT * LARGEST_CODE

    def scaled(self, sums: Tensor, scale: Tensor, like: Tensor) -> Tensor:
        """The real result of sums (..., O), the inputs' scale being (..., 1), in the dtype of the input."""
        y = (sums * scale).mul_(self.scales)  # few large temporaries: they cost as much as the products
        return (y if self.bias is None else y.add_(self.bias)).to(like.dtype)

    def extra_repr(self) -> str:
        inputs = f"{self.activations.bits} bits" if self.activations else "float"
        return f"{tuple(self.codes.shape)}, weights of {self.bits} bits, activations {inputs}"


class IntegerLinear(IntegerLayer):
    """A `Linear` of integer weights, for inputs (..., I) with any leading axes."""

    def forward(self, x: Tensor) -> Tensor:
        if self.activations is None:
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        rows = x.detach().reshape(-1, x.shape[-1])
        codes, scale, zero = quantize_at_run_time(rows, self.activations, (1,))
        sums = integer_products(codes, zero, self.codes)
        return self.scaled(sums, scale, x).reshape(*x.shape[:-1], len(self.codes))


class IntegerConv2d(IntegerLayer):
    """A `Conv2d` of integer weights, for images (N, C, H, W) or (C, H, W)."""

    def __init__(self, layer: nn.Conv2d, recipe: LayerRecipe, dynamic: bool) -> None:
        super().__init__(layer, recipe, dynamic)
        self.stride, self.dilation, self.groups = layer.stride, layer.dilation, layer.groups
        top, left, bottom, right = layer_padding(layer)
        self.padding = (left, right, top, bottom)
        self.padding_mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        self.exact = torch.float32 if self.largest_sum() < EXACT_FLOAT32 else torch.float64

    def forward(self, x: Tensor) -> Tensor:
        images = F.pad(x if x.ndim == 4 else x[None], self.padding, self.padding_mode)
        if self.activations is None:
            y = self._convolve(images, self.weight.to(x.dtype), self.bias)
        else:
            y = self._integers(images.detach()).movedim(-1, 1)
        return y if x.ndim == 4 else y[0]

    def encoded(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, scale and zero point of the inputs; see `quantize_at_run_time`."""
        assert self.activations is not None
        return quantize_at_run_time(images, self.activations, (1, 2, 3))

    def _integers(self, images: Tensor) -> Tensor:
        """The result (N, H, W, O) for padded images; 0 has a code, so padding came first."""
        codes, scale, zero = (t.movedim(1, -1) for t in self.encoded(images))
        if self.groups == 1 and images.is_cpu:
            patches, weight = self._patches(codes.to(torch.int8)), self.codes.movedim(1, -1).flatten(1)
            sums = integer_products(patches, zero, weight)
        else:
            exact = self.exact if images.is_cpu else torch.float64
            sums = self._convolve((codes - zero).movedim(-1, 1).to(exact), self.codes.to(exact), None).movedim(1, -1)
        return self.scaled(sums, scale, images)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)

    def _patches(self, x: Tensor) -> Tensor:
        """What each output position reads of x (N, H, W, C): (N, outputs, outputs, taps * C)."""
        kernel = self.codes.shape[2:]
        sizes = [
            (size - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, dilation, stride in zip(x.shape[1:3], kernel, self.dilation, self.stride, strict=True)
        ]
        x = x.contiguous()
        image, row, column, _ = x.stride()
        steps = (row * self.stride[0], column * self.stride[1], row * self.dilation[0], column * self.dilation[1])
        patches = x.as_strided((len(x), *sizes, *kernel, x.shape[3]), (image, *steps, 1))
        return patches.reshape(len(x), *sizes, -1)


def quantize_at_run_time(x: Tensor, spec: QuantSpec, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scale and zero point of x, so that `x = scale * (codes - zero_point)`; one scale for all of `axes`.

    All are float tensors; codes and zero point are integers of `bits` signed bits. Affine: from the least to the
    largest value, 0 included; symmetric: from minus to plus the largest magnitude, zero point 0. The zero point stands
    for 0 exactly. Values that are all 0 stay 0; of NaN and infinities no finite result comes.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    low, high = x.amin(axes, keepdim=True).clamp(max=0), x.amax(axes, keepdim=True).clamp(min=0)
    largest = 2 ** (spec.bits - 1) - 1
    tiny = torch.finfo(x.dtype).tiny
    if spec.symmetric:
        scale = (torch.maximum(-low, high) / largest).clamp(min=tiny)
        return (x / scale).round_().clamp_(-largest, largest), scale, torch.zeros_like(scale)
    scale = ((high - low) / (2 * largest + 1)).clamp(min=tiny)
    zero = (-low / scale).round() - largest - 1
    return (x / scale).round_().add_(zero).clamp_(-largest - 1, largest), scale, zero


def integer_products(codes: Tensor, zero: Tensor, weight: Tensor) -> Tensor:
    """`sum((codes - zero) * weight)` (..., O), exact: codes (..., K) of 8 bits, zero (..., 1) or (), weight (O, K)."""
    if not codes.is_cpu or weight.shape[1] == 1:  # of one column torch 2.13's integer product reads beyond
        return F.linear((codes - zero).double(), weight.double())
    rows = codes.to(torch.int8).reshape(-1, codes.shape[-1])
    sums = torch._int_mm(rows, weight.t()).reshape(*codes.shape[:-1], len(weight))
    of_weights = torch._int_mm(weight.new_ones(1, weight.shape[1]), weight.t())  # 5 times faster than weight.sum(1)
    return sums.addcmul_(zero.to(torch.int32), of_weights[0], value=-1)


def _quantized(net: nn.Module, recipe: Recipe, dynamic: bool) -> nn.Module:
    if recipe.equalize or recipe.adaround or recipe.bias_correction is not BiasCorrection.NONE:
        mode = "dynamic" if dynamic else "weight-only"
        raise BitfabError(f"{mode}: equalize, adaround and bias_correction are for static quantization; leave them out")
    check_weights(net)
    root = type(net).__name__
    recipe.check(name or root for name, _ in net.named_modules())
    done: dict[nn.Module, nn.Module] = {}

    def convert(module: nn.Module, path: str) -> nn.Module:
        """The module with what it holds replaced in place, or what takes its own place; each module once."""
        if module not in done:
            done[module] = module
            if type(module) in (nn.Linear, nn.Conv2d):
                done[module] = _converted(module, path or root, recipe, dynamic)
            elif not isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer):
                for name, child in module._modules.items():
                    if child is not None:
                        setattr(module, name, convert(child, f"{path}.{name}".lstrip(".")))
        return done[module]

    result = convert(copy.deepcopy(net), "")
    if not any(isinstance(module, IntegerLayer) for module in done.values()):
        raise BitfabError(
            f"{root}: no Linear or Conv2d to quantize, or all excluded; see bitfab.quant.quantize_dynamic"
        )
    return result


def _converted(layer: nn.Module, name: str, recipe: Recipe, dynamic: bool) -> nn.Module:
    """The integer layer, or the layer itself where it is excluded (and no override gives it fewer bits)."""
    chosen = recipe.layer(name)
    weights, activations = chosen.weights.bits, chosen.activations.bits
    if weights == EXCLUDED_BITS and any(matches(pattern, name) for pattern in recipe.exclude):
        return layer
    if weights > LARGEST_BITS:
        raise BitfabError(f"{name}: weights of {weights} bits: 1 to 8 are held; choose fewer, or exclude the layer")
    if dynamic and not 2 <= activations <= LARGEST_BITS:
        raise BitfabError(f"{name}: activations of {activations} bits: 2 to 8 are quantized at run time")
    integer: IntegerLayer
    if isinstance(layer, nn.Linear):
        integer = IntegerLinear(layer, chosen, dynamic)
    else:
        assert isinstance(layer, nn.Conv2d)
        integer = IntegerConv2d(layer, chosen, dynamic)
    if dynamic and integer.codes.dtype != torch.int8:
        raise BitfabError(f"{name}: weights of {weights} bits in groups do not fit int8; choose 4 bits or fewer")
    if dynamic and integer.largest_sum() >= LARGEST_SUM:
        raise BitfabError(f"{name}: its sums may leave 32 bits; exclude it")
    return integer
