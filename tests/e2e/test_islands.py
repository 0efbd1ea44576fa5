"""Islands on a Dask cluster of two worker processes on loopback: one is killed in the middle, and nothing is lost."""

import dataclasses
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bitfab.errors import BitfabError
from bitfab.lutnet import islands
from bitfab.lutnet.genetic import Front
from bitfab.lutnet.islands import Islands
from tests.genetic_worker import SETTINGS, same, space

LONGER = dataclasses.replace(SETTINGS, generations=90)
ARCHIPELAGO = Islands(count=3, epoch=30)


def test_a_worker_is_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    local = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    undisturbed = islands.search(space(), LONGER, ARCHIPELAGO, workers=1)  # a cluster of its own, of another size
    with distributed.LocalCluster(**local) as cluster:
        address = cluster.scheduler_address
        victims = [worker.pid for worker in cluster.workers.values()]
        killed = threading.Event()

        def kill(*_: object) -> None:
            os.kill(victims[0], signal.SIGKILL)
            killed.set()

        def soon(generation: int, _: Front[Any]) -> None:
            if generation == ARCHIPELAGO.epoch:
                threading.Timer(0.05, kill).start()  # in the middle of the second epoch

        file = tmp_path / "islands.safetensors"
        disturbed = islands.search(space(), LONGER, ARCHIPELAGO, address=address, progress=soon, checkpoint=file)
        assert killed.is_set()
        assert victims[0] not in [worker.pid for worker in cluster.workers.values()]
        assert same(disturbed, undisturbed)
        assert same(islands.search(space(), LONGER, ARCHIPELAGO, address=address, checkpoint=file), undisturbed)
        with pytest.raises(BitfabError, match="other islands"):
            islands.search(space(), LONGER, Islands(count=3, epoch=20), address=address, checkpoint=file)


def test_migrants_replace_the_worst() -> None:
    states = [islands._begin(space(), SETTINGS, None, island) for island in range(3)]
    after = islands.migrated(states, SETTINGS, 2)
    for state, source, result in zip(states, (states[2], *states[:2]), after, strict=True):
        assert len(result.values) == SETTINGS.population
        assert result.values[:, 0].min() == min(state.values[:, 0].min(), source.values[:2, 0].min())


def test_where_dask_is_missing_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BitfabError, match=r"pip install 'bitfab\[islands\]'"):
        islands.search(space(), SETTINGS, ARCHIPELAGO)


def test_no_scheduler_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed")
    monkeypatch.setattr(islands, "CONNECTING", 0.2)
    for address in ("tcp://127.0.0.1:9", "nonsense://"):
        with pytest.raises(BitfabError, match="no Dask scheduler"):
            islands.search(space(), SETTINGS, ARCHIPELAGO, address=address)


def test_no_workers_are_refused() -> None:
    with pytest.raises(BitfabError, match="at least 1 expected"):
        islands.search(space(), SETTINGS, ARCHIPELAGO, workers=0)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"epoch": 0}, {"migrants": -1}])
def test_bad_islands_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BitfabError, match="expected"):
        Islands(**wrong)
