"""Several inputs and outputs: each a port of its own, simulated and compared with `run` in both languages."""

from dataclasses import replace
from pathlib import Path

import pytest

from bitfab.backend import simulate
from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.hw import Design, Language, generate
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Add, Concat, MaxPool2d, Slice
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError
from tests.strategies import batch


def two_sided() -> Graph:
    """An image that is split, another added to one half; a half, a pooled sum, and an input itself come out."""
    builder = Builder("sides")
    left, right = (
        builder.input("left", (4, 6, 5), IntType(8, True)),
        builder.input("right__2", (2, 6, 5), IntType(5, False)),
    )
    first, second = (builder.add(f"part_{i}", Slice(0, i, i + 2), left) for i in (0, 2))
    pooled = builder.add("pooled", MaxPool2d((2, 2), (2, 2)), builder.add("sum", Add(), (second, right)))
    return builder.build((first, pooled, right))


def bordered() -> Graph:
    """An image with its first row above it and its last column beside it."""
    builder = Builder("border")
    x = builder.input("x", (2, 4, 5), IntType(6, True))
    rows = builder.add("rows", Concat(1), (builder.add("top", Slice(1, 0, 1), x), x))
    right = builder.add("right", Slice(2, 4, 5), rows)
    return builder.build((builder.add("columns", Concat(2), (rows, right)),))


def designed(graph: Graph, language: Language) -> Design:
    if language is Language.VHDL:
        try:
            ghdl.require()
        except MissingToolError as error:
            pytest.skip(str(error))
    return generate(graph, parallelism=8, language=language)


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("graph", [two_sided(), bordered()], ids=["ports", "border"])
def test_every_port_carries_what_run_computes(graph: Graph, language: Language, tmp_path: Path) -> None:
    design = designed(graph, language)
    simulation = simulate(design, batch(graph, seed=1), tmp_path / "design")
    assert simulation.mismatches == 0
    assert simulation.steady.passed and simulation.paused.passed
    labels = {"output"} if len(graph.outputs) == 1 else {f"output.{name}" for name in graph.outputs}
    assert set(simulation.steady.values) == {stream.value for stream in design.taps} | labels
    assert simulation.steady.cycles_per_image <= 1.05 * design.expected_cycles


def test_a_wrong_word_of_the_second_output_is_found(tmp_path: Path) -> None:
    graph = two_sided()
    design = designed(graph, Language.VERILOG)
    top = design.files["rtl/sides.sv"].replace("assign m_axis_pooled_tdata = ", "assign m_axis_pooled_tdata = ~")
    design = replace(design, files={**design.files, "rtl/sides.sv": top})
    with pytest.raises(BitfabError, match=r"MISMATCH output\.pooled word 0"):
        simulate(design, batch(graph, seed=1), tmp_path / "design")


def test_ports_bear_the_names_of_their_values() -> None:
    top = generate(two_sided(), parallelism=8).files["rtl/sides.sv"]
    for name in ("s_axis_left", "s_axis_right_2", "m_axis_part_0", "m_axis_pooled", "m_axis_right_2"):
        assert f"{name}_tdata" in top


def test_inputs_of_unlike_batches_are_refused(tmp_path: Path) -> None:
    graph = two_sided()
    left, right = batch(graph, seed=1)
    with pytest.raises(BitfabError, match="give as many of each"):
        simulate(generate(graph, parallelism=8), [left, right[:1]], tmp_path / "design")


def test_what_nothing_reads_is_refused() -> None:
    graph = replace(two_sided(), outputs=("part_0",))
    with pytest.raises(BitfabError, match="pooled: nothing reads it"):
        generate(graph)


def test_a_parallel_design_has_one_port_each_way() -> None:
    with pytest.raises(BitfabError, match="2 inputs; a parallel design has one of each"):
        generate(two_sided(), style="parallel")
