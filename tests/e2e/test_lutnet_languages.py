"""LUT networks give the same integers in Python, VHDL and Verilog; the two netlists are formally equal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bitfab.backend import simulate
from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.hw import ParallelDesign, generate, write_files
from bitfab.hw.parallel import testbench as bench
from bitfab.hw.parallel import vhdl
from bitfab.hw.testbench import Observed, observe
from bitfab.ir.graph import Graph
from bitfab.ir.ops import Bits, Compare, Lut, Threshold
from bitfab.lutnet import Features, LutNetwork, equal_groups, lower
from bitfab.tools import equivalence, ghdl, verilator, yosys
from bitfab.tools.process import MissingToolError


@pytest.fixture(autouse=True)
def _needs_tools() -> None:
    for require in (ghdl.require, verilator.require, yosys.require):
        try:
            require()
        except MissingToolError as error:
            pytest.skip(str(error))


def random_layers(rng: np.random.Generator, bits: int, sizes: Sequence[int], fan_in: int) -> tuple[Lut, ...]:
    layers = []
    for size in sizes:
        wiring = np.stack([rng.permutation(bits)[:fan_in] for _ in range(size)])
        layers.append(Lut(wiring, rng.integers(0, 2, (size, 1 << fan_in))))
        bits = size
    return tuple(layers)


def thermometer_network() -> Graph:
    """Four signed numbers of four bits (every frame is tried), thermometer codes, three classes."""
    rng, type = np.random.default_rng(1), IntType(4, signed=True)
    encoder = Compare(rng.integers(0, 4, 20), rng.integers(type.low + 1, type.high + 1, 20))
    network = LutNetwork(Features(4, type), encoder, random_layers(rng, 20, (18, 12), 4), equal_groups(12, 3))
    return lower(network, "thermometer")


def raw_bits_network(name: str = "raw_bits", flipped: bool = False) -> Graph:
    """The bits of two unsigned numbers of eight (every frame is tried), tables of six inputs, a count with a level."""
    rng, type = np.random.default_rng(2), IntType(8, signed=False)
    layers = random_layers(rng, 16, (12, 10), 5)
    if flipped:
        layers[0].table[3, 9] ^= 1
    decision = Threshold(np.array([[5]]), IntType(1, signed=False), 0)
    encoder = Bits(np.repeat([0, 1], 8), np.tile(np.arange(8), 2))
    return lower(LutNetwork(Features(2, type), encoder, layers, equal_groups(10, 1), decision), name)


def wide_network() -> Graph:
    """Sixteen signed numbers of eight bits, five classes: random frames."""
    rng, type = np.random.default_rng(3), IntType(8, signed=True)
    encoder = Compare(rng.integers(0, 16, 60), rng.integers(type.low + 1, type.high + 1, 60))
    network = LutNetwork(Features(16, type), encoder, random_layers(rng, 60, (50, 40), 6), equal_groups(40, 5))
    return lower(network, "wide")


NETWORKS = {"thermometer": (thermometer_network, 0, False), "raw_bits": (raw_bits_network, 1, False)}
NETWORKS |= {"wide": (wide_network, 2, False), "serial": (wide_network, 0, True)}


def design_in(language: str, graph: Graph, levels: int, serial: bool = False) -> ParallelDesign:
    design = generate(graph, style="parallel", levels=levels, serial=serial, language=language)
    assert isinstance(design, ParallelDesign)
    return design


def simulate_vhdl(design: ParallelDesign, folder: Path, idle: int) -> Observed:
    value = design.graph.inputs[0]
    given = np.zeros((1, *value.shape), dtype=np.int64)
    images = bench.frames(design, given)
    write_files(
        dict(design.files) | bench.testbench(design, images) | vhdl.testbench(design.netlist, len(images)), folder
    )
    sources = [folder / path for path in (*design.sources, "sim/tb.vhd")]
    lines = ghdl.run_testbench(sources, "tb", folder / "sim", {"Idle": idle})
    assert f"PASS {len(images)} frames, 0 mismatches" in lines
    return observe(design, lines)


@pytest.mark.parametrize("name", NETWORKS)
def test_python_equals_vhdl_equals_verilog(name: str, tmp_path: Path) -> None:
    make, levels, serial = NETWORKS[name]
    graph = make()
    ours, theirs = (design_in(language, graph, levels, serial) for language in ("vhdl", "verilog"))
    seen = simulate_vhdl(ours, tmp_path / "vhdl", idle=30)
    verilog = simulate(theirs, np.zeros((1, *graph.inputs[0].shape), dtype=np.int64), tmp_path / "verilog")
    bits = graph.inputs[0].type.bits * graph.inputs[0].shape[0]
    assert verilog.mismatches == 0 and seen.mismatches == {"output": 0}
    assert verilog.steady.values["output"] == seen.values["output"] == (1 << 16 if bits <= 16 else 1001)
    latencies = [run.first_out[0] - run.last_in[0] + 1 for run in (seen, verilog.steady, verilog.paused)]
    assert latencies == [ours.netlist.latency] * 3


def netlists(graph: Graph, levels: int, folder: Path) -> tuple[list[Path], Path]:
    """The Verilog design, and the VHDL one as GHDL translates it."""
    for language in ("vhdl", "verilog"):
        write_files(design_in(language, graph, levels).files, folder / language)
    vhdl_files = [folder / "vhdl" / path for path in design_in("vhdl", graph, levels).sources]
    verilog_files = [folder / "verilog" / path for path in design_in("verilog", graph, levels).sources]
    return verilog_files, ghdl.to_verilog(vhdl_files, graph.name, folder / f"{graph.name}.v")


@pytest.mark.parametrize("levels", [0, 1])
def test_the_two_netlists_are_formally_equal(levels: int, tmp_path: Path) -> None:
    verilog, translated = netlists(raw_bits_network(), levels, tmp_path)
    equivalence.prove_equal(verilog, [translated], "raw_bits", tmp_path / "proof")


def test_one_flipped_bit_of_a_table_is_found(tmp_path: Path) -> None:
    verilog, _ = netlists(raw_bits_network(), 0, tmp_path / "right")
    _, translated = netlists(raw_bits_network(flipped=True), 0, tmp_path / "wrong")
    with pytest.raises(BitfabError, match=r"raw_bits: the two designs differ, first at layer1_gold \[3\]: see "):
        equivalence.prove_equal(verilog, [translated], "raw_bits", tmp_path / "proof")


def test_vhdl_takes_no_multipliers_memories_or_latches(tmp_path: Path) -> None:
    _, translated = netlists(thermometer_network(), 0, tmp_path)
    total = yosys.synthesize_ecp5([translated], "thermometer", tmp_path / "ecp5").total
    assert (total.dsp, total.bram, total.lutram) == (0, 0, 0) and total.lut > 0


def test_same_graph_same_bytes() -> None:
    first, second = (design_in("vhdl", wide_network(), 2).files for _ in range(2))
    assert first == second
