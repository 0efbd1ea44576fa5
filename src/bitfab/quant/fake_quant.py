"""Fake quantization: modules that round weights and activations to what their codes mean, and let gradients through.

What they compute in eval mode is what the integer graph computes, except for the rounding of real multipliers: the
same codes, the same rounding, biases on the accumulator's grid. Sums are exact while they stay below 2**24 units in
float32, 2**53 in float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.dtypes import IntType, Rounding, ScaleKind
from bitfab.quant.fold import Weighted, output_first, per_output
from bitfab.quant.weights import two

LEAST_FACTOR = 1e-6  # of a batch norm: a smaller one counts as this, for weights are divided by it again
SLACK = 1e-5  # of an activation's scale
LN2 = math.log(2.0)


def round_real(v: Tensor, rounding: Rounding) -> Tensor:
    """Each value rounded to an integer, exactly as `dtypes.round_shift` rounds `x / 2**n`."""
    match rounding:
        case Rounding.HALF_EVEN:
            return v.round()
        case Rounding.FLOOR:
            return v.floor()
        case Rounding.HALF_UP:  # not floor(v + 0.5): that sum may round up itself
            below = v.floor()
            return below + (v - below >= 0.5)
        case Rounding.HALF_AWAY:
            size = v.abs()
            below = size.floor()
            return torch.copysign(below + (size - below >= 0.5), v)


class _Quantize(torch.autograd.Function):
    """`(clip(round(x / step) + zero, low, high) - zero) * step`, with the straight-through estimator for x.

    Gradients for step and zero are those of LSQ (Esser et al. 2020, 1902.08153, equation 3) and LSQ+ (Bhalgat et al.
    2020, 2004.09576); with `rounds` false the step's is PACT's (Choi et al. 2018, 1805.06085): clipped values alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, zero: Tensor, low: int, high: int, rounding: Rounding, rounds: bool
    ) -> Tensor:
        v = x / step
        codes = round_real(v, rounding).add_(zero)
        clipped = codes.clamp(low, high)
        inside = codes == clipped
        clipped -= zero
        ctx.save_for_backward(v if rounds and ctx.needs_input_grad[1] else None, clipped, inside, step)
        ctx.zero_shape = zero.shape
        return clipped * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        v, clipped, inside, step = ctx.saved_tensors
        of_x = gradient * inside
        of_step = of_zero = None
        if ctx.needs_input_grad[1]:
            share = clipped - v * inside if v is not None else clipped * ~inside
            of_step = _summed(gradient * share, step.shape)
        if ctx.needs_input_grad[2]:
            of_zero = _summed((of_x - gradient) * step, ctx.zero_shape)
        return of_x, of_step, of_zero, None, None, None, None


class _Sign(torch.autograd.Function):
    """`step` where x >= 0, else `-step`.

    The gradient for x is that of Bi-Real Net's piecewise quadratic sign (Liu et al. 2018, 1808.00278) over
    [-step, step], or with `approximate` false the identity, as for the latent weights of binary networks.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, approximate: bool) -> Tensor:
        signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
        ctx.save_for_backward(x / step if approximate else None, signs, step)
        return signs * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        v, signs, step = ctx.saved_tensors
        of_x = gradient if v is None else gradient * (2 - 2 * v.abs()).clamp_(min=0)
        of_step = _summed(gradient * signs, step.shape) if ctx.needs_input_grad[1] else None
        return of_x, of_step, None


class _ScaleGradient(torch.autograd.Function):
    """The value itself; its gradient multiplied by `gain`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        ctx.save_for_backward(gain)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gain,) = ctx.saved_tensors
        return gradients[0] * gain, None


