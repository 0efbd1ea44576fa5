"""Block reconstruction: where a network is parted, and what its blocks learn together."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfab.frontend.torch import capture
from bitfab.quant import AdaRound, Override, Recipe, calibrate, choose, fold, lower_choices
from bitfab.quant import reconstruct as reconstruct_module
from bitfab.quant.adaround import adaround
from bitfab.quant.encodings import Encoding, choose_encodings
from bitfab.quant.fold import output_first
from bitfab.quant.plan import Plan, make_plan
from bitfab.quant.reconstruct import blocks, reconstruct
from bitfab.quant.simulate import Simulation
from bitfab.quant.weights import LayerWeights, quantize_weights

OPTIONS = AdaRound(iterations=100, blocks=True)


class Residual(nn.Module):
    """A stem, two residual blocks of two layers, and a head; small enough to learn in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU6(), nn.Conv2d(16, 8, 3, padding=1))
        self.down = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1, groups=12))
        self.side = nn.Conv2d(8, 12, 1, 2)
        self.back = nn.ConvTranspose2d(12, 6, 2, 2, groups=2)
        self.head = nn.Sequential(nn.ReLU(), nn.AvgPool2d(5), nn.Flatten(), nn.Linear(6 * 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.first(x))
        x = self.down(x) + self.side(x)
        return self.head(self.back(x))


Prepared = tuple[Plan, Mapping[str, LayerWeights], Mapping[str, Encoding], Tensor]


@functools.cache
def _module() -> Any:
    torch.manual_seed(0)
    return fold(capture(Residual().eval(), torch.zeros(1, 3, 10, 10)))


def _images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(128, 3, 10, 10)).astype(np.float32))


def _prepared(**choices: Any) -> Prepared:
    recipe = Recipe(weights=3, **choices)
    plan = make_plan(_module(), recipe)
    encodings = choose_encodings(plan, calibrate(_module(), [_images()], recipe))
    return plan, quantize_weights(plan, encodings), encodings, _images()


def _noise(plan: Plan, weights: Mapping[str, LayerWeights], encodings: Mapping[str, Encoding], x: Tensor) -> float:
    real = Simulation(plan)(x)
    return float((Simulation(plan, weights, encodings)(x) - real).square().mean() / real.square().mean())


def _unseen() -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).normal(size=(128, 3, 10, 10)).astype(np.float32))


def test_blocks_part_the_network_where_one_value_is_alive() -> None:
    plan = _prepared()[0]
    found = [[str(n.target) for n in block if n in plan.weighted()] for block in blocks(plan)]
    assert found == [["stem.0", "first.0", "first.2"], ["down.0", "down.2", "side"], ["back", "head.3"]]
    assert [n for block in blocks(plan) for n in block] == [n for n in plan.layers if n.op != "placeholder"]
    for block in blocks(plan)[:-1]:
        assert block[-1] not in plan.fused  # its activation is in the block as well
        assert {source for node in block for source in node.all_input_nodes} - set(block) == {
            block[0].all_input_nodes[0]
        }


def test_blocks_learn_better_than_layers() -> None:
    plan, weights, encodings, images = _prepared()
    told: list[tuple[str, int, int]] = []
    learned = reconstruct(plan, weights, encodings, images, OPTIONS, lambda *t: told.append(t))
    assert told == [("block reconstruction", done, 3) for done in (1, 2, 3)]
    layered = adaround(plan, weights, encodings, images, replace(OPTIONS, blocks=False))
    nearest, layers, together = (_noise(plan, w, encodings, _unseen()) for w in (weights, layered, learned))
    assert together < 0.8 * layers and together < 0.3 * nearest, (nearest, layers, together)
    again = reconstruct(plan, weights, encodings, images, OPTIONS)
    for name, chosen in learned.items():
        assert np.array_equal(chosen.codes, again[name].codes) and np.array_equal(chosen.bias, again[name].bias)


def test_codes_are_the_floor_or_the_ceiling_and_scales_stay_near() -> None:
    plan, weights, encodings, images = _prepared()
    learned = reconstruct(plan, weights, encodings, images, OPTIONS)
    for node, layer in plan.weighted().items():
        given, chosen = weights[node.name], learned[node.name]
        exact = output_first(layer).detach().double().numpy()
        steps = exact / given.scales.reshape(-1, *(1,) * (exact.ndim - 1))
        assert np.abs(chosen.codes).max() <= 3
        assert (np.abs(chosen.codes - steps.clip(-3, 3)) < 1).all()
        assert (np.abs(np.log(chosen.scales / given.scales)) <= 0.5).all()
        assert chosen.codes.dtype == given.codes.dtype and chosen.codes.shape == given.codes.shape


@pytest.mark.parametrize(("choices", "moves"), [({"scale": "po2"}, False), ({"per_channel": False}, True)])
def test_scales_keep_their_kind(choices: dict[str, Any], moves: bool) -> None:
    plan, weights, encodings, images = _prepared(**choices)
    learned = reconstruct(plan, weights, encodings, images, OPTIONS)
    for name, chosen in learned.items():
        if not moves:
            assert np.array_equal(chosen.scales, weights[name].scales)
        assert (chosen.scales == chosen.scales[0]).all() or plan.recipes[_node(plan, name)].weights.per_channel
    assert moves == any((learned[name].scales != weights[name].scales).any() for name in learned)
    assert _noise(plan, learned, encodings, _unseen()) < _noise(plan, weights, encodings, _unseen())


def test_weights_on_other_levels_stay_as_they_are() -> None:
    plan, weights, encodings, images = _prepared(overrides={"first.0": Override(levels="po2")})
    for learned in (f(plan, weights, encodings, images, OPTIONS) for f in (reconstruct, adaround)):
        changed = {
            n.target for n in plan.weighted() if not np.array_equal(learned[n.name].codes, weights[n.name].codes)
        }
        assert "first.0" not in changed and "first.2" in changed


def test_blocks_that_are_too_large_learn_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, weights, encodings, images = _prepared()
    monkeypatch.setattr(reconstruct_module, "LAYERS", (9, 2))
    learned = reconstruct(plan, weights, encodings, images, OPTIONS)
    layered = adaround(plan, weights, encodings, images, OPTIONS)
    assert all(np.array_equal(learned[name].codes, layered[name].codes) for name in learned)


def test_windows_of_large_images_teach_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, weights, encodings, images = _prepared()
    monkeypatch.setattr(reconstruct_module, "CROP", 6)
    learned = reconstruct(plan, weights, encodings, images, OPTIONS)
    assert _noise(plan, learned, encodings, _unseen()) < 0.5 * _noise(plan, weights, encodings, _unseen())


def test_the_recipe_switches_it_on_and_the_graph_holds_it() -> None:
    recipe = Recipe(weights=3, adaround=replace(OPTIONS, iterations=5))
    choices = choose(_module(), [_images()], recipe)
    graph = lower_choices(choices, "net", (3, 10, 10)).graph
    node = next(n for n in make_plan(_module(), recipe).weighted() if n.target == "first.2")
    held = next(n.op.weight for n in graph if n.source == "first.2" and hasattr(n.op, "weight"))
    assert np.array_equal(held, choices.weights[node.name].codes)


def _node(plan: Plan, name: str) -> Any:
    return next(node for node in plan.layers if node.name == name)
