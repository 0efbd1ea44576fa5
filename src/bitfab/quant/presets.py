"""Recipes for kinds of networks, by name: what to begin with where nothing else is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from bitfab.quant.recipe import ObserverKind, Recipe
from bitfab.quant.sensitive import widen
from bitfab.quant.simulate import Progress

__all__ = ["DETECTION", "PRESETS", "Preset", "detection"]

DETECTION = Recipe(observer=ObserverKind.PERCENTILE, percentile=99.999, images=32)
"""Static INT8 for detectors, before its sensitive ends are found: one value in 100,000 is clipped at either end."""

Preset = Callable[[nn.Module, Iterable[Any], Progress | None], Recipe]


def detection(net: nn.Module, calibration: Iterable[Any], progress: Progress | None = None) -> Recipe:
    """`DETECTION`, with 16 bits for the outputs and for the activations that 8 bits would spoil (`sensitive.widen`).

    A detector's output holds offsets of boxes beside likelihoods: with 8 bits for both, these have but a few levels.
    """
    return widen(net, calibration, DETECTION, progress=progress)


PRESETS: Mapping[str, Preset] = {"detection": detection}
