"""Trains a reference network from fixed seeds and writes its weights: `python -m bitfab.zoo.train qubit`."""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from bitfab.data import digits, jets, mnist, pulses, qubit
from bitfab.data.metrics import mask_scores, top1_accuracy
from bitfab.ir.serialize import save
from bitfab.lutnet.encode import Spacing
from bitfab.lutnet.fit import LutRecipe, Method, answers, train_luts
from bitfab.zoo import LUT_NETWORKS, METADATA_KEY, NETWORKS, graph_path, weights_path
from bitfab.zoo.mlp import Normalize

__all__ = ["Schedule", "main", "predict", "train_digits", "train_qubit", "train_reference"]

Loss = Callable[[Tensor, Tensor], Tensor]
Record = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """AdamW under a one-cycle learning rate (Smith and Topin 2018), which starts and ends near 0."""

    epochs: int
    batch: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Diagrams:
    """How many diagrams each split has."""

    train: int = 4000
    validation: int = 400
    test: int = 400


SCHEDULES: Final = {
    "qubit-447": Schedule(epochs=15, learning_rate=0.02),
    "qubit": Schedule(epochs=20),
    "digits": Schedule(epochs=60),
    "pulses": Schedule(epochs=30, batch=128),
    "jets": Schedule(epochs=30, batch=128),
    "mnist": Schedule(epochs=8, batch=128),
}
SAMPLES: Final = {"pulses": {"train": 60_000, "test": 10_000}, "jets": {"train": 8_000, "test": 4_000}}
LUT_RECIPES: Final = {
    # Before sample 2 lies the baseline, after sample 99 it has come back; even thresholds leave out a bit of seven. Few
    # outputs are soon counted: 13 ns in all.
    "pulses": LutRecipe((300, 24), method=Method.BOTH, read=tuple(range(2, 100)), step=2, epochs=10, generations=1000),
    "jets": LutRecipe((300,), temperature=8.0),
}


def train_qubit(net: nn.Module, schedule: Schedule, diagrams: Diagrams, progress: Progress) -> Record:
    """Train a segmenter of charge transitions in place; return its scores.

    The validation split sets the decision threshold, which goes into the last bias, so that a pixel is a transition
    where its logit is above 0. The test split is looked at once, at the end.
    """
    images, masks = {}, {}
    for split, count in progress.track(asdict(diagrams).items(), description="simulating diagrams"):
        images[split], masks[split] = qubit.generate(count, qubit.SPLIT_SEEDS[split])
    _fit(net, images["train"], masks["train"], segmentation_loss, schedule, progress)
    _center_threshold(net, predict(net, images["validation"]), masks["validation"])
    scores = {s: asdict(mask_scores(predict(net, images[s])[:, 0] > 0, masks[s])) for s in ("validation", "test")}
    return {"dataset_seeds": qubit.SPLIT_SEEDS, "diagrams": asdict(diagrams), **scores}


def train_digits(net: nn.Module, schedule: Schedule, progress: Progress) -> Record:
    """Train a classifier of digits in place; return its top-1 accuracy on the test images, which it never saw."""
    data = digits.load()
    _fit(net, data.train_images, data.train_labels, functional.cross_entropy, schedule, progress)
    return {"test": {"top1_accuracy": top1_accuracy(predict(net, data.test_images), data.test_labels)}}


def train_reference(net: nn.Module, name: str, schedule: Schedule, progress: Progress) -> Record:
    """Train a float MLP in place, and the LUT network beside it, which is saved; return both accuracies on test data.

    A LUT network's float reference and the LUT network see the same generated samples.
    """
    (x, y), (test, truth) = (generated(name, split, progress) for split in ("train", "test"))
    for module in net.modules():
        if isinstance(module, Normalize):
            module.fit(torch.from_numpy(x.astype(np.float32)), each=name == "jets")
    _fit(net, x.astype(np.float32), y, functional.cross_entropy, schedule, progress)
    graph = train_luts(x, y, LUT_RECIPES.get(name) or _ink_or_paper(x), name)
    save(graph, graph_path(name))
    score = top1_accuracy(predict(net, test.astype(np.float32)), truth)
    return {"test": {"top1_accuracy": score, "luts_top1_accuracy": float((answers(graph, test) == truth).mean())}}


