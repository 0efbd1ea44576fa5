"""Two small INT8 networks for comparisons of hardware, and their integers written down for other tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import bitfab as bf
from benchmarks.models import datasets
from benchmarks.models.mlp import JETS, mlp
from benchmarks.models.training import Data, Schedule, accuracy, train
from bitfab.data import digits as digit_images
from bitfab.dtypes import IntArray, Rounding, ScaleKind
from bitfab.hw import Folding, Multiplier
from bitfab.ir.graph import Graph
from bitfab.ir.ops import Conv2d, Dense, MaxPool2d, Requantize, Reshape
from bitfab.ir.run_fast import run_fast

# Powers of two: a requantize is a shift, in every tool. 0.8 points below real scales on the jets.
RECIPE = bf.Recipe(scale=ScaleKind.PO2)


@dataclass(frozen=True)
class Network:
    """How a network is trained, and its foldings for the fewest cycles at about NNgen's LUTs and at most 16 DSPs."""

    build: Callable[[], nn.Module]
    data: Callable[[], Data]
    schedule: Schedule
    foldings: Mapping[str, Folding]


@dataclass(frozen=True)
class Trained:
    """The integer graph, the test inputs as its integers, and top-1 on them, of the float network too, in percent."""

    graph: Graph
    x: IntArray
    real: float
    integer: float


def conv_net() -> nn.Module:
    """3x3x4 without padding, 2x2 max pool, dense: (N, 1, 8, 8) to ten logits; 406 weights."""
    conv = nn.Conv2d(1, 4, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10))


def _digits() -> Data:
    found = digit_images.load()
    x, y, test, truth = (
        torch.from_numpy(part)
        for part in (found.train_images, found.train_labels, found.test_images, found.test_labels)
    )
    return Data(x, y, test, truth)


NETWORKS = {
    "jets": Network(
        lambda: mlp(JETS),
        datasets.jets,
        Schedule(epochs=30),
        {
            "layer_0": Folding(2, 4, Multiplier.LUTS),
            "layer_3": Folding(2, 8, Multiplier.DSP),
            "layer_6": Folding(2, 4, Multiplier.LUTS),
            "layer_9": Folding(1, 4, Multiplier.LUTS),
        },
    ),
    "digits": Network(
        conv_net,
        _digits,
        Schedule(epochs=60, batch=32),
        {"layer_0": Folding(4, 1, Multiplier.DSP), "layer_5": Folding(5, 2, Multiplier.DSP)},
    ),
}


@cache
def trained(name: str) -> Trained:
    """The network trained from seed 0 and quantized with `RECIPE`."""
    chosen = NETWORKS[name]
    data = chosen.data()
    torch.manual_seed(0)
    net = train(chosen.build(), data, chosen.schedule, seed=0)
    graph = bf.quantize(net, [data.train[:2000]], RECIPE, name)
    x = bf.as_integers(graph, data.test.numpy())
    right = np.asarray(run_fast(graph, x)).argmax(axis=1) == data.truth.numpy()
    return Trained(graph, x, accuracy(net, data), 100 * float(right.mean()))


def write_integers(graph: Graph, x: IntArray, file: Path) -> None:
    """What the peers read (`benchmarks/peers/hardware_da4ml.py` says what it holds), for chains of layers."""
    found: dict[str, Any] = {"x": x}
    layers = 0
    for node in graph:
        match node.op:
            case Conv2d() | Dense():
                found |= {f"weight{layers}": node.op.weight, f"bias{layers}": node.op.bias, f"pool{layers}": False}
            case Requantize():
                plain = (node.op.multiplier == 1).all() and node.op.rounding is Rounding.HALF_UP
                assert plain and node.op.input_zero == 0, node
                found |= {f"shift{layers}": node.op.shift, f"zero{layers}": node.op.output_zero}
                layers += 1
            case MaxPool2d():
                found[f"pool{layers - 1}"] = True
            case Reshape():
                pass
            case _:
                raise AssertionError(node)
    np.savez(file, **(found | {"layers": layers}))
