"""Mixed graphs compute exact integer sums, say what they are made of, and moved scales leave the function alone."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bitfab.dtypes import QuantSpec
from bitfab.errors import BitfabError
from bitfab.frontend.matmul import MatMul
from bitfab.frontend.onnx import load_onnx
from bitfab.frontend.torch import capture
from bitfab.quant.activation_codes import EvenCode, LogUniformCode, group_channels, log_uniform
from bitfab.quant.dynamic import quantize_dynamic
from bitfab.quant.mixed import quantize_mixed, stored_bytes
from bitfab.quant.move_scales import Move, move_scales
from bitfab.quant.recipe import AdaRound, Recipe
from bitfab.quant.static_layers import StaticConvTranspose2d, StaticLinear, StaticMatMul


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


class _Attention(nn.Module):
    """Every kind of layer that becomes integer, and some that do not."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.up = nn.ConvTranspose2d(8, dim, 2, 2)
        self.norm = nn.LayerNorm(dim)
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.scores, self.mix = MatMul(), MatMul()
        self.lin1, self.lin2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, image: Tensor, shift: float = 0.0) -> Tensor:
        x = self.up(torch.relu(self.conv(image))).flatten(2).transpose(1, 2) + shift
        y = self.norm(x)
        weights = self.scores(self.q(y), self.k(y).transpose(1, 2)).softmax(-1)
        x = x + self.out(self.mix(weights, self.v(y)))
        return self.lin2(torch.relu(self.lin1(x)))


MOVES = [
    Move("norm", inputs=("q", "k", "v")),
    Move("k", outputs=("q",)),
    Move("v", inputs=("out",)),
    Move("lin1", inputs=("lin2",)),
]


def _net(seed: int = 0, spread: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    net = _Attention().eval()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.LayerNorm):
                factors = torch.exp(spread * torch.randn(layer.weight.shape[-1]))
                layer.weight.mul_(factors)
    return net


