"""The integer graph computes what the float network does, as exactly as its bits allow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from bitfab.dtypes import FloatArray, Rounding, ScaleKind, dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.ir import Graph, run, trace
from bitfab.ir import ops as ir
from bitfab.quant import Override, Quantized, Recipe, float_reference, layer_sqnr, quantize_with_reference


class Lambda(nn.Module):
    """A module around a function, with layers of its own."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer, x)


def _data(count: int, shape: tuple[int, ...], seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def _quantized(net: nn.Module, shape: tuple[int, ...], recipe: Recipe) -> Quantized:
    return quantize_with_reference(net.eval(), iter(_data(64, shape, 0)), recipe)


def _codes(graph: Graph, x: FloatArray) -> np.ndarray:
    value = graph.inputs[0]
    assert value.qparams is not None
    return quantize(x, value.qparams, value.type)


def _sqnr(quantized: Quantized, x: FloatArray) -> dict[str, float]:
    return layer_sqnr(quantized, float_reference(quantized, x), trace(quantized.graph, _codes(quantized.graph, x)))


IMAGE, VECTOR = (3, 8, 8), (20,)
NETS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "conv": (IMAGE, lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1)),
    "conv_same_groups": (IMAGE, lambda: nn.Conv2d(3, 6, (2, 4), padding="same", groups=3, bias=False)),
    "conv_dilated": (IMAGE, lambda: nn.Conv2d(3, 4, 3, dilation=2, padding=(2, 1))),
    "conv_bn_relu": (IMAGE, lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())),
    "conv_relu6": (IMAGE, lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6())),
    "conv_hardtanh": (IMAGE, lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardtanh(-0.3, 0.4))),
    "zero_pad": (IMAGE, lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(3, 4, 3, 2, 1))),
    "transpose": (IMAGE, lambda: nn.ConvTranspose2d(3, 5, 2, 2)),
    "transpose_general": (IMAGE, lambda: nn.ConvTranspose2d(6 // 2, 6, 3, (2, 3), 1, (1, 0), groups=3)),
    "linear": (VECTOR, lambda: nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))),
    "max_pool": (IMAGE, lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 2, 1), nn.ReLU())),
    "avg_pool": (IMAGE, lambda: nn.AvgPool2d(3, 2, 1)),
    "global_pool": (
        IMAGE,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    ),
    "upsample": (IMAGE, lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3))),
    "sigmoid": (IMAGE, lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid())),
    "tanh": (IMAGE, lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())),
    "silu_gelu": (IMAGE, lambda: nn.Sequential(nn.SiLU(), nn.Conv2d(3, 4, 3), nn.GELU())),
    "hardswish_leaky": (IMAGE, lambda: nn.Sequential(nn.Hardswish(), nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1))),
    "add": (IMAGE, lambda: Lambda(lambda m, x: torch.relu(m[0](x) + m[1](x)), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))),
    "double": (IMAGE, lambda: Lambda(lambda m, x: x + x)),
    "concat": (
        IMAGE,
        lambda: Lambda(
            lambda m, x: m[2](torch.cat([m[0](x), x, m[3](m[1](x))], 1)),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(3, 2, 3, padding=1),
            nn.Conv2d(9, 4, 1),
            nn.MaxPool2d(3, 1, 1),
        ),
    ),
    "nested_concat": (
        IMAGE,
        lambda: Lambda(
            lambda m, x: torch.cat([torch.cat([m[0](x), m[1](x)], 1), torch.tanh(x)], 1),
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(3, 2, 1),
        ),
    ),
    "reshape": (IMAGE, lambda: Lambda(lambda m, x: m[0](x.reshape(-1, 12, 4, 4)).flatten(1), nn.Conv2d(12, 4, 3))),
}
RECIPES = {
    "default": (Recipe(), 30),
    "mse": (Recipe(observer="mse"), 30),
    "po2": (Recipe(scale=ScaleKind.PO2), 25),
    "symmetric": (Recipe(symmetric_activations=True, per_channel=False, rounding=Rounding.HALF_EVEN), 24),
    "fine": (Recipe(weights=16, activations=16), 58),
}


@pytest.mark.parametrize("name", NETS)
def test_each_kind_of_layer_is_faithful(name: str) -> None:
    torch.manual_seed(0)
    shape, make = NETS[name]
    net = capture(make(), torch.zeros(1, *shape))
    x = _data(16, shape, 0)  # among the calibration data: nothing saturates
    for recipe, decibels in RECIPES.values():
        quantized = _quantized(net, shape, recipe)
        ratios = _sqnr(quantized, x)
        assert min(ratios.values()) > decibels, (recipe, ratios)
        _check_names(quantized.graph)


