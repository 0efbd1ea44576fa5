"""Weights of one bit, in groups and on uneven levels come to the integer graph, and mean there what they should."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from bitfab.dtypes import FloatArray, IntArray, dequantize, quantize
from bitfab.frontend.torch import capture
from bitfab.ir import Graph, run
from bitfab.quant import Override, Recipe, choose, fold, lower_choices
from bitfab.quant import quantize as quantize_network
from bitfab.quant.levels import level_set
from bitfab.quant.plan import make_plan
from bitfab.quant.recipe import WeightLevels
from bitfab.quant.simulate import Simulation
from bitfab.quant.weights import weight_bytes
from bitfab.summary import graph_bytes

SHAPE = (3, 8, 8)
CHOICES: dict[str, tuple[dict[str, Any], float]] = {
    "1 bit": ({"weights": 1}, 0.6),
    "1 bit, both": ({"weights": 1, "activations": 1}, 5.0),
    "1 bit in groups": ({"weights": 1, "group_size": 4}, 0.6),
    "2 bits in groups": ({"weights": 2, "group_size": 8}, 0.4),
    "4 bits in groups": ({"weights": 4, "group_size": 16}, 0.02),
    "8 bits in groups": ({"weights": 8, "group_size": 16}, 0.002),
    "po2": ({"weights": 4, "levels": "po2"}, 0.1),
    "apot": ({"weights": 4, "levels": "apot"}, 0.05),
    "codebook": ({"weights": 4, "levels": "codebook"}, 0.05),
}


@functools.cache
def _folded() -> fx.GraphModule:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU()),
        *(nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.ReLU(), nn.MaxPool2d(4)),
        *(nn.Flatten(), nn.Linear(96, 10)),
    )
    return fold(capture(net, torch.zeros(1, *SHAPE)))


def _data(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def _weights(graph: Graph) -> dict[str, IntArray]:
    return {node.source: node.op.weight for node in graph if hasattr(node.op, "weight")}


def _outputs(graph: Graph, x: FloatArray) -> FloatArray:
    source, result = graph.inputs[0].qparams, graph.output_values[0].qparams
    assert source is not None and result is not None
    codes = run(graph, quantize(x, source, graph.inputs[0].type))
    assert isinstance(codes, np.ndarray)
    return dequantize(codes, result)


@pytest.mark.parametrize(("scale", "per_channel"), [("real", True), ("po2", False)])
@pytest.mark.parametrize("name", CHOICES)
def test_the_integer_graph_computes_what_the_weights_mean(name: str, scale: Any, per_channel: bool) -> None:
    change, error = CHOICES[name]
    recipe = Recipe(**change, scale=scale, per_channel=per_channel)
    x = torch.from_numpy(_data(32, 1))
    choices = choose(_folded(), [_data(32, 0)], recipe)
    graph = lower_choices(choices, "net", SHAPE).graph
    plan = make_plan(choices.module, recipe)
    simulated = Simulation(plan, choices.weights, choices.encodings)(x).numpy()
    exact, step = _outputs(graph, x.numpy()), choices.encodings[list(plan.weighted())[-1].name].qparams.scale[0]
    if recipe.activations == 8:
        assert np.abs(simulated - exact).max() <= 4 * step
        real = Simulation(plan, {}, choices.encodings)(x).numpy()
        assert np.square(exact - real).mean() < error * np.square(real).mean() * (1 if per_channel else 2)
    for codes, held in zip(choices.weights.values(), _weights(graph).values(), strict=True):
        assert np.array_equal(np.sort(codes.codes, axis=None), np.sort(held, axis=None))


def test_each_layer_has_the_levels_it_was_given() -> None:
    overrides = {
        "0": Override(weights=1, levels="uniform"),
        "3": Override(levels="apot"),
        "5": Override(levels="codebook", weights=3),
    }
    recipe = Recipe(weights=3, levels="po2", overrides=overrides, exclude=("9",))
    weights = _weights(quantize_network(_folded(), [_data(16, 0)], recipe))
    assert np.unique(weights["0"]).tolist() == [-1, 1]
    assert np.isin(weights["3"], level_set(WeightLevels.APOT, 3)).all()
    assert len(np.unique(weights["5"])) == 8 and np.abs(weights["5"]).max() <= 127
    assert np.abs(weights["9"]).max() == 32767


@pytest.mark.parametrize(
    "change", [{"weights": 1}, {"weights": 2, "levels": "codebook"}, {"weights": 1, "group_size": 8}]
)
@pytest.mark.parametrize("scale", ["real", "po2"])
def test_a_dead_channel_keeps_its_bias_where_no_code_is_zero(change: dict[str, Any], scale: Any) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        net.weight[1], net.bias[1] = 0, 0.123
        net.weight[2], net.bias[2] = 1e-20, -0.2
        net.weight[3], net.bias[3] = 0, 0
    graph = quantize_network(net, [_data(16, 0)], Recipe(**change, scale=scale))
    result, step = _outputs(graph, _data(4, 1)), graph.output_values[0].qparams
    assert step is not None
    for channel, expected in ((1, 0.123), (2, -0.2), (3, 0.0)):
        assert np.abs(result[:, channel] - expected).max() <= step.scale[0]


def test_sizes_count_stored_bits() -> None:
    module, biases = capture(nn.Linear(64, 32), torch.zeros(1, 64)), 4 * 32
    expected = {
        "1 bit": 64 * 32 // 8,
        "4 bits in groups": 64 * 32 // 2 + 4 * 32 * 4 // 8,
        "codebook": 64 * 32 // 2 + 16,
        "po2": 64 * 32 // 2,
    }
    for name, size in expected.items():
        recipe = Recipe(**CHOICES[name][0])
        calibration = [np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)]
        choices = choose(module, calibration, recipe)
        assert weight_bytes(make_plan(choices.module, recipe), choices.weights) == size + biases
        held = graph_bytes(lower_choices(choices, "net", (64,)).graph)
        levels = len(np.unique(next(iter(choices.weights.values())).codes))
        table = {"codebook": 0, "po2": levels, "1 bit": 0}  # the codebook counts already; a po2 level takes 8 bits
        assert held == size + biases + table[name] if name in table else held > size + biases
