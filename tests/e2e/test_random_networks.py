"""Random networks: torch to graph to `run` = `run_fast` = RTL, in every bit of every layer."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from bitfab.backend import simulate
from bitfab.dtypes import quantize as to_integers
from bitfab.errors import BitfabError
from bitfab.hw import Folding, MemoryStyle, Multiplier, generate
from bitfab.hw.folding import FOLDED, styles
from bitfab.hw.plan import plan
from bitfab.ir import Graph
from bitfab.ir.ops import (
    Add,
    Bits,
    Compare,
    Conv2d,
    Lut,
    Multiply,
    Popcount,
    Reshape,
    SumPool2d,
    Table,
    Threshold,
    Transpose,
)
from bitfab.ir.run import run
from bitfab.ir.run_fast import run_fast
from bitfab.quant import quantize
from tests.nets import Spec, build, specs
from tests.strategies import ALL_OPS, batch, graphs

HARDWARE_OPS = tuple(op for op in ALL_OPS if op not in (Reshape, Transpose, Compare, Bits, Lut, Popcount))
BINARY_OPS = (Threshold, *(op for op in HARDWARE_OPS if op is not Table))
PRODUCT_OPS = (Multiply, Multiply, Add, Conv2d, SumPool2d, Threshold)
SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),  # shrinking would simulate for hours
}


def _quantized(spec: Spec):
    generator = torch.Generator().manual_seed(spec.seed)
    data = torch.randn(4, *spec.shape, generator=generator)
    try:
        graph = quantize(build(spec), [data], name="net")
    except BitfabError as error:  # a random layer that is dead on all the data cannot be quantized
        assume("has no range" not in str(error))
        raise
    value = graph.inputs[0]
    images = to_integers(data.numpy(), value.qparams, value.type)
    extreme = np.random.default_rng(spec.seed).choice([value.low, value.high], size=images.shape)
    return graph, np.concatenate([images, extreme]).astype(np.int64)


@settings(max_examples=40, **SETTINGS)
@given(specs())
def test_fast_executor_equals_the_definition(spec: Spec) -> None:
    graph, images = _quantized(spec)
    np.testing.assert_array_equal(run(graph, images), run_fast(graph, images))


@settings(max_examples=5, **SETTINGS)
@given(specs(max_stages=5))
def test_rtl_equals_the_definition_at_every_stream(spec: Spec) -> None:
    graph, images = _quantized(spec)
    design = generate(graph, parallelism=24)
    with TemporaryDirectory() as folder:
        simulation = simulate(design, images, Path(folder) / "net")
    assert simulation.mismatches == 0
    assert simulation.steady.passed and simulation.paused.passed
    assert set(simulation.steady.values) == {stream.value for stream in design.taps} | {"output"}


@settings(max_examples=6, **SETTINGS)
@given(graphs(ops=HARDWARE_OPS, max_nodes=8), st.integers(8, 40))
def test_rtl_equals_the_definition_for_any_integer_graph(graph: Graph, parallelism: int) -> None:
    """Widths, signs, roundings and clips that no quantizer would choose; several inputs and outputs."""
    assume(len(graph.nodes) >= 3)
    _prove(graph, parallelism)


@settings(max_examples=3, **SETTINGS)
@given(graphs(ops=PRODUCT_OPS, max_nodes=6), st.integers(8, 40))
def test_rtl_equals_the_definition_where_streams_are_multiplied(graph: Graph, parallelism: int) -> None:
    assume(sum(isinstance(node.op, Multiply) for node in graph) >= 2)
    _prove(graph, parallelism)


@settings(max_examples=3, **SETTINGS)
@given(graphs(ops=BINARY_OPS, max_nodes=8), st.integers(8, 40))
def test_rtl_equals_the_definition_where_values_are_bipolar(graph: Graph, parallelism: int) -> None:
    read = [graph.values[name] for node in graph for name in node.inputs]
    assume(sum(value.type.bipolar for value in read) >= 2 and any(isinstance(n.op, Threshold) for n in graph))
    _prove(graph, parallelism)


def _styled(graph: Graph, parallelism: int) -> dict[str, Folding]:
    """Foldings for so many multipliers, of a random kind, and weights in a random kind of memory."""
    rng = np.random.default_rng(parallelism)
    engines, _ = plan(graph, parallelism, {})
    folding = {}
    for name, engine in engines.items():
        if engine.folding is not None:
            x, pe = engine.values[0].type, engine.folding.pe
            multiplies = isinstance(engine.node.op, FOLDED)
            kinds = styles(engine.node, x, pe) if multiplies else (Multiplier.DSP, Multiplier.LUTS)
            memory = rng.choice([None, *MemoryStyle]) if multiplies else None
            folding[name] = replace(engine.folding, multiplier=rng.choice(kinds), memory=memory)
    return folding


def _prove(graph: Graph, parallelism: int) -> None:
    try:
        design = generate(graph, folding=_styled(graph, parallelism))
    except BitfabError as error:  # values in another order than the stream's have none
        assume("hardware" not in str(error))
        raise
    images = batch(graph, seed=0)
    with TemporaryDirectory() as folder:
        simulation = simulate(design, images, Path(folder) / "net")
    assert simulation.mismatches == 0
    for fifo in design.fifos:
        assert simulation.steady.fifo_peaks[fifo.instance] <= fifo.capacity
