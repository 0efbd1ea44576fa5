"""The recipe resolves names and patterns, and refuses what it does not know."""

from __future__ import annotations

from typing import Any

import pytest

from bitfab.dtypes import ScaleKind
from bitfab.errors import BitfabError
from bitfab.quant.recipe import AdaRound, ObserverKind, Override, Recipe, WeightLevels


def test_a_layer_gets_the_defaults_unless_named() -> None:
    recipe = Recipe(weights=6, observer="mse", scale="po2")
    layer = recipe.layer("encoder.0.conv")
    assert (layer.weights.bits, layer.activations.bits, layer.observer) == (6, 8, ObserverKind.MSE)
    assert layer.weights.symmetric and layer.weights.per_channel and layer.weights.scale_kind is ScaleKind.PO2
    assert not layer.activations.signed and not layer.activations.symmetric


def test_names_patterns_and_modules() -> None:
    overrides = {"encoder": Override(weights=4), "encoder.*.conv": Override(activations=6, observer=ObserverKind.MSE)}
    recipe = Recipe(exclude=("head", "encoder.1"), overrides=overrides)
    assert recipe.layer("head").weights.bits == recipe.layer("head").activations.bits == 16
    assert recipe.layer("header").weights.bits == 8
    inner = recipe.layer("encoder.1.conv")
    assert (inner.weights.bits, inner.activations.bits, inner.observer) == (4, 6, ObserverKind.MSE)
    assert recipe.layer("encoder.0.act").activations.bits == 8


def test_a_fused_activation_counts_for_its_layer() -> None:
    recipe = Recipe(overrides={"act": Override(activations=4)})
    assert recipe.layer("conv", "act").activations.bits == 4


def test_levels_and_groups_by_layer() -> None:
    overrides = {"a": Override(weights=8, levels="uniform"), "b": Override(weights=1, levels="uniform", group_size=32)}
    recipe = Recipe(weights=4, levels="apot", exclude=("c",), overrides=overrides)
    chosen = {name: recipe.layer(name) for name in "abcd"}
    assert [chosen[name].levels for name in "abcd"] == [*[WeightLevels.UNIFORM] * 3, WeightLevels.APOT]
    assert [chosen[name].group_size for name in "abcd"] == [0, 32, 0, 0]
    assert [chosen[name].evenly_spaced for name in "abcd"] == [True, False, True, False]
    grouped = Recipe(weights=4, group_size=16, exclude=("c",), overrides={"a": Override(group_size=0)})
    assert [grouped.layer(name).group_size for name in "acd"] == [0, 0, 16]


def test_levels_that_do_not_fit_name_the_layer() -> None:
    recipe = Recipe(weights=4, levels="po2", overrides={"a": Override(weights=8), "b": Override(group_size=16)})
    with pytest.raises(BitfabError, match=r"^a: po2 weights of 8 bits: choose 2 to 4 bits, or levels='uniform'"):
        recipe.layer("a")
    with pytest.raises(BitfabError, match=r"^b: po2 weights take no group factors; set group_size=0"):
        recipe.layer("b")


def test_unmatched_names_are_told_with_close_ones() -> None:
    recipe = Recipe(exclude=("encoder.0.cnov",))
    with pytest.raises(BitfabError, match=r"'encoder.0.cnov'; did you mean encoder.0.conv"):
        recipe.check(["encoder.0.conv", "head"])
    Recipe(exclude=("enc*",)).check(["encoder.0.conv"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"weights": 0}, "1 to 16 bits"),
        ({"activations": 17}, "1 to 16 bits"),
        ({"observer": "median"}, "observer 'median'.*minmax, moving_average, percentile, mse"),
        ({"scale": "log"}, "scale 'log'"),
        ({"rounding": "up"}, "rounding 'up'"),
        ({"percentile": 0.5}, "percentile 0.5"),
        ({"multiplier_bits": 40}, "2 to 24"),
        ({"images": 0}, "images 0"),
        ({"adaround": AdaRound(), "bias_correction": "analytic"}, "leave bias_correction out"),
        ({"levels": "log"}, "levels 'log'.*uniform, po2, apot, codebook"),
        ({"levels": "po2"}, "recipe: po2 weights of 8 bits: choose 2 to 4 bits"),
        ({"levels": "codebook", "weights": 1}, "codebook weights of 1 bits: choose 2 to 7 bits"),
        ({"levels": "apot", "weights": 4, "group_size": 16}, "apot weights take no group factors"),
        ({"group_size": 1}, "group_size 1: choose 2 or more"),
        ({"group_size": -16}, "group_size -16"),
        ({"bias_correction": "some"}, "bias_correction 'some'.*none, empirical, analytic"),
    ],
)
def test_bad_values_are_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(BitfabError, match=expected):
        Recipe(**arguments)


def test_bad_overrides_are_refused() -> None:
    with pytest.raises(BitfabError, match="0 iterations"):
        AdaRound(iterations=0)
    with pytest.raises(BitfabError, match="1 to 16 bits"):
        Override(weights=20)
    with pytest.raises(BitfabError, match="levels 'log'"):
        Override(levels="log")
