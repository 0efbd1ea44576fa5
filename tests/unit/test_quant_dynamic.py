"""Dynamic and weight-only modules compute exact integer sums, as the formula says, and stay ordinary modules."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bitfab.data import digits
from bitfab.dtypes import QuantSpec
from bitfab.errors import BitfabError
from bitfab.quant.dynamic import (
    IntegerConv2d,
    IntegerLayer,
    IntegerLinear,
    quantize_at_run_time,
    quantize_dynamic,
    quantize_weight_only,
)
from bitfab.quant.recipe import Override, Recipe
from bitfab.zoo import load


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@given(
    rows=st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=6),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
)
def test_activations_lie_within_half_a_step(rows: list[list[float]], bits: int, symmetric: bool) -> None:
    x = torch.tensor(rows, dtype=torch.float64)
    codes, scale, zero = quantize_at_run_time(x, QuantSpec(bits, symmetric, symmetric), (1,))
    assert torch.equal(codes, codes.round()) and torch.equal(zero, zero.round())
    assert -(2 ** (bits - 1)) <= codes.min() and codes.max() < 2 ** (bits - 1)
    assert -(2 ** (bits - 1)) <= zero.min() and zero.max() < 2 ** (bits - 1)
    assert bool(((scale * (codes - zero) - x).abs() <= scale * (0.5 if symmetric else 1) * (1 + 1e-9)).all())
    assert bool((codes == zero)[x == 0].all())


def _expected(layer: IntegerLayer, x: Tensor, apply: Any, axes: tuple[int, ...]) -> Tensor:
    """The layer's formula in float64, where sums of integers are exact."""
    assert layer.activations is not None
    codes, scale, zero = quantize_at_run_time(x, layer.activations, axes)
    sums = apply((codes - zero).double(), layer.codes.double())
    assert torch.equal(sums, sums.round())
    channels = (1, -1, 1, 1) if len(axes) == 3 else (-1,)
    assert layer.bias is not None
    return sums * scale.double() * layer.scales.double().reshape(channels) + layer.bias.double().reshape(channels)


@pytest.mark.parametrize("shape", [(37,), (5, 37), (2, 3, 5, 37), (0, 37)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_linear_is_its_formula(shape: tuple[int, ...], symmetric: bool) -> None:
    torch.manual_seed(0)
    layer = quantize_dynamic(nn.Linear(37, 11), Recipe(symmetric_activations=symmetric))
    assert isinstance(layer, IntegerLinear)
    x = _random(*shape)
    rows = x.reshape(-1, 37)
    expected = _expected(layer, rows, nn.functional.linear, (1,)).reshape(*shape[:-1], 11)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-6)
    assert layer(x).shape == (*shape[:-1], 11)


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": (2, 1), "padding": (1, 2)},
    "dilation": {"dilation": (2, 3), "padding": 2},
    "same": {"kernel_size": (2, 4), "padding": "same"},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "groups": {"groups": 3, "padding": 1},
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_convolutions_are_their_formula(name: str, symmetric: bool) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(6, 9, **{"kernel_size": 3, **CONVOLUTIONS[name]})
    layer = quantize_dynamic(net, Recipe(symmetric_activations=symmetric))
    assert isinstance(layer, IntegerConv2d)
    x = _random(4, 6, 10, 12) + 1

    def apply(values: Tensor, weight: Tensor) -> Tensor:
        return net._conv_forward(values, weight, None)

    expected = _expected(layer, x, apply, (1, 2, 3))
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(x[0]), layer(x)[0])
    weight_only = quantize_weight_only(net)
    with torch.no_grad():
        net.weight.copy_(weight_only.weight)
        torch.testing.assert_close(weight_only(x), net(x))


def test_wide_layers_stay_exact() -> None:
    """Largest codes everywhere: sums beyond 2**24, where float32 would not do."""
    linear, conv = nn.Linear(4099, 2, bias=False), nn.Conv2d(2 * 1031, 2, 3, groups=2, bias=False)
    for layer in (linear, conv):
        nn.init.constant_(layer.weight, 1.0)
    recipe = Recipe(symmetric_activations=True)
    result = quantize_dynamic(linear, recipe)(torch.ones(1, 4099))
    torch.testing.assert_close(result, torch.full((1, 2), 4099.0), rtol=1e-6, atol=0)
    images = torch.ones(1, 2 * 1031, 3, 3)
    torch.testing.assert_close(
        quantize_dynamic(conv, recipe)(images).flatten(), torch.full((2,), 1031.0 * 9), rtol=1e-6, atol=0
    )
    assert quantize_dynamic(conv).exact is torch.float64


def test_other_devices_take_the_floating_point_path() -> None:
    net = quantize_dynamic(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(2), nn.Linear(16, 5))).to("meta")
    assert net(torch.empty(3, 2, 4, 4, device="meta")).shape == (3, 4, 5)  # meta computes shapes alone


