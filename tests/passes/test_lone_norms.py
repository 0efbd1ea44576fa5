"""Batch norms before a convolution, behind a pool or at a fork: depthwise convolutions, quantized and trained."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bitfab.backend import simulate
from bitfab.dtypes import quantize as to_integers
from bitfab.frontend.torch import capture
from bitfab.hw import generate
from bitfab.ir.ops import Conv2d
from bitfab.quant import lower, prepare, quantize


class PreActivation(nn.Module):
    """A norm of the input, one behind a pool, and one that follows a convolution which is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.behind, self.shared = nn.BatchNorm2d(2), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv, self.other = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv(torch.relu(self.first(x))), 2)
        y = self.other(torch.relu(self.behind(x)))
        return y + torch.relu(self.shared(y))


def made() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(6)
    net, data = PreActivation(), torch.randn(8, 2, 6, 6)
    for _ in range(3):
        net(data)  # running statistics that are not 0 and 1
    return net.eval(), data


def test_the_normal_form_computes_the_same() -> None:
    net, data = made()
    normal = capture(net, data)
    torch.testing.assert_close(normal(data), net(data))
    depthwise = [layer for layer in normal.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    assert len(depthwise) == 3


def test_quantized_it_is_close_and_exact_in_hardware(tmp_path: Path) -> None:
    net, data = made()
    graph = quantize(net, [data], name="norms")
    assert sum(isinstance(node.op, Conv2d) and node.op.groups > 1 for node in graph) == 3
    value = graph.inputs[0]
    assert value.qparams is not None
    images = to_integers(data.numpy(), value.qparams, value.type).astype(np.int64)
    simulation = simulate(generate(graph, parallelism=24), images[:3], tmp_path / "norms")
    assert simulation.mismatches == 0 and simulation.steady.passed


def test_it_can_be_trained() -> None:
    net, data = made()
    prepared = prepare(net, [data])
    prepared(data).square().mean().backward()
    assert all(p.grad is not None for p in prepared.parameters() if p.requires_grad)
    assert len(lower(prepared.eval()).nodes) > 6
