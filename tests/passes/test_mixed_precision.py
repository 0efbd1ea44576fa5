"""Bits for each layer."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitfab.data import digits, qubit
from bitfab.dtypes import dequantize
from bitfab.dtypes import quantize as to_codes
from bitfab.errors import BitfabError
from bitfab.ir.run_fast import run_fast
from bitfab.quant import Override, Recipe, quantize
from bitfab.quant.mixed_precision import choose_bits, solve
from bitfab.zoo import load


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(20, 80))
def test_the_integer_program_finds_the_best(seed: int, layers: int, tenths: int) -> None:
    rng, average = np.random.default_rng(seed), tenths / 10  # the solver lets 1e-6 pass
    candidates, sizes = (2, 4, 8), rng.integers(1, 1000, layers)
    errors = np.sort(rng.random((layers, 3)), axis=1)[:, ::-1]
    found = solve(errors, sizes, candidates, average)

    def cost(bits: tuple[int, ...] | list[int]) -> float:
        return sum(errors[layer, candidates.index(b)] for layer, b in enumerate(bits))

    fitting = [b for b in itertools.product(candidates, repeat=layers) if np.dot(b, sizes) <= average * sizes.sum()]
    assert np.dot(found, sizes) <= average * sizes.sum() * (1 + 1e-6)
    assert cost(found) == pytest.approx(min(cost(b) for b in fitting), rel=1e-6)


def test_the_same_size_with_half_the_error() -> None:
    pytest.importorskip("simcats")
    net, images = load("qubit-447"), qubit.generate(24, 5)[0]
    base = Recipe(observer="mse", overrides={"head": Override(weights=2, activations=7)})
    recipe = choose_bits(net, [images[:16]], 4.0, recipe=base)
    layers = {n: module for n, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)}
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    assert sum(recipe.overrides[name].weights * sizes[name] for name in layers) <= 4.0 * sum(sizes.values())
    assert recipe.overrides["head"].activations == 7
    uniform = Recipe(weights=4, observer="mse", overrides={"head": Override(activations=7)})
    tests = images[16:]
    assert _error(net, images[:16], tests, recipe) < 0.5 * _error(net, images[:16], tests, uniform)


def _error(net: nn.Module, calibration: np.ndarray, tests: np.ndarray, recipe: Recipe) -> float:
    """Mean squared error of the integer graph's output."""
    graph = quantize(net, [calibration], recipe)
    source, output = graph.inputs[0], graph.output_values[0]
    codes = run_fast(graph, to_codes(tests, source.qparams, source.type))
    return float(np.square(dequantize(codes, output.qparams) - net(torch.from_numpy(tests)).detach().numpy()).mean())


@pytest.mark.parametrize(("average", "candidates"), [(1.5, (2, 4)), (4.0, ())])
def test_an_average_out_of_reach_is_refused(average: float, candidates: tuple[int, ...]) -> None:
    with pytest.raises(BitfabError, match="cannot reach it"):
        choose_bits(load("digits"), [digits.load().train_images[:8]], average, candidates)
