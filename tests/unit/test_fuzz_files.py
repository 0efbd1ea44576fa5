"""Damaged files of every kind that is read: a clear error of one line or success, never a traceback, soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import bitfab as bf
from bitfab.errors import BitfabError
from bitfab.frontend.onnx import example_input, load_onnx
from bitfab.frontend.torch import capture
from bitfab.ir import serialize
from tests.mutations import damaged, damaged_onnx
from tests.onnx_files import damage_targets

LONGEST = 10.0  # seconds of processor time for one file: other work on the machine does not count


def attempt(read: Callable[[Path], object], path: Path, data: bytes) -> bool:
    """Whether the file was taken; fails where it neither is nor is refused by one line, or takes long."""
    path.write_bytes(data)
    start = time.process_time()
    try:
        read(path)
    except BitfabError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return False
    finally:
        assert time.process_time() - start < LONGEST
    return True


def _captured(path: Path) -> None:
    network = load_onnx(path)
    if max(size or 1 for size in network.input_shape) < 100:
        capture(network, example_input(network))


@pytest.mark.parametrize("number", [0, 1])
def test_damaged_onnx_files(number: int, tmp_path: Path) -> None:
    model = damage_targets()[number]
    original = model.SerializeToString()
    rng = np.random.default_rng(number)
    assert attempt(_captured, tmp_path / "net.onnx", original)
    taken = [attempt(load_onnx, tmp_path / "net.onnx", damaged(original, rng)) for _ in range(80)]
    taken += [attempt(load_onnx, tmp_path / "net.onnx", damaged_onnx(model, rng)) for _ in range(80)]
    taken += [attempt(_captured, tmp_path / "net.onnx", damaged_onnx(model, rng)) for _ in range(12)]
    assert 0 < sum(taken) < len(taken)


def test_damaged_graphs(tmp_path: Path) -> None:
    graph = bf.quantize(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU()), [torch.randn(4, 2, 5, 5)])
    serialize.save(graph, tmp_path / "net.safetensors")
    original = (tmp_path / "net.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    assert attempt(serialize.load, tmp_path / "net.safetensors", original)
    taken = [attempt(serialize.load, tmp_path / "net.safetensors", damaged(original, rng)) for _ in range(150)]
    assert sum(taken) < len(taken)