def test_linear_is_its_formula_by_hand() -> None:
    torch.manual_seed(0)
    net, calibration, x = nn.Linear(13, 5), _random(9, 13), _random(4, 13, seed=1)
    layer = quantize_mixed(net, [calibration]).module
    assert isinstance(layer, StaticLinear)
    weight, bias = net.weight.detach().double().numpy(), net.bias.detach().double().numpy()
    w_scale = np.abs(weight).max(1) / 127
    w = np.clip(np.rint(weight / w_scale[:, None]), -127, 127).astype(np.int64)
    low, high = float(calibration.min()), float(calibration.max())
    scale = (high - low) / 255
    zero = round(-low / scale) - 128
    codes = np.clip(np.rint((x / np.float32(scale)).numpy()) + zero, -128, 127).astype(np.int64)
    np.testing.assert_array_equal(layer.codes.numpy(), w)
    np.testing.assert_array_equal(layer.code(x).numpy(), codes)
    expected = ((codes - zero) @ w.T) * scale * w_scale + bias
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_groups_have_scales_of_their_own() -> None:
    torch.manual_seed(0)
    net = nn.Linear(12, 5)
    calibration = _random(50, 12) * torch.tensor([1.0] * 7 + [40.0] + [0.05] * 4)
    layer = quantize_mixed(net, [calibration], channel_groups=3).module
    assert isinstance(layer, StaticLinear) and isinstance(layer.code, EvenCode)
    assert layer.code.groups is not None and layer.code.groups.unique(return_counts=True)[1].sort()[0][0] == 1
    x = calibration[:5]
    meant = (layer.code(x) - layer.code.zero) * layer.code.scale
    expected = nn.functional.linear(meant.double(), layer.weight.double(), net.bias.double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    plain = quantize_mixed(net, [calibration]).module
    x[:, 7] = 0  # what the large channel did to the small ones
    assert (layer(x) - net(x)).norm() < 0.2 * (plain(x) - net(x)).norm()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": (3, 2), "stride": (3, 2), "bias": False},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 2, "stride": 1, "dilation": 2},
    ],
)
def test_transposed_convolutions_are_their_formula(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net, x = nn.ConvTranspose2d(6, 4, **options), _random(2, 6, 5, 4) + 1
    layer = quantize_mixed(net, [x]).module
    assert isinstance(layer, StaticConvTranspose2d) and isinstance(layer.code, EvenCode)
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        exact.weight.copy_(layer.weight.transpose(0, 1))
        meant = ((layer.code(x) - layer.code.zero) * layer.code.scale).double()
        torch.testing.assert_close(layer(x).double(), exact(meant), rtol=1e-5, atol=1e-5)
        assert torch.equal(layer(x[0]), layer(x)[0])


@pytest.mark.parametrize("hybrid", [False, True])
def test_products_of_activations_are_exact(hybrid: bool) -> None:
    a, b = _random(3, 4, 700).mul(2).softmax(-1), _random(3, 700, 5, seed=1)
    layer = quantize_mixed(MatMul(), [(a, b)], Recipe(activations=4 if hybrid else 8), hybrid=hybrid).module
    assert isinstance(layer, StaticMatMul) and isinstance(layer.a, LogUniformCode if hybrid else EvenCode)
    left = layer.a(a).double() if isinstance(layer.a, LogUniformCode) else (layer.a(a) - layer.a.zero).double()
    scale = layer.a.unit if isinstance(layer.a, LogUniformCode) else layer.a.scale.double()
    right = (layer.b(b) - layer.b.zero).double()
    assert torch.equal(left, left.round()) and torch.equal(right, right.round())
    expected = (left @ right) * (scale * layer.b.scale.double())
    torch.testing.assert_close(layer(a, b).double(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(layer(a, b), a @ b, rtol=0.1, atol=0.1)


def test_products_take_up_to_16_bits() -> None:
    """Many small weights of softmax, which 8 bits would all round to 0."""
    a, b = _random(1, 4, 3000).softmax(-1), _random(1, 3000, 5, seed=1) + 1
    errors = []
    for bits in (8, 16):
        layer = quantize_mixed(MatMul(), [(a, b)], Recipe(activations=bits)).module
        assert isinstance(layer, StaticMatMul) and isinstance(layer.a, EvenCode)
        sums = (layer.a(a) - layer.a.zero).double() @ (layer.b(b) - layer.b.zero).double()
        scale = layer.a.scale.double() * layer.b.scale.double()
        torch.testing.assert_close(layer(a, b).double(), sums * scale, rtol=1e-6, atol=1e-9)
        errors.append(float((layer(a, b) - a @ b).norm()))
    assert errors[1] < 0.01 * errors[0]
    with pytest.raises(BitfabError, match="activations of 16: a mixed graph has 1 to 8, and 2 to 8 here"):
        quantize_mixed(nn.Sequential(OrderedDict(lin=nn.Linear(3, 3))), [_random(2, 3)], Recipe(activations=16))


def test_bytes_count_weights_in_their_bits() -> None:
    net = nn.Linear(32, 10)
    assert stored_bytes(net) == 4 * 330
    for recipe, of_weights in ((Recipe(), 320), (Recipe(4), 160), (Recipe(4, group_size=16), 170)):
        layer = quantize_mixed(net, [_random(2, 32)], recipe).module
        assert stored_bytes(layer) == of_weights + 4 * (10 + 10) + 2 * 4  # scales, biases, the inputs' code


def test_table_counts_every_product() -> None:
    net, image = _net(), _random(2, 3, 8, 8)
    mixed = quantize_mixed(net, [{"image": image, "shift": 0.1}], Recipe(exclude=("lin1",)))
    with FlopCounterMode(display=False) as counter:
        net(image)
    macs = {layer.name: layer.macs for layer in mixed.layers}
    left_out = 2 * 64 * 16 * 32
    assert sum(macs.values()) + left_out == counter.get_total_flops() // 2
    assert macs["conv"] == 2 * 16 * 8 * 27 and macs["scores"] == 2 * 64 * 64 * 16 and "lin1" not in macs
    assert mixed.integer_share == sum(macs.values()) / (sum(macs.values()) + left_out)
    floats = {part.operation: part for part in mixed.floats}
    assert floats["mm"].macs == left_out and "excluded" in floats["mm"].why
    assert floats["_softmax"].numbers == 2 * 64 * 64 and "native_layer_norm" in floats
    assert isinstance(mixed.module.get_submodule("lin1"), nn.Linear)


def test_fused_attention_and_plain_products_are_named() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.lin(x)
            return nn.functional.scaled_dot_product_attention(y, y, y) @ y.transpose(1, 2)

    mixed = quantize_mixed(Plain(), [_random(2, 5, 8)])
    whys = " ".join(part.why for part in mixed.floats if part.macs)
    assert mixed.integer_share < 0.5 and "MatMul" in whys


def test_network_stays_near_and_is_an_ordinary_module() -> None:
    net, images = _net(spread=0.5), [_random(2, 3, 8, 8, seed=seed) for seed in range(3)]
    with torch.no_grad():
        wanted = net(images[0])
    before = copy.deepcopy(net.state_dict())
    for options in ({}, {"channel_groups": 4}, {"channel_groups": 4, "hybrid": True}):
        mixed = quantize_mixed(net, images, **options)
        found = copy.deepcopy(mixed.module)(images[0])
        assert (found - wanted).norm() < 0.05 * wanted.norm()
        assert mixed.integer_share == 1
        again = copy.deepcopy(mixed.module)
        again.load_state_dict(mixed.module.state_dict())
        assert torch.equal(again(images[0]), found)
    small = quantize_mixed(net, images, Recipe(4)).module
    assert stored_bytes(small) < stored_bytes(mixed.module) < stored_bytes(net)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in mixed.module.modules())


def test_shared_layers_stay_shared_and_unreached_ones_float() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.second = nn.Linear(6, 6)
            self.never = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    mixed = quantize_mixed(Shared(), [_random(4, 6)])
    assert mixed.module.get_submodule("first") is mixed.module.get_submodule("second")
    assert isinstance(mixed.module.get_submodule("first"), StaticLinear)
    assert isinstance(mixed.module.get_submodule("never"), nn.Linear)
    assert [part.why for part in mixed.floats if part.operation == "never"] == [
        "a layer that the calibration inputs never reach"
    ]
    assert mixed.layers[0].macs == 2 * 4 * 36


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    spread=st.floats(0, 3),
    strength=st.floats(0, 1),
    chosen=st.lists(st.sampled_from(MOVES), unique=True),
)
def test_moved_scales_leave_the_function_unchanged(
    seed: int, spread: float, strength: float, chosen: list[Move]
) -> None:
    net, images = _net(seed, spread).double(), [_random(2, 3, 8, 8, seed=seed).double()]
    moved = move_scales(net, images, chosen, strength)
    with torch.no_grad():
        other = _random(1, 3, 8, 8, seed=seed + 1).double()
        torch.testing.assert_close(moved(other), net(other), rtol=1e-6, atol=1e-6)
        if not chosen:
            assert torch.equal(moved(other), net(other))


def test_moved_scales_even_out_the_channels() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8))
    with torch.no_grad():
        net[0].weight[3] = 60.0
    x = _random(64, 16)
    moved = move_scales(net, [x], [Move("0", inputs=("1",))])
    with torch.no_grad():
        wanted = net(x)
        plain, better = (quantize_mixed(part, [x]).module(x) for part in (net, moved))
    assert (better - wanted).norm() < 0.5 * (plain - wanted).norm()


