"""Bilinear upsampling: the integers are torch's own values, rounded; whole networks with it are exact in hardware."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitfab.backend import simulate
from bitfab.dtypes import IntType
from bitfab.dtypes import quantize as to_integers
from bitfab.errors import BitfabError
from bitfab.hw import Language, generate
from bitfab.ir import Builder
from bitfab.ir.run import run
from bitfab.ir.run_fast import run_fast
from bitfab.quant import quantize
from bitfab.quant.bilinear import emit
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError


@pytest.mark.parametrize("factor", [(2, 2), (3, 3), (4, 2), (1, 5), (3, 1), (8, 6)])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (5, 2)])
def test_sums_over_the_divisor_are_what_torch_interpolates(factor: tuple[int, int], size: tuple[int, int]) -> None:
    builder = Builder("up")
    x = builder.input("x", (2, *size), IntType(8, signed=True))
    total, divisor = emit(lambda op, inputs, *, end: builder.add(f"up{end}", op, inputs), x, (2, *size), factor)
    graph = builder.build((total,))
    images = np.random.default_rng(0).integers(-128, 128, (3, 2, *size))
    wanted = F.interpolate(torch.from_numpy(images).double(), scale_factor=factor, mode="bilinear") * divisor
    np.testing.assert_allclose(np.asarray(run(graph, images)), wanted.numpy(), atol=1e-9)
    np.testing.assert_array_equal(run(graph, images), run_fast(graph, images))


class Decoder(nn.Module):
    """A convolution, its result upsampled two ways, with and without an activation, and joined with the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.up(self.conv(x)))
        return torch.cat([y, F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)], dim=1)


@pytest.mark.parametrize("language", Language)
def test_whole_network_in_hardware(language: Language, tmp_path: Path) -> None:
    if language is Language.VHDL:
        try:
            ghdl.require()
        except MissingToolError as error:
            pytest.skip(str(error))
    torch.manual_seed(2)
    net, data = Decoder().eval(), torch.randn(4, 2, 5, 4)
    graph = quantize(net, [data], name="decoder")
    value = graph.inputs[0]
    assert value.qparams is not None
    images = to_integers(data.numpy(), value.qparams, value.type).astype(np.int64)
    found, wanted = graph.output_values[0], net(data).detach().numpy()
    assert found.qparams is not None
    step = found.qparams.scale[0]
    real = (np.asarray(run(graph, images)).astype(np.int64) - found.qparams.zero_point) * step
    assert np.abs(real - wanted).max() < 4 * step
    simulation = simulate(generate(graph, parallelism=40, language=language), images[:3], tmp_path / "decoder")
    assert simulation.mismatches == 0 and simulation.steady.passed and simulation.paused.passed


def test_aligned_corners_and_fractions_are_refused() -> None:
    data = [torch.randn(4, 2, 4, 4)]
    for layer, message in (
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "align_corners=True has other weights"),
        (nn.Upsample(size=(6, 8), mode="bilinear"), "only by whole factors"),
    ):
        with pytest.raises(BitfabError, match=message):
            quantize(nn.Sequential(nn.Conv2d(2, 2, 1), layer).eval(), data)
