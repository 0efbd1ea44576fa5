"""What the command line writes: whole or not at all, whether a disk is full, a tool fails, or Ctrl-C ends it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bitfab import backend, flow, parts
from bitfab.tools.process import ToolError
from tests.cli_runner import Cli, without_package

QUANTIZE = ("quantize", "tiny_networks:Tiny", "--calib", "calib.npy", "-o", "out.safetensors")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes: a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk(run: Cli, graph: Path) -> None:
    with full_disk(500):
        assert "out.safetensors: cannot be written (File too large)" in run.refuse(
            "quantize", "tiny_networks:Tiny", "--calib", "calib.npy", "-o", "out.safetensors"
        )
        assert "made/design: cannot be written (File too large)" in run.refuse("build", graph, "-o", "made/design")


def test_errors_of_the_file_system_anywhere(run: Cli, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr("bitfab.inputs.load", fail)
    assert "somewhere: No space left on device" in run.refuse("inspect", graph)


@pytest.fixture
def built(run: Cli, graph: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An earlier design in the output folder, for what fails later must leave it alone."""
    folder = run.folder / "design"
    folder.mkdir()
    (folder / "bitfab.json").write_text("{}")
    (folder / "report.json").write_text("old")
    return folder


@pytest.mark.parametrize("stage", ["simulate", "synthesize"])
@pytest.mark.parametrize("folder", ["design", "made/new"])
def test_ctrl_c_leaves_nothing(
    run: Cli, graph: Path, built: Path, monkeypatch: pytest.MonkeyPatch, stage: str, folder: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        assert any(path.name.endswith(".unfinished") for path in run.folder.rglob("*"))
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "simulate", lambda design, images, into, stages: (into / "rtl").mkdir())
    monkeypatch.setattr(flow, stage, interrupted)
    before = run.files()
    code, _, err = run("build", graph, "-o", folder)
    assert code == 130 and "Traceback" not in err
    assert run.files() == before


def test_ctrl_c_while_saving(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, data: bytes) -> None:
        path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    before = run.files()
    assert run(*QUANTIZE)[0] == 130
    assert run.files() == before


def test_a_failed_tool_leaves_its_log_beside_the_output(
    run: Cli, graph: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(design: object, images: object, folder: Path, stages: object) -> None:
        (folder / "sim").mkdir()
        (folder / "bitfab.json").write_text("{}")
        (folder / "sim" / "tool.log").write_text("all it said")
        raise ToolError(
            "verilator", "compiling", "failed with exit code 1", [f"{folder}/a.cc: error: bad"], folder / "sim/tool.log"
        )

    monkeypatch.setattr(flow, "simulate", failing)
    for _ in range(2):  # a second failure replaces the first one's
        code, _, err = run("build", graph, "-o", built)
        first, second = err.splitlines()
        log = Path(first.partition("the whole log: ")[2])
        assert code == 2 and second == f"  {run.folder}/design.failed/a.cc: error: bad"
        assert log == run.folder / "design.failed" / "sim" / "tool.log" and log.read_text() == "all it said"
        assert (built / "report.json").read_text() == "old"
        assert {path.name for path in run.folder.iterdir() if path.name.startswith(".")} == set()


def test_build_without_place_and_route(run: Cli, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole build needs no Yosys; another over it, on a device too small, leaves the first as it was."""
    options = ("-o", "made/design", "--target", "ecp5-25k", "--images", "3", "--fold", "layer_0=2x1")
    with without_package("pyosys"):
        out = run.good("build", graph, *options, "--no-place")
    assert "compile simulator: " in out and " 0 mismatches" in out
    report = json.loads(Path("made/design/report.json").read_text())
    assert report["verification"]["images"] == 3 and report["resources"]["lut"] is None
    assert {path.name for path in Path("made").iterdir()} == {"design"}
    assert {layer["name"]: layer["pe"] for layer in report["layers"]}["layer_0"] == 2

    small = dataclasses.replace(parts.PARTS["ecp5-25k"].available, lut=9)
    part = dataclasses.replace(parts.PARTS["ecp5-25k"], available=small)
    monkeypatch.setattr(parts, "PARTS", {"ecp5-25k": part, "ecp5-45k": parts.PARTS["ecp5-45k"]})

    def copy_of_the_first(_: object, top: str, folder: Path) -> Path:  # the same design: no need to compile it again
        return Path(shutil.copytree("made/design/sim/obj", folder)) / f"sim_{top}"

    monkeypatch.setattr(backend.verilator, "build", copy_of_the_first)
    assert "LUT, the part has 9: choose ecp5-45k or fold more" in run.refuse("build", graph, *options)


def test_an_interrupt_of_the_real_process(run: Cli, graph: Path) -> None:
    """SIGINT while it works: exit code 130, no traceback, nothing left."""
    before = run.files()
    words = [sys.executable, "-c", "from bitfab.cli import main; main()", "build", graph, "-o", "made/design"]
    heard = ["env", "--default-signal=INT"]  # a shell's job in the background inherits that interrupts are ignored
    process = subprocess.Popen([*heard, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    started = time.monotonic()
    while not (run.folder / "made").exists() and time.monotonic() - started < 60:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err
    assert run.files() == before