def test_scales_do_not_pass_what_lets_none_pass() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
    with pytest.raises(BitfabError, match="the function changed by"):
        move_scales(net, [10 * _random(8, 6)], [Move("0", inputs=("2",))], strength=1.0)
    with pytest.raises(BitfabError, match="no layer is named 'x'"):
        move_scales(net, [_random(8, 6)], [Move("x", inputs=("2",))])
    with pytest.raises(BitfabError, match="a GELU takes no scales"):
        move_scales(net, [_random(8, 6)], [Move("1", inputs=("2",))])
    with pytest.raises(BitfabError, match="no calibration"):
        move_scales(net, [], [])


@given(bits=st.integers(2, 8), symmetric=st.booleans(), low=st.floats(-1e4, 0), width=st.floats(1e-3, 1e4))
def test_even_codes_lie_within_half_a_step(bits: int, symmetric: bool, low: float, width: float) -> None:
    code = EvenCode(np.asarray((low, low + width)), QuantSpec(bits, signed=symmetric, symmetric=symmetric))
    x = torch.linspace(low, low + width, 101)
    codes = code(x)
    assert torch.equal(codes, codes.round()) and -(2 ** (bits - 1)) <= codes.min() <= codes.max() < 2 ** (bits - 1)
    assert float(((codes - code.zero) * code.scale - x).abs().max()) <= float(code.scale) * 1.001
    assert float(code(torch.zeros(1)) - code.zero) == 0


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_log_uniform_codes_are_integers_of_so_many_levels_and_err_less(bits: int) -> None:
    spec = QuantSpec(bits, signed=False, symmetric=False)
    x = torch.exp(2 * _random(4000)) - 0.2  # dense small values, sparse large ones
    code = log_uniform(x, spec)
    assert code is not None
    codes = code(x)
    assert torch.equal(codes, codes.round()) and codes.abs().max() < 2**21
    assert len(code.values) <= 2**bits and len(codes.unique()) <= 2**bits
    even = EvenCode(np.asarray((float(x.min()), float(x.max()))), spec)
    errors = [float((real - x).square().mean()) for real in (codes * code.unit, (even(x) - even.zero) * even.scale)]
    assert errors[0] < errors[1]
    assert log_uniform(torch.zeros(10), spec) is None
    assert log_uniform(_random(4000), spec) is None


