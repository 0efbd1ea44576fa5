"""A trained network quantized by bitfab, with and without further training, judged by its integer graph."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models.resnet import ResNet
from benchmarks.models.training import Data, Schedule, train
from bitfab.dtypes import quantize as to_codes
from bitfab.ir import Graph
from bitfab.ir.run_fast import run_fast
from bitfab.quant import ObserverKind, Override, Recipe, StepRule, lower, prepare, quantize

BORDER_BITS = 8  # of the input, of pooled features, of what a residual block adds, and of the logits
CALIBRATION = 256
PIECE = 500
POWERS_OF_TWO = (StepRule.TQT, StepRule.QFX)


@dataclass(frozen=True)
class Bits:
    """Bits of the weights, of the activations between layers, and of the first and last layer's weights (0: as all)."""

    weights: int
    activations: int
    ends: int = 0

    def __str__(self) -> str:
        return f"W{self.weights}A{self.activations}"


@dataclass(frozen=True)
class Outcome:
    """The integer graph, and which test inputs it gets right.

    After training also the share of output codes that the module has otherwise, the share of test inputs that it gives
    another class, and the CPU seconds that training took.
    """

    graph: Graph
    right: np.ndarray
    differing: float = 0.0
    disagreeing: float = 0.0
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """Top-1 in percent."""
        return 100 * float(self.right.mean())


def recipe_for(net: nn.Module, bits: Bits, rule: StepRule = StepRule.LSQ) -> Recipe:
    """Ranges of least squared error; signed activations, hence signs at 1 bit, where the network has Hardtanh."""
    layers = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    ends = bits.ends or bits.weights
    wide = [*inspect.signature(net.forward).parameters]
    wide += ["pool", "blocks.*.body.3", "blocks.*.shortcut"] if isinstance(net, ResNet) else []
    overrides = {name: Override(activations=BORDER_BITS) for name in wide}
    overrides[layers[0]] = Override(weights=ends)
    overrides[layers[-1]] = Override(weights=ends, activations=BORDER_BITS)
    return Recipe(
        weights=bits.weights,
        activations=bits.activations,
        observer=ObserverKind.MSE,
        symmetric_activations=any(isinstance(module, nn.Hardtanh) for module in net.modules()),
        scale="po2" if rule in POWERS_OF_TWO else "real",
        overrides=overrides,
    )


def post_training(net: nn.Module, data: Data, bits: Bits) -> Outcome:
    """Without further training."""
    graph = quantize(net, [data.train[:CALIBRATION]], recipe_for(net, bits))
    return Outcome(graph, _classes(graph, data.test) == data.truth.numpy())


def quantization_aware(
    net: nn.Module, data: Data, bits: Bits, schedule: Schedule, rule: StepRule = StepRule.LSQ, seed: int = 0
) -> Outcome:
    """After training under quantization, with the float network as the teacher where the schedule has one."""
    torch.manual_seed(seed)
    prepared = prepare(net, [data.train[:CALIBRATION]], recipe_for(net, bits, rule), rule)
    start = time.process_time()
    train(prepared, data, schedule, seed, net)
    seconds = time.process_time() - start
    graph = lower(prepared.double(), "trained")  # doubled before: folding batch norms rounds as well
    codes = _codes(graph, data.test)
    value = graph.output_values[0]
    assert value.qparams is not None
    with torch.inference_mode():
        real = torch.cat([prepared(part.double()) for part in data.test.split(PIECE)]).numpy()
    expected = np.rint(real / value.qparams.scale[0]) + value.qparams.zero_point
    differing, disagreeing = (expected != codes).mean(), (expected.argmax(1) != codes.argmax(1)).mean()
    return Outcome(graph, codes.argmax(1) == data.truth.numpy(), float(differing), float(disagreeing), seconds)


def _classes(graph: Graph, x: Tensor) -> np.ndarray:
    return _codes(graph, x).argmax(1)


def _codes(graph: Graph, x: Tensor) -> np.ndarray:
    """The integer graph's output codes (N, classes)."""
    value, found = graph.inputs[0], []
    assert value.qparams is not None
    for part in x.split(PIECE):
        result = run_fast(graph, to_codes(part.numpy(), value.qparams, value.type))
        assert isinstance(result, np.ndarray)
        found.append(result.reshape(len(result), -1))
    return np.concatenate(found)
