"""Trains LUT networks by gradients; what comes out is the hardened network, the only one that counts.

Bits are hard in training too, and gradients are extended finite differences (Bacellar et al. 2024, 2410.11112). On the
jets, layers of 200 and 100 tables, three seeds: these 68.0 %, plain differences 67.8 %, soft entries behind hard
bits 66.4 %. Networks relaxed throughout (as in difflogic, Petersen et al. 2022, 2210.08277), then hardened, reached
68.8 % with one seed, in four times the time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.dtypes import IntArray, storage
from bitfab.errors import BitfabError
from bitfab.ir.ops import MAX_FAN_IN, Bits, Compare
from bitfab.lutnet.lut_layer import LutLayer
from bitfab.lutnet.network import Features, LutNetwork, check_labels, equal_groups

__all__ = ["Progress", "Settings", "TrainedNetwork", "train"]

Progress = Callable[[str, int, int], None]  # step, epochs done, epochs in all


@dataclass(frozen=True)
class Settings:
    """How to train: Adam under one cycle of the learning rate (Smith and Topin 2018), cross entropy of the counts.

    `temperature` divides the counts before the softmax; by default half the square root of a class's bits. Higher is
    better where classes overlap (jets: 0.8 gave 68.8 %, 0.4 gave 66.8 %), lower where they hardly do (MNIST: 0.3 gave
    96.7 %, 0.8 stayed at 95.5 %). The first `learned` layers learn their wiring, the others keep a random one.
    `dropout` is the share of the last layer's bits that a step leaves out of the counts.
    """

    epochs: int = 20
    batch: int = 128
    learning_rate: float = 0.02
    temperature: float | None = None
    learned: int = 1
    dropout: float = 0.0
    seed: int = 0


class TrainedNetwork(nn.Module):
    """A LUT network as a module: integers (batch, features) to logits (batch, classes), the counts / temperature.

    In eval mode its largest logit is the hardened network's answer, exactly. Raises BitfabError for widths or a fan-in
    that no network can have.
    """

    def __init__(
        self, encoder: Compare | Bits, widths: Sequence[int], classes: int, fan_in: int, settings: Settings
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or not 1 <= fan_in <= MAX_FAN_IN:
            raise BitfabError(
                f"widths {tuple(widths)} of fan-in {fan_in}: one positive width a layer and a fan-in of 1 to "
                f"{MAX_FAN_IN} expected"
            )
        self.encoder, self.head, self.dropout = encoder, equal_groups(widths[-1], classes), settings.dropout
        self.temperature = settings.temperature or 0.5 * math.sqrt(widths[-1] / classes)
        self.generator = torch.Generator().manual_seed(settings.seed)
        sizes = itertools.pairwise((len(encoder.channel), *widths))
        self.layers = nn.ModuleList(
            LutLayer(bits, tables, fan_in, number < settings.learned, self.generator)
            for number, (bits, tables) in enumerate(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        bits = _encode(self.encoder, x).T.float()
        for layer in self.layers:
            bits = layer(bits)
        if self.training and self.dropout:
            bits = bits * (torch.rand(bits.shape, generator=self.generator) >= self.dropout) / (1 - self.dropout)
        return bits.view(len(self.head.wiring), -1, len(x)).sum(1).T / self.temperature

    def harden(self, features: Features) -> LutNetwork:
        """The network as operations of the integer graph."""
        return LutNetwork(features, self.encoder, tuple(layer.harden() for layer in self._lut_layers()), self.head)

    def confine(self) -> None:
        """Keep all entries of all tables within -1 and 1."""
        for layer in self._lut_layers():
            layer.confine()

    def _lut_layers(self) -> Iterator[LutLayer]:
        return (layer for layer in self.layers if isinstance(layer, LutLayer))


def train(
    features: Features,
    encoder: Compare | Bits,
    widths: Sequence[int],
    samples: IntArray,
    labels: IntArray,
    classes: int,
    settings: Settings = Settings(),
    fan_in: int = MAX_FAN_IN,
    progress: Progress | None = None,
) -> LutNetwork:
    """A LUT network trained from random tables; the same arguments give the same network on one thread.

    Args:
        features: what the network reads.
        encoder: the bits that the first layer can be wired to.
        widths: truth tables a layer; the last a multiple of the classes, whose bits are counted class by class.
        samples: integers (N, features) within the features' type.
        labels: (N,) of 0 to classes - 1.
        classes: at least 2.
        settings: how to train.
        fan_in: inputs of every table, 1 to 6.
        progress: called as ("training", epochs done, epochs).

    Raises:
        BitfabError: samples, labels, widths or settings that do not fit; a loss that is NaN or infinite.
    """
    x, y = _samples(samples, features), torch.from_numpy(check_labels(labels, len(samples), classes))
    _refuse_unfit(settings, classes)
    net = TrainedNetwork(encoder, widths, classes, fan_in, settings)
    batch = min(settings.batch, len(x))
    steps = settings.epochs * (len(x) // batch)
    optimizer = torch.optim.Adam(net.parameters(), settings.learning_rate, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1)
    for epoch in range(settings.epochs):
        order = torch.randperm(len(x), generator=net.generator)
        for chosen in order[: len(x) // batch * batch].split(batch):
            loss = F.cross_entropy(net(x[chosen]), y[chosen])
            if not torch.isfinite(loss):
                raise BitfabError(f"training: the loss is {loss.item()} in epoch {epoch + 1}; lower the learning rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            net.confine()
        if progress:
            progress("training", epoch + 1, settings.epochs)
    return net.eval().harden(features)


def _encode(encoder: Compare | Bits, x: Tensor) -> Tensor:
    """The encoder's bits (batch, bits) of integers (batch, features)."""
    picked = x[:, torch.from_numpy(encoder.channel)]
    if isinstance(encoder, Compare):
        return picked >= torch.from_numpy(encoder.threshold)
    return picked >> torch.from_numpy(encoder.place) & 1


def _samples(samples: IntArray, features: Features) -> Tensor:
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.integer) or samples.ndim != 2 or samples.shape[1] != features.count:
        raise BitfabError(
            f"samples {samples.dtype} {samples.shape}: integers (N, {features.count}) expected; see lutnet.integers"
        )
    type = features.type
    if len(samples) and (samples.min() < type.low or samples.max() > type.high):
        raise BitfabError(
            f"samples of {samples.min()} to {samples.max()}: the network reads {type.low} to {type.high}; "
            "scale the samples or give the features more bits"
        )
    narrow = storage(type)
    return torch.from_numpy(
        samples.astype(np.int64 if narrow in (np.uint16, np.uint32) else narrow)
    )  # few kernels take those


def _refuse_unfit(settings: Settings, classes: int) -> None:
    if classes < 2:
        raise BitfabError(f"{classes} classes: at least 2 expected")
    rate, temperature = settings.learning_rate, settings.temperature
    if min(settings.epochs, settings.batch) < 1 or not 0 < rate < math.inf or not 0 <= settings.dropout < 1:
        raise BitfabError(f"{settings}: positive epochs, batch and learning rate, and a dropout below 1 expected")
    if temperature is not None and not 0 < temperature < math.inf:
        raise BitfabError(f"temperature {temperature}: a positive number expected")
