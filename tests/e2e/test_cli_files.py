"""The command line on files of others: float and quantized ONNX and TFLite in, ONNX and tables out, estimates."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfab.hw import generate
from bitfab.ir.serialize import load
from tests.cli_runner import Cli


def float_onnx(path: Path) -> None:
    """A convolution with a ReLU: (N, 1, 4, 4) to (N, 2, 4, 4)."""
    weight = np.random.default_rng(0).normal(size=(2, 1, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def converted(run: Cli) -> Path:
    """A float ONNX file, quantized."""
    float_onnx(run.folder / "net.onnx")
    run.good("quantize", "net.onnx", "--calib", "calib.npy", "-o", "net.safetensors")
    return run.folder / "net.safetensors"


def test_an_onnx_file_there_and_back(run: Cli, converted: Path) -> None:
    """Float ONNX to the graph, the graph to QDQ, QDQ to a graph again: as good as the same."""
    assert "style qdq" in run.good("export", converted, "-o", "back.onnx")
    assert "Conv2d" in run.good("inspect", "back.onnx")
    for style in ("qoperator", "qonnx"):
        run.good("export", converted, "-o", f"{style}.onnx", "--style", style)
        onnx.load(run.folder / f"{style}.onnx")


def test_tables(run: Cli, converted: Path) -> None:
    assert "manifest.json" in run.good("export", converted, "-o", "tables", "--tables")
    assert json.loads((run.folder / "tables" / "manifest.json").read_text())


def test_estimate_tells_what_build_would_make(run: Cli, converted: Path) -> None:
    out = run.good("estimate", converted, "--target", "ecp5-25k", "--clock", "100")
    cycles = generate(load(converted), "ecp5-25k", 64).expected_cycles
    assert f"{cycles:,} cycles an image" in out
    assert "of 24,288 LUT" in out
    assert "PE x SIMD" in out
    slow = run.good("estimate", converted, "--target", "ecp5-25k", "--rate", "1000")
    assert f"{cycles:,} cycles an image" not in slow


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ("quantize", "net.onnx", "--calib", "calib.npy", "-o", "n.safetensors", "--parameters", "p.safetensors"),
            "its own",
        ),
        (("quantize", "no.onnx", "--calib", "calib.npy", "-o", "n.safetensors"), "no.onnx"),
        (("quantize", "net.onnx", "--calib", "calib.npy", "-o", "n.safetensors", "--preset", "magic"), "choose one of"),
        (("quantize", "net.onnx", "--calib", "calib.npy", "-o", "n.safetensors", "--report", "r.html"), "--preset"),
        (("inspect", "net.onnx"), "net.onnx"),
        (("export", "net.safetensors", "-o", "x.txt"), "ends in .onnx"),
        (("export", "net.safetensors", "-o", "x.onnx", "--style", "magic"), "choose one of"),
        (("estimate", "net.safetensors", "--fit", "2"), "choose more than 0"),
        (("estimate", "net.safetensors", "--fit", "0.5", "--fold", "c=1x1"), "leave either out"),
        (("estimate", "net.safetensors", "--rate", "1e9"), "lower the rate"),
    ],
)
def test_what_is_refused(run: Cli, converted: Path, words: tuple[str, ...], reason: str) -> None:
    assert reason in run.refuse(*words)
