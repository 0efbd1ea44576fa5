"""What the genetic search needs to know of a representation: the protocol `Space`, and arrays of many individuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import FloatArray, IntArray

Genes = Mapping[str, NDArray[Any]]
"""Many individuals: named arrays, axis 0 of each the individual; bool, integers or floats of fixed size."""


NetworkT = TypeVar("NetworkT", covariant=True)


class Space(Protocol[NetworkT]):
    """A family of networks that a genetic search goes through; limits on hardware are part of it, no genes break them.

    The search owns selection, elitism, schedule, checkpoints and processes; a space owns the genes and what they mean.
    All chance comes from the generator that is given, in an order that depends on the arguments alone. A space is
    pickled once to each worker process (never to a file) and is never changed.
    """

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of what `evaluate` gives, the one that matters most first; all are minimised."""

    def random(self, count: int, chance: np.random.Generator) -> Genes:
        """`count` individuals drawn at random."""

    def mutate(self, genes: Genes, strength: float, chance: np.random.Generator) -> Genes:
        """Changed copies, one of each; `strength` is the mean number of changes, at least 1, larger early on."""

    def crossover(self, first: Genes, second: Genes, chance: np.random.Generator) -> Genes:
        """One child of each pair (first[i], second[i]): uniform for some, whole blocks of genes for the others."""

    def evaluate(self, genes: Genes) -> FloatArray:
        """What each individual is worth on the training samples, (count, objectives); no chance, no memory.

        An individual's values must not depend on which others are evaluated with it: workers get parts of a population.
        """

    def errors(self, genes: Genes) -> FloatArray:
        """The share of the validation samples (of the training samples where there are none) that each answers wrongly.

        Never selects parents: early stop and the final choice from the front look at it.
        """

    def to_network(self, genes: Genes) -> NetworkT:
        """The network that the first individual means; its integer graph answers exactly as `evaluate` counted."""


def take(genes: Genes, which: IntArray | slice) -> dict[str, NDArray[Any]]:
    """The individuals `which`, in that order."""
    return {name: array[which] for name, array in genes.items()}


def joined(parts: Sequence[Genes]) -> dict[str, NDArray[Any]]:
    """The individuals of all parts, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def size(genes: Genes) -> int:
    """How many individuals there are."""
    return len(next(iter(genes.values())))
