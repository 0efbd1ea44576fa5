"""Runs the command line in this process, and tells what it did to the files around it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bitfab import cli

NETWORKS = """
import torch
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 2, 1))

class Bad(Tiny):
    def __init__(self, value=float("nan")):
        super().__init__()
        self[0].weight.data[1, 0, 0, 0] = value

class Classifier(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))

def infinite(): return Bad(float("inf"))
def dead():
    net = Tiny().requires_grad_(False)
    for tensor in net.parameters(): tensor.zero_()
    return net
def dead_channel():
    net = Tiny().requires_grad_(False)
    net[0].weight[1], net[2].weight[1] = 0, 0
    return net
def lazy(): return nn.Sequential(nn.LazyConv2d(2, 1))

class Two(nn.Module):
    def forward(self, x, y): return x + y

class Sine(nn.Module):
    def forward(self, x): return torch.special.bessel_j0(x)
"""

CALIBRATION = np.random.default_rng(0).normal(size=(4, 1, 4, 4)).astype(np.float32)


class Cli:
    """Runs the command line in this process, in an empty folder that holds the networks and some data."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capture = folder, capture

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        out, err = self.capture.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    def good(self, *words: str | Path) -> str:
        code, out, err = self(*words)
        assert (code, err) == (0, "")
        return out

    def refuse(self, *words: str | Path) -> str:
        """The one line of an error; no file has appeared, gone or changed."""
        before = self.files()
        code, _, err = self(*words)
        assert code == 2, err
        assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
        assert self.files() == before
        return err

    def files(self) -> dict[str, int]:
        """Every file and folder, and when it changed."""
        paths = (path for path in self.folder.rglob("*") if "__pycache__" not in path.parts)
        return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in paths}


@contextmanager
def without_package(name: str) -> Iterator[None]:
    """As on a machine where this package is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, None)
        yield