def _ink_or_paper(x: NDArray[Any]) -> LutRecipe:
    """For images: a pixel's top bit, which costs nothing, of all pixels that are ink in at least 1 % of the images."""
    telling = np.flatnonzero((x >= 128).mean(axis=0) > 0.01)
    return LutRecipe((400,), levels=1, spacing=Spacing.UNIFORM, step=128, read=tuple(telling.tolist()), epochs=4)


def generated(name: str, split: str, progress: Progress) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Samples and labels of a split from the application's generator."""
    if name == "mnist":
        data = mnist.load()
        images, labels = (
            (data.train_images, data.train_labels) if split == "train" else (data.test_images, data.test_labels)
        )
        return images.reshape(len(images), -1), labels
    count = SAMPLES[name][split]
    if name == "pulses":
        return pulses.generate(count, pulses.SPLIT_SEEDS[split])
    task = progress.add_task(f"simulating jets, {split}", total=count)
    return jets.generate(count, jets.SPLIT_SEEDS[split], lambda made: progress.update(task, completed=made))


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy plus soft Dice loss over the batch's pixels; logits (N, 1, H, W), masks (N, H, W) of 0 and 1.

    Transitions weigh twice as much in the cross entropy, as they are 4 % of the pixels; the Dice term follows the
    overlap, which is what counts.
    """
    logits, target = logits[:, 0], masks.float()
    probability = logits.sigmoid()
    dice = (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)
    weight = torch.tensor(2.0)
    return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight) + 1 - dice


@torch.inference_mode()
def predict(net: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's outputs for images (N, C, H, W), in eval mode, 64 images at a time."""
    net.eval()
    return np.concatenate([net(part).numpy() for part in torch.from_numpy(images).split(64)])


def _fit(
    net: nn.Module,
    images: NDArray[np.float32],
    targets: NDArray[Any],
    loss: Loss,
    schedule: Schedule,
    progress: Progress,
) -> None:
    inputs, truth = torch.from_numpy(images), torch.from_numpy(targets)
    order = torch.Generator().manual_seed(schedule.seed)
    steps = len(inputs) // schedule.batch
    optimizer = torch.optim.AdamW(net.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, epochs=schedule.epochs, steps_per_epoch=steps, pct_start=0.15
    )
    net.train()
    for _ in progress.track(range(schedule.epochs), description="training"):
        batches = torch.randperm(len(inputs), generator=order)[: steps * schedule.batch].split(schedule.batch)
        for batch in batches:
            optimizer.zero_grad()
            loss(net(inputs[batch]), truth[batch]).backward()
            optimizer.step()
            cycle.step()
    net.eval()


def _center_threshold(net: nn.Module, logits: NDArray[np.float32], masks: NDArray[np.uint8]) -> None:
    """Shift the last bias so that the threshold of the best IoU becomes 0."""
    thresholds = np.arange(-2, 2.01, 0.125)
    best = max(thresholds, key=lambda threshold: mask_scores(logits[:, 0] > threshold, masks).iou)
    with torch.no_grad():
        net.head.bias -= float(best)  # type: ignore[operator,union-attr]


def _save(net: nn.Module, record: Record, path: Path) -> None:
    data = safetensors.torch.save(net.state_dict(), {METADATA_KEY: json.dumps(record)})
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def main() -> None:
    """Train the network named on the command line and replace its shipped weights."""
    parser = argparse.ArgumentParser(prog="python -m bitfab.zoo.train", description=__doc__)
    parser.add_argument("name", choices=NETWORKS)
    name: str = parser.parse_args().name
    torch.set_num_threads(1)  # layers this small gain little from a second core, and a fixed count fixes the sums
    schedule = SCHEDULES[name]
    torch.manual_seed(schedule.seed)
    net = NETWORKS[name].build()
    console = Console()
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        if NETWORKS[name].dataset == "qubit":
            scores = train_qubit(net, schedule, Diagrams(), progress)
        elif name in LUT_NETWORKS:
            scores = train_reference(net, name, schedule, progress)
        else:
            scores = train_digits(net, schedule, progress)
    _save(net, {"network": name, **asdict(schedule), "torch": torch.__version__, **scores}, weights_path(name))
    console.print_json(data=scores)


if __name__ == "__main__":
    main()
