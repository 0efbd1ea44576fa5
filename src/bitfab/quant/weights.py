"""Weights and biases of each layer as integers, the input's zero point folded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import nn

from bitfab.dtypes import FloatArray, IntArray, IntType, QParams
from bitfab.ir import ops as ir
from bitfab.quant.encodings import Encoding
from bitfab.quant.fold import Weighted, output_first
from bitfab.quant.levels import choose_codes, choose_scales
from bitfab.quant.plan import Plan
from bitfab.quant.recipe import FACTOR_BITS, LayerRecipe, WeightLevels
from bitfab.quant.scales import round_scale

Array = TypeVar("Array", IntArray, FloatArray)

FINEST_RATIO = 2.0**-18  # of accumulator to output scale: finer weights could not move an output code
DEAD_RATIO = 2.0**-8  # for a channel of zeros, whose output is its bias: exact to 1/256 of an output code
LARGEST_SUM = 2.0**30  # leaves the accumulator within 32 bits, roundings included


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer as the integer graph will hold them: `w = scales * codes`, and its bias.

    codes (O, I / groups, ...) with the outputs first: within +-(2**(bits-1) - 1), or what `bitfab.quant.levels` makes
    of other levels and of groups; scales (O,), equal ones unless per channel; bias (O,) in real units.
    """

    codes: IntArray
    scales: FloatArray
    bias: FloatArray

    @property
    def values(self) -> FloatArray:
        """The real weights that the codes mean, in the codes' shape."""
        return self.codes * self.scales.reshape(-1, *(1,) * (self.codes.ndim - 1))


def quantize_weights(plan: Plan, encodings: Mapping[str, Encoding]) -> dict[str, LayerWeights]:
    """The weights of every layer rounded to nearest, by the name of its node.

    Scales are made coarser where weights are so fine that they could not matter to the output (`FINEST_RATIO`), or the
    accumulator would leave 32 bits: so nearly dead channels and 16-bit layers stay exact programs of 32-bit integers.
    """
    result = {}
    for node, layer in plan.weighted().items():
        x, y = encodings[plan.coded(node.all_input_nodes[0]).name], encodings[node.name]
        result[node.name] = _rounded(layer, x, y.qparams.scale[0], plan.recipes[node])
    return result


def _rounded(layer: Weighted, x: Encoding, output_scale: float, recipe: LayerRecipe) -> LayerWeights:
    weight = output_first(layer).detach().double().cpu().numpy()
    rows = weight.reshape(len(weight), -1)
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu().numpy()
    scales = choose_scales(rows, recipe)
    floor = _coarsest_needed(rows, bias, x.qparams, x.type, output_scale)
    scales = _coarsened(scales, floor, output_scale / x.qparams.scale[0], recipe)
    return LayerWeights(choose_codes(rows, scales, recipe).reshape(weight.shape), scales, bias)


def weight_bytes(plan: Plan, weights: Mapping[str, LayerWeights]) -> int:
    """Bytes in which the weights and biases (four bytes each) of all layers can be stored; scales are not counted.

    A weight takes the bits of its recipe, each group of weights its factor's 4 more, and a layer's codebook a byte for
    each entry. The integer graph itself holds the integers that all this stands for (see `summary.graph_bytes`).
    """
    total = 0
    for node in plan.weighted():
        codes, recipe = weights[node.name].codes, plan.recipes[node]
        bits = codes.size * recipe.weights.bits
        if recipe.group_size:
            bits += FACTOR_BITS * len(codes) * -(-codes[0].size // recipe.group_size)
        if recipe.levels is WeightLevels.CODEBOOK:
            bits += 8 * 2**recipe.weights.bits
        total += -(-bits // 8) + 4 * len(codes)
    return total


def lower_weights(layer: Weighted, weights: LayerWeights, x: QParams, pads: ir.Pads) -> tuple[ir.Op, FloatArray]:
    """The layer's integer operation and its weight scales, one per output channel (one in all where they are equal).

    `bias = round(b / (s_x * s_w)) - z_x * sum(w)`.
    """
    codes, scales = weights.codes, weights.scales
    sums = codes.reshape(len(codes), -1).astype(np.int64).sum(axis=1)
    folded = np.rint(weights.bias / (scales * x.scale[0])) - x.zero_point * sums
    op = _operation(layer, codes, folded.astype(np.int32), x.zero_point, pads)
    return op, scales[:1] if (scales == scales[0]).all() else scales


def _coarsest_needed(
    rows: FloatArray, bias: FloatArray, x: QParams, x_type: IntType, output_scale: float
) -> FloatArray:
    """For each channel the scale below which its accumulator would be wider than 32 bits or needlessly fine."""
    span = max(x_type.high - x.zero_point, x.zero_point - x_type.low)
    fits = (np.abs(rows).sum(axis=1) * span + np.abs(bias) / x.scale[0]) / LARGEST_SUM
    return np.maximum(fits, FINEST_RATIO * output_scale / x.scale[0])


def _coarsened(scales: FloatArray, floor: FloatArray, unit: float, recipe: LayerRecipe) -> FloatArray:
    """The scales, not below the floor; channels of zeros get `DEAD_RATIO` of the output's, or what the others have.

    Where 0 need not be among the codes, channels of zeros stay at the floor, so that what they add could not matter.
    """
    spec = recipe.weights
    dead = (scales == 0) & (not spec.type.bipolar and recipe.levels is not WeightLevels.CODEBOOK)
    if spec.per_channel:
        floor = np.maximum(floor, np.where(dead, DEAD_RATIO * unit, 0))
    else:
        floor = np.full_like(floor, max(floor.max(), DEAD_RATIO * unit if dead.all() else 0))
    return np.asarray([round_scale(scale, spec.scale_kind) for scale in np.maximum(scales, floor)])


def _operation(layer: Weighted, codes: IntArray, bias: IntArray, zero: int, pads: ir.Pads) -> ir.Op:
    match layer:
        case nn.Conv2d():
            top, left, bottom, right = (a + b for a, b in zip(pads, layer_padding(layer), strict=True))
            stride, dilation = two(layer.stride), two(layer.dilation)
            return ir.Conv2d(codes, bias, stride, (top, left, bottom, right), dilation, layer.groups, zero)
        case nn.ConvTranspose2d():
            (top, left), (more_h, more_w) = two(layer.padding), two(layer.output_padding)
            padding = (top, left, top - more_h, left - more_w)
            return ir.ConvTranspose2d(input_first(codes, layer), bias, two(layer.stride), padding, layer.groups, zero)
        case nn.Linear():
            return ir.Dense(codes, bias)


def layer_padding(layer: nn.Conv2d) -> ir.Pads:
    """Top, left, bottom, right; `same` puts the odd pixel at the bottom and right, as torch does."""
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return (totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)
    top, left = two(layer.padding)
    return (top, left, top, left)


def input_first(codes: Array, layer: nn.ConvTranspose2d) -> Array:
    """The inverse of `output_first` for codes (outputs, inputs / groups, KH, KW)."""
    groups = layer.groups
    outputs, inputs, *kernel = codes.shape
    grouped = codes.reshape(groups, outputs // groups, inputs, *kernel).swapaxes(1, 2)
    return np.ascontiguousarray(grouped.reshape(groups * inputs, outputs // groups, *kernel))


def two(value: object) -> tuple[int, int]:
    assert isinstance(value, tuple)
    return int(value[0]), int(value[1])
