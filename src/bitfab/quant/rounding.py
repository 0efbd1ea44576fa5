"""Weights while their rounding is learned: AdaRound's soft rounding, and the loop that hardens it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bitfab.dtypes import IntArray, ScaleKind
from bitfab.quant.fold import Weighted, output_first
from bitfab.quant.recipe import LayerRecipe
from bitfab.quant.weights import LayerWeights

STRETCH = (-0.1, 1.1)  # of the rectified sigmoid (Nagel et al. 2020, equation 23)
ANNEALED_BETA = (8.0, 1.0)  # from, to (equation 24); at 1 even a weight halfway is pushed
WARM_UP = 0.2  # the part of the iterations without regularization
STRENGTH = 100.0  # of the regularization, where rounding to nearest has a loss of 1
RATE, GAIN_RATE, SHIFT_RATE = 1e-1, 2e-3, 3e-2  # of Adam
LARGEST_GAIN = 0.5  # of the logarithm: scales grow and shrink by a factor of 1.6 at most

Affine = tuple[Tensor, Tensor]  # weights (O, K) and bias (O,)


class Rounding:
    """A layer's weights `s * g * clip(floor(w / s) + h)` and bias `b + step * d`, of which h, g and d are learned.

    `h = clip(1.2 * sigmoid(v) - 0.1, 0, 1)` for each weight, driven to 0 or 1 (Nagel et al. 2020, 2004.10568, equations
    21 to 24). With a `step`, the output's, the bias learns as well, and the gain g where scales are real: one for each
    channel, or one for the layer where all share one scale.
    """

    def __init__(self, layer: Weighted, weights: LayerWeights, recipe: LayerRecipe, step: float | None = None) -> None:
        self.weights, self._limit, self._step = weights, recipe.weights.type.high, step or 0.0
        rows = output_first(layer).detach().double().cpu().flatten(1) / torch.from_numpy(weights.scales)[:, None]
        low, high = STRETCH
        self._floor, fraction = rows.floor().float(), (rows - rows.floor()).float()
        self.v = torch.logit((fraction - low) / (high - low)).requires_grad_()
        self._scale, self._bias = (torch.from_numpy(array).float() for array in (weights.scales, weights.bias))
        spec = recipe.weights
        learns_scale = step is not None and spec.scale_kind is ScaleKind.REAL
        self.gain = torch.zeros(len(rows) if spec.per_channel else 1, requires_grad=learns_scale)
        self.shift = torch.zeros(len(rows), requires_grad=step is not None)

    def groups(self) -> list[dict[str, object]]:
        """What an optimizer learns, with the rates."""
        rates = ((self.v, RATE), (self.gain, GAIN_RATE), (self.shift, SHIFT_RATE))
        return [{"params": [tensor], "lr": rate} for tensor, rate in rates if tensor.requires_grad]

    def soft(self) -> Tensor:
        """h (O, K), from 0 to 1."""
        low, high = STRETCH
        return (torch.sigmoid(self.v) * (high - low) + low).clamp(0, 1)

    def affine(self, up: Tensor) -> Affine:
        """Weights and bias with `up` (O, K) in the place of h."""
        scale = self._scale * self.gain.clamp(-LARGEST_GAIN, LARGEST_GAIN).exp()
        weight = (self._floor + up).clamp(-self._limit, self._limit) * scale[:, None]
        return weight, self._bias + self._step * self.shift

    def nearest(self) -> Affine:
        """Weights and bias as they were given."""
        return torch.from_numpy(self.weights.values).float().flatten(1), self._bias

    def hard(self) -> Tensor:
        """h rounded (O, K)."""
        return (self.v.detach() > 0).float()

    def learned(self) -> LayerWeights:
        """The weights with what was learned, h rounded."""
        codes = (self._floor + self.hard()).clamp(-self._limit, self._limit).numpy()
        gain = self.gain.detach().double().clamp(-LARGEST_GAIN, LARGEST_GAIN).exp().numpy()
        given: IntArray = self.weights.codes
        return replace(
            self.weights,
            codes=codes.reshape(given.shape).astype(given.dtype),
            scales=self.weights.scales * gain,
            bias=self.weights.bias + self._step * self.shift.detach().double().numpy(),
        )


def learn(
    roundings: Sequence[Rounding],
    loss_of: Callable[[Sequence[Affine], Tensor], Tensor],
    count: int,
    size: int,
    iterations: int,
    generator: torch.Generator,
) -> list[LayerWeights]:
    """The weights that lessen the loss most; those given where nothing better is found.

    `loss_of` takes weights and bias of each layer and which of the `count` samples to judge them by, of which it gives
    the mean; `size` of them make an iteration.
    """

    def total(layers: Sequence[Affine]) -> float:
        with torch.no_grad():
            return sum(float(loss_of(layers, part)) * len(part) for part in torch.arange(count).split(4 * size)) / count

    start = total([rounding.nearest() for rounding in roundings])
    if start == 0:
        return [rounding.weights for rounding in roundings]
    optimizer = torch.optim.Adam([group for rounding in roundings for group in rounding.groups()])
    for iteration in range(iterations):
        chosen = torch.randint(count, (size,), generator=generator)
        soft = [rounding.soft() for rounding in roundings]
        loss = loss_of([r.affine(h) for r, h in zip(roundings, soft, strict=True)], chosen) / start
        passed = (iteration / iterations - WARM_UP) / (1 - WARM_UP)
        if passed > 0:
            loss = loss + STRENGTH * _undecided(soft, passed)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    if total([rounding.affine(rounding.hard()) for rounding in roundings]) >= start:
        return [rounding.weights for rounding in roundings]
    return [rounding.learned() for rounding in roundings]


def _undecided(soft: Sequence[Tensor], passed: float) -> Tensor:
    """The mean of `1 - |2 h - 1|^beta`, of each layer, then of all; beta falls along a cosine."""
    first, last = ANNEALED_BETA
    beta = last + (first - last) * (1 + math.cos(math.pi * passed)) / 2
    return torch.stack([(1 - (2 * h - 1).abs().pow(beta)).mean() for h in soft]).mean()
