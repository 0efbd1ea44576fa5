"""Graphs as cells: the netlist computes what the graph does, with registers anywhere; names, errors, files."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.hw import Language, ParallelDesign, Style, Target, generate
from bitfab.hw.parallel import build, depth, pipeline
from bitfab.hw.parallel.arithmetic import digits
from bitfab.hw.parallel.build import MAX_TABLE_BITS
from bitfab.hw.parallel.cells import Netlist, Register, Sum, Wire
from bitfab.hw.parallel.evaluate import evaluate
from bitfab.hw.parallel.names import identifiers
from bitfab.hw.parallel.pipeline import cost
from bitfab.ir.graph import Builder, Graph
from bitfab.ir.ops import (
    Add,
    Bits,
    Compare,
    Concat,
    Conv2d,
    Dense,
    Lut,
    MaxPool2d,
    Multiply,
    Popcount,
    Requantize,
    Reshape,
    Slice,
    Table,
    Threshold,
    TopK,
    Transpose,
    Upsample,
)
from bitfab.ir.passes.prune import prune
from bitfab.ir.run import run
from tests.lut_networks import frames, lut_network
from tests.strategies import batch, graphs

OPS = (
    *(Conv2d, MaxPool2d, Dense, Requantize, Threshold, Add, Concat, Table, Compare, Bits, Lut, Popcount),
    *(Multiply, Reshape, Transpose, Slice, TopK),
)


def _as_wires(x: IntArray, type: IntType) -> IntArray:
    return (np.maximum(x, 0) if type.bipolar else x).reshape(len(x), -1)


def _single(graph: Graph) -> Graph:
    """The graph's last output alone, of a graph with one input."""
    assume(len(graph.inputs) == 1)
    assume(all(node.op.domain.bits <= MAX_TABLE_BITS for node in graph if isinstance(node.op, Table)))
    return prune(replace(graph, outputs=graph.outputs[-1:]))


def _agrees(graph: Graph, netlist: Netlist, x: IntArray) -> None:
    expected = _as_wires(np.asarray(run(graph, x)), graph.output_values[0].type)
    np.testing.assert_array_equal(evaluate(netlist, _as_wires(x, graph.inputs[0].type)), expected)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(graphs(OPS, max_nodes=7), st.integers(0, 4), st.integers(0, 1000))
def test_cells_compute_the_graph(graph: Graph, levels: int, seed: int) -> None:
    graph = _single(graph)
    _agrees(graph, pipeline(build(graph), levels), batch(graph, seed, 20)[0])


@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 9, 17])
@pytest.mark.parametrize("bits", [1, 3])
def test_the_largest_are_found_in_order(count: int, bits: int) -> None:
    """All of up to seven values, which meet each with each, and of more, whose games are counted; ties abound."""
    builder = Builder("order")
    x = builder.input("x", (count,), IntType(bits, signed=bits > 1))
    graph = builder.build((builder.add("best", TopK(count), x),))
    _agrees(graph, build(graph), batch(graph, count, 100)[0])


@settings(deadline=None, max_examples=15, derandomize=True)
@given(graphs(OPS, max_nodes=7), st.integers(1, 4))
def test_registers_are_balanced(graph: Graph, levels: int) -> None:
    """Every cell reads wires of one and the same cycle, and stays within the levels where it is not alone."""
    _check_balance(pipeline(build(_single(graph)), levels), levels)


def test_registers_of_a_lut_network_are_balanced() -> None:
    for levels in (1, 2, 3):
        netlist = pipeline(build(lut_network(layers=(30, 20), classes=5)), levels)
        assert netlist.stages > 1
        _check_balance(netlist, levels)


def _check_balance(netlist: Netlist, levels: int) -> None:
    """`time` holds cycle and level of every wire; what is made of constants alone is right at any time."""
    time: dict[Wire, tuple[int, int] | None] = dict.fromkeys(netlist.input.wires, (0, 0))
    for block in netlist.blocks:
        for cell in block.cells:
            sources = [known for wire in cell.sources if (known := time[wire]) is not None and wire.low != wire.high]
            assert len({cycle for cycle, _ in sources}) <= 1, cell
            if not sources:
                time[cell.output] = None
                continue
            cycle, level = max(sources)
            time[cell.output] = (cycle + 1, 0) if isinstance(cell, Register) else (cycle, level + cost(cell))
            assert level == 0 or cost(cell) == 0 or level + cost(cell) <= levels, cell
        known = [time[wire] for wire in block.value.wires]
        assert {moment[0] for moment in known if moment is not None} <= {block.stage}


def test_more_levels_take_fewer_stages() -> None:
    netlist = build(lut_network(layers=(30, 20), classes=5))
    stages = [pipeline(netlist, levels).stages for levels in (1, 2, 4, depth(netlist))]
    assert stages == sorted(stages, reverse=True)
    assert stages[-1] == 1 == pipeline(netlist, 0).stages
    assert not any(isinstance(cell, Register) for cell in pipeline(netlist, 0))


def test_a_truth_table_is_one_cell() -> None:
    graph = lut_network(layers=(30, 20), classes=5)
    cells = {block.node: len(block.cells) for block in build(graph).blocks}
    assert (cells["layer1"], cells["layer2"]) == (30, 20)


