"""From samples and labels to the integer graph of a LUT network, as one flat list of steps."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError, choice
from bitfab.ir.graph import Graph
from bitfab.ir.ops import MAX_FAN_IN, Bits, Compare
from bitfab.ir.passes.exploit_unseen import exploit_unseen
from bitfab.ir.passes.simplify_bits import simplify
from bitfab.ir.run_fast import run_fast
from bitfab.lutnet import genetic, gradient
from bitfab.lutnet.encode import Spacing, fixed_point, integers, raw_bits, thermometer
from bitfab.lutnet.lut_space import OBJECTIVES, Limits, around, lut_space
from bitfab.lutnet.network import Features, LutNetwork, check_labels, lower

Progress = Callable[[str, int, int], None]  # step, done, in all
Search = Callable[..., genetic.Front[LutNetwork]]  # `genetic.search`, its files, progress and processes settled

POPULATION, CHILDREN, CROSSED = 32, 64, 0.4  # of a search, as measured best on pulses


class Method(enum.StrEnum):
    """How a LUT network is trained."""

    GRADIENT = "gradient"  # by finite differences of its tables, then hardened
    GENETIC = "genetic"  # by search from random networks
    BOTH = "both"  # by gradients, then by search around what they found


@dataclass(frozen=True)
class LutRecipe:
    """What a user chooses of a LUT network.

    `tables` are the truth tables of each layer, the last a multiple of the classes (a genetic search from random
    networks takes equally many a layer, at most their sum); `levels` the bits of each feature's thermometer code, 0 for
    the feature's own bits; `step` what thresholds are multiples of; `read` the features to look at, by default all;
    `bits` those of a real feature as an integer. `temperature` divides the counts that gradients see: the larger, the
    less is learned by heart. `objectives` are what a search minimises: the loss alone leads soonest to an accurate
    network; with LUTs and depth there is a front, of which the most accurate is taken, judged by the share `validation`
    of the samples. With `unseen`, table entries that fewer samples read become don't-cares: networks get smaller, and
    answers may change.
    """

    tables: tuple[int, ...] = (300,)
    fan_in: int = MAX_FAN_IN
    method: Method = Method.GRADIENT
    levels: int = 15
    spacing: Spacing = Spacing.QUANTILE
    step: int = 1
    read: tuple[int, ...] | None = None
    bits: int = 8
    epochs: int = 20
    temperature: float | None = None
    generations: int = 1000
    objectives: tuple[str, ...] = OBJECTIVES[:1]
    validation: float = 0.1
    unseen: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("method", Method), ("spacing", Spacing)):
            value = getattr(self, name)
            object.__setattr__(self, name, choice(kind, value, f"recipe: {name} {value!r}"))
        if not self.tables or min(*self.tables, self.epochs, self.generations, self.bits - 1) < 1:
            raise BitfabError("recipe: at least one layer, table, epoch and generation, and 2 bits are needed")
        if not 0 <= self.validation < 1 or min(self.levels, self.unseen, self.seed) < 0:
            raise BitfabError("recipe: validation is a share below 1; levels, unseen and seed are not negative")


def train_luts(
    samples: NDArray[np.generic],
    labels: IntArray,
    recipe: LutRecipe = LutRecipe(),
    name: str = "lutnet",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    workers: int = 1,
) -> Graph:
    """A LUT network that tells the labels from the samples, as an integer graph without what is dead or double.

    Args:
        samples: (N, features), integers, or real numbers that become integers with one scale a feature.
        labels: (N,) of 0 to classes - 1, every class at least once.
        recipe: how large it may be and how it is trained.
        name: of the graph.
        progress: called as (step, done, in all).
        checkpoint: a file that a genetic search writes now and then, and goes on from where it exists.
        workers: processes that a genetic search evaluates in; the result is the same for any number.

    Raises:
        BitfabError: samples, labels or a recipe that do not fit; a constant feature; a budget too small, with the
            smallest that would do.
    """
    told = progress or (lambda step, done, total: None)
    features = describe(samples, recipe.bits)
    x, classes = integers(samples, features), _classes(labels, len(samples))
    encoder = _encoder(x, features, recipe)
    shown = _split(len(x), recipe)
    kept, held = (x[shown], labels[shown]), (x[~shown], labels[~shown])
    search = partial(genetic.search, checkpoint=checkpoint, progress=_shown(recipe, told), workers=workers)
    if recipe.method is Method.GENETIC:
        network = _searched(features, encoder, kept, held, classes, recipe, search)
    else:
        settings = gradient.Settings(
            recipe.epochs, temperature=recipe.temperature, learned=len(recipe.tables), seed=recipe.seed
        )
        network = gradient.train(
            features, encoder, recipe.tables, *kept, classes, settings, recipe.fan_in, progress=told
        )
        if recipe.method is Method.BOTH:
            network = _refined(network, kept, held, recipe, search)
    graph = simplify(lower(network, name))
    return simplify(exploit_unseen(graph, kept[0], least_visits=recipe.unseen)) if recipe.unseen else graph


def answers(graph: Graph, samples: NDArray[np.generic]) -> IntArray:
    """The graph's answer for each sample (N, features), integers or real numbers: (N,)."""
    value = graph.inputs[0]
    found = run_fast(graph, integers(samples, Features(value.shape[0], value.type, value.qparams)))
    assert isinstance(found, np.ndarray)
    return found[:, 0]


