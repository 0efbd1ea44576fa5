"""Levels of weights: the sets, the nearest level, the best codebook, group factors, against brute force and theory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import FloatArray, IntArray, QuantSpec
from bitfab.quant.levels import choose_codes, choose_scales, codebook, level_set, nearest
from bitfab.quant.recipe import LayerRecipe, Recipe, WeightLevels
from bitfab.quant.scales import weight_codes, weight_scales

PO2, APOT = WeightLevels.PO2, WeightLevels.APOT


def _layer(**choices: Any) -> LayerRecipe:
    return Recipe(**choices).layer("layer")


def _weight(rows: int = 16, columns: int = 300, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)) * 10 ** rng.uniform(-2, 1, size=(rows, 1))


def _quantized(weight: FloatArray, recipe: LayerRecipe) -> tuple[IntArray, FloatArray]:
    scales = choose_scales(weight, recipe)
    return choose_codes(weight, scales, recipe), scales


def _decibels(weight: FloatArray, codes: IntArray, scales: FloatArray) -> float:
    noise = (np.square(codes * scales[:, None] - weight).sum(axis=1) / np.square(weight).sum(axis=1)).mean()
    return float(-10 * np.log10(noise))


def test_level_sets() -> None:
    assert level_set(PO2, 2).tolist() == [-1, 0, 1]
    assert level_set(PO2, 4).tolist() == [-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64]
    assert level_set(APOT, 3).tolist() == [-4, -2, -1, 0, 1, 2, 4]
    assert level_set(APOT, 4).tolist() == [-10, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 10]
    sums = {a + b for a in (0, 1, 4, 16) for b in (0, 2, 8, 32)}  # Li et al. 2020, equation 5, times 2**5
    assert set(level_set(APOT, 5).tolist()) == sums | {-s for s in sums}
    for bits in (2, 3, 4, 5, 6):
        assert len(level_set(APOT, bits)) == 2**bits - 1


@given(
    values=st.lists(st.floats(-150, 150), min_size=1, max_size=20),
    levels=st.sets(st.integers(-127, 127), min_size=1, max_size=12).map(sorted),
)
def test_nearest_is_nearest(values: list[float], levels: list[int]) -> None:
    chosen = nearest(np.array(values), np.array(levels))
    for value, level in zip(values, chosen.tolist(), strict=True):
        assert abs(value - level) == min(abs(value - other) for other in levels)


@given(values=st.lists(st.floats(-127, 127), min_size=1, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_no_codebook_of_two_entries_is_better(values: list[float], seed: int) -> None:
    x, importance = np.array(values), np.random.default_rng(seed).uniform(0.1, 10, size=len(values))

    def error(levels: Any) -> float:
        return float((np.square(x[:, None] - np.asarray(levels)).min(axis=1) * importance).sum())

    distances = np.square(x - np.arange(-127, 128)[:, None])  # (255, N)
    pairs = np.array(list(itertools.combinations(range(255), 2)))
    least = (np.minimum(distances[pairs[:, 0]], distances[pairs[:, 1]]) @ importance).min()
    assert error(codebook(x, importance, 2)) <= least * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize(("bits", "decibels"), [(2, 9.30), (3, 14.62), (4, 20.22)])
def test_the_codebook_of_normal_weights_is_max_quantizer(bits: int, decibels: float) -> None:
    """The least distortion that any quantizer of 2**bits levels has on a normal variable: J. Max 1960, table I."""
    weight = np.random.default_rng(0).normal(size=(4, 20000))
    recipe = _layer(weights=bits, levels="codebook")
    codes, scales = _quantized(weight, recipe)
    assert len(np.unique(codes)) == 2**bits and np.abs(codes).max() <= 127
    assert decibels - 0.25 < _decibels(weight, codes, scales) < decibels + 0.1


@pytest.mark.parametrize(
    ("choices", "at_least"),
    [
        ({"weights": 4}, 15),
        ({"weights": 4, "observer": "mse"}, 18),
        ({"weights": 4, "levels": "po2"}, 14),
        ({"weights": 4, "levels": "apot"}, 18.5),
        ({"weights": 4, "levels": "codebook"}, 19),
        ({"weights": 4, "group_size": 16}, 21),
        ({"weights": 8, "group_size": 16}, 45),
        ({"weights": 1}, 4.2),
        ({"weights": 1, "group_size": 16}, 4.4),
    ],
)
@pytest.mark.parametrize("scale", ["real", "po2"])
def test_what_each_choice_leaves_of_normal_weights(choices: dict[str, Any], at_least: float, scale: str) -> None:
    weight = _weight()
    recipe = _layer(**choices, scale=scale)
    codes, scales = _quantized(weight, recipe)
    slack = {"uniform": 4.0}.get(recipe.levels, 1.0) if scale == "po2" and not recipe.group_size else 0.5
    assert _decibels(weight, codes, scales) > at_least - slack
    if scale == "po2":
        assert (np.log2(scales) % 1 == 0).all()
    if recipe.levels in (PO2, APOT):
        assert np.isin(codes, level_set(recipe.levels, 4)).all()
    shared = _layer(**choices, scale=scale, per_channel=False)
    assert len(set(choose_scales(weight, shared))) == 1


@given(seed=st.integers(0, 999), bits=st.sampled_from([1, 2, 4]), size=st.integers(2, 40), columns=st.integers(1, 70))
@settings(max_examples=25, deadline=None)
def test_each_group_has_the_best_factor(seed: int, bits: int, size: int, columns: int) -> None:
    weight = _weight(3, columns, seed)
    recipe = _layer(weights=bits, group_size=size)
    codes, scales = _quantized(weight, recipe)
    for row, chosen, scale in zip(weight, codes.astype(int), scales, strict=True):
        for start in range(0, columns, size):
            part, mine = row[start : start + size], chosen[start : start + size]
            tried = [
                factor * weight_codes(part[None], np.array([factor * scale]), recipe.weights)[0].astype(int)
                for factor in range(1, 16)
            ]
            assert any(np.array_equal(mine, other) for other in tried)
            errors = [np.square(other * scale - part).sum() for other in tried]
            assert np.square(mine * scale - part).sum() <= min(errors) * (1 + 1e-9)


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    weight = np.array([[0.5, -1.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-1.0, -1.0, -1.0, -1.0]])
    spec = QuantSpec(1, per_channel=True)
    scales = weight_scales(weight, spec, search=True)
    assert scales.tolist() == [1.0, 0.0, 1.0]
    safe = np.where(scales > 0, scales, 1)
    assert weight_codes(weight, safe, spec).tolist() == [[1, -1, 1, 1], [1, 1, 1, 1], [-1, -1, -1, -1]]
    for mean, expected in ((1.4, 1.0), (1.6, 2.0), (2.0, 2.0)):  # the nearest power of two
        recipe = _layer(weights=1, scale="po2")
        assert choose_scales(np.array([[mean, -mean]]), recipe).tolist() == [expected]


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_no_other_scale_suits_one_bit_better(seed: int) -> None:
    weight = _weight(2, 20, seed)
    codes, scales = _quantized(weight, _layer(weights=1))
    error = np.square(codes * scales[:, None] - weight).sum(axis=1)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert (error <= np.square(codes * factor * scales[:, None] - weight).sum(axis=1)).all()
