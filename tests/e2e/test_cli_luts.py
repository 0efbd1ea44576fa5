"""LUT networks on the command line: train, inspect, build in both languages; and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from bitfab.data import npz, pulses
from bitfab.ir.serialize import load
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError
from tests.cli_runner import Cli

OPTIONS = ("--tables", "20", "--levels", "3", "--epochs", "2", "--features", "2-60")


@pytest.fixture(scope="module")
def frames() -> dict[str, np.ndarray]:
    x, y = pulses.generate(600, pulses.SPLIT_SEEDS["train"])
    return {"x": x, "y": y}


@pytest.fixture
def data(run: Cli, frames: dict[str, np.ndarray]) -> Path:
    np.savez("frames.npz", **frames)
    return Path("frames.npz")


def test_train_then_build_in_both_languages(run: Cli, data: Path) -> None:
    out = run.good("train", data, "-o", "net.safetensors", *OPTIONS)
    assert "of the 600 samples it was trained on; judge it on others" in out
    again = run.good("train", data, "-o", "net2.safetensors", *OPTIONS)
    assert out.replace("net.", "net2.") == again
    assert "Lut" in run.good("inspect", "net.safetensors") and load(Path("net.safetensors")).name == "net"
    for language, ending in (("verilog", ".sv"), ("vhdl", ".vhd")):
        if language == "vhdl":
            try:
                ghdl.require()
            except MissingToolError as error:
                pytest.skip(str(error))
        options = ("--no-place", "--language", language, "--levels", "2")
        assert "0 mismatches" in run.good("build", "net.safetensors", "-o", language, *options)
        assert Path(language, "rtl", f"net{ending}").is_file() and Path(language, "report.html").is_file()


def test_search_from_random_and_around_a_trained_network(run: Cli, data: Path) -> None:
    for method in ("genetic", "both"):
        out = run.good("train", data, "-o", "net.safetensors", *OPTIONS, "--method", method, "--generations", "3")
        assert "networks in the front" in out


def test_processes_give_the_same_file(run: Cli, data: Path) -> None:
    for name, workers in (("net", "1"), ("more", "2")):
        options = (*OPTIONS, "--method", "genetic", "--generations", "2", "--workers", workers)
        run.good("train", data, "-o", f"{name}.safetensors", *options)
    assert load(Path("net.safetensors")).nodes[1].op.table.tobytes() == (
        load(Path("more.safetensors")).nodes[1].op.table.tobytes()
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--tables", "x"], "--tables x: write N or N,N,..., such as 400,200"),
        (["--tables", "21"], "21 outputs cannot be shared evenly by 2 classes; use 20 or 22"),
        (["--tables", "1", "--method", "genetic"], "1 LUTs hold no network of 2 classes in 1 layers"),
        (["--features", "0-20"], "feature 0, 1: constant over 600 samples"),
        (["--features", "9-2"], "--features 9-2: write FIRST-LAST"),
        (["--features", "2-128"], "feature 128: the samples have features 0 to 127"),
        (["--method", "magic"], "--method magic: choose one of gradient, genetic, both"),
        (["-o", "net.onnx"], "net.onnx: a graph is saved as .safetensors"),
    ],
)
def test_options_of_train(run: Cli, data: Path, options: list[str], reason: str) -> None:
    assert reason in run.refuse("train", data, "-o", "net.safetensors", *OPTIONS, *options)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"y": None}, "holds no array y"),
        ({"y": np.zeros(5, int)}, "labels are integers of shape (600,)"),
        ({"y": np.zeros(600, int)}, "all are of one class"),
        ({"x": np.full((600, 4), np.nan)}, "x holds NaN or infinite values"),
        ({"x": np.zeros((600, 4, 4))}, "give samples (N, features)"),
        ({"x": np.array([{}] * 600)}, "holds Python objects"),
    ],
)
def test_data_that_trains_nothing(run: Cli, frames: dict[str, np.ndarray], change: dict, reason: str) -> None:
    arrays = {name: array for name, array in (frames | change).items() if array is not None}
    np.savez("bad.npz", **arrays)
    assert reason in run.refuse("train", "bad.npz", "-o", "net.safetensors", *OPTIONS[:2])


def test_samples_that_unpack_to_too_much(run: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BYTES", 1 << 10)
    assert "frames.npz: holds 76,928 bytes, at most 1,024 are read" in run.refuse("train", data, "-o", "n.safetensors")


def test_style_and_language_that_do_not_fit(run: Cli, graph: Path) -> None:
    assert "choose that style" in run.refuse("build", graph, "-o", "design", "--levels", "3")
    assert "choose one of verilog, vhdl" in run.refuse("build", graph, "-o", "design", "--language", "ada")
    assert "style 'magic': choose one of stream, parallel" in run.refuse("build", graph, "-o", "d", "--style", "magic")
    assert "has no registers" in run.refuse("build", graph, "-o", "d", "--style", "parallel", "--registers")
