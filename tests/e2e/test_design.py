"""A whole design, the smallest U-Net of the zoo on 16x16 images: proved, stressed, and shown to be able to fail."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bitfab import zoo
from bitfab.backend import Simulation, simulate
from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.flow import as_integers
from bitfab.hw import Design, generate
from bitfab.hw.testbench import observe
from bitfab.ir.graph import Graph
from bitfab.quant import quantize
from bitfab.tools import verilator
from bitfab.tools.process import ToolError, run_tool

IMAGES = 4


@dataclass(frozen=True)
class Proved:
    """The design on disk, its simulator built and run."""

    graph: Graph
    design: Design
    images: IntArray
    folder: Path
    simulation: Simulation

    @property
    def program(self) -> Path:
        return self.folder / "sim" / "obj" / "sim_tb"


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    random = np.random.default_rng(0).random((IMAGES, 1, 16, 16), dtype=np.float32)
    graph = quantize(zoo.load("qubit-447"), [random], name="small_unet")
    design = generate(graph, parallelism=24)
    images = as_integers(graph, random)
    folder = tmp_path_factory.mktemp("design") / "small_unet"
    return Proved(graph, design, images, folder, simulate(design, images, folder))


def test_no_stream_differs_from_the_definition(proved: Proved) -> None:
    steady = proved.simulation.steady
    assert proved.simulation.mismatches == 0
    expected = {stream.value: IMAGES * int(np.prod(stream.shape)) for stream in proved.design.taps}
    assert all(steady.values[name] >= count for name, count in expected.items())
    assert steady.values["output"] == IMAGES * 16 * 16
    assert steady.passed


def test_the_schedule_foretells_the_cycles(proved: Proved) -> None:
    steady = proved.simulation.steady
    assert steady.cycles_per_image == pytest.approx(proved.design.expected_cycles, rel=0.03)
    assert steady.latency_cycles == pytest.approx(proved.design.expected_latency, rel=0.15)


def test_the_slowest_layer_multiplies_almost_always(proved: Proved) -> None:
    slowest = max((layer for layer in proved.design.layers if layer.folding), key=lambda layer: layer.cycles)
    assert slowest.folding is not None
    ideal = slowest.macs / slowest.folding.multipliers
    assert ideal / proved.simulation.steady.cycles_per_image >= 0.85


@pytest.mark.parametrize(("idle", "stall"), [(90, 0), (0, 90), (50, 50), (20, 80)])
def test_pauses_change_no_value(proved: Proved, idle: int, stall: int) -> None:
    arguments = ["+images=2", f"+idle={idle}", f"+stall={stall}"]
    lines = verilator.run(proved.program, proved.folder / "rtl", arguments=arguments)
    seen = observe(proved.design, lines)
    assert seen.passed and not any(seen.mismatches.values())


def test_fifos_hold_what_the_schedule_says(proved: Proved) -> None:
    assert len(proved.design.fifos) == 1
    for fifo in proved.design.fifos:
        peak = proved.simulation.steady.fifo_peaks[fifo.instance]
        assert 16 * 2 < peak <= fifo.capacity, "a skip connection must wait for several rows"


@pytest.mark.parametrize("stream", ["output", "middle"])
def test_a_corrupted_expectation_fails(proved: Proved, stream: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(proved.folder, copy)
    name = "output" if stream == "output" else proved.design.taps[len(proved.design.taps) // 2].name
    file = copy / "sim" / f"{name}.mem"
    words = file.read_text().split()
    words[-1] = f"{int(words[-1], 16) ^ 1:x}"
    file.write_text("\n".join(words) + "\n")
    with pytest.raises(ToolError) as failure:
        verilator.run(copy / "sim" / "obj" / "sim_tb", copy / "rtl", arguments=[f"+images={IMAGES}"])
    seen = observe(proved.design, failure.value.lines)
    assert not seen.passed
    assert sum(seen.mismatches.values()) == 1
    assert seen.complaints


def test_a_corrupted_weight_is_found_and_named(proved: Proved, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(proved.folder, copy)
    file = next((copy / "rtl").glob("*_weight.mem"))
    layer = file.name.removesuffix("_weight.mem")
    words = file.read_text().split()
    words[0] = f"{int(words[0], 16) ^ 0x40:x}"
    file.write_text("\n".join(words) + "\n")
    with pytest.raises(ToolError) as failure:
        verilator.run(copy / "sim" / "obj" / "sim_tb", copy / "rtl")
    seen = observe(proved.design, failure.value.lines)
    assert seen.mismatches[layer] > 0
    assert seen.complaints[0].startswith(f"MISMATCH {layer} ")


def test_icarus_agrees(proved: Proved, tmp_path: Path) -> None:
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed (apt install iverilog)")
    lines = run_tool(
        ["make", "-C", proved.folder / "sim", "icarus", "ARGS=+images=1"],
        tool="icarus",
        task="simulating the design",
        directory=proved.folder,
        log=tmp_path / "icarus.log",
        time_limit=300,
    )
    assert any(line.startswith("PASS 1 images, 0 mismatches") for line in lines)


def test_generation_is_deterministic(proved: Proved) -> None:
    again = generate(proved.graph, parallelism=24)
    assert dict(again.files) == dict(proved.design.files)


def test_every_layer_is_an_instance_with_its_name_and_types(proved: Proved) -> None:
    top = proved.design.files["rtl/small_unet.sv"]
    for node in proved.graph.nodes:
        assert f" u_{node.name} (" in top
        assert f"-> {node.output.type} " in top


def test_a_folder_of_somebody_else_is_left_alone(proved: Proved, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BitfabError, match="not bitfab's"):
        simulate(proved.design, proved.images, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
