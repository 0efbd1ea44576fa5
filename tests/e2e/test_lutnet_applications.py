"""The shipped LUT networks: Python = Verilog = VHDL, on their own samples where they can be had, and on random ones."""

from pathlib import Path

import numpy as np
import pytest

from bitfab import zoo
from bitfab.backend import simulate
from bitfab.data import pulses
from bitfab.dtypes import IntArray
from bitfab.flow import as_integers
from bitfab.hw import generate
from bitfab.ir.graph import Graph
from bitfab.lutnet.cost import lut6_estimate
from bitfab.tools import ghdl
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
    found = simulate(generate(graph, language=language), _samples(graph), tmp_path / name)
    assert found.images == FRAMES + 1000 and found.mismatches == 0
    assert found.steady.passed and found.paused.passed
    assert found.steady.values["output"] == found.images


@pytest.mark.parametrize("name", zoo.LUT_NETWORKS)
def test_the_networks_are_small(name: str) -> None:
    assert lut6_estimate(zoo.load_graph(name)) < BUDGETS[name]
