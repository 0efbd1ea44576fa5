"""Weights of a retrained network loaded over AXI-Lite, by cocotb and cocotbext-axi, in both languages."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bitfab as bf
from bitfab.hw import Design, generate
from bitfab.hw.ports import input_ports, output_ports
from bitfab.ir import Graph, run
from bitfab.tools import ghdl, verilator
from bitfab.tools.process import MissingToolError
from tests.e2e.cocotb_user import Job
from tests.e2e.test_cocotb import _needs_cocotb, as_bytes, drive, simulator

__all__ = ["_needs_cocotb"]

FRAMES = 12
TESTS = "tests.e2e.cocotb_loader"


@pytest.fixture(scope="module")
def graphs() -> tuple[Graph, Graph]:
    """A network, and the same one trained a little further."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5)]
    network, frames = nn.Sequential(*layers).eval(), [torch.randn(4, 2, 4, 4)]
    recipe = bf.Recipe(symmetric_activations=True)
    own = bf.quantize(network, frames, recipe, name="tiny")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * parameter.std() * torch.randn_like(parameter))
    return own, bf.quantize(network, frames, recipe, name="tiny")


def written(graphs: tuple[Graph, Graph], language: str, folder: Path) -> Design:
    """The first graph's design and the jobs for the test inside the simulator, on disk."""
    own, other = graphs
    design = generate(own, "ecp5-25k", parallelism=24, language=language, registers=True, loadable=True)
    for path, text in design.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    value = own.inputs[0]
    images = np.random.default_rng(3).integers(value.low, value.high + 1, (FRAMES, *value.shape))
    (entry,), (exit_,) = input_ports(design), output_ports(design)
    words = {"0x10": entry.stream.words, "0x14": exit_.stream.words}
    job = Job(as_bytes(images, entry, own), as_bytes(run(own, images), exit_, own), words)
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    answers = as_bytes(run(other, images), exit_, other)
    assert sum(a != b for a, b in zip(answers, job.answers, strict=True)) > FRAMES // 2
    loads = {"other": bf.load_writes(design, other), "own": bf.load_writes(design, own), "answers": answers}
    (folder / "loads.json").write_text(json.dumps(loads))
    return design


def test_weights_over_axi_in_verilog(graphs: tuple[Graph, Graph], tmp_path: Path) -> None:
    try:
        verilator.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    design = written(graphs, "verilog", tmp_path)
    simulator([tmp_path / path for path in design.sources], f"{design.name}_axi", tmp_path / "obj")
    drive("verilator", "verilog", f"{design.name}_axi", tmp_path, tests=TESTS)


def test_weights_over_axi_in_vhdl(graphs: tuple[Graph, Graph], tmp_path: Path) -> None:
    from cocotb_tools.runner import get_runner

    try:
        ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    design = written(graphs, "vhdl", tmp_path)
    sources, top = [tmp_path / path for path in design.sources], f"{design.name}_axi"
    get_runner("ghdl").build(sources=sources, hdl_toplevel=top, build_args=["--std=08"], build_dir=tmp_path / "obj")
    drive("ghdl", "vhdl", top, tmp_path, "--std=08", f"--workdir={tmp_path / 'obj'}", tests=TESTS)