def _check_names(graph: Graph) -> None:
    names = list(graph.values)
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in names)
    assert len({name.lower() for name in names}) == len(names)


@st.composite
def _nets(draw: st.DrawFn) -> nn.Module:
    """A random chain of layers, with skips that join by add or concat."""
    torch.manual_seed(draw(st.integers(0, 9999)))
    channels, layers = 2, []
    for _ in range(draw(st.integers(1, 4))):
        outputs = draw(st.integers(1, 6))
        kernel = draw(st.sampled_from([1, 2, 3, 5]))
        layers += [nn.Conv2d(channels, outputs, kernel, padding=draw(st.sampled_from([0, kernel // 2])))]
        layers += draw(
            st.sampled_from([[], [nn.BatchNorm2d(outputs), nn.ReLU()], [nn.SiLU()], [nn.ReLU6()], [_Join(outputs)]])
        )
        channels = outputs
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 2, 2))


class _Join(nn.Module):
    """x + conv(x), concatenated with x, pooled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.merge = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([x, torch.relu(x + self.conv(x))], 1))


@given(net=_nets(), recipe=st.sampled_from(list(RECIPES)))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_random_networks_are_faithful(net: nn.Module, recipe: str) -> None:
    choice, decibels = RECIPES[recipe]
    quantized = _quantized(net, (2, 16, 16), choice)
    ratios = _sqnr(quantized, _data(8, (2, 16, 16), 0))
    assert min(ratios.values()) > decibels - 10, ratios


class _FakeQuantized(fx.Interpreter):
    """The float network in float64 whose weights and activations are rounded to the graph's scales."""

    def __init__(self, quantized: Quantized) -> None:
        super().__init__(quantized.module.double())
        values, self.rounded = quantized.graph.values, {}
        for name, node in quantized.meaning.items():
            if not re.search(r"_requantize_\d", name) and values[name].type.bits <= 8:
                self.rounded[node] = values[name]
        for graph_node in quantized.graph:
            if isinstance(graph_node.op, ir.Conv2d | ir.ConvTranspose2d | ir.Dense):
                x = values[graph_node.inputs[0]].qparams
                assert x is not None and graph_node.output.qparams is not None
                _round_layer(self.module.get_submodule(graph_node.source), x.scale[0], graph_node.output.qparams.scale)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name not in self.rounded:
            return result
        value = self.rounded[n.name]
        scale, zero = value.qparams.scale[0], value.qparams.zero_point
        codes = torch.floor(result / scale + 0.5) + zero
        return (codes.clamp(value.type.low, value.type.high) - zero) * scale


def _round_layer(layer: Any, x_scale: float, acc_scale: tuple[float, ...]) -> None:
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    acc = torch.tensor(acc_scale, dtype=torch.float64)
    scale = (acc / x_scale).reshape([-1 if i == axis else 1 for i in range(layer.weight.ndim)])
    with torch.no_grad():
        layer.weight.copy_(torch.round(layer.weight / scale) * scale)
        layer.bias.copy_(torch.round(layer.bias / acc) * acc)


def _po2_network(m: nn.ModuleList, x: Tensor) -> Tensor:
    first = torch.relu(m[0](x))
    second = m[1](nn.functional.max_pool2d(first, 2))
    joined = torch.cat([first, m[2](second)], 1)
    added = torch.relu(m[3](joined) + m[4](joined))
    return m[5](nn.functional.avg_pool2d(added + m[3](joined), 4).flatten(1))


def test_with_powers_of_two_the_graph_is_the_fake_quantized_network() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), nn.ConvTranspose2d(6, 4, 2, 2)]
    layers += [nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 3, padding=1), nn.Linear(20, 7)]
    net = Lambda(_po2_network, *layers)
    quantized = _quantized(net, IMAGE, Recipe(scale=ScaleKind.PO2))
    graph = quantized.graph
    for node in graph:
        if isinstance(node.op, ir.Requantize):
            assert (node.op.multiplier & (node.op.multiplier - 1) == 0).all()
            assert ((node.op.multiplier == 1) | (node.op.shift == 0)).all()
    codes = _codes(graph, 2 * _data(8, IMAGE, 1))  # beyond the calibrated range: saturation must agree too
    inputs, outputs = graph.inputs[0].qparams, graph.output_values[0].qparams
    assert inputs is not None and outputs is not None
    with torch.no_grad():
        fake = _FakeQuantized(quantized).run(torch.from_numpy(dequantize(codes, inputs))).numpy()
    np.testing.assert_array_equal(dequantize(run(graph, codes), outputs), fake)


