"""Data sets as tensors and one seeded training loop, the same for float networks, ours and the peers'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Data:
    """Inputs in [-1, 1] or standardized, float32, and labels; `mirrors` where a mirrored image keeps its class."""

    train: Tensor
    labels: Tensor
    test: Tensor
    truth: Tensor
    mirrors: bool = False


@dataclass(frozen=True)
class Schedule:
    """Adam under one cycle of the learning rate (Smith and Topin 2018).

    `distilled` is the share that the teacher's answers have in the loss (Hinton et al. 2015, at temperature 1).
    """

    epochs: int
    learning_rate: float = 3e-3
    batch: int = 128
    distilled: float = 0.0


def train(net: nn.Module, data: Data, schedule: Schedule, seed: int, teacher: nn.Module | None = None) -> nn.Module:
    """The network after training, in eval mode. The same seed gives the same batches, whatever the network."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], schedule.learning_rate)
    steps = schedule.epochs * (len(data.train) // schedule.batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.learning_rate, total_steps=steps, pct_start=0.1)
    net.train()
    for _ in range(schedule.epochs):
        for x, y in _batches(data, schedule.batch, generator):
            loss = _loss(net(x), y, teacher, x, schedule.distilled)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    return net.eval()


def _batches(data: Data, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch; images are mirrored and shifted by up to 4 pixels where `data.mirrors`."""
    order = torch.randperm(len(data.train), generator=generator)
    for chosen in order[: len(order) // size * size].split(size):
        x = data.train[chosen]
        if data.mirrors:
            mirrored = torch.rand(size, generator=generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            padded = functional.pad(x, (4, 4, 4, 4))
            top, left = torch.randint(9, (2,), generator=generator).tolist()
            x = padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        yield x, data.labels[chosen]


def _loss(logits: Tensor, labels: Tensor, teacher: nn.Module | None, x: Tensor, share: float) -> Tensor:
    loss = functional.cross_entropy(logits, labels)
    if teacher is None or not share:
        return loss
    with torch.no_grad():
        wanted = functional.softmax(teacher(x), 1)
    return (1 - share) * loss + share * functional.cross_entropy(logits, wanted)


def right(net: Callable[[Tensor], Tensor], data: Data) -> Tensor:
    """For each test input, whether the network's first largest output is its class."""
    with torch.inference_mode():
        return torch.cat([net(part).argmax(1) for part in data.test.split(500)]) == data.truth


def accuracy(net: Callable[[Tensor], Tensor], data: Data) -> float:
    """Top-1 on the test inputs, in percent."""
    return 100 * float(right(net, data).double().mean())


def images(x: np.ndarray) -> Tensor:
    """uint8 of any shape as float32 in [-1, 1]."""
    return torch.from_numpy(x.astype(np.float32) / 127.5 - 1)
