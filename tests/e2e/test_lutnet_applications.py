"""The shipped LUT networks: Python = Verilog = VHDL, on their own samples where they can be had, and on random ones."""

from pathlib import Path

import numpy as np
import pytest

from bitfab import zoo
from bitfab.backend import simulate
from bitfab.data import pulses
from bitfab.dtypes import IntArray, IntType
from bitfab.flow import as_integers
from bitfab.hw import generate
from bitfab.ir.graph import Graph
from bitfab.lutnet import Features, table_network
from bitfab.lutnet.cost import lut6_estimate
from bitfab.lutnet.table_space import table_space
from bitfab.tools import ghdl, verilator
from bitfab.tools.process import MissingToolError

FRAMES = 200
BUDGETS = {"pulses": 1300, "jets": 1700, "mnist": 1300}  # LUTs of six inputs


def _samples(graph: Graph) -> IntArray:
    """Frames of pulses; for the others normal numbers, which the graph's own scales make integers, or pixels."""
    if graph.name == "pulses":
        return pulses.generate(FRAMES, pulses.SPLIT_SEEDS["test"])[0].astype(np.int64)
    rng, value = np.random.default_rng(0), graph.inputs[0]
    if value.qparams is None:
        return rng.choice([value.low, value.high], (FRAMES, *value.shape))
    reach = np.asarray(value.qparams.scale) * value.type.high
    return as_integers(graph, rng.normal(size=(FRAMES, *value.shape)) * reach / 2)


@pytest.mark.parametrize("language", ["verilog", "vhdl"])
@pytest.mark.parametrize("name", zoo.LUT_NETWORKS)
def test_hardware_equals_the_definition(name: str, language: str, tmp_path: Path) -> None:
    if language == "vhdl":
        try:
            ghdl.require()
        except MissingToolError as error:
            pytest.skip(str(error))
    graph = zoo.load_graph(name)
    design = generate(graph, language=language)
    found = simulate(design, _samples(graph), tmp_path / name)
    assert found.images == FRAMES + 1000 and found.mismatches == 0
    assert found.steady.passed and found.paused.passed
    assert found.steady.values["output"] == found.images
    if language == "verilog":  # GHDL has analysed the VHDL with its warnings as errors
        verilator.lint([tmp_path / name / path for path in design.sources], name)


def test_a_table_network_becomes_hardware_as_it_is(tmp_path: Path) -> None:
    """Weights that block, pass, double or invert are a dense layer of shifts and additions, thresholds behind it."""
    frames = pulses.generate(FRAMES, pulses.SPLIT_SEEDS["train"])
    space = table_space(Features(pulses.SAMPLES, IntType(7, signed=False)), frames, (12,), 2, fan_in=8)
    genes = space.random(1, np.random.default_rng(0))
    graph = table_network.lower(space.to_network(genes), "tables")
    design = generate(graph, style="parallel", levels=3)
    found = simulate(design, frames[0].astype(np.int64), tmp_path / "tables")
    assert found.images == FRAMES + 1000 and found.mismatches == 0


@pytest.mark.parametrize("name", zoo.LUT_NETWORKS)
def test_the_networks_are_small(name: str) -> None:
    assert lut6_estimate(zoo.load_graph(name)) < BUDGETS[name]
