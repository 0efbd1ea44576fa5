"""Each step of post-training quantization does what it promises, alone and in the pipeline."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from bitfab.dtypes import FloatArray, dequantize, quantize
from bitfab.frontend.torch import capture
from bitfab.ir import Graph, run
from bitfab.quant import (
    AdaRound,
    Choices,
    Override,
    Recipe,
    absorb_high_bias,
    calibrate,
    choose,
    equalize,
    fold,
    lower_choices,
    replace_relu6,
)
from bitfab.quant.adaround import adaround
from bitfab.quant.bias_correction import correct_bias, correct_bias_analytically
from bitfab.quant.encodings import choose_encodings
from bitfab.quant.fold import output_first
from bitfab.quant.plan import make_plan
from bitfab.quant.simulate import Simulation, Twin
from bitfab.quant.statistics import KEY, propagate
from bitfab.quant.weights import quantize_weights

SHAPE = (3, 10, 10)


def _net(activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Module:
    """Every kind of weighted layer in one chain, batch norms that fit the data included."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), activation()),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), activation()),
        *(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.MaxPool2d(2), activation()),
        *(nn.Conv2d(12, 6, 3, 2, 1, groups=2), nn.ReLU()),
        *(nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * 36, 10), nn.ReLU(), nn.Linear(10, 4)),
    )
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.3, 2)
                module.bias.normal_()
                module.momentum = None  # the statistics of this very data
        net.train()
        net(torch.from_numpy(_data(64, seed)))
    return net.eval()


