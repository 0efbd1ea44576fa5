"""The networks that `precision.py` and `peak.py` build as hardware: float, quantized, or trained under quantization.

    python -m benchmarks.models.few_bits NAME

trains one under quantization again, from fixed seeds, in one thread, and replaces its integer graph in `weights/`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.models import datasets
from benchmarks.models.binary_cnn import binary_cnn
from benchmarks.models.training import Data, Schedule, accuracy, train
from bitfab import zoo
from bitfab.data import qubit
from bitfab.dtypes import ScaleKind
from bitfab.frontend.tflite import load_tflite
from bitfab.ir import Graph
from bitfab.ir.serialize import load, save
from bitfab.quant import ObserverKind, Override, Recipe, StepRule, lower, prepare
from bitfab.quant import train as train_quantized
from bitfab.zoo.train import segmentation_loss

WEIGHTS = Path(__file__).parent / "weights"
RESNET8 = datasets.SHARED / "models" / "pretrainedResnet.tflite"
CALIBRATION = 256
DIAGRAMS = 2000
IMAGES = 20_000
SEED = 0


def recipe(network: str, bits: int) -> Recipe:
    """Powers of two, so that requantizing is a shift; the ends, and what a residual block adds, in 8 bits.

    `binary` has one bit everywhere, its input included, but for the logits.
    """
    if network == "binary":
        ends = {"input": Override(activations=1), "11": Override(activations=8)}
        return Recipe(1, 1, observer=ObserverKind.MSE, scale=ScaleKind.PO2, symmetric_activations=True, overrides=ends)
    wide, first, last = {
        "qubit": ((), "down.0.0", "head"),
        "resnet8": (
            ("model_batch_normalization_*", "model_conv2d_*", "model_average_pooling2d_*"),
            "model_activation_Relu_22",
            "model_dense_*",
        ),
    }[network]
    overrides = {name: Override(activations=8) for name in wide}
    if bits < 8:
        overrides |= {first: Override(weights=8), last: Override(weights=8, activations=8)}
    return Recipe(bits, bits, observer=ObserverKind.MSE, scale=ScaleKind.PO2, overrides=overrides)


def resnet8() -> nn.Module:
    """MLPerf Tiny's ResNet8 with its own weights: images (N, 3, 32, 32) of 0 to 255."""
    return load_tflite(RESNET8)


def cifar() -> Data:
    """As `datasets.cifar`, of 0 to 255."""
    data = datasets.cifar()
    return Data(*(_bytes(data.train), data.labels, _bytes(data.test), data.truth), mirrors=True)


def mnist() -> Data:
    """Images (N, 1, 28, 28) of ink (+1, from 128) and paper (-1)."""
    data = datasets.mnist()
    train, test = (torch.where(x.reshape(-1, 1, 28, 28) > 0, 1.0, -1.0) for x in (data.train, data.test))
    return Data(train[:IMAGES], data.labels[:IMAGES], test, data.truth)


def _bytes(x: Tensor) -> Tensor:
    return ((x + 1) * 127.5).round()


def graph(name: str) -> Graph:
    """The shipped integer graph of that name, as in `TRAINED`."""
    return load(WEIGHTS / f"{name}.safetensors")


def float_accuracy(name: str) -> float:
    """Of the float network that a shipped graph was trained from, in percent, as measured when it was."""
    return float(json.loads((WEIGHTS / f"{name}.json").read_text())["float"])


@dataclass(frozen=True)
class Trained:
    """A network trained under quantization: which, at how many bits, how long."""

    network: str
    bits: int
    schedule: Schedule


TRAINED = {
    "qubit-4": Trained("qubit", 4, Schedule(4, 1e-3, 32)),
    "qubit-2": Trained("qubit", 2, Schedule(12, 3e-3, 32)),
    "resnet8-4": Trained("resnet8", 4, Schedule(4, 1e-4, 16, distilled=0.9)),
    "resnet8-2": Trained("resnet8", 2, Schedule(12, 2e-4, 16, distilled=0.9)),
    "binary": Trained("binary", 1, Schedule(8, 5e-3, 128, distilled=0.5)),
}
FLOAT = Schedule(2, 3e-3, 128)  # of the binary network before


def _train_qubit(task: Trained) -> nn.Module:
    images, masks = (torch.from_numpy(x) for x in qubit.generate(DIAGRAMS, qubit.SPLIT_SEEDS["train"]))
    prepared = prepare(zoo.load("qubit"), [images[:CALIBRATION]], recipe("qubit", task.bits), StepRule.TQT)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, masks), task.schedule.batch, True, drop_last=True
    )
    return train_quantized(prepared, loader, segmentation_loss, task.schedule.epochs, task.schedule.learning_rate)


def _train_resnet8(task: Trained) -> nn.Module:
    data, net = cifar(), resnet8()
    prepared = prepare(net, [data.train[:CALIBRATION]], recipe("resnet8", task.bits), StepRule.TQT)
    return train(prepared, data, task.schedule, SEED, net)


def _train_binary(task: Trained) -> nn.Module:
    data = mnist()
    net = train(binary_cnn(), data, FLOAT, SEED)
    (WEIGHTS / "binary.json").write_text(json.dumps({"float": accuracy(net, data)}) + "\n")
    prepared = prepare(net, [data.train[:CALIBRATION]], recipe("binary", 1), StepRule.TQT)
    return train(prepared, data, task.schedule, SEED, net)


TRAINING: dict[str, Callable[[Trained], nn.Module]] = {
    "qubit": _train_qubit,
    "resnet8": _train_resnet8,
    "binary": _train_binary,
}


def main() -> None:
    """Train the networks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="+", choices=TRAINED)
    torch.set_num_threads(1)
    for name in parser.parse_args().name:
        torch.manual_seed(SEED)
        WEIGHTS.mkdir(exist_ok=True)
        start, task = time.process_time(), TRAINED[name]
        prepared = TRAINING[task.network](task)
        save(lower(prepared.double(), name.replace("-", "_")), WEIGHTS / f"{name}.safetensors")
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
