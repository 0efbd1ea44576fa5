"""The space of table networks for the genetic search: modes and thresholds as genes, individuals evaluated in bulk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import FloatArray, IntArray
from bitfab.errors import BitfabError
from bitfab.lutnet import fitness
from bitfab.lutnet.encode import Spacing
from bitfab.lutnet.network import Features, check_labels
from bitfab.lutnet.search_space import Genes, size, take
from bitfab.lutnet.table_network import WEIGHTS, Mode, TableNetwork, input_levels

CONNECT = 0.7  # share of changes that give a connection another mode; the others move a threshold
FITTED_TO = 256  # samples that the thresholds of random networks are fitted to
CHUNK_SUMS = 1 << 18  # sums of one layer held at a time: 1 MiB, what a core's cache holds
HIGHEST_SUM = 8191  # what margins in 16 bits allow

Activations = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TableSamples:
    """Activations (features, samples) in the order of their labels; class c is `bounds[c]` to `bounds[c + 1]`.

    Integers in float32: matrix products of them are exact, as no sum comes near 2**24.
    """

    activations: Activations
    bounds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TableSpace:
    """Table networks of `widths` neurons, the last the classes, none of which has more than `fan_in` connections.

    Genes of layer l: `modes<l>` (individuals, O, I) uint8 and, but for the last, `thresholds<l>` (individuals, O, m)
    int32, ascending. `terms` counts the connections that are not blocked and whose neuron the answer depends on.
    """

    features: Features
    levels: IntArray
    widths: tuple[int, ...]
    fan_in: int
    training: TableSamples
    validation: TableSamples | None
    softness: float
    objectives: tuple[str, ...] = ("loss", "terms")

    def random(self, count: int, chance: np.random.Generator) -> Genes:
        """Random modes, half of the connections blocked; thresholds at quantiles of what samples then sum up to."""
        samples = self.training.activations
        some = chance.permutation(samples.shape[1])[:FITTED_TO]
        x: Activations = samples[:, some]
        genes: dict[str, NDArray[Any]] = {}
        parts = np.arange(1, self._highest + 1) / (self._highest + 1)
        for layer, width in enumerate(self.widths):
            shape = (count, width, self._before(layer))
            modes = np.where(chance.random(shape) < 0.5, Mode.BLOCK, chance.integers(1, 4, shape)).astype(np.uint8)
            genes[f"modes{layer}"] = self._limited(modes, chance)
            if layer < len(self.widths) - 1:
                sums = self._sums(genes[f"modes{layer}"], x)
                thresholds = np.moveaxis(np.quantile(sums, parts, axis=2, method="higher"), 0, 2)
                genes[f"thresholds{layer}"] = thresholds.astype(np.int32)
                x = _reached(sums, genes[f"thresholds{layer}"])
        return genes

    def mutate(self, genes: Genes, strength: float, chance: np.random.Generator) -> Genes:
        """Other modes and moved thresholds, as many in each layer; 1 + Poisson(strength - 1) changes."""
        changed = {name: array.copy() for name, array in genes.items()}
        number = 1 + chance.poisson(max(strength - 1, 0), size(genes))
        individual = np.repeat(np.arange(size(genes)), number)
        hidden = len(self.widths) - 1
        connects = (chance.random(len(individual)) < CONNECT) | (hidden == 0)
        place = np.where(connects, chance.integers(hidden + 1, size=len(individual)), 0)
        place = np.where(connects, place, chance.integers(max(hidden, 1), size=len(individual)))
        for layer in range(hidden + 1):
            modes = changed[f"modes{layer}"]
            self._reconnect(modes, individual[connects & (place == layer)], chance)
            changed[f"modes{layer}"] = self._limited(modes, chance)
            if layer < hidden:
                self._move(changed[f"thresholds{layer}"], individual[~connects & (place == layer)], chance)
        return changed

    def crossover(self, first: Genes, second: Genes, chance: np.random.Generator) -> Genes:
        """Whole neurons of either parent: each by a coin for half of the pairs, one block of them for the others."""
        count = size(first)
        uniform = chance.random(count) < 0.5
        ends = np.sort(chance.random((count, 2)), axis=1)
        child = {}
        for layer, width in enumerate(self.widths):
            where = (np.arange(width) + 0.5) / width
            block = (where >= ends[:, :1]) & (where < ends[:, 1:])
            other = np.where(uniform[:, None], chance.random((count, width)) < 0.5, block)[:, :, None]
            for name in (f"modes{layer}", f"thresholds{layer}"):
                if name in first:
                    child[name] = np.where(other, second[name], first[name])
        return child

    def evaluate(self, genes: Genes) -> FloatArray:
        """Loss on the training samples (the mean of `fitness.loss`), and terms, of each individual."""
        _, loss = self._measured(genes, self.training)
        return np.stack([loss, self.terms(genes)], axis=1)[:, : len(self.objectives)]

    def errors(self, genes: Genes) -> FloatArray:
        """The share of validation samples answered wrongly."""
        return self._measured(genes, self.validation or self.training)[0]

    def terms(self, genes: Genes) -> IntArray:
        """Connections that matter, (individuals,): not blocked, and on a way to the answer."""
        needed = np.ones((size(genes), self.widths[-1]), dtype=bool)
        total = np.zeros(size(genes), dtype=np.int64)
        for layer in range(len(self.widths) - 1, -1, -1):
            connected = (genes[f"modes{layer}"] != Mode.BLOCK) & needed[:, :, None]
            total += np.count_nonzero(connected, axis=(1, 2))
            needed = connected.any(axis=1)
        return total

    def to_network(self, genes: Genes) -> TableNetwork:
        """The first individual as it is; the graph's passes remove what does not matter."""
        modes = tuple(genes[f"modes{layer}"][0].astype(np.int64) for layer in range(len(self.widths)))
        thresholds = tuple(genes[f"thresholds{layer}"][0].astype(np.int64) for layer in range(len(self.widths) - 1))
        return TableNetwork(self.features, self.levels, modes, thresholds)

    def scores(self, genes: Genes, activations: Activations) -> IntArray:
        """The sums of the last layer, (individuals, classes, samples), for activations (features, samples)."""
        x = activations
        for layer in range(len(self.widths) - 1):
            x = _reached(self._sums(genes[f"modes{layer}"], x), genes[f"thresholds{layer}"])
        return self._sums(genes[f"modes{len(self.widths) - 1}"], x).astype(np.int16)

    @property
    def _highest(self) -> int:
        """The largest activation."""
        return int(self.levels.shape[1])

    def _before(self, layer: int) -> int:
        return self.widths[layer - 1] if layer else self.features.count

    def _measured(self, genes: Genes, samples: TableSamples) -> tuple[FloatArray, FloatArray]:
        together = max(1, CHUNK_SUMS // (max(self.widths) * samples.activations.shape[1]))
        reach = 4 * self._highest * self._terms_of_last() + 1
        parts = []
        for start in range(0, size(genes), together):
            scores = self.scores(take(genes, slice(start, start + together)), samples.activations)
            margin = fitness.margins(scores, samples.bounds)
            parts.append((fitness.error(margin), fitness.loss(margin, reach, self.softness)))
        error, loss = zip(*parts, strict=True)
        return np.concatenate(error), np.concatenate(loss)

    def _terms_of_last(self) -> int:
        return min(self.fan_in, self._before(len(self.widths) - 1))

    def _sums(self, modes: NDArray[np.uint8], x: Activations) -> Activations:
        """Sums (individuals, O, samples) of modes (individuals, O, I) over x (I, samples), or one x an individual."""
        weight = WEIGHTS.astype(np.float32)[modes]
        bias = (modes == Mode.INVERT).sum(axis=2, dtype=np.float32) * np.float32(self._highest)
        if x.ndim == 2:  # one matrix for all individuals
            weight = weight.reshape(-1, modes.shape[2])
        product: Activations = (weight @ x).reshape(*modes.shape[:2], -1)
        product += bias[:, :, None]
        return product

    def _reconnect(self, modes: NDArray[np.uint8], individual: IntArray, chance: np.random.Generator) -> None:
        """Give one connection of each individual another mode, in place."""
        count = len(individual)
        spot = (individual, chance.integers(modes.shape[1], size=count), chance.integers(modes.shape[2], size=count))
        modes[spot] = (modes[spot] + chance.integers(1, 4, count, dtype=np.uint8)) % 4

    def _move(self, thresholds: IntArray, individual: IntArray, chance: np.random.Generator) -> None:
        """Move one threshold of each individual, by 1 or somewhat more, in place."""
        count = len(individual)
        spot = (
            individual,
            chance.integers(thresholds.shape[1], size=count),
            chance.integers(self._highest, size=count),
        )
        length = chance.geometric(0.3, count)
        np.add.at(thresholds, spot, np.where(chance.random(count) < 0.5, length, -length).astype(np.int32))
        thresholds.sort(axis=2)

    def _limited(self, modes: NDArray[np.uint8], chance: np.random.Generator) -> NDArray[np.uint8]:
        """Connections beyond `fan_in` blocked, chosen by chance."""
        over = np.count_nonzero(modes, axis=2) > self.fan_in
        if over.any():
            rows = modes[over]
            rank = np.where(rows != Mode.BLOCK, chance.random(rows.shape), 2).argsort(axis=1).argsort(axis=1)
            modes[over] = np.where(rank < self.fan_in, rows, np.uint8(Mode.BLOCK))
        return modes


def table_space(
    features: Features,
    data: tuple[IntArray, IntArray],
    hidden: tuple[int, ...],
    classes: int,
    *,
    validation: tuple[IntArray, IntArray] | None = None,
    fan_in: int | None = None,
    bits: int = 2,
    spacing: Spacing = Spacing.QUANTILE,
    softness: float = 4.0,
) -> TableSpace:
    """The table networks of `hidden` neurons a layer and `classes` behind them, for integers and labels of training.

    `data` and `validation` are x (samples, features) and labels (samples,); `fan_in` limits a neuron's connections;
    `bits` and `spacing` make the features activations (`input_levels`). Raises BitfabError for labels out of range, for
    shapes that do not fit, and where sums could exceed what the search counts with.
    """
    widths = (*hidden, classes)
    limit = max((features.count, *hidden)) if fan_in is None else fan_in
    if min(widths) < 1 or limit < 1 or classes < 2:
        raise BitfabError(f"layers {widths}, fan-in {limit}: at least 1 neuron and connection, 2 classes, expected")
    highest = 2 * ((1 << bits) - 1) * min(limit, hidden[-1] if hidden else features.count)
    if highest > HIGHEST_SUM:
        remedy = HIGHEST_SUM // (2 * ((1 << bits) - 1))
        raise BitfabError(f"last layer: sums of up to {highest}, {HIGHEST_SUM} are supported; use fan_in <= {remedy}")
    levels = input_levels(data[0], bits, spacing)
    training = _samples(levels, data, features, classes)
    tested = None if validation is None else _samples(levels, validation, features, classes)
    return TableSpace(features, levels, widths, limit, training, tested, softness)


def _samples(levels: IntArray, data: tuple[IntArray, IntArray], features: Features, classes: int) -> TableSamples:
    x, labels = np.asarray(data[0]), data[1]
    if x.ndim != 2 or x.shape[1] != features.count or not np.issubdtype(x.dtype, np.integer):
        raise BitfabError(f"samples {x.dtype} {x.shape}: integers (samples, {features.count}) expected")
    labels = check_labels(labels, len(x), classes)
    order = np.argsort(labels, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=classes))])
    passed = (x[order].T[:, :, None] >= levels[:, None, :]).sum(axis=2)
    return TableSamples(np.ascontiguousarray(passed, dtype=np.float32), tuple(bounds.tolist()))


def _reached(sums: Activations, thresholds: IntArray) -> Activations:
    """How many of its neuron's thresholds (individuals, O, m) each sum (individuals, O, samples) reaches."""
    columns = np.moveaxis(thresholds, 2, 0)[:, :, :, None].astype(np.float32)
    count = np.zeros(sums.shape, dtype=np.uint8)
    for column in columns:
        count += sums >= column
    return count.astype(np.float32)
