"""Histograms hold every value, and clipped mass and error are what a computation by hand gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bitfab.dtypes import dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant import Choices, Recipe, choose, float_reference, fold, quantize_with_reference
from bitfab.quant.histograms import BINS, Distribution, LayerHistogram, histograms
from bitfab.summary import quantized_layers

RNG = np.random.default_rng(1)
IMAGES = torch.from_numpy(RNG.normal(size=(40, 2, 6, 6)).astype(np.float32))
TESTS = torch.from_numpy((1.5 * RNG.normal(size=(50, 2, 6, 6))).astype(np.float32))


class Net(nn.Module):
    """A fused ReLU, an addition, a dense layer without one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.dense = nn.Linear(4 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return self.dense((x + self.second(x)).flatten(1))


def _choices(net: nn.Module, recipe: Recipe) -> Choices:
    return choose(fold(capture(net.eval(), IMAGES)), [IMAGES], recipe)


def _found(net: nn.Module, recipe: Recipe, images: torch.Tensor = TESTS) -> dict[str, LayerHistogram]:
    return {item.layer: item for item in histograms(_choices(net, recipe), [images])}


def test_every_layer_with_codes_is_there_and_every_value_counted() -> None:
    found = _found(Net(), Recipe())
    assert [name.split(".")[-1] for name in found] == ["x", "first", "second", "add", "dense"]
    assert [item.weights is None for item in found.values()] == [True, False, False, True, False]
    for item, count in zip(found.values(), (72, 144, 144, 144, 3), strict=True):
        assert len(item.activation.counts) == BINS
        assert sum(item.activation.counts) == pytest.approx(50 * count, abs=1)
    assert found["first"].weights is not None and sum(found["first"].weights.counts) == pytest.approx(72, abs=1)


@pytest.mark.parametrize("recipe", [Recipe(activations=4, observer="percentile", percentile=98), Recipe(scale="po2")])
def test_clipped_mass_and_error_by_hand(recipe: Recipe) -> None:
    net = Net()
    quantized, found = quantize_with_reference(net.eval(), [IMAGES], recipe), _found(net, recipe)
    reference = float_reference(quantized, TESTS)
    for item in found.values():
        seen = next(value for value, node in quantized.meaning.items() if node == item.node)
        x, told = reference[seen].astype(np.float64), item.activation
        qparams, type = item.codes.qparams, item.codes.type
        low, high = ((end - qparams.zero_point) * qparams.scale[0] for end in (type.low, type.high))
        assert (told.range_low, told.range_high) == pytest.approx((low, high))
        assert (told.low, told.high) == pytest.approx((x.min(), x.max()))
        beyond = (x < low - qparams.scale[0] / 2) | (x > high + qparams.scale[0] / 2)
        assert told.clipped == pytest.approx(beyond.mean(), abs=2 / x.size)
        squares = (x - dequantize(quantize(x, qparams, type), qparams)) ** 2
        assert told.clipping_error == pytest.approx(squares[beyond].sum() / squares.sum(), rel=1e-3)


def test_a_layer_has_the_sqnr_of_its_codes_not_of_an_operand_of_an_addition() -> None:
    net = Net()
    quantized, found = quantize_with_reference(net.eval(), [IMAGES]), histograms(_choices(net, Recipe()), [TESTS])
    layers = quantized_layers(found, quantized, {name: float(i) for i, name in enumerate(quantized.graph.values)})
    names = list(quantized.graph.values)
    expected = ["x", "first_requantize", "second_requantize", "add_requantize", "dense_requantize"]
    assert [names[int(layer.sqnr_db or 0)] for layer in layers] == expected
    assert layers[0].weights.counts == () and layers[1].weights.clipped == 0
    assert layers[1].activation.range_high == found[1].activation.range_high


def test_the_range_of_calibration_clips_nothing_of_it() -> None:
    for item in _found(Net(), Recipe(), IMAGES).values():
        for told in (item.weights, item.activation):
            assert told is None or (told.clipped, told.clipping_error) == (0, 0)


def test_bins_tell_where_the_values_are() -> None:
    told = _found(Net(), Recipe())["first"].activation
    assert told.low == 0 and told.counts[0] > 0.3 * sum(told.counts)  # the ReLU's zeros
    expected, _ = np.histogram(np.maximum(Net().first(TESTS).detach().numpy(), 0), BINS, (told.low, told.high))
    assert np.abs(np.array(told.counts) - expected).max() < 0.02 * expected.sum()


def test_the_same_from_one_batch_and_from_many() -> None:
    choices = _choices(Net(), Recipe(activations=3, observer="percentile", percentile=95))
    whole, parts = histograms(choices, [TESTS]), histograms(choices, TESTS)
    for one, other in zip(whole, parts, strict=True):
        assert one.weights == other.weights
        assert one.activation.clipped == other.activation.clipped > 0
        assert one.activation.clipping_error == pytest.approx(other.activation.clipping_error)


def test_a_channel_1000_times_as_large_leaves_the_others_one_bin() -> None:
    net = Net()
    with torch.no_grad():
        net.first.weight[2] *= 1000
    told = _found(net, Recipe(per_channel=False))["first"].weights
    assert told is not None and sum(told.counts[BINS // 2 - 2 : BINS // 2 + 2]) > 0.7 * sum(told.counts)
    assert told.range_high == pytest.approx(max(-told.low, told.high)) and told.clipped == 0


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(weights=3, levels="po2"),
        Recipe(weights=4, levels="codebook"),
        Recipe(weights=4, group_size=4),
        Recipe(weights=1, activations=1, symmetric_activations=True),
        Recipe(weights=3, observer="mse"),
    ],
    ids=["po2", "codebook", "groups", "bipolar", "mse"],
)
def test_levels_of_every_kind(recipe: Recipe) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Hardtanh(), nn.Flatten(), nn.Linear(64, 3))
    for item in _found(net, recipe).values():
        for told in (item.weights, item.activation):
            assert told is None or _sound(told)


def _sound(told: Distribution) -> bool:
    shares = 0 <= told.clipped < 0.5 and told.clipping_error is not None and 0 <= told.clipping_error <= 1
    return shares and told.range_low < told.range_high and told.low < told.high and min(told.counts) >= 0


def test_zeros_alone_have_a_histogram() -> None:
    net = Net()
    with torch.no_grad():
        net.second.weight.zero_()
    told = _found(net, Recipe())["second"].weights
    assert told is not None and told.counts == (144.0, *[0.0] * (BINS - 1))
    assert (told.low, told.high, told.clipped, told.clipping_error) == (0, 0, 0, None)


def test_images_that_fit_no_network() -> None:
    choices = _choices(Net(), Recipe())
    with pytest.raises(BitfabError, match="images: no data"):
        histograms(choices, [])
    with pytest.raises(BitfabError, match=r"images: the network cannot take inputs of shape \(3, 6, 6\)"):
        histograms(choices, [torch.zeros(2, 3, 6, 6)])