def test_a_dead_channel_keeps_its_bias() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        net.weight[1], net.bias[1] = 0, 0.123
        net.weight[2], net.bias[2] = 1e-20, -0.2
        net.weight[3], net.bias[3] = 0, 0
    for recipe in (Recipe(), Recipe(per_channel=False), Recipe(scale=ScaleKind.PO2)):
        graph = _quantized(net, IMAGE, recipe).graph
        result, value = run(graph, _codes(graph, _data(4, IMAGE, 1))), graph.output_values[0]
        assert value.qparams is not None
        expected = quantize(np.array([[0.123, -0.2, 0.0]]), value.qparams, value.type)[0]
        assert (expected == np.unique(result[:, 1:].transpose(1, 0, 2, 3).reshape(3, -1), axis=1).T).all()
        assert graph.nodes[0].output.type.bits <= 28


def test_scales_too_unequal_name_the_layer() -> None:
    net = Lambda(lambda m, x: m[0](x) + x, nn.Conv2d(3, 3, 1, bias=False))
    with torch.no_grad():
        net.layer[0].weight.copy_(-(1 + 1e-6) * torch.eye(3).reshape(3, 3, 1, 1))
    with pytest.raises(BitfabError, match=r"^add: .* multiplier_bits"):
        _quantized(net, IMAGE, Recipe())


def test_outputs_keep_their_order_and_come_once() -> None:
    layers = nn.Linear(4, 3), nn.Linear(4, 2)
    swapped = _quantized(Lambda(lambda m, x: (m[1](x), m[0](x)), *layers), (4,), Recipe()).graph
    assert [value.shape for value in swapped.output_values] == [(2,), (3,)]

    def twice(m: nn.ModuleList, x: Tensor) -> tuple[Tensor, ...]:
        y = m[0](x)
        return y, y, m[1](x)

    with pytest.raises(BitfabError, match=r"^layer.0: the network returns the same integers twice; return them once$"):
        _quantized(Lambda(twice, *layers), (4,), Recipe())


def test_argmax_finds_the_class() -> None:
    torch.manual_seed(0)
    net = Lambda(lambda m, x: m[0](x).argmax(1), nn.Conv2d(3, 5, 3))
    quantized = _quantized(net, IMAGE, Recipe(weights=12, activations=16))
    x = _data(8, IMAGE, 0)
    result = run(quantized.graph, _codes(quantized.graph, x))
    assert isinstance(result, np.ndarray) and result.shape == (8, 1, 6, 6)
    assert (result[:, 0] == net(torch.from_numpy(x)).numpy()).mean() > 0.99


def test_top_k_finds_the_best_classes() -> None:
    torch.manual_seed(0)
    net = Lambda(lambda m, x: m[0](x).topk(3, dim=1).indices, nn.Conv2d(3, 5, 3))
    quantized = _quantized(net, IMAGE, Recipe(weights=12, activations=16))
    x = _data(8, IMAGE, 0)
    result = run(quantized.graph, _codes(quantized.graph, x))
    assert isinstance(result, np.ndarray) and result.shape == (8, 3, 6, 6)
    assert (result == net(torch.from_numpy(x)).numpy()).mean() > 0.99


def test_a_concat_gives_its_scale_to_what_only_it_reads() -> None:
    torch.manual_seed(0)
    net = NETS["concat"][1]()
    with torch.no_grad():
        net.layer[0].weight.mul_(10)  # a range wider than that of x
    quantized = _quantized(net, IMAGE, Recipe())
    cat = quantized.graph.values["cat"]
    feeding = next(node for node in quantized.graph if node.name == "cat").inputs
    assert feeding == ("layer_0_requantize", "cat_requantize_1", "layer_3")
    assert all(quantized.graph.values[name].qparams == cat.qparams for name in feeding)


def test_exclude_and_overrides_reach_their_layers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1))
    recipe = Recipe(exclude=("2",), overrides={"3": Override(weights=4, activations=5)})
    values = _quantized(net, IMAGE, recipe).graph
    weights = {node.name: node.op.weight for node in values if isinstance(node.op, ir.Conv2d)}
    assert [int(np.abs(weights[name]).max()) for name in ("layer_0", "layer_2", "layer_3")] == [127, 32767, 7]
    bits = [values.values[f"layer_{i}_requantize"].type.bits for i in (0, 2, 3)]
    assert bits == [8, 16, 5]


def test_same_input_same_graph() -> None:
    def digest() -> str:
        torch.manual_seed(0)
        graph = _quantized(NETS["concat"][1](), IMAGE, Recipe(observer="mse")).graph
        tensors = [value.tobytes() for n in graph for value in vars(n.op).values() if isinstance(value, np.ndarray)]
        return f"{[str(node) for node in graph]} {tensors}"

    assert digest() == digest()
