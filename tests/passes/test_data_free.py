"""Quantization without data."""

import numpy as np
import pytest
from torch import nn

from bitfab.data import digits
from bitfab.dtypes import quantize as to_codes
from bitfab.errors import BitfabError
from bitfab.ir.run_fast import run_fast
from bitfab.quant import DATA_FREE, Recipe, quantize_without_data
from bitfab.zoo import load


def test_batch_norms_are_enough_for_digits() -> None:
    data = digits.load()
    graph = quantize_without_data(load("digits"), (1, 8, 8), (0, 1))
    source = graph.inputs[0]
    assert source.qparams.scale[0] == pytest.approx(1 / 255)
    found = run_fast(graph, to_codes(data.test_images, source.qparams, source.type))
    assert (np.asarray(found).argmax(1) == data.test_labels).mean() >= 0.96  # float: 0.98


@pytest.mark.parametrize(
    ("net", "limits", "recipe", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 3)), (0, 1), DATA_FREE, "no batch norm"),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)), (1, 0), DATA_FREE, "least and the largest"),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)), (0, 1), Recipe(), "needs data"),
    ],
)
def test_what_needs_data_is_refused(net: nn.Module, limits: tuple[float, float], recipe: Recipe, message: str) -> None:
    with pytest.raises(BitfabError, match=message):
        quantize_without_data(net, (1, 8, 8), limits, recipe)
