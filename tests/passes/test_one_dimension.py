"""Networks over signals: their layers become layers over images of one row, exact from torch to the hardware."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfab.backend import simulate
from bitfab.dtypes import quantize as to_integers
from bitfab.errors import BitfabError
from bitfab.frontend.one_dimension import Rows
from bitfab.frontend.torch import capture
from bitfab.hw import Language, generate
from bitfab.ir.run import run
from bitfab.ir.run_fast import run_fast
from bitfab.quant import quantize
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError

LENGTH = 32


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Signals(nn.Module):
    """Every operation over signals: convolutions, norms, pools, a residual, slices and concats, then classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(2, 6, 5, stride=2, padding=2), nn.BatchNorm1d(6), nn.SiLU())
        self.residual = Residual(6)
        self.pools = nn.Sequential(nn.MaxPool1d(2), nn.AvgPool1d(2))
        self.same = nn.Conv1d(9, 4, 3, padding="same", groups=1)
        self.head = nn.Linear(4 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pools(self.residual(self.first(x)))
        y = self.same(torch.cat([y[:, 3:], y], dim=1))[:, :, 1:]
        return self.head(y.flatten(1))


class Averaged(nn.Module):
    """Ends in a mean over the length; and has a signal as its second output."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)
        self.pool = nn.AdaptiveAvgPool1d(1) if pool else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.conv(x))
        return (y.mean(dim=2) if self.pool is None else self.pool(y).flatten(1)), y


def data(length: int = LENGTH) -> Tensor:
    return torch.randn(6, 2, 1, length, generator=torch.Generator().manual_seed(4))


def made(net: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return Rows(net).eval()


def test_the_normal_form_computes_the_same_over_images() -> None:
    net = made(Signals())
    normal = capture(net, data())
    torch.testing.assert_close(normal(data()), net(data()))
    kinds = {type(module) for module in normal.modules()}
    assert not kinds & {nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d}
    assert {nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d} <= kinds
    assert all(node.target is not torch.reshape for node in normal.graph.nodes)


@pytest.mark.parametrize("pool", [False, True])
def test_a_mean_over_the_length_and_a_signal_that_comes_out(pool: bool, tmp_path: Path) -> None:
    net = made(Averaged(pool))
    graph = quantize(net, [data(10)], name="averaged")
    assert [value.shape for value in graph.output_values] == [(4,), (4, 8)]
    images = integers(graph, data(10))
    simulation = simulate(generate(graph, parallelism=6), images, tmp_path / "averaged")
    assert simulation.mismatches == 0 and simulation.steady.passed


@pytest.mark.parametrize("language", Language)
def test_whole_network_in_hardware(language: Language, tmp_path: Path) -> None:
    if language is Language.VHDL:
        try:
            ghdl.require()
        except MissingToolError as error:
            pytest.skip(str(error))
    graph = quantize(made(Signals()), [data()], name="signals")
    images = integers(graph, data())
    np.testing.assert_array_equal(run(graph, images), run_fast(graph, images))
    simulation = simulate(generate(graph, parallelism=24, language=language), images[:3], tmp_path / "signals")
    assert simulation.mismatches == 0 and simulation.steady.passed and simulation.paused.passed


def test_what_would_change_results_is_refused() -> None:
    for layer, message in (
        (nn.MaxPool1d(3, ceil_mode=True), "ceil_mode=True"),
        (nn.AvgPool1d(2, padding=1, count_include_pad=False), "count_include_pad=False"),
        (nn.AdaptiveAvgPool1d(5), "32 to 5"),
    ):
        with pytest.raises(BitfabError, match=message):
            capture(Rows(nn.Sequential(layer, nn.Conv1d(2, 2, 1))).eval(), data())


def integers(graph, images: Tensor) -> np.ndarray:
    value = graph.inputs[0]
    return to_integers(images.numpy(), value.qparams, value.type).astype(np.int64)
