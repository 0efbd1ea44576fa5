"""A design with registers, driven over AXI by cocotb and cocotbext-axi as its user would, in both languages."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bitfab.hw import Design, Language, generate
from bitfab.hw.memories import to_stream
from bitfab.hw.ports import Port, input_ports, output_ports
from bitfab.hw.wrappers import identity, version_number
from bitfab.ir import Graph, run
from bitfab.quant import quantize
from bitfab.tools import ghdl, verilator
from bitfab.tools.process import MissingToolError, find_package

FRAMES = 50
TESTS = "tests.e2e.cocotb_user"


@pytest.fixture(autouse=True)
def _needs_cocotb() -> None:
    for package in ("cocotb", "cocotbext.axi"):
        if importlib.util.find_spec(package.split(".")[0]) is None or importlib.util.find_spec(package) is None:
            pytest.skip("cocotb is not installed (pip install cocotb cocotbext-axi)")


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5)]
    return quantize(nn.Sequential(*layers).eval(), [torch.randn(4, 2, 4, 4)], name="tiny")


def generated(graph: Graph, language: str, registers: bool = True) -> Design:
    return generate(graph, "ecp5-25k", parallelism=18, language=language, registers=registers)


def written(graph: Graph, language: str, folder: Path) -> Design:
    """The design and its job for the test inside the simulator, on disk."""
    plain, design = generated(graph, language, registers=False), generated(graph, language)
    for path, text in design.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    value = graph.inputs[0]
    images = np.random.default_rng(3).integers(value.low, value.high + 1, (FRAMES, *value.shape))
    (entry,), (exit_,) = input_ports(design), output_ports(design)
    streams = (entry.stream, exit_.stream)
    registers = [0x62697466, version_number(), identity(plain) % (1 << 32), 1, *(stream.words for stream in streams)]
    registers += [stream.bits << 16 | stream.lanes for stream in streams]
    job = {
        "frames": as_bytes(images, entry, graph),
        "answers": as_bytes(run(graph, images), exit_, graph),
        "registers": {hex(4 * place): number for place, number in enumerate(registers)},
    }
    (folder / "job.json").write_text(json.dumps(job))
    return design


def as_bytes(values: np.ndarray, port: Port, graph: Graph) -> list[str]:
    """Each frame as the bytes of tdata, in hexadecimal."""
    stream = port.stream
    frames = []
    for image in values:
        words = to_stream(image[None], stream.shape, stream.lanes, graph.values[stream.value].type)
        numbers = [
            sum((int(lane) & ((1 << stream.bits) - 1)) << i * stream.bits for i, lane in enumerate(word))
            for word in words
        ]
        frames.append(b"".join(number.to_bytes(port.bits // 8, "little") for number in numbers).hex())
    return frames


def simulator(sources: list[Path], top: str, folder: Path) -> None:
    """`folder`/`top`, by Verilator with cocotb's interface."""
    from cocotb_tools import config

    library = Path(config.libs_dir)
    folder.mkdir()
    root = find_package("verilator", "verilator")
    link = f"-Wl,-rpath,{library} -L{library} -lcocotbvpi_verilator"
    options = (
        f"--cc --exe --vpi --public-depth 1 --no-MMD --output-split 0 --prefix Vtop -Mdir . -o {top} --top-module {top}"
    )
    main = Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}

    def step(*command: str | Path) -> None:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    step(root / "bin" / "verilator_bin", *options.split(), "-LDFLAGS", link, main, *sources)
    flags = verilator._make_flags(False)
    with verilator._runtime_objects(folder, [*flags, "vpi"]):
        step("make", "-j2", "-f", "Vtop.mk", *flags)


def drive(simulator: str, language: str, top: str, folder: Path, *options: str, tests: str = TESTS) -> None:
    """Run the test inside the simulator; it fails this one."""
    from cocotb_tools.runner import get_runner

    get_runner(simulator).test(
        tests,
        top,
        hdl_toplevel_lang=language,
        build_dir=folder / "obj",
        test_dir=folder / "rtl",
        results_xml=str(folder / "results.xml"),
        seed=1,
        test_args=options,
        plusargs=["--ieee-asserts=disable"] if simulator == "ghdl" else [],
        extra_env={"COCOTB_JOB": str(folder / "job.json"), "COCOTB_LOG_LEVEL": "WARNING"},
    )


def wrapped(design: Design, other: str, folder: Path) -> list[Path]:
    """The design's sources and, in place of the other language's, what wraps the same design for it."""
    top = f"{design.name}_axi_wrapper"
    text = next(text for path, text in generated(design.graph, other).files.items() if f"/{top}." in path)
    wrapper = folder / f"{top}.{'vhd' if design.language is Language.VHDL else 'sv'}"
    wrapper.write_text(text)
    return [*(folder / path for path in design.sources), wrapper]


def test_verilog_over_axi(graph: Graph, tmp_path: Path) -> None:
    try:
        verilator.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    design = written(graph, "verilog", tmp_path)
    simulator(wrapped(design, "vhdl", tmp_path), f"{design.name}_axi_wrapper", tmp_path / "obj")
    drive("verilator", "verilog", f"{design.name}_axi_wrapper", tmp_path)


def test_vhdl_over_axi(graph: Graph, tmp_path: Path) -> None:
    from cocotb_tools.runner import get_runner

    try:
        ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    design, top = written(graph, "vhdl", tmp_path), f"{graph.name}_axi_wrapper"
    sources = wrapped(design, "verilog", tmp_path)
    ghdl.analyse(sources)
    get_runner("ghdl").build(sources=sources, hdl_toplevel=top, build_args=["--std=08"], build_dir=tmp_path / "obj")
    drive("ghdl", "vhdl", top, tmp_path, "--std=08", f"--workdir={tmp_path / 'obj'}")