def _data(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


@functools.cache
def _captured(activation: type[nn.Module], seed: int) -> fx.GraphModule:
    return fold(capture(_net(activation, seed), torch.zeros(1, *SHAPE)))


def _folded(activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> fx.GraphModule:
    return copy.deepcopy(_captured(activation, seed))


def _unequal(module: fx.GraphModule, seed: int = 0) -> fx.GraphModule:
    """The same function with channel ranges that differ by up to a thousand: the inverse of an equalization."""
    generator = torch.Generator().manual_seed(seed)
    layers = dict(module.named_modules())
    with torch.no_grad():
        for first, second in (("0", "3"), ("3", "6")):
            scale = 10 ** (torch.rand(8, generator=generator) * 3 - 1.5)
            node = next(n for n in module.graph.nodes if n.target == first)
            node.meta[KEY] = node.meta[KEY].affine(scale.double(), torch.zeros(8).double())
            a, b = layers[first], layers[second]
            a.weight.mul_(scale[:, None, None, None])
            a.bias.mul_(scale)
            b.weight.div_(scale[:, None, None, None] if second == "3" else scale[None, :, None, None])
    return module


def _run(graph: Graph, x: FloatArray) -> FloatArray:
    source, result = graph.inputs[0], graph.output_values[0]
    assert source.qparams is not None and result.qparams is not None
    codes = run(graph, quantize(x, source.qparams, source.type))
    assert isinstance(codes, np.ndarray)
    return dequantize(codes, result.qparams)


def _error(choices: Choices, real: nn.Module, x: FloatArray) -> float:
    with torch.no_grad():
        expected = real(torch.from_numpy(x)).numpy()
    return float(
        np.square(_run(lower_choices(choices, "net", SHAPE).graph, x) - expected).mean() / np.square(expected).mean()
    )


@given(seed=st.integers(0, 999))
@settings(max_examples=5, deadline=None, derandomize=True)
def test_equalization_keeps_the_function_and_evens_out_the_ranges(seed: int) -> None:
    module = _unequal(_folded(seed=seed % 3), seed)
    even = equalize(module)
    x = torch.from_numpy(_data(8, seed))
    torch.testing.assert_close(even(x), module(x), rtol=1e-3, atol=1e-4)
    layers = dict(even.named_modules())
    for first, second in (("0", "3"), ("3", "6")):
        outgoing = layers[first].weight.abs().amax((1, 2, 3))
        incoming = layers[second].weight.abs().amax((1, 2, 3) if second == "3" else (0, 2, 3))
        torch.testing.assert_close(outgoing, incoming, rtol=1e-2, atol=0)


def test_equalization_reaches_through_flatten_transposed_and_grouped_layers() -> None:
    layers = dict(equalize(_folded()).named_modules())
    conv, back, dense = layers["10"].weight, layers["12"].weight, layers["15"].weight
    torch.testing.assert_close(conv.abs().amax((1, 2, 3)), back.abs().amax((1, 2, 3)), rtol=1e-2, atol=0)
    outgoing = back.reshape(2, 3, 2, 9).abs().amax((1, 3)).flatten()
    torch.testing.assert_close(outgoing, dense.reshape(10, 4, 36).abs().amax((0, 2)), rtol=1e-2, atol=0)


def test_equalization_stops_at_relu6_unless_it_is_replaced() -> None:
    module = _folded(nn.ReLU6)
    even = equalize(module)
    for path in ("0", "3"):
        assert torch.equal(even.get_submodule(path).weight, module.get_submodule(path).weight)
    open_ended = replace_relu6(module)
    assert not any(isinstance(m, nn.ReLU6) for m in open_ended.modules())
    x = torch.from_numpy(_data(4, 1))
    torch.testing.assert_close(equalize(open_ended)(x), open_ended(x), rtol=1e-3, atol=1e-4)


def test_high_biases_move_to_the_next_layer() -> None:
    net = _net()
    with torch.no_grad():
        net[4].bias[:3] += 20
    module = fold(capture(net, torch.zeros(1, *SHAPE)))
    absorbed = absorb_high_bias(module)
    x = torch.from_numpy(_data(32, 5))
    torch.testing.assert_close(absorbed(x), module(x), rtol=0.05, atol=0.05)
    before, after = (m.get_submodule("3").bias for m in (module, absorbed))
    assert (before - after)[:3].min() > 10 and (before - after)[3:].abs().max() < 3
    assert torch.equal(absorbed.get_submodule("0").bias, module.get_submodule("0").bias)  # the next layer pads


def test_equalization_rescues_weights_of_one_scale() -> None:
    module, x = _unequal(_folded()), _data(64, 1)
    errors = [_error(choose(module, [x], Recipe(per_channel=False, equalize=e)), module, x) for e in (False, True)]
    assert errors[0] > 50 * errors[1] and errors[1] < 1e-3, errors


def test_statistics_follow_from_batch_norm() -> None:
    module = _folded()
    seen: dict[str, Tensor] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    Watch(module).run(torch.from_numpy(_data(256, 0)))
    known = propagate(module)
    names = {str(node.target) for node in known}
    assert names == {"0", "2", "3", "5", "6", "8", "9"}
    for node, statistics in known.items():
        if node.target not in ("8", "9"):  # of a max pool they are a rough guess
            measured = seen[node.name].detach().double()
            assert (statistics.mean - measured.mean((0, 2, 3))).abs().max() < 0.25
            assert float(statistics.high.max()) > float(measured.quantile(0.999))  # tails are heavier than normal


@pytest.mark.parametrize("observer", ["entropy", "batch_norm", "mse"])
def test_observers_give_usable_ranges(observer: Any) -> None:
    module, x = _folded(), _data(64, 1)
    assert _error(choose(module, [x], Recipe(observer=observer)), module, x) < 0.01


def test_batch_norm_ranges_need_no_data() -> None:
    module = _folded()
    small, large = (calibrate(module, [scale * _data(4, 0)], Recipe(observer="batch_norm")) for scale in (0.1, 1))
    first = next(n.name for n in module.graph.nodes if n.target == "0")
    assert small[first] == large[first] and small[first][0] == 0
    source = next(iter(module.graph.nodes)).name
    assert small[source][1] < 0.2 * large[source][1]


def _prepared(bits: int = 4) -> tuple[Any, Any, Any, fx.GraphModule, Tensor]:
    module, x = _folded(), _data(64, 1)
    plan = make_plan(module, Recipe(weights=bits))
    encodings = choose_encodings(plan, calibrate(module, [x], Recipe(weights=bits)))
    return plan, quantize_weights(plan, encodings), encodings, module, torch.from_numpy(x)


def _mean_errors(plan: Any, weights: Any, encodings: Any, images: Tensor) -> list[float]:
    """The mean error of each layer's input, the first layer's aside, in the worst channel."""
    twin, errors = Twin(Simulation(plan), Simulation(plan, weights, encodings), images), []
    for node in list(plan.weighted())[1:]:
        real, coded = (torch.cat(parts) for parts in zip(*twin.inputs(node), strict=True))
        axes = tuple(i for i in range(real.ndim) if i != 1)
        errors.append(float((real - coded).mean(axes).abs().max()))
    return errors


def test_bias_correction_takes_the_mean_error_out() -> None:
    plan, weights, encodings, _, images = _prepared()
    corrected = correct_bias(plan, weights, encodings, images)
    before, after = (_mean_errors(plan, w, encodings, images) for w in (weights, corrected))
    assert sum(after) < 0.7 * sum(before), (before, after)
    assert all(np.array_equal(corrected[name].codes, weights[name].codes) for name in weights)


def test_analytic_bias_correction_needs_no_data() -> None:
    plan, weights, encodings, _, images = _prepared()
    corrected = correct_bias_analytically(plan, weights)
    changed = [name for name in weights if not np.array_equal(corrected[name].bias, weights[name].bias)]
    assert [str(n.target) for n in plan.weighted() if n.name in changed] == ["3", "6", "10"]
    before, after = (_mean_errors(plan, w, encodings, images) for w in (weights, corrected))
    assert sum(after[:3]) < 0.8 * sum(before[:3]), (before, after)


def test_adaround_beats_rounding_to_nearest_and_reaches_the_graph() -> None:
    plan, weights, encodings, module, images = _prepared(bits=3)
    told: list[tuple[str, int, int]] = []
    learned = adaround(plan, weights, encodings, images, AdaRound(iterations=200), lambda *t: told.append(t))
    assert told[-1] == ("adaround", 7, 7)
    for node, layer in plan.weighted().items():
        chosen, exact = learned[node.name], output_first(layer).detach().numpy()
        limit = 3 * chosen.scales.reshape(-1, *(1,) * (exact.ndim - 1))
        assert np.abs(chosen.codes).max() <= 3
        assert (np.abs(chosen.values - exact.clip(-limit, limit)) < limit / 3 * 1.001).all()  # the floor or the ceiling
    recipe = Recipe(weights=3)
    nearest, best = (_error(Choices(module, recipe, encodings, w), module, images.numpy()) for w in (weights, learned))
    assert best < 0.6 * nearest, (nearest, best)
    graph = lower_choices(Choices(module, recipe, encodings, learned), "net", SHAPE).graph
    held = {node.source: node.op.weight for node in graph if hasattr(node.op, "weight")}
    for node in plan.weighted():
        weight = held[node.meta["source"]]
        assert np.array_equal(np.sort(weight, axis=None), np.sort(learned[node.name].codes, axis=None))
        assert node.target == "12" or np.array_equal(weight, learned[node.name].codes)
    again = adaround(plan, weights, encodings, images, AdaRound(iterations=200))
    assert all(np.array_equal(again[name].codes, learned[name].codes) for name in learned)


@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", ["real", "po2"])
def test_all_steps_work_in_every_combination(bits: int, per_channel: bool, symmetric: bool, scale: Any) -> None:
    recipe = Recipe(
        weights=bits,
        activations=max(bits, 4),
        per_channel=per_channel,
        symmetric_activations=symmetric,
        scale=scale,
        equalize=True,
    )
    module, x = _folded(), _data(16, 1)
    for step in ({"adaround": AdaRound(iterations=3)}, {"bias_correction": "empirical"}):
        choices = choose(module, [x], replace(recipe, **step))
        assert _error(choices, module, x) < {2: 2.0, 8: 0.05, 16: 1e-5}[bits]


def test_the_simulation_is_close_to_the_integer_graph() -> None:
    plan, weights, encodings, module, images = _prepared(bits=8)
    simulated = Simulation(plan, weights, encodings)(images).numpy()
    exact = _run(lower_choices(Choices(module, Recipe(), encodings, weights), "net", SHAPE).graph, images.numpy())
    step = encodings[list(plan.weighted())[-1].name].qparams.scale[0]
    assert np.abs(simulated - exact).max() <= 3 * step and np.abs(simulated - exact).mean() < 0.3 * step
    with torch.no_grad():
        torch.testing.assert_close(Simulation(plan)(images), module(images))


def test_bias_correction_measures_each_layers_own_error() -> None:
    """Not what the layers before got wrong: with one layer's weights exact, its bias stays."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        net[2].weight.copy_(torch.randint(-1, 2, net[2].weight.shape).float())
        net[2].weight[:, 0] = 1.0  # a scale of 1 for each channel, so that 2 bits are exact
    images = torch.rand(16, 1, 8, 8)
    module = fold(capture(net, images[:1]))
    recipe = Recipe(weights=2, overrides={"0": Override(weights=2)})
    plan = make_plan(module, recipe)
    encodings = choose_encodings(plan, calibrate(module, [images], recipe))
    weights = quantize_weights(plan, encodings)
    corrected = correct_bias(plan, weights, encodings, images)
    first, last = weights
    assert np.abs(corrected[first].bias - weights[first].bias).max() > 1e-3
    np.testing.assert_allclose(corrected[last].bias, weights[last].bias, atol=1e-6)
