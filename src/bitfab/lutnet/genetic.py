"""Genetic search through a space of networks: elitist, several objectives, the same for any number of workers."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np

from bitfab.dtypes import FloatArray, IntArray
from bitfab.errors import BitfabError
from bitfab.lutnet import pareto
from bitfab.lutnet.checkpoint import Settings, State, load, save
from bitfab.lutnet.search_space import Genes, NetworkT, Space, joined, size, take

Evaluate = Callable[[Genes], FloatArray]


@dataclass(frozen=True, eq=False)
class Front(Generic[NetworkT]):
    """The networks that none dominates, the best in the first objective first: values (count, objectives)."""

    space: Space[NetworkT]
    genes: Genes
    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def network(self, index: int) -> NetworkT:
        """One of them as a network."""
        return self.space.to_network(take(self.genes, slice(index, index + 1)))

    def errors(self) -> FloatArray:
        """The share of validation samples that each answers wrongly."""
        return self.space.errors(self.genes)

    def best(self) -> int:
        """The one with the fewest errors in validation, the first of equals."""
        return int(self.errors().argmin())


Progress = Callable[[int, Front[Any]], None]
"""Told the generation and the front so far."""


def search(
    space: Space[NetworkT],
    settings: Settings,
    *,
    start: Genes | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    every: int = 50,
    workers: int = 1,
) -> Front[NetworkT]:
    """Search from random individuals, or refine those of `start`, for the networks that none dominates.

    Every `every` generations the checkpoint file is written and progress told; where the file exists, the search goes
    on from it, and ends with the same front as one never interrupted. With more than one worker, processes share the
    evaluations (started anew: a script needs its `if __name__ == "__main__"`). Raises BitfabError for a checkpoint that
    is damaged or was written for other settings, data or space.
    """
    if every < 1:
        raise BitfabError(f"genetic search: every {every} generations given, at least 1 expected")
    described = dataclasses.asdict(settings)
    with evaluator(space, workers) as evaluate:
        if checkpoint is not None and checkpoint.exists():
            state = load(checkpoint, space, described)[0]
        else:
            state = begin(space, settings, evaluate, start)
        while not ended(state, settings):
            state = advance(space, state, settings, evaluate)
            if state.generation % every == 0 or ended(state, settings):
                if checkpoint is not None:
                    save(checkpoint, described, [state])
                if progress is not None:
                    progress(state.generation, front(space, [state]))
    return front(space, [state])


def begin(
    space: Space[Any], settings: Settings, evaluate: Evaluate, start: Genes | None = None, island: int = 0
) -> State:
    """The first population: at random, or `start` and changed copies of it."""
    chance = np.random.default_rng([settings.seed, island, 0])
    if start is None:
        genes = space.random(settings.population, chance)
    else:
        copies = take(start, np.arange(max(settings.population - size(start), 0)) % size(start))
        genes = joined([start, space.mutate(copies, settings.strength[0], chance)])
    return survivors(State(0, genes, evaluate(genes), island=island), settings)


def advance(space: Space[Any], state: State, settings: Settings, evaluate: Evaluate) -> State:
    """One generation: children by tournament, crossover and mutation; the best of all survive."""
    generation = state.generation + 1
    chance = np.random.default_rng([settings.seed, state.island, generation])
    first, second = (_tournament(size(state.genes), settings, chance) for _ in range(2))
    crossed = round(settings.crossover * settings.children)
    both = space.crossover(take(state.genes, first[:crossed]), take(state.genes, second[:crossed]), chance)
    early, late = settings.strength
    strength = early * (late / early) ** (generation / settings.generations)
    children = space.mutate(joined([both, take(state.genes, first[crossed:])]), strength, chance)
    values = evaluate(children)
    improved = generation if values[:, 0].min() < state.values[:, 0].min() else state.improved
    everybody = joined([state.genes, children]), np.concatenate([state.values, values])
    return survivors(State(generation, *everybody, improved, state.island), settings)


def survivors(state: State, settings: Settings) -> State:
    """The state with the best `population` of its individuals, in order."""
    kept = pareto.order(state.values)[: settings.population]
    return dataclasses.replace(state, genes=take(state.genes, kept), values=state.values[kept])


def ended(state: State, settings: Settings) -> bool:
    """Whether all generations are done, or patience is at an end."""
    waited = state.generation - state.improved
    return state.generation >= settings.generations or (settings.patience is not None and waited >= settings.patience)


def front(space: Space[NetworkT], states: Sequence[State]) -> Front[NetworkT]:
    """The individuals of all these states that none dominates, by their first objective."""
    genes, values = joined([state.genes for state in states]), np.concatenate([state.values for state in states])
    best = np.flatnonzero(pareto.ranks(values) == 0)
    best = best[np.lexsort(values[best].T[::-1])]
    return Front(space, take(genes, best), values[best])


def _tournament(count: int, settings: Settings, chance: np.random.Generator) -> IntArray:
    """Who becomes a parent: the best of some drawn at random; individuals are in order."""
    return chance.integers(count, size=(settings.children, settings.tournament)).min(axis=1)


@contextmanager
def evaluator(space: Space[Any], workers: int) -> Iterator[Evaluate]:
    """`space.evaluate`, by that many processes where more than one; they end with the block.

    Raises BitfabError for fewer than one, and where one of them dies.
    """
    if workers < 1:
        raise BitfabError(f"genetic search: {workers} workers given, at least 1 expected")
    if workers == 1:
        yield space.evaluate
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy other libraries' threads in mid-action
    with ProcessPoolExecutor(workers, context, _remember, (space,)) as pool:

        def evaluate(genes: Genes) -> FloatArray:
            parts = [take(genes, which) for which in np.array_split(np.arange(size(genes)), workers) if len(which)]
            return np.concatenate(list(pool.map(_evaluate, parts)))

        try:
            yield evaluate
        except BrokenProcessPool as error:
            raise BitfabError(
                "genetic search: a worker process died, perhaps for want of memory; use fewer workers, and a checkpoint"
                " to go on from"
            ) from error


_remembered: list[Space[Any]] = []  # a worker process's space


def _remember(space: Space[Any]) -> None:
    _remembered[:] = [space]


def _evaluate(genes: Genes) -> FloatArray:
    return _remembered[0].evaluate(genes)
