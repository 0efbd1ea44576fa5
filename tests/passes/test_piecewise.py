"""Functions of more than 8 bits: lines within a code of the exact table, recovered for the hardware, exact there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bitfab.backend import simulate
from bitfab.dtypes import IntType
from bitfab.dtypes import quantize as to_integers
from bitfab.hw import Language, generate
from bitfab.ir.ops import Table
from bitfab.ir.piecewise import recover
from bitfab.quant import Recipe, quantize
from bitfab.quant.piecewise import TOLERANCE, shortened
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError

FUNCTIONS = {"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "silu": nn.SiLU(), "gelu": nn.GELU(), "mish": nn.Mish()}


def wanted(name: str, domain: IntType, type: IntType) -> np.ndarray:
    """The function over [-8, 8), in codes of the output that use all of its type."""
    reals = np.arange(domain.low, domain.high + 1) * 16 / (1 << domain.bits)
    with torch.no_grad():
        values = FUNCTIONS[name](torch.from_numpy(reals)).numpy()
    return (values - values.min()) / np.ptp(values) * (type.high - type.low) + type.low


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_lines_are_within_a_code_and_come_back(name: str, bits: int) -> None:
    domain, type = IntType(bits, signed=True), IntType(bits, signed=bits == 12)
    values = wanted(name, domain, type)
    exact = Table(np.rint(values).astype(np.int32), domain, type)
    short = shortened(values, exact)
    assert np.abs(short.table.astype(np.int64) - exact.table).max() <= TOLERANCE
    lines = recover(short)
    assert lines is not None and len(lines.base) <= (1 << bits) // 8
    np.testing.assert_array_equal(lines.table().table, short.table)


def test_what_no_lines_follow_stays_a_table() -> None:
    domain, type = IntType(10, signed=False), IntType(10, signed=False)
    table = Table(np.random.default_rng(0).integers(0, 1024, 1024).astype(np.int32), domain, type)
    assert recover(table) is None
    assert shortened(table.table.astype(np.float64), table) is table


def test_8_bits_keep_every_entry() -> None:
    domain = type = IntType(8, signed=True)
    values = wanted("silu", domain, type)
    exact = Table(np.rint(values).astype(np.int32), domain, type)
    assert shortened(values, exact) is exact


@pytest.mark.parametrize("language", Language)
def test_whole_network_of_10_bit_activations_in_hardware(language: Language, tmp_path: Path) -> None:
    if language is Language.VHDL:
        try:
            ghdl.require()
        except MissingToolError as error:
            pytest.skip(str(error))
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 1), nn.Tanh()).eval()
    data = torch.randn(4, 2, 6, 6)
    graph = quantize(net, [data], Recipe(activations=10), name="ten_bits")
    design = generate(graph, parallelism=40, language=language)
    assert {instance.block for instance in design.instances} >= {"interpolate"}
    assert "table" not in {instance.block for instance in design.instances}
    value = graph.inputs[0]
    assert value.qparams is not None
    images = to_integers(data.numpy(), value.qparams, value.type).astype(np.int64)
    simulation = simulate(design, images, tmp_path / "ten_bits")
    assert simulation.mismatches == 0 and simulation.steady.passed and simulation.paused.passed
