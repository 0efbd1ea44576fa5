"""The command line in an empty folder with small networks, data and a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfab import cli
from tests.cli_runner import CALIBRATION, NETWORKS, Cli


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_networks.py").write_text(NETWORKS)
    np.save("calib.npy", CALIBRATION)
    return Cli(tmp_path, capfd)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The graph of Tiny, made on the command line once."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="0"):
        patch.chdir(tmp_path_factory.mktemp("quantized"))
        Path("tiny_networks.py").write_text(NETWORKS)
        np.save("calib.npy", CALIBRATION)
        cli.main(["quantize", "tiny_networks:Tiny", "--calib", "calib.npy", "-o", "tiny.safetensors"])
    return next(tmp_path_factory.getbasetemp().glob("quantized*/tiny.safetensors")).read_bytes()


@pytest.fixture
def graph(run: Cli, quantized: bytes) -> Path:
    path = run.folder / "tiny.safetensors"
    path.write_bytes(quantized)
    return path
