"""The space of LUT networks within limits on hardware: wiring and truth tables as genes, for the genetic search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import FloatArray, IntArray
from bitfab.errors import BitfabError
from bitfab.ir.ops import MAX_FAN_IN, Bits, Compare, Lut
from bitfab.lutnet import fitness
from bitfab.lutnet.fitness import Samples
from bitfab.lutnet.network import Features, LutNetwork, check_labels, equal_groups
from bitfab.lutnet.packed import Planes, counts_of, distinct, encoded, lut_planes, tables_of_words, words_of_tables
from bitfab.lutnet.search_space import Genes, size, take

FLIP, REWIRE, FRESH = 0.6, 0.3, 0.05  # shares of the kinds of change; the rest silences a table
OBJECTIVES = ("loss", "luts", "depth")
BLOCK = 8  # tables counted together once where several individuals have them
HELD_WORDS = 1 << 18  # of the first layer's planes, 2 MiB: halves are faster than what leaves the cache

Data = tuple[IntArray, IntArray]
"""Integers (samples, features) and labels (samples,)."""


@dataclass(frozen=True)
class Limits:
    """What no network exceeds: truth tables in all, tables from encoder to count, inputs of a table."""

    luts: int
    depth: int = 1
    fan_in: int = 6

    def widths(self, classes: int) -> tuple[int, ...]:
        """Tables in each layer: equally many, the last a multiple of the classes, in all at most `luts`.

        Raises BitfabError, with the smallest budget that would do, where a class would have no table of its own.
        """
        if self.depth < 1 or not 1 <= self.fan_in <= MAX_FAN_IN:
            raise BitfabError(
                f"depth {self.depth}, fan-in {self.fan_in}: depth >= 1 and fan-in 1 to {MAX_FAN_IN} expected"
            )
        width = self.luts // self.depth
        if width < classes:
            raise BitfabError(
                f"{self.luts} LUTs hold no network of {classes} classes in {self.depth} layers: one table a class and"
                f" layer needs at least {classes * self.depth}"
            )
        return (width,) * (self.depth - 1) + (width // classes * classes,)


@dataclass(frozen=True, eq=False)
class LutSpace:
    """Networks of layers of `widths` tables over the bits of `encoder`, a pool of which only those wired are built.

    Genes of layer l: `wiring<l>` (individuals, tables, fan_in), `table<l>` (individuals, tables), a word each. A table
    that is constant is no hardware, and one that only passes on an input is a wire: so networks may be smaller and
    shallower than the limits, never larger. With `exact` the first objective is the share of errors, and the smooth
    loss decides between equals; else it is that loss alone. `device` names a GPU of torch's (`cuda`) that evaluates in
    numpy's stead, with the same result.
    """

    features: Features
    encoder: Compare | Bits
    widths: tuple[int, ...]
    fan_in: int
    classes: int
    training: Samples
    validation: Samples | None
    softness: float = 2.0
    exact: bool = False
    objectives: tuple[str, ...] = OBJECTIVES
    device: str | None = None

    def random(self, count: int, chance: np.random.Generator) -> Genes:
        """Random wiring and random tables."""
        genes: dict[str, NDArray[Any]] = {}
        for layer, width in enumerate(self.widths):
            shape = (count, width)
            genes[f"wiring{layer}"] = chance.integers(self._before(layer), size=(*shape, self.fan_in), dtype=np.int32)
            genes[f"table{layer}"] = self._random_tables(shape, chance)
        return genes

    def mutate(self, genes: Genes, strength: float, chance: np.random.Generator) -> Genes:
        """Entries flipped, inputs wired anew, tables fresh or silenced: 1 + Poisson(strength - 1) changes."""
        changed = {name: array.copy() for name, array in genes.items()}
        number = 1 + chance.poisson(max(strength - 1, 0), size(genes))
        individual = np.repeat(np.arange(size(genes)), number)
        place = chance.integers(sum(self.widths), size=len(individual))
        kind = chance.choice(4, size=len(individual), p=[FLIP, REWIRE, FRESH, 1 - FLIP - REWIRE - FRESH])
        offset = 0
        for layer, width in enumerate(self.widths):
            here = (place >= offset) & (place < offset + width)
            spots = [(individual[here & (kind == k)], place[here & (kind == k)] - offset) for k in range(4)]
            wiring, table = changed[f"wiring{layer}"], changed[f"table{layer}"]
            bits = chance.integers(1 << self.fan_in, size=len(spots[0][0]), dtype=np.uint64)
            np.bitwise_xor.at(table, spots[0], np.left_shift(np.uint64(1), bits))
            inputs = chance.integers(self.fan_in, size=len(spots[1][0]))
            wiring[*spots[1], inputs] = self._moved(wiring[*spots[1], inputs], self._before(layer), chance)
            fresh = len(spots[2][0])
            wiring[spots[2]] = chance.integers(self._before(layer), size=(fresh, self.fan_in), dtype=np.int32)
            table[spots[2]] = self._random_tables((fresh,), chance)
            table[spots[3]] = 0
            offset += width
        return changed

    def crossover(self, first: Genes, second: Genes, chance: np.random.Generator) -> Genes:
        """Whole tables of either parent: each by a coin for half of the pairs, one block of them for the others."""
        count = size(first)
        uniform = chance.random(count) < 0.5
        ends = np.sort(chance.random((count, 2)), axis=1)
        child = {}
        for layer, width in enumerate(self.widths):
            where = (np.arange(width) + 0.5) / width
            block = (where >= ends[:, :1]) & (where < ends[:, 1:])
            other = np.where(uniform[:, None], chance.random((count, width)) < 0.5, block)
            for name, mask in ((f"wiring{layer}", other[:, :, None]), (f"table{layer}", other)):
                child[name] = np.where(mask, second[name], first[name])
        return child

    def evaluate(self, genes: Genes) -> FloatArray:
        """Loss, LUTs (see `hardware`) and depth of each individual on the training samples."""
        error, loss = self._measured(genes, self.training)
        luts, depth = self.hardware(genes)
        first = error + loss / (1000 * self.training.count) if self.exact else loss
        values = dict(zip(OBJECTIVES, (first, luts, depth), strict=True))
        return np.stack([values[name].astype(np.float64) for name in self.objectives], axis=1)

    def errors(self, genes: Genes) -> FloatArray:
        """The share of validation samples answered wrongly."""
        return self._measured(genes, self.validation or self.training)[0]

    def hardware(self, genes: Genes) -> tuple[IntArray, IntArray]:
        """Truth tables that matter and the longest path of them, (individuals,) each.

        A table matters if the count reads it, through tables that do look at it, and it is neither constant nor a wire.
        """
        count, last = size(genes), len(self.widths) - 1
        looks = [looks_at(genes[f"table{layer}"], self.fan_in) for layer in range(last + 1)]
        needed = np.ones((count, self.widths[last]), dtype=bool)
        luts = np.zeros(count, dtype=np.int64)
        rows = np.arange(count)[:, None, None]
        for layer in range(last, -1, -1):
            luts += (needed & (looks[layer].sum(axis=2) > 1)).sum(axis=1)
            if layer:
                before = np.zeros((count, self.widths[layer - 1]), dtype=bool)
                read = looks[layer] & needed[:, :, None]
                before[np.nonzero(read)[0], genes[f"wiring{layer}"][read]] = True
                needed = before
        depth = np.zeros((count, self._before(0)), dtype=np.int64)
        for layer in range(last + 1):
            inputs = np.where(looks[layer], depth[rows, genes[f"wiring{layer}"]], 0).max(axis=2)
            depth = inputs + (looks[layer].sum(axis=2) > 1)
        return luts, depth.max(axis=1)

    def to_network(self, genes: Genes) -> LutNetwork:
        """The first individual, its encoder reduced to the bits that are wired to tables that look at them."""
        layers = []
        for layer in range(len(self.widths)):
            words = genes[f"table{layer}"][0]
            wiring = genes[f"wiring{layer}"][0].astype(np.int64)
            looks = looks_at(words, self.fan_in)
            steady = wiring[np.arange(len(wiring)), looks.argmax(axis=1)]  # an input that is looked at, if any is
            layers.append(Lut(np.where(looks, wiring, steady[:, None]), tables_of_words(words, self.fan_in)))
        used, renamed = np.unique(layers[0].wiring, return_inverse=True)
        layers[0] = Lut(renamed.reshape(layers[0].wiring.shape), layers[0].table)
        encoder = self.encoder
        if isinstance(encoder, Compare):
            encoder = Compare(encoder.channel[used], encoder.threshold[used])
        else:
            encoder = Bits(encoder.channel[used], encoder.place[used])
        return LutNetwork(self.features, encoder, tuple(layers), equal_groups(self.widths[-1], self.classes))

    def counts(self, genes: Genes, samples: Samples) -> IntArray:
        """How many ones each class has, (individuals, classes, samples).

        What individuals have in common, equal tables on equal inputs and equal blocks of them under the count, is
        evaluated once: children differ from their parents, and those from each other, in few tables.
        """
        count = size(genes)
        planes: Planes = samples.planes
        which: IntArray = np.broadcast_to(np.arange(len(planes)), (count, len(planes)))
        for layer in range(len(self.widths)):
            wiring = which.reshape(count, -1)[np.arange(count)[:, None, None], genes[f"wiring{layer}"]]
            rows = _rows(wiring, genes[f"table{layer}"])
            first, which = distinct(rows)
            planes = lut_planes(planes, rows[first, :-1].astype(np.intp), rows[first, -1])
        zeros = np.zeros((1, planes.shape[1]), dtype=np.uint64)  # fills the last block of a class
        groups = which.reshape(count * self.classes, -1)
        groups = np.pad(groups, ((0, 0), (0, -groups.shape[1] % BLOCK)), constant_values=len(planes))
        blocks = groups.reshape(-1, BLOCK)
        first, which = distinct(blocks)
        parts = counts_of(np.concatenate([planes, zeros])[blocks[first].T], samples.count)
        total = np.zeros((len(groups), samples.count), dtype=np.int16)
        for column in which.reshape(len(groups), -1).T:
            total += parts[column]
        return total.reshape(count, self.classes, -1)

    def genes_of(self, network: LutNetwork) -> Genes:
        """A network as one individual, the start of a refinement.

        Raises BitfabError where it does not fit: other widths or classes, larger tables, bits that the pool lacks.
        """
        pool = {place: number for number, place in enumerate(_places(self.encoder))}
        missing = [place for place in _places(network.encoder) if place not in pool]
        layers = _with_head(network)
        found = (tuple(len(layer.table) for layer in layers), network.classes)
        largest = max(layer.wiring.shape[1] for layer in layers)
        if missing or found != (self.widths, self.classes) or largest > self.fan_in:
            raise BitfabError(
                f"network of {list(found[0])} tables of {largest} inputs, {found[1]} classes, {len(missing)} bits not"
                f" in the pool: not in this space of {list(self.widths)} tables of {self.fan_in} inputs,"
                f" {self.classes} classes; use `around` to make the space of a network"
            )
        renamed = np.array([pool[place] for place in _places(network.encoder)], dtype=np.int64)
        genes: dict[str, NDArray[Any]] = {}
        for number, layer in enumerate(layers):
            wiring = layer.wiring if number else renamed[layer.wiring]
            wider, table = _widened(wiring, layer.table, self.fan_in)
            genes[f"wiring{number}"] = wider[None].astype(np.int32)
            genes[f"table{number}"] = words_of_tables(table)[None]
        return genes

    def _measured(self, genes: Genes, samples: Samples) -> tuple[FloatArray, FloatArray]:
        if self.device is not None:
            from bitfab.lutnet import device  # torch is loaded for those who ask for it

            return device.measured(self, genes, samples)
        count = size(genes)
        rows = _rows(genes["wiring0"], genes["table0"])
        if count > 1 and len(distinct(rows)[0]) * samples.planes.shape[1] > HELD_WORDS:
            halves = (slice(0, count // 2), slice(count // 2, count))
            error, loss = zip(*(self._measured(take(genes, half), samples) for half in halves), strict=True)
            return np.concatenate(error), np.concatenate(loss)
        margin = fitness.margins(self.counts(genes, samples), samples.bounds)
        reach = 2 * (self.widths[-1] // self.classes) + 1
        return fitness.error(margin), fitness.loss(margin, reach, self.softness)

    def _before(self, layer: int) -> int:
        return self.widths[layer - 1] if layer else len(self.encoder.channel)

    def _random_tables(self, shape: tuple[int, ...], chance: np.random.Generator) -> NDArray[np.uint64]:
        highest = np.uint64((1 << (1 << self.fan_in)) - 1)
        return chance.integers(highest, size=shape, dtype=np.uint64, endpoint=True)

    @staticmethod
    def _moved(wires: IntArray, choices: int, chance: np.random.Generator) -> IntArray:
        """Other wires near the given ones: most steps short (the next threshold or sample), some of any length."""
        length = np.exp(chance.random(len(wires)) * np.log(choices)).astype(np.int32)
        return (wires + np.where(chance.random(len(wires)) < 0.5, length, -length)) % choices


def lut_space(
    features: Features,
    encoder: Compare | Bits,
    data: Data,
    limits: Limits,
    classes: int,
    *,
    validation: Data | None = None,
    objectives: tuple[str, ...] = OBJECTIVES,
    softness: float = 2.0,
    exact: bool = False,
) -> LutSpace:
    """The networks within `limits` over the bits of `encoder`, trained on `data`, chosen on `validation`.

    `objectives` are some of OBJECTIVES: the loss alone leads to one network, and soonest to an accurate one. Raises
    BitfabError for labels out of range, for x that is not (samples, features) integers, for unknown objectives, and for
    limits that hold no network; the message gives the smallest budget that would do.
    """
    if not objectives or set(objectives) - set(OBJECTIVES):
        raise BitfabError(f"objectives {list(objectives)}: some of {', '.join(OBJECTIVES)} expected")
    widths = limits.widths(classes)
    training = _samples(features, encoder, data, classes)
    tested = None if validation is None else _samples(features, encoder, validation, classes)
    return LutSpace(features, encoder, widths, limits.fan_in, classes, training, tested, softness, exact, objectives)


def around(
    network: LutNetwork,
    data: Data,
    *,
    validation: Data | None = None,
    objectives: tuple[str, ...] = OBJECTIVES,
    softness: float = 2.0,
) -> tuple[LutSpace, Genes]:
    """The networks of this one's widths, fan-in and encoder bits, and itself as the search's start.

    Tables that none reads, as learned wiring leaves many, are left out first: changes matter more often then. Networks
    are ordered by the share of errors itself, the loss deciding between equals: what is left to do after training by
    gradients. Raises BitfabError as `lut_space` does, and for a network that decides by a threshold or has no layer.
    """
    layers = _read(_with_head(network))
    network = replace(network, layers=tuple(layers), head=equal_groups(len(layers[-1].table), network.classes))
    fan_in = max(layer.wiring.shape[1] for layer in layers)
    widths = tuple(len(layer.table) for layer in layers)
    training = _samples(network.features, network.encoder, data, network.classes)
    tested = None if validation is None else _samples(network.features, network.encoder, validation, network.classes)
    known = network.features, network.encoder, widths, fan_in, network.classes, training, tested, softness
    space = LutSpace(*known, exact=True, objectives=objectives)
    return space, space.genes_of(network)


def _samples(features: Features, encoder: Compare | Bits, data: Data, classes: int) -> Samples:
    x, labels = np.asarray(data[0]), data[1]
    if x.ndim != 2 or x.shape[1] != features.count or not np.issubdtype(x.dtype, np.integer):
        raise BitfabError(f"samples {x.dtype} {x.shape}: integers (samples, {features.count}) expected")
    labels = check_labels(labels, len(x), classes)
    order = np.argsort(labels, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=classes))])
    return Samples(encoded(encoder, x[order]), tuple(bounds.tolist()))


def _places(encoder: Compare | Bits) -> list[tuple[str, int, int]]:
    """What each bit of an encoder is: its kind, its feature, and its threshold or place."""
    places = encoder.threshold if isinstance(encoder, Compare) else encoder.place
    kind = type(encoder).__name__
    return [(kind, int(channel), int(place)) for channel, place in zip(encoder.channel, places, strict=True)]


def _with_head(network: LutNetwork) -> list[Lut]:
    """The layers, the last one's tables in the order in which they are counted; one counted twice is there twice."""
    if network.decision is not None or not network.layers:
        raise BitfabError("network without layers, or that decides by a threshold: refine one that counts per class")
    counted = network.head.wiring.reshape(-1)
    last = network.layers[-1]
    return [*network.layers[:-1], Lut(last.wiring[counted], last.table[counted])]


