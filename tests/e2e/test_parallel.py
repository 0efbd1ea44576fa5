"""Parallel designs as Verilog: equal to the graph in every block and frame, clean of warnings, able to fail."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitfab as bf
from bitfab.backend import Simulation, simulate
from bitfab.dtypes import IntType, Rounding
from bitfab.errors import BitfabError
from bitfab.hw import ParallelDesign, generate
from bitfab.ir.graph import Builder, Graph
from bitfab.ir.ops import Dense, MaxPool2d, Multiply, Requantize, Reshape, Table, Threshold, TopK
from bitfab.tools import verilator, yosys
from bitfab.tools.process import ToolError, run_tool
from tests.lut_networks import frames, lut_network


def dense_network() -> Graph:
    """Signed and unsigned integers, every rounding, a table, bipolar values, a decision: a small network of each."""
    random = np.random.default_rng(3)
    builder = Builder("dense")
    x = builder.input("x", (6,), IntType(4, signed=True))
    for i, rounding in enumerate(Rounding):
        weight = random.integers(-8, 8, (6, 6))
        x = builder.add("dense", Dense(weight, random.integers(-50, 50, 6)), x)
        multiplier, shift = random.integers(20, 200, 6), random.integers(9, 13, 6)
        low = 0 if i % 2 else -8
        type = IntType(4, signed=low < 0)
        x = builder.add("requantize", Requantize(multiplier, shift, type, low, type.high, 0, 1, rounding), x)
    table = random.integers(-8, 8, 16)
    x = builder.add("table", Table(table, builder.value(x).type, IntType(4, signed=True)), x)
    x = builder.add("sign", Threshold(random.integers(-4, 4, (6, 1)), IntType(1, signed=True), -1), x)
    x = builder.add("binary", Dense(random.choice([-1, 1], (9, 6)), random.integers(-2, 2, 9)), x)
    return builder.build((builder.add("decide", TopK(1), x),))


def _simulated(design: ParallelDesign, folder: Path, count: int = 30) -> Simulation:
    sources = {path: text for path, text in design.files.items() if path.endswith(".sv")}
    found = simulate(design, frames(design.graph, count), folder)
    verilator.lint([folder / path for path in sources], design.name)
    assert found.mismatches == 0
    assert found.steady.passed
    assert found.paused.passed
    assert found.steady.latency_cycles == design.expected_latency
    assert found.steady.values["output"] == found.images
    return found


def _parallel(graph: Graph, **options: object) -> ParallelDesign:
    design = generate(graph, style="parallel", **options)
    assert isinstance(design, ParallelDesign)
    return design


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> tuple[ParallelDesign, Path]:
    design = _parallel(lut_network(features=4, type=IntType(4, signed=True), bits=16), levels=2)
    folder = tmp_path_factory.mktemp("parallel") / "lutnet"
    found = _simulated(design, folder)
    assert found.images == 1 << 16  # all there are
    return design, folder


def test_a_small_lut_network_is_proved_on_every_input(proved: tuple[ParallelDesign, Path]) -> None:
    design, _ = proved
    assert design.netlist.stages > 2


def test_icarus_agrees(proved: tuple[ParallelDesign, Path], tmp_path: Path) -> None:
    program = shutil.which("iverilog")
    if program is None:
        pytest.skip("Icarus Verilog is not installed")
    design, folder = proved
    sources = [folder / path for path in design.sources] + sorted((folder / "sim").glob("*.sv"))
    compile = [program, "-g2012", "-s", "tb", "-o", tmp_path / "tb.vvp", *sources]
    run_tool(compile, tool="iverilog", task="compiling", directory=tmp_path, log=None, time_limit=120)
    execute = [Path(program).with_name("vvp"), "-n", tmp_path / "tb.vvp", "+images=500", "+idle=40"]
    lines = run_tool(execute, tool="vvp", task="simulating", directory=folder / "rtl", log=None, time_limit=120)
    assert any(line.startswith("PASS 500 frames") for line in lines), lines


def test_serial_input_gives_the_same(tmp_path: Path) -> None:
    graph = lut_network(type=IntType(5, signed=False), thermometer=False, classes=2)
    design = _parallel(graph, serial=True, levels=1)
    assert _simulated(design, tmp_path / "serial").steady.cycles_per_image == 6
    assert design.expected_latency == design.netlist.latency + 5


def test_products_of_numbers(tmp_path: Path) -> None:
    """Of an image with itself, then each channel by a factor."""
    builder = Builder("products")
    x = builder.input("x", (2, 2, 2), IntType(4, signed=True))
    factor = builder.add("factor", MaxPool2d((2, 2), (2, 2)), x)
    squared = builder.add("squared", Multiply(1, -2), (x, x))
    scaled = builder.add("scaled", Multiply(-3, 8), (squared, factor))
    weight = np.random.default_rng(0).integers(-8, 8, (1, 8))
    total = builder.add("total", Dense(weight, np.array([9])), builder.add("flat", Reshape((8,)), scaled))
    _simulated(_parallel(builder.build((total,)), levels=3), tmp_path / "design")


def test_a_dense_network_unrolled(tmp_path: Path) -> None:
    _simulated(_parallel(dense_network(), levels=4), tmp_path / "dense", 500)


def test_sums_that_begin_with_a_minus_reach_synthesis(tmp_path: Path) -> None:
    """Yosys reads `-8'(x)` as a cast to a negative size."""
    builder = Builder("minus")
    x = builder.input("x", (2,), IntType(4, signed=True))
    graph = builder.build((builder.add("dense", Dense(np.array([[-1, -2]]), np.array([0])), x),))
    design = _parallel(graph, levels=0)
    _simulated(design, tmp_path / "minus")
    sources = [tmp_path / "minus" / path for path in design.sources]
    assert yosys.synthesize_ecp5(sources, design.name, tmp_path / "build", restructure=False).total.lut > 0


def test_a_wrong_table_is_found(proved: tuple[ParallelDesign, Path], tmp_path: Path) -> None:
    """One inverted truth table; the message names the layer and the frame."""
    design, _ = proved
    path = "rtl/lutnet_layer2.sv"
    text = design.files[path]
    at = text.index("'h", text.index("assign layer2[3]")) + 2
    broken = text[:at] + f"{int(text[at : at + 4], 16) ^ 0xFFFF:04x}" + text[at + 4 :]
    with pytest.raises(BitfabError, match=r"the RTL differs from the integer graph: MISMATCH layer2 word 0"):
        simulate(replace(design, files={**design.files, path: broken}), frames(design.graph, 3), tmp_path / "broken")


def test_a_wrong_expectation_is_found(proved: tuple[ParallelDesign, Path]) -> None:
    _, folder = proved
    vectors = folder / "sim" / "output.mem"
    whole = vectors.read_text()
    lines = whole.splitlines()
    lines[77] = f"{int(lines[77], 16) ^ 1:x}"
    vectors.write_text("\n".join(lines) + "\n")
    try:
        with pytest.raises(ToolError) as caught:
            verilator.run(folder / "sim" / "obj" / "sim_tb", folder / "rtl")
        assert any(line.startswith("MISMATCH output word 77:") for line in caught.value.lines)
    finally:
        vectors.write_text(whole)


def test_build_reports_the_part(tmp_path: Path) -> None:
    graph = lut_network(features=3, type=IntType(3, signed=False), bits=8, layers=(6,))
    report = bf.build(_parallel(graph, levels=0), frames(graph, 5), tmp_path / "lutnet")
    assert report.verification.mismatches == 0
    assert report.timing.latency_cycles == 2
    assert report.timing.cycles_per_image == 1
    assert report.timing.fmax_mhz is not None
    assert report.timing.fmax_mhz > 50
    assert report.resources.dsp == 0
    assert report.resources.bram == 0
    assert {layer.name for layer in report.layers} == {"encode", "layer1", "count", "decide"}
    assert (tmp_path / "lutnet" / "report.html").is_file()