class _StraightThrough(torch.autograd.Function):
    """A rounded value in the place of a real one, with the real one's gradient."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def _summed(gradient: Tensor, shape: torch.Size) -> Tensor:
    """A gradient summed over what was broadcast from `shape`."""
    return gradient.sum().reshape(shape) if math.prod(shape) == 1 else gradient.sum_to_size(shape)


class Step(nn.Module):
    """The scale of an activation (1,) or of a layer's weights (1,) or (O,): positive whatever is learned.

    The parameter `octaves` is the base-2 logarithm of the scale relative to its start, so a step of the optimizer
    changes the scale by a share of it, and weight decay draws it to the start. Powers of two are its ceiling (TQT,
    Jain et al. 2020, 1903.08066) or its nearest (QFX, Dai et al. 2024, 2401.17544).
    """

    def __init__(self, scale: Tensor, kind: ScaleKind, learned: bool, nearest: bool = False) -> None:
        super().__init__()
        self.kind, self.nearest = kind, nearest
        start = scale.log2()
        if kind is ScaleKind.PO2 and not nearest:
            start = start - 0.5  # the middle of what the ceiling makes this power of two
        self.start: Tensor
        self.register_buffer("start", start)
        self.octaves = nn.Parameter(torch.zeros_like(start), requires_grad=learned)

    def forward(self) -> Tensor:
        exponent = self.start + self.octaves
        if self.kind is ScaleKind.PO2:
            exponent = _StraightThrough.apply(exponent, exponent.round() if self.nearest else exponent.ceil())
        return torch.exp2(exponent)


def with_gain(step: Tensor, features: int, high: int) -> Tensor:
    """The scale, with a gradient that moves it by as large a share as LSQ's does (1902.08153, section 2.2).

    LSQ multiplies the gradient of the scale s by `1 / sqrt(features * high)`. Through `s = 2**octaves` the same share
    would take another `1 / (s ln 2)**2`.
    """
    size = step.detach() * LN2
    return _ScaleGradient.apply(step, 1 / (math.sqrt(features * high) * size * size))


class QuantizedActivation(nn.Module):
    """Rounds an activation to codes of `type`: `forward(x, scale)` gives the real values that they mean.

    One signed bit is the sign of `x - shift`, a shift for each channel, learned (RSign of ReActNet, Liu et al. 2020,
    2003.03488).

    Args:
        zero_point: of the codes, at first.
        rounding: to a code.
        kind: with real scales, sums that are exactly at a threshold miss it by their float rounding; where that shows,
            in signs and with `floor`, `SLACK` makes up for it.
        rounds: whether the scale's gradient sees the rounding, as in LSQ, or clipping alone, as in PACT.
    """

    def __init__(self, type: IntType, zero_point: int, rounding: Rounding, kind: ScaleKind, rounds: bool) -> None:
        super().__init__()
        self.int_type, self.rounding, self.rounds = type, rounding, rounds
        exposed = kind is ScaleKind.REAL and (type.bipolar or rounding is Rounding.FLOOR)
        self.slack = SLACK if exposed else 0.0
        self.zero = nn.Parameter(torch.tensor(float(zero_point)), requires_grad=False)
        self.shift: nn.Parameter | None = None

    @property
    def zero_point(self) -> Tensor:
        """The zero point as an integer within the type."""
        whole = self.zero.detach().round().clamp(self.int_type.low, self.int_type.high)
        return _StraightThrough.apply(self.zero, whole) if self.zero.requires_grad else whole

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        low, high = self.int_type.low, self.int_type.high
        if scale.requires_grad:
            scale = with_gain(scale, x[0].numel(), high)
        if self.slack:
            x = x + self.slack * scale.detach()
        if self.int_type.bipolar:
            if self.shift is not None:
                x = x - self.shift.reshape(-1, *(1,) * (x.ndim - 2))
            return _Sign.apply(x, scale, True)
        return _Quantize.apply(x, scale, self.zero_point, low, high, self.rounding, self.rounds)

    def extra_repr(self) -> str:
        return f"{self.int_type}"


class QuantizedLayer(nn.Module):
    """A convolution or linear layer with weights of `bits` bits and, in training, the batch norm that follows it.

    `forward(x, input_scale)`. The weights are rounded with the batch norm's running statistics folded in. While they
    are learned (training mode, not `frozen`) the batch's own statistics then act on the result (Krishnamoorthi 2018,
    1806.08342, section 3.2.2); afterwards the bias is folded and rounded too, as the integer graph has it.
    """

    def __init__(
        self, layer: Weighted, norm: nn.Module | None, step: Step | None, share: Tensor, bits: int, kind: ScaleKind
    ) -> None:
        super().__init__()
        self.layer, self.norm, self.step = layer, norm, step
        self.bits, self.kind, self.frozen = bits, kind, False
        self.share: Tensor
        self.register_buffer("share", share)

    def forward(self, x: Tensor, input_scale: Tensor) -> Tensor:
        if self.norm is None or self.frozen or not self.training:
            weight, bias = self.folded()
            scale = self.scale(weight)
            grid = (scale * input_scale).detach()
            bias = _StraightThrough.apply(bias, (bias.detach() / grid).round() * grid)
            return self._compute(x, self._rounded(weight, scale), bias)
        factor, _ = self._norm()
        weight = self.layer.weight * per_output(self.layer, factor)
        y = self._compute(x, self._rounded(weight, self.scale(weight)), None)
        y = y / factor.reshape(-1, *(1,) * (y.ndim - 2))
        if self.layer.bias is not None:
            y = y + self.layer.bias.reshape(-1, *(1,) * (y.ndim - 2))
        return self.norm(y)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Real weight and bias with the running statistics of the batch norm in them."""
        weight = self.layer.weight
        bias = weight.new_zeros(len(self.share)) if self.layer.bias is None else self.layer.bias
        if self.norm is None:
            return weight, bias
        factor, shift = self._norm()
        return weight * per_output(self.layer, factor), bias * factor + shift

    def scale(self, weight: Tensor) -> Tensor:
        """The scales (O,) of the folded weight: learned ones, or where there are none, those that follow the weights.

        Those are the largest magnitude times the share of it that calibration chose (Jacob et al. 2018, 1712.05877,
        section 3.1), or for binary weights their mean magnitude (XNOR-Net, Rastegari et al. 2016, 1603.05279, eq. 6).
        """
        if self.step is not None:
            scale = self.step()
            if scale.requires_grad:
                scale = with_gain(scale, weight.numel() // len(scale), self.high)
            return scale.expand(len(self.share))
        rows = output_first(self.layer, weight.detach()).flatten(1).abs()
        size = rows.mean(1) if self.bits == 1 else rows.amax(1)
        scale = (size * self.share).clamp(min=torch.finfo(size.dtype).tiny * 2**24)
        return torch.exp2(scale.log2().ceil()) if self.kind is ScaleKind.PO2 else scale

    @property
    def high(self) -> int:
        """The largest code; the smallest is its negative."""
        return IntType(self.bits, signed=True).high

    def _norm(self) -> tuple[Tensor, Tensor]:
        """What the batch norm multiplies and adds, by its running statistics."""
        norm: Any = self.norm
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor * norm.weight if norm.affine else factor
        safe = torch.where(factor.abs() < LEAST_FACTOR, torch.full_like(factor, LEAST_FACTOR), factor)
        shift = -norm.running_mean * safe
        return safe, shift + norm.bias if norm.affine else shift

    def _rounded(self, weight: Tensor, scale: Tensor) -> Tensor:
        step = per_output(self.layer, scale)
        if self.bits == 1:
            return _Sign.apply(weight, step, False)
        zero = weight.new_zeros(())
        return _Quantize.apply(weight, step, zero, -self.high, self.high, Rounding.HALF_EVEN, True)

    def _compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer: Any = self.layer
        match layer:
            case nn.Conv2d():
                return layer._conv_forward(x, weight, bias)
            case nn.ConvTranspose2d():
                stride, padding, more = two(layer.stride), two(layer.padding), two(layer.output_padding)
                return F.conv_transpose2d(x, weight, bias, stride, padding, more, layer.groups)
            case _:
                return F.linear(x, weight, bias)

    @torch.no_grad()
    def codes(self, input_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weight codes (O, I / groups, ...), their scales (O,), and the bias (O,) in units of the accumulator."""
        weight, bias = self.folded()
        scale = self.scale(weight)
        codes = self._rounded(weight, scale) / per_output(self.layer, scale)
        return output_first(self.layer, codes).round(), scale, (bias / (scale * input_scale)).round()

    def extra_repr(self) -> str:
        return f"weights of {self.bits} bits"