def _read(layers: list[Lut]) -> list[Lut]:
    """The layers without the tables that no later one reads."""
    kept = [layers[-1]]
    for layer in reversed(layers[:-1]):
        used, renamed = np.unique(kept[0].wiring, return_inverse=True)
        later = Lut(renamed.reshape(kept[0].wiring.shape), kept[0].table)
        kept = [Lut(layer.wiring[used], layer.table[used]), later, *kept[1:]]
    return kept


def _widened(wiring: IntArray, table: IntArray, fan_in: int) -> tuple[IntArray, IntArray]:
    """The same tables with more inputs, at which they do not look."""
    more = fan_in - wiring.shape[1]
    return np.pad(wiring, ((0, 0), (0, more)), mode="edge"), np.tile(table, 1 << more)


def _rows(wiring: IntArray, table: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A row for each table: what it reads and its entries, (individuals * tables, fan_in + 1)."""
    return np.concatenate([wiring.astype(np.uint64), table[..., None]], axis=-1).reshape(-1, wiring.shape[-1] + 1)


def looks_at(tables: NDArray[np.uint64], fan_in: int) -> NDArray[np.bool_]:
    """Which inputs each table depends on: tables (...,) as words, result (..., fan_in)."""
    differing = [tables ^ np.right_shift(tables, np.uint64(1 << place)) for place in range(fan_in)]
    lower = [~np.arange(1 << fan_in) >> place & 1 for place in range(fan_in)]  # addresses where that input is 0
    return np.stack([d & words_of_tables(mask) != 0 for d, mask in zip(differing, lower, strict=True)], axis=-1)
