"""From the ranges of activations to their encodings: the scale, zero point and integer type of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

from bitfab.dtypes import IntType, QParams
from bitfab.errors import BitfabError
from bitfab.quant.plan import Plan
from bitfab.quant.scales import Range, choose_qparams


@dataclass(frozen=True)
class Encoding:
    """What the codes of an activation mean: `x = scale * (q - zero_point)`, q of `type`; one scale.

    Of a bipolar type they are the sign of `x - shift`, one shift a channel (C,), none for zeros.
    """

    qparams: QParams
    type: IntType
    shift: tuple[float, ...] = ()


def choose_encodings(plan: Plan, ranges: Mapping[str, Range]) -> Mapping[str, Encoding]:
    """The encoding of each node with codes of its own, by its name; raises BitfabError naming a layer without range."""
    return {node.name: _encoding(plan, ranges, node) for node in plan.observed()}


def _encoding(plan: Plan, ranges: Mapping[str, Range], node: fx.Node) -> Encoding:
    if node in plan.adopted:
        return _encoding(plan, ranges, plan.adopted[node])
    spec = plan.recipes[node].activations
    natural = _NATURAL_RANGES.get(type(plan.layers[node]))
    if natural is not None and not spec.symmetric:
        low, high = natural
        return Encoding(QParams(((high - low) / 2**spec.bits,), 0 if low == 0 else 2 ** (spec.bits - 1)), spec.type)
    try:
        return Encoding(choose_qparams(ranges[node.name], spec), spec.type)
    except BitfabError as error:
        raise BitfabError(f"{node.meta['source']}: {error}") from error


# What these functions can reach at most; one code short of the upper end, so that the scale is a power of two.
_NATURAL_RANGES: Mapping[type, Range] = {nn.Sigmoid: (0, 1), nn.Hardsigmoid: (0, 1), nn.Tanh: (-1, 1)}
