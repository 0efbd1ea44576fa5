"""prune: dead nodes go, and the outputs stay what they were."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.ir import Graph, run
from bitfab.ir.passes.prune import prune
from bitfab.ir.verify import verify
from tests.strategies import batch, graphs


@given(graph=graphs(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_prune(graph: Graph, seed: int) -> None:
    assert prune(graph) == graph  # every value of the strategy's graphs is read or an output
    wanted = replace(graph, outputs=graph.outputs[:1])
    pruned = verify(prune(wanted), after="prune")
    read = {name for node in pruned for name in node.inputs} | set(pruned.outputs)
    assert all(node.name in read for node in pruned)
    inputs = batch(graph, seed)
    np.testing.assert_array_equal(run(pruned, *inputs), run(wanted, *inputs))
