"""Folding a batch norm keeps the function, for every layer that can take one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bitfab as bf
from bitfab.dtypes import dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.ir import run
from bitfab.quant.fold import fold


def _normed(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(*layers).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return net.eval()


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False), nn.ReLU()),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, bias=False), nn.BatchNorm2d(6)),
        (nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3)),
        (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)),
    ],
)
def test_folding_keeps_the_function(layers: tuple[nn.Module, ...]) -> None:
    normal = capture(_normed(*layers), torch.randn(1, 4, 4, 4, dtype=torch.float64))
    before = {name: tensor.clone() for name, tensor in normal.state_dict().items()}
    folded = fold(normal)
    x = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(folded(x), normal(x), rtol=1e-10, atol=1e-10)
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in normal.state_dict().items())


class _Shared(nn.Module):
    """A convolution that something else reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y + self.norm(y)


ALONE = {
    "activation": nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)),
    "shared": _Shared(),
    "input": nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU()),
    "plain": nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4, affine=False)),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_norm_behind_no_layer_is_a_layer(name: str) -> None:
    """A depthwise 1x1 convolution: the same function, and the same bits in training with powers of two."""
    net = _normed(ALONE[name])
    x = torch.randn(32, 4, 4, 4, dtype=torch.float64)
    folded = fold(capture(net, x))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert sum(isinstance(m, nn.Conv2d) and m.groups == 4 and m.kernel_size == (1, 1) for m in folded.modules()) >= 1
    torch.testing.assert_close(folded(x), net(x), rtol=1e-10, atol=1e-10)
    prepared = bf.prepare(net, x.numpy(), bf.Recipe(scale="po2"))
    graph = bf.lower(prepared)
    (inside,), (outside,) = graph.inputs, graph.output_values
    assert inside.qparams is not None and outside.qparams is not None
    found = run(graph, quantize(x.numpy(), inside.qparams, inside.type))
    with torch.no_grad():
        np.testing.assert_array_equal(dequantize(np.asarray(found), outside.qparams), prepared.eval()(x).numpy())


def test_a_norm_over_vectors_that_cannot_fold_is_named() -> None:
    with pytest.raises(BitfabError, match=r"1: this batch norm .* cannot be folded"):
        fold(capture(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)), torch.randn(2, 4)))