def test_similar_channels_share_a_group() -> None:
    limits = np.asarray([(-1, 1), (-50, 50), (-1.1, 0.9), (0, 30), (-0.9, 1), (-48, 51)], dtype=float)
    covered, groups = group_channels(limits, 3)
    assert len(covered) == 3 and groups[0] == groups[2] == groups[4] and groups[1] == groups[5]
    assert all(covered[g][0] <= low and covered[g][1] >= high for g, (low, high) in zip(groups, limits, strict=True))
    assert len(group_channels(limits[:2], 4)[0]) == 2


def test_errors_name_the_remedy() -> None:
    net = _net()
    image = _random(1, 3, 8, 8)
    with pytest.raises(BitfabError, match="no calibration inputs"):
        quantize_mixed(net, [])
    with pytest.raises(BitfabError, match="conv: NaN or infinite values in its inputs"):
        quantize_mixed(net, [torch.full_like(image, torch.nan)])
    with pytest.raises(BitfabError, match="nothing to quantize"):
        quantize_mixed(nn.ReLU(), [image])
    with pytest.raises(BitfabError, match="conv: weights of 12 bits"):
        quantize_mixed(net, [image], Recipe(12))
    with pytest.raises(BitfabError, match="are for integer graphs"):
        quantize_mixed(net, [image], Recipe(adaround=AdaRound()))
    with pytest.raises(BitfabError, match="no layer matches 'nope'"):
        quantize_mixed(net, [image], Recipe(exclude=("nope",)))
    with pytest.raises(BitfabError, match="channel_groups 0"):
        quantize_mixed(net, [image], channel_groups=0)


def test_layers_of_one_input_channel() -> None:
    """torch's product of int8 matrices reads beyond a matrix of one column."""
    torch.manual_seed(0)
    x = _random(6, 1)
    net = nn.Linear(1, 7)
    torch.testing.assert_close(quantize_dynamic(net)(x), net(x), rtol=0, atol=0.02)
    torch.testing.assert_close(quantize_mixed(net, [x]).module(x), net(x), rtol=0, atol=0.02)


def attention_onnx(path: Path) -> None:
    """A transformer's block in ONNX: layer norm, attention of two heads' worth of channels, an MLP with GELU."""
    rng = np.random.default_rng(0)
    constants, nodes = [], []

    def weight(*shape: int) -> str:
        constants.append(numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), f"w{len(constants)}"))
        return constants[-1].name

    def node(kind: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{kind}_{len(nodes)}"], f"{kind}_{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    normed = node("LayerNormalization", "x", weight(16), weight(16))
    q, k, v = (node("MatMul", normed, weight(16, 16)) for _ in range(3))
    scores = node("Softmax", node("MatMul", q, node("Transpose", k, perm=[0, 2, 1])))
    x = node("Add", "x", node("MatMul", scores, v))
    y = node("Add", x, node("MatMul", node("Gelu", node("MatMul", x, weight(16, 32))), weight(32, 16)))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5, 16]) for name in ("x", y)]
    graph = helper.make_graph(nodes, "block", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def test_a_transformer_from_onnx(tmp_path: Path) -> None:
    """Its weights and its products of activations become integer; softmax, layer norm and GELU stay float."""
    attention_onnx(tmp_path / "block.onnx")
    net = load_onnx(tmp_path / "block.onnx")
    torch.manual_seed(0)
    x = torch.randn(4, 5, 16)
    mixed = quantize_mixed(net, [x])
    assert [layer.kind for layer in mixed.layers] == ["Linear"] * 3 + ["MatMul"] * 2 + ["Linear"] * 2
    assert mixed.integer_share == 1.0
    with torch.no_grad():
        exact, found = net(x), mixed.module(x)
    assert 0 < (found - exact).norm() / exact.norm() < 0.05
    with pytest.raises(BitfabError, match="quantize_mixed"):
        capture(net, x)
