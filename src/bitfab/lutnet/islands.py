"""Genetic search on many machines: islands that evolve apart and exchange their best, on a Dask cluster."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitfab.errors import BitfabError
from bitfab.lutnet.checkpoint import Settings, State, load, save
from bitfab.lutnet.genetic import Front, Progress, advance, begin, ended, front, survivors
from bitfab.lutnet.search_space import Genes, NetworkT, Space, joined, take

CONNECTING = 10  # seconds in which a scheduler must answer


@dataclass(frozen=True)
class Islands:
    """How many populations there are, for how many generations each is alone, and how many of its best then leave."""

    count: int = 4
    epoch: int = 50
    migrants: int = 2

    def __post_init__(self) -> None:
        if self.count < 1 or self.epoch < 1 or self.migrants < 0:
            raise BitfabError("islands: count and epoch of at least 1, migrants of at least 0 expected")


def search(
    space: Space[NetworkT],
    settings: Settings,
    islands: Islands,
    *,
    address: str | None = None,
    workers: int = 2,
    start: Genes | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Front[NetworkT]:
    """Search on `islands.count` populations; the front is the same whatever the workers are, how many, or how many die.

    `address` is a Dask scheduler's (`tcp://host:8786`); without one, a cluster of that many worker processes is started
    here and ended with the search. An epoch of an island is one task that depends on its arguments alone, so a worker
    that dies costs only the time to compute it again elsewhere. After each epoch the states are here: the checkpoint is
    written, progress told, and the best `migrants` of island i take part in the next epoch of island i + 1.
    `settings.patience` ends an island's evolution; the search ends with the last island. Dask exchanges Python objects
    by pickle: name only schedulers that you trust. Raises BitfabError where Dask is missing, no scheduler answers, or
    as `genetic.search` does.
    """
    if workers < 1:
        raise BitfabError(f"islands: {workers} workers given, at least 1 expected")
    described = dataclasses.asdict(settings) | {"islands": dataclasses.asdict(islands)}
    with _client(address, workers) as client:
        held = client.submit(_itself, space, pure=False)  # a task, not scattered data: made again if its worker dies

        def everywhere(tasks: Sequence[tuple[Any, ...]]) -> list[State]:
            return client.gather([client.submit(*task, pure=False) for task in tasks])

        if checkpoint is not None and checkpoint.exists():
            states = load(checkpoint, space, described)
        else:
            states = everywhere([(_begin, held, settings, start, island) for island in range(islands.count)])
        while not all(ended(state, settings) for state in states):
            states = everywhere([(_epoch, held, settings, islands.epoch, state) for state in states])
            states = migrated(states, settings, islands.migrants)
            if checkpoint is not None:
                save(checkpoint, described, states)
            if progress is not None:
                progress(max(state.generation for state in states), front(space, states))
    return front(space, states)


def migrated(states: Sequence[State], settings: Settings, migrants: int) -> list[State]:
    """Each island with the best of the one before it, in a ring, and the worst beyond its population gone."""
    arrived = []
    for state, source in zip(states, (states[-1], *states[:-1]), strict=True):
        best = slice(0, migrants)
        genes, values = (
            joined([state.genes, take(source.genes, best)]),
            np.concatenate([state.values, source.values[best]]),
        )
        arrived.append(survivors(dataclasses.replace(state, genes=genes, values=values), settings))
    return arrived


def _itself(space: Space[Any]) -> Space[Any]:
    return space


def _begin(space: Space[Any], settings: Settings, start: Genes | None, island: int) -> State:
    return begin(space, settings, space.evaluate, start, island)


def _epoch(space: Space[Any], settings: Settings, generations: int, state: State) -> State:
    for _ in range(generations):
        if ended(state, settings):
            break
        state = advance(space, state, settings, space.evaluate)
    return state


@contextmanager
def _client(address: str | None, workers: int) -> Iterator[Any]:
    try:
        import distributed
    except ImportError as error:
        raise BitfabError("islands need Dask, which is not installed; pip install 'bitfab[islands]'") from error
    local = {"n_workers": workers, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with contextlib.ExitStack() as opened:
        cluster = opened.enter_context(distributed.LocalCluster(**local)) if address is None else address
        try:
            client = opened.enter_context(distributed.Client(cluster, timeout=CONNECTING))
        except (OSError, ValueError) as error:
            raise BitfabError(f"{address}: no Dask scheduler answers there; start one with `dask scheduler`") from error
        try:
            yield client
        except distributed.KilledWorker as error:
            raise BitfabError(
                "islands: an island's workers died again and again, perhaps for want of memory; give workers more of it"
            ) from error