@given(st.integers(-(2**20), 2**20))
def test_canonical_signed_digits(factor: int) -> None:
    terms = digits(Wire("x", 0, 1), factor)
    assert sum((-1 if term.negative else 1) << term.shift for term in terms) == factor
    shifts = [term.shift for term in terms]
    assert all(b - a >= 2 for a, b in pairwise(shifts))


def test_common_parts_of_sums_are_made_once() -> None:
    """Random 8-bit weights: a fifth of the adders saved at least, and the sums are exact."""
    weight = np.random.default_rng(0).integers(-128, 128, (24, 12))
    builder = Builder("shared")
    x = builder.input("x", (12,), IntType(8, signed=True))
    graph = builder.build((builder.add("dense", Dense(weight, np.zeros(24, dtype=np.int64)), x),))
    netlist = build(graph)
    adders = sum(len(cell.sources) == 2 for cell in netlist if isinstance(cell, Sum))
    wire = Wire("x", -128, 127)
    alone = sum(sum(len(digits(wire, factor)) for factor in row) - 1 for row in weight.tolist())
    assert adders < 0.8 * alone
    _agrees(graph, netlist, frames(graph, 100))


def test_common_parts_that_overlap_themselves_are_shared_exactly() -> None:
    """Weights whose digits repeat in steps: pairs of a wire with itself, and of a row with itself, overlap."""
    weight = np.array([[85, 85, 21, 1], [85, 85, 21, 0], [341, 341, 5, 85], [-85, -85, -21, 64]])
    _check_dense(weight)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.sampled_from([3, 15, 127]))
def test_shared_sums_are_exact(seed: int, outputs: int, inputs: int, most: int) -> None:
    _check_dense(np.random.default_rng(seed).integers(-most, most + 1, (outputs, inputs)))


def test_parts_common_to_two_rows_are_made_once() -> None:
    """Two equal rows of 16 terms with one more term each: 15 additions for both, and one for each."""
    weight = np.zeros((2, 18), dtype=np.int64)
    weight[:, :16], weight[0, 16], weight[1, 17] = 1, 1, 1
    assert _check_dense(weight) == 15 + 2


def _check_dense(weight: IntArray) -> int:
    """A dense layer's cells compute it; returns how many additions they are."""
    builder = Builder("shared")
    x = builder.input("x", (weight.shape[1],), IntType(8, signed=True))
    graph = builder.build((builder.add("dense", Dense(weight, np.zeros(len(weight), dtype=np.int64)), x),))
    netlist = build(graph)
    _agrees(graph, netlist, frames(graph, 50))
    return sum(len(cell.sources) == 2 for cell in netlist if isinstance(cell, Sum))


def test_bit_operations_choose_the_parallel_style() -> None:
    design = generate(lut_network())
    assert isinstance(design, ParallelDesign)
    assert design.expected_cycles == 1
    assert design.multipliers == 0
    assert design.sources[-1] == "rtl/lutnet.sv"
    assert generate(lut_network()).files == design.files


def test_a_higher_clock_takes_more_stages() -> None:
    slow, fast = (generate(lut_network(), Target("ecp5-85k", mhz)) for mhz in (20.0, 300.0))
    assert isinstance(slow, ParallelDesign)
    assert isinstance(fast, ParallelDesign)
    assert slow.netlist.stages < fast.netlist.stages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": Style.STREAM}, "encode: operations on single bits have no streaming hardware"),
        ({"style": "systolic"}, "style 'systolic': choose one of stream, parallel"),
        ({"language": "chisel"}, "language 'chisel': choose one of verilog, vhdl"),
        ({"levels": -1}, "levels -1: give a whole number, 0 or more"),
        ({"levels": 1.5}, "levels 1.5: give a whole number"),
        ({"style": "stream", "serial": True}, "a parallel design's"),
    ],
)
def test_errors_of_options(options: dict, message: str) -> None:
    with pytest.raises(BitfabError, match=message):
        generate(lut_network(), **options)


def test_an_operation_without_parallel_hardware_is_named() -> None:
    builder = Builder("images")
    x = builder.input("x", (1, 4, 4), IntType(4, signed=False))
    graph = builder.build((builder.add("larger", Upsample((2, 2)), x),))
    with pytest.raises(BitfabError, match="larger: Upsample has no parallel hardware"):
        generate(graph, style=Style.PARALLEL)


def test_a_reserved_name_is_refused() -> None:
    with pytest.raises(BitfabError, match="small: a word of Verilog or VHDL"):
        generate(lut_network(name="small"))


def test_identifiers_are_legal_and_cannot_meet() -> None:
    names = ["signal", "x", "X", "x_1", "x_d1", "_a__b_", "x_1_d2", "input", "_1", "lut6", "conv_1"]
    words = list(identifiers(names).values())
    assert len({word.lower() for word in words}) == len(names)
    assert words[-1] == "conv_1"
    for word in words:
        assert word.lower() not in ("signal", "input", "lut6")
        assert word[0].isalpha()
        assert "__" not in word
        assert not word.endswith("_")
        for other in words:
            derived = word.removeprefix(other)
            assert word == other or derived == word or not derived.lstrip("_dt").isdigit(), (word, other)


def test_every_language_has_a_renderer() -> None:
    for language in Language:
        design = generate(lut_network(), language=language)
        assert any(path.startswith("rtl/lutnet.") for path in design.files)
