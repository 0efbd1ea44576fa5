"""Histograms of weights and activations beside the range that their codes cover: what is clipped, what is rounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfab.dtypes import FloatArray
from bitfab.errors import BitfabError
from bitfab.quant.calibrate import NO_DATA, as_batches
from bitfab.quant.encodings import Encoding
from bitfab.quant.fold import Weighted, output_first
from bitfab.quant.lower import Choices
from bitfab.quant.observers import Histogram
from bitfab.quant.plan import Plan, make_plan
from bitfab.quant.recipe import LayerRecipe
from bitfab.quant.simulate import Simulation
from bitfab.quant.weights import LayerWeights

BINS = 64


@dataclass(frozen=True)
class Distribution:
    """The float values of a tensor, and what quantizing each of them does.

    Args:
        low, high: the smallest and the largest value.
        counts: values in each of `BINS` equal bins over [low, high]; not whole, as an observer's bins are shared out.
        range_low, range_high: what the lowest and the highest code mean; of weights, in the channel of widest range.
        clipped: share of the values, in [0, 1], that lie more than half a step outside of their (channel's) range.
        clipping_error: share of the squared error that the clipped values make, the rest is rounding; None where
            there is no error.
    """

    low: float
    high: float
    counts: tuple[float, ...]
    range_low: float
    range_high: float
    clipped: float
    clipping_error: float | None


@dataclass(frozen=True)
class LayerHistogram:
    """One layer: its weights (None where it has none) and the activation it puts out.

    `layer` is its path in the user's module, as recipes name it; `node` the node of the folded network whose float
    output the activation is (after a ReLU that became part of the layer), as in `Quantized.meaning`; `codes` what the
    activation's codes mean.
    """

    layer: str
    node: str
    codes: Encoding
    weights: Distribution | None
    activation: Distribution


def histograms(choices: Choices, images: Iterable[Any]) -> tuple[LayerHistogram, ...]:
    """The distributions of every layer with codes of its own, in the order in which they are computed.

    Args:
        choices: what quantization decided (`choose`).
        images: inputs of the network, as calibration data are; seen once, and memory does not grow with their number.

    Raises:
        BitfabError: no images, or such as the network cannot take.
    """
    plan = make_plan(choices.module, choices.recipe)
    network = Simulation(plan)
    activations = {
        target: _Counted.activation(choices.encodings[node.name])
        for node, target in plan.observed().items()
        if node.name in choices.encodings
    }
    for batch in as_batches(images, choices.module):
        try:
            _show(network, activations, batch)
        except RuntimeError as error:
            shape, reason = tuple(batch.shape[1:]), str(error).splitlines()[0]
            raise BitfabError(f"images: the network cannot take inputs of shape {shape} ({reason})") from error
    if any(counted.count == 0 for counted in activations.values()):
        raise BitfabError(NO_DATA.replace("calibration", "images"))
    return tuple(
        LayerHistogram(
            layer=str(node.meta["source"]),
            node=target.name,
            codes=choices.encodings[node.name],
            weights=_weights(plan, choices, node),
            activation=activations[target].distribution(),
        )
        for node, target in plan.observed().items()
        if target in activations
    )


def _show(network: Simulation, activations: dict[Any, _Counted], batch: Tensor) -> None:
    values: dict[Any, Tensor] = {}
    with torch.inference_mode():
        for node in network.nodes:
            network.compute(node, values, batch)
            if node in activations:
                activations[node].see(values[node])


def _weights(plan: Plan, choices: Choices, node: Any) -> Distribution | None:
    layer = plan.weighted().get(node)
    if layer is None or node.name not in choices.weights:
        return None
    return _Counted.weights(layer, choices.weights[node.name], plan.recipes[node]).distribution()


class _Counted(Histogram):
    """An observer's histogram, with the error that codes make of what it sees."""

    def __init__(self, range_low: float, range_high: float) -> None:
        super().__init__()
        self.range_low, self.range_high = range_low, range_high
        self.encoding: Encoding | None = None
        self.outside, self.clipping, self.rounding = 0, 0.0, 0.0

    @classmethod
    def activation(cls, encoding: Encoding) -> _Counted:
        """Nothing seen yet."""
        scale, zero = encoding.qparams.scale[0], encoding.qparams.zero_point
        counted = cls((encoding.type.low - zero) * scale, (encoding.type.high - zero) * scale)
        counted.encoding = encoding
        return counted

    @classmethod
    def weights(cls, layer: Weighted, chosen: LayerWeights, recipe: LayerRecipe) -> _Counted:
        """All weights seen; where levels are uneven, a channel's range is what its own codes reach."""
        real, coded = output_first(layer).detach().double().cpu(), torch.from_numpy(chosen.values)
        steps = torch.from_numpy(chosen.scales)
        reach = recipe.weights.type.high * steps if recipe.evenly_spaced else coded.flatten(1).abs().amax(dim=1)
        counted = cls(-float(reach.max()), float(reach.max()))
        counted.update(real)
        counted._err(real - coded, real.flatten(1).abs() > (reach + steps / 2)[:, None])
        return counted

    def see(self, x: Tensor) -> None:
        """Take a batch of activations into account."""
        assert self.encoding is not None
        self.update(x)
        type, qparams = self.encoding.type, self.encoding.qparams
        scale, zero = qparams.scale[0], qparams.zero_point
        if type.bipolar:
            shift = torch.tensor(self.encoding.shift or (0.0,), dtype=x.dtype, device=x.device).reshape(
                -1, *(1,) * (x.ndim - 2)
            )
            self._err(x - torch.where(x >= shift, scale, -scale), x.abs() > 1.5 * scale)
            return
        nearest = (x / scale).round() + zero
        codes = nearest.clamp(type.low, type.high)
        self._err(x - (codes - zero) * scale, nearest != codes)

    def _err(self, error: Tensor, beyond: Tensor) -> None:
        squares = error.double().square()
        clipping = float(squares[beyond.reshape(squares.shape)].sum())
        self.outside += int(beyond.sum())
        self.clipping += clipping
        self.rounding += float(squares.sum()) - clipping

    def distribution(self) -> Distribution:
        """What was seen, in `BINS` bins."""
        total = self.clipping + self.rounding
        return Distribution(
            low=self.low,
            high=self.high,
            counts=tuple(float(count) for count in self._shared_out().round(2)),
            range_low=self.range_low,
            range_high=self.range_high,
            clipped=self.outside / self.count,
            clipping_error=self.clipping / total if total else None,
        )

    def _shared_out(self) -> FloatArray:
        """The counts in equal bins over [low, high]: what lies in a bin is taken to be spread over it evenly."""
        sums = np.concatenate([[0], self.counts.cumsum()])
        if self.reach == 0:  # zeros only
            return np.eye(1, BINS)[0] * sums[-1]
        at = np.interp(np.linspace(self.low, self.high, BINS + 1), self.edges, sums)
        at[0], at[-1] = 0, sums[-1]  # nothing lies beyond the extremes
        return np.diff(at)
