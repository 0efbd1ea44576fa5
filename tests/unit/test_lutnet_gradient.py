"""LUT networks trained by gradients: the hardened network is the module, it learns, and bad input is told."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.ir.ops import Bits, Compare, Lut
from bitfab.ir.run import run
from bitfab.lutnet import Features, LutNetwork, lower, raw_bits, thermometer
from bitfab.lutnet.gradient import Settings, TrainedNetwork, train
from bitfab.lutnet.lut_layer import LutLayer, _difference_weights

BYTES = Features(6, IntType(8, signed=False))
QUICK = Settings(epochs=4, batch=64)


def _problem(count: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Three classes: which of the first three features is the largest; the other three tell nothing."""
    x = np.random.default_rng(0).integers(0, 256, (count, 6))
    return x, x[:, :3].argmax(1)


def _right(network: LutNetwork, x: np.ndarray, y: np.ndarray) -> float:
    answers = run(lower(network, "test"), x)
    assert isinstance(answers, np.ndarray)
    return float((answers[:, 0] == y).mean())


@pytest.mark.parametrize(
    ("widths", "learned", "fan_in"), [((30,), 1, 6), ((40, 12), 2, 4), ((20, 9), 0, 3), ((30,), 1, 1)]
)
@pytest.mark.parametrize("encoder", [thermometer(_problem()[0], 7), raw_bits(BYTES)])
def test_the_hardened_network_is_the_module(
    widths: tuple[int, ...], learned: int, fan_in: int, encoder: Compare | Bits
) -> None:
    x, _ = _problem(400)
    net = TrainedNetwork(encoder, widths, 3, fan_in, Settings(learned=learned, dropout=0.5, seed=3)).eval()
    answers = run(lower(net.harden(BYTES), "test"), x)
    assert isinstance(answers, np.ndarray)
    assert np.array_equal(answers[:, 0], net(torch.from_numpy(x)).argmax(1).numpy())
    assert len(np.unique(answers)) > 1


def test_it_learns_what_random_tables_do_not_know() -> None:
    x, y = _problem()
    steps: list[tuple[str, int, int]] = []
    network = train(
        BYTES,
        thermometer(x, 7),
        (60,),
        x,
        y,
        3,
        Settings(epochs=8, batch=64),
        progress=lambda *step: steps.append(step),
    )
    fresh = np.random.default_rng(1).integers(0, 256, (1000, 6))
    assert _right(network, fresh, fresh[:, :3].argmax(1)) > 0.85
    assert steps == [("training", epoch, 8) for epoch in range(1, 9)]
    assert network.tables == 60 and network.classes == 3


def test_it_finds_the_features_that_matter() -> None:
    x, y = _problem()
    encoder = thermometer(x, 7)
    (layer,) = train(BYTES, encoder, (60,), x, y, 3, Settings(epochs=8, batch=64)).layers
    assert (encoder.channel[layer.wiring] < 3).mean() > 0.7  # half of them at random


def test_a_second_layer_passes_gradients_on() -> None:
    """The parity of four bits: tables of two inputs, counted, know nothing of it; two layers of them do."""
    x = np.random.default_rng(0).integers(0, 2, (2000, 4))
    features, y = Features(4, IntType(1, signed=False)), x.sum(1) % 2
    settings = Settings(epochs=12, batch=64, learned=2)
    assert _right(train(features, raw_bits(features), (64, 64), x, y, 2, settings, fan_in=2), x, y) > 0.95
    assert _right(train(features, raw_bits(features), (64,), x, y, 2, settings, fan_in=2), x, y) < 0.8


def test_one_seed_is_one_network() -> None:
    x, y = _problem(600)
    networks = [
        train(BYTES, raw_bits(BYTES), (12,), x, y, 3, dataclasses.replace(QUICK, seed=seed, dropout=0.2))
        for seed in (5, 5, 6)
    ]
    first, again, other = (network.layers[0] for network in networks)
    assert np.array_equal(first.table, again.table) and np.array_equal(first.wiring, again.wiring)
    assert not np.array_equal(first.table, other.table)


def test_differences_are_those_of_the_definition() -> None:
    """Of an entry's two neighbours along an input: +1 and -1; of all others the same, less the farther they are."""
    weights = _difference_weights(3).numpy()
    assert weights[0, 0b001, 0b000] == 1 and weights[0, 0b000, 0b000] == -1 and weights[0, 0b001, 0b001] == 1
    assert weights[1, 0b110, 0b001] == pytest.approx(1 / 3)
    assert weights[2, 0b011, 0b000] == pytest.approx(-1 / 3)
    assert np.allclose(weights.sum(1), 0, atol=1e-6)  # a constant table has no slope


def test_each_bit_is_dealt_to_one_input() -> None:
    layer = LutLayer(18, 50, 6, True, torch.Generator().manual_seed(0))
    assert sorted(layer.choices.flatten().tolist()) == list(range(18))
    hardened = layer.harden()
    assert isinstance(hardened, Lut) and all(len(set(row)) == 6 for row in hardened.wiring.tolist())


def test_the_package_loads_no_torch() -> None:
    command = "import sys, bitfab.lutnet; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": np.full(80, 3)}, "labels 3 to 3: 0 to 2 expected"),
        ({"labels": np.zeros(79, int)}, "one integer for each of the 80 samples"),
        ({"samples": np.zeros((80, 6))}, "integers (N, 6) expected"),
        ({"samples": np.zeros((80, 5), int)}, "integers (N, 6) expected"),
        ({"samples": np.full((80, 6), 256)}, "the network reads 0 to 255"),
        ({"samples": np.zeros((0, 6), int), "labels": np.zeros(0, int)}, "no samples"),
        ({"classes": 1, "labels": np.zeros(80, int)}, "at least 2"),
        ({"widths": (10,)}, "use 9 or 12"),
        ({"widths": (2,)}, "use 3"),
        ({"widths": ()}, "one positive width a layer"),
        ({"fan_in": 7}, "a fan-in of 1 to 6"),
        ({"settings": Settings(epochs=0)}, "positive epochs"),
        ({"settings": Settings(dropout=1.0)}, "a dropout below 1"),
        ({"settings": Settings(temperature=-1.0)}, "a positive number"),
        ({"settings": Settings(temperature=1e-45, epochs=1)}, "lower the learning rate"),
    ],
)
def test_bad_input_is_told_in_one_line(changes: dict[str, object], told: str) -> None:
    x, y = _problem(80)
    arguments: dict[str, object] = {
        "features": BYTES,
        "encoder": raw_bits(BYTES),
        "widths": (12,),
        "samples": x,
        "labels": y,
        "classes": 3,
        "settings": QUICK,
    }
    with pytest.raises(BitfabError) as failure:
        train(**(arguments | changes))
    assert told in str(failure.value) and "\n" not in str(failure.value)