@given(seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_no_result_depends_on_the_rest_of_the_batch(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    x = _random(6, 2, 4, 4, seed=seed) * 10 ** torch.arange(-3.0, 3)[:, None, None, None]
    dynamic = quantize_dynamic(net)
    assert torch.equal(dynamic(x), torch.cat([dynamic(row[None]) for row in x]))


class _Block(nn.Module):
    """Attention as SAM-like networks write it, torch's own, a shared layer, and a layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.project = nn.Linear(16, 48), nn.Linear(16, 16, bias=False)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.shared = nn.ModuleList([self.project, nn.Linear(16, 16)])
        self.neck = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, H, W, 16)
        q, k, v = self.qkv(x).chunk(3, -1)
        tokens = self.project(torch.softmax(q @ k.transpose(-1, -2), -1) @ v).flatten(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        tokens = self.shared[1](self.shared[0](self.encoder(tokens)))
        return self.neck(tokens.reshape(x.shape).movedim(-1, 1))


def test_transformers() -> None:
    torch.manual_seed(0)
    net = _Block().eval()
    state = copy.deepcopy(net.state_dict())
    dynamic, weight_only = quantize_dynamic(net), quantize_weight_only(net)
    x = _random(2, 3, 5, 16)
    with torch.no_grad():
        real = net(x)
        for quantized in (dynamic, weight_only):
            noise = (quantized(x) - real).square().sum() / real.square().sum()
            assert 0 < noise < 1e-3
    assert dynamic.project is dynamic.shared[0]
    integer = {name for name, module in dynamic.named_modules() if isinstance(module, IntegerLayer)}
    assert integer == {"qkv", "project", "shared.1", "neck"}
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())


def test_state_dict_and_dtypes() -> None:
    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))

    first, second, x = quantize_dynamic(network(0)), quantize_dynamic(network(1)), _random(4, 8)
    assert set(first.state_dict()) == {"0.codes", "0.scales", "0.bias", "2.codes", "2.scales"}
    assert first.state_dict()["0.codes"].dtype == torch.int8 and not list(first.parameters())
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x)) and torch.equal(copy.deepcopy(first)(x), first(x))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        for quantize in (quantize_dynamic, quantize_weight_only):
            other = quantize(network(0).to(dtype))
            assert other(x.to(dtype)).dtype == dtype
            torch.testing.assert_close(other(x.to(dtype)).float(), first(x), rtol=0.05, atol=0.05)
    assert bool(first(torch.full((1, 8), math.nan)).isnan().all())
    assert torch.equal(first[0](torch.zeros(1, 8)), first[0].bias[None])


def test_bits_levels_and_names() -> None:
    net = nn.Sequential(*(nn.Linear(32, 32) for _ in range(5)))
    overrides = {
        "1": Override(weights=2),
        "2": Override(weights=4, levels="codebook"),
        "3": Override(weights=4, activations=8, group_size=16),
    }
    quantized = quantize_dynamic(net, Recipe(weights=1, exclude=("4", "3"), overrides=overrides))
    assert isinstance(quantized, nn.Sequential)
    found = [len(np.unique(layer.codes)) if isinstance(layer, IntegerLayer) else 0 for layer in quantized]
    assert found[:3] == [2, 3, 16] and found[3] > 15 and found[4] == 0
    wide = quantize_weight_only(net, Recipe(weights=8, group_size=16))
    assert wide[0].codes.dtype == torch.int16
    torch.testing.assert_close(wide[0].weight, net[0].weight, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"weights": 12}, r"^0: weights of 12 bits: 1 to 8"),
        ({"activations": 16}, r"^0: activations of 16 bits: 2 to 8"),
        ({"activations": 1}, r"^0: activations of 1 bits"),
        ({"group_size": 16}, r"^0: weights of 8 bits in groups do not fit int8"),
        ({"equalize": True}, r"^dynamic: equalize"),
        ({"bias_correction": "analytic"}, r"^dynamic: .* for static quantization"),
        ({"exclude": ("0",)}, r"^Sequential: no Linear or Conv2d to quantize, or all excluded"),
        ({"exclude": ("fc",)}, r"no layer matches 'fc'"),
    ],
)
def test_what_is_not_possible_is_told(recipe: dict[str, Any], expected: str) -> None:
    with pytest.raises(BitfabError, match=expected):
        quantize_dynamic(nn.Sequential(nn.Linear(32, 2), nn.ReLU()), Recipe(**recipe))


def test_networks_without_layers_or_with_nan_are_refused() -> None:
    with pytest.raises(BitfabError, match=r"^ReLU: no Linear or Conv2d"):
        quantize_weight_only(nn.ReLU())
    net = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(net[0].bias, math.inf)
    with pytest.raises(BitfabError, match=r"^0\.bias: holds NaN or infinite"):
        quantize_dynamic(net)


def test_digits_keep_their_accuracy() -> None:
    net, data = load("digits"), digits.load()
    images, labels = torch.from_numpy(data.test_images), torch.from_numpy(data.test_labels)

    def accuracy(network: nn.Module) -> float:
        with torch.no_grad():
            return float((network(images).argmax(1) == labels).float().mean())

    real = accuracy(net)
    assert accuracy(quantize_dynamic(net)) > real - 0.01
    assert accuracy(quantize_weight_only(net)) > real - 0.01
    assert accuracy(quantize_weight_only(net, Recipe(weights=4))) > real - 0.05
    assert accuracy(quantize_dynamic(net, Recipe(weights=4, activations=4))) > real - 0.2
    assert accuracy(quantize_weight_only(net, Recipe(weights=2))) < real - 0.05
