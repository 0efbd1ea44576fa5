"""Observers find the ranges they promise, in constant memory; scales cover them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import FloatArray, QuantSpec, ScaleKind, dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.quant.observers import BINS_PER_SIDE, Entropy, Histogram, MinMax, MovingAverage, Mse, Percentile
from bitfab.quant.scales import choose_qparams, round_scale, weight_codes, weight_scales

AFFINE = QuantSpec(bits=8, signed=False, symmetric=False)
SYMMETRIC = QuantSpec(bits=8, signed=True, symmetric=True)


def _fed(observer: MinMax, *batches: FloatArray) -> MinMax:
    for batch in batches:
        observer.update(torch.as_tensor(batch, dtype=torch.float32))
    return observer


def test_min_max_and_moving_average() -> None:
    batches = [np.array([-1.0, 2.0]), np.array([-3.0, 1.0]), np.array([0.0, 0.5])]
    assert _fed(MinMax(), *batches).limits(AFFINE) == (-3, 2)
    low, high = _fed(MovingAverage(), *batches).limits(AFFINE)
    assert low == pytest.approx((-1 * 0.9 - 3 * 0.1) * 0.9)
    assert high == pytest.approx((2 * 0.9 + 1 * 0.1) * 0.9 + 0.5 * 0.1)


@given(scales=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_histogram_that_widens_equals_the_one_of_all_data(scales: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [(rng.normal(size=50) * scale).astype(np.float32) for scale in scales]
    histogram = _fed(Histogram(), np.zeros(7, np.float32), *batches)
    assert isinstance(histogram, Histogram)
    everything = np.concatenate([np.zeros(7), *batches]).astype(np.float64)
    assert histogram.counts.sum() == len(everything)
    assert histogram.reach >= np.abs(everything).max()
    places = (everything / histogram.reach + 1) * BINS_PER_SIDE
    expected = np.bincount(np.floor(places).clip(0, 2 * BINS_PER_SIDE - 1).astype(int), minlength=2 * BINS_PER_SIDE)
    on_an_edge = np.abs(places - np.rint(places)) <= BINS_PER_SIDE * 2.0**-21  # of float32: it may fall either way
    assert np.abs(histogram.counts - expected).sum() <= 2 * on_an_edge[7:].sum()


def test_histogram_state_does_not_grow() -> None:
    histogram = Histogram()
    for step in range(50):
        histogram.update(torch.full((1000,), 1.5**step))
    assert histogram.counts.nbytes == 2 * BINS_PER_SIDE * 8
    assert histogram.count == histogram.counts.sum() == 50_000


def test_percentile_leaves_the_outermost_values() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 100_000)
    values[0], values[1] = -50, 80
    low, high = _fed(Percentile(99.0), values).limits(AFFINE)
    assert low == pytest.approx(-0.96, abs=0.06)
    assert high == pytest.approx(2.96, abs=0.06)
    assert _fed(Percentile(100.0), values).limits(AFFINE) == (-50, 80)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("kind", list(ScaleKind))
def test_mse_range_is_better_than_min_max(bits: int, kind: ScaleKind) -> None:
    values = np.random.default_rng(0).standard_t(3, 50_000)

    def error(observer: MinMax, spec: QuantSpec) -> float:
        qparams = choose_qparams(_fed(observer, values).limits(spec), spec)
        codes = quantize(values.reshape(1, -1), qparams, spec.type)
        return float(np.square(dequantize(codes, qparams) - values).mean())

    for spec in (QuantSpec(bits, False, False, scale_kind=kind), QuantSpec(bits, True, True, scale_kind=kind)):
        assert error(Mse(), spec) < error(MinMax(), spec)


@pytest.mark.parametrize("one_sided", [False, True])
def test_entropy_cuts_outliers_off_and_keeps_a_full_range(one_sided: bool) -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    values = np.abs(values) if one_sided else values
    outliers = np.append(values, [100.0, 60.0])
    low, high = _fed(Entropy(), outliers).limits(AFFINE)
    assert 2.5 < high < 20 and (low >= 0 if one_sided else -20 < low < -2.5)
    flat = np.linspace(0 if one_sided else -1, 1, 100_000)
    low, high = _fed(Entropy(), flat).limits(AFFINE)
    assert high == pytest.approx(1, abs=0.05) and low == pytest.approx(0 if one_sided else -1, abs=0.05)


def test_entropy_is_not_misled_by_the_heaps_of_relu6() -> None:
    values = np.random.default_rng(0).normal(0, 3, 200_000).clip(0, 6)
    assert _fed(Entropy(), values).limits(AFFINE) == (0, pytest.approx(6, abs=0.1))
    assert _fed(Entropy(), np.random.default_rng(0).normal(0, 1, 200_000).clip(0)).limits(AFFINE)[1] > 2.5


def test_histograms_count_many_equal_values() -> None:
    histogram = _fed(Histogram(), np.append(np.zeros((1 << 24) + 7, np.float32), np.float32(1)))
    assert isinstance(histogram, Histogram) and histogram.counts.sum() == (1 << 24) + 8


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("observer", [MinMax, Mse])
def test_non_finite_values_are_refused(bad: float, observer: type[MinMax]) -> None:
    with pytest.raises(BitfabError, match="NaN or infinite"):
        _fed(observer(), np.array([1.0, bad]))


@given(
    low=st.floats(-1e4, 1e4),
    width=st.floats(1e-3, 1e4),
    bits=st.integers(2, 16),
    symmetric=st.booleans(),
    kind=st.sampled_from(list(ScaleKind)),
)
@settings(max_examples=200, deadline=None)
def test_scales_cover_the_range_and_zero(low: float, width: float, bits: int, symmetric: bool, kind: ScaleKind) -> None:
    spec = QuantSpec(bits, symmetric, symmetric, scale_kind=kind)
    qparams = choose_qparams((low, low + width), spec)
    scale, zero = qparams.scale[0], qparams.zero_point
    assert spec.type.low <= zero <= spec.type.high
    assert not symmetric or zero == 0
    ends = np.array([[min(low, 0)], [0.0], [max(low + width, 0)]])
    restored = dequantize(quantize(ends, qparams, spec.type), qparams)
    assert restored[1] == 0
    assert np.abs(restored - ends).max() <= scale * 0.5000001
    if kind is ScaleKind.PO2:
        assert math.frexp(scale)[0] == 0.5
        assert scale < 2 * choose_qparams((low, low + width), QuantSpec(bits, symmetric, symmetric)).scale[0]


def test_powers_of_two_stay() -> None:
    assert [round_scale(s, ScaleKind.PO2) for s in (0.25, 0.26, 1.0, 3.0)] == [0.25, 0.5, 1.0, 4.0]


def test_weights_use_the_symmetric_range_per_channel() -> None:
    weight = np.array([[-2.0, 1.0], [0.0, 0.5], [0.0, 0.0]])
    scales = weight_scales(weight, SYMMETRIC_PER_CHANNEL, search=False)
    assert scales.tolist() == [2 / 127, 0.5 / 127, 0.0]
    assert weight_codes(weight[:2], scales[:2], SYMMETRIC_PER_CHANNEL).tolist() == [[-127, 64], [0, 127]]
    assert weight_scales(weight, SYMMETRIC, search=False).tolist() == [2 / 127] * 3


def test_weight_search_lowers_the_error() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 200))
    spec = QuantSpec(bits=3, per_channel=True)
    errors = []
    for search in (False, True):
        scales = weight_scales(weight, spec, search)
        errors.append(np.square(weight_codes(weight, scales, spec) * scales[:, None] - weight).sum())
    assert errors[1] < 0.9 * errors[0]


SYMMETRIC_PER_CHANNEL = QuantSpec(bits=8, per_channel=True)