def describe(samples: NDArray[np.generic], bits: int) -> Features:
    """What the network is to read: integers of the narrowest type that holds them, or reals in fixed point."""
    x = np.asarray(samples)
    if not np.issubdtype(x.dtype, np.integer):
        return fixed_point(x.astype(np.float64), bits)
    if x.ndim != 2 or not x.size:
        raise BitfabError(f"samples of shape {x.shape}: (samples, features) expected")
    return Features(x.shape[1], IntType.holding(int(x.min()), int(x.max())))


def _encoder(x: IntArray, features: Features, recipe: LutRecipe) -> Compare | Bits:
    if recipe.levels:
        return thermometer(x, recipe.levels, recipe.spacing, read=recipe.read, step=recipe.step)
    bits = raw_bits(features)
    chosen = np.isin(bits.channel, np.arange(features.count) if recipe.read is None else recipe.read)
    return Bits(bits.channel[chosen], bits.place[chosen])


def _searched(
    features: Features,
    encoder: Compare | Bits,
    kept: tuple[IntArray, IntArray],
    held: tuple[IntArray, IntArray],
    classes: int,
    recipe: LutRecipe,
    search: Search,
) -> LutNetwork:
    limits = Limits(sum(recipe.tables), len(recipe.tables), recipe.fan_in)
    space = lut_space(features, encoder, kept, limits, classes, validation=_some(held), objectives=recipe.objectives)
    return _best(search(space, _settings(recipe)))


def _refined(
    network: LutNetwork,
    kept: tuple[IntArray, IntArray],
    held: tuple[IntArray, IntArray],
    recipe: LutRecipe,
    search: Search,
) -> LutNetwork:
    space, start = around(network, kept, validation=_some(held), objectives=recipe.objectives)
    settings = replace(_settings(recipe), strength=(2.0, 1.0))
    return _best(search(space, settings, start=start))


def _best(front: genetic.Front[LutNetwork]) -> LutNetwork:
    return front.network(front.best())


def _settings(recipe: LutRecipe) -> genetic.Settings:
    return genetic.Settings(POPULATION, CHILDREN, recipe.generations, recipe.seed, crossover=CROSSED)


def _shown(recipe: LutRecipe, told: Progress) -> genetic.Progress:
    """The front so far, its first network in words."""

    def progress(generation: int, front: genetic.Front[LutNetwork]) -> None:
        first = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(front.space.objectives, front.values[0], strict=True)
        )
        told(f"searching: {len(front)} networks in the front, {first}", generation, recipe.generations)

    return progress


def _some(held: tuple[IntArray, IntArray]) -> tuple[IntArray, IntArray] | None:
    return held if len(held[0]) else None


def _split(count: int, recipe: LutRecipe) -> NDArray[np.bool_]:
    """Which samples are trained on; gradients alone need no others."""
    if recipe.method is Method.GRADIENT:
        return np.ones(count, dtype=bool)
    return np.random.default_rng(recipe.seed).random(count) >= recipe.validation


def _classes(labels: IntArray, count: int) -> int:
    labels = np.asarray(labels)
    classes = int(labels.max(initial=0)) + 1 if np.issubdtype(labels.dtype, np.integer) else 1
    checked = check_labels(labels, count, classes)
    absent = np.setdiff1d(np.arange(classes), checked)
    if classes < 2 or len(absent):
        lacking = f"class {absent[0]} has no sample" if len(absent) else "all are of one class"
        raise BitfabError(f"labels up to {classes - 1}: {lacking}; number the classes from 0 on, at least two")
    return classes
