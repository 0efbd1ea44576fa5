"""The schedule: the same as a simulation of its engines event by event."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bitfab.dtypes import IntType
from bitfab.hw.plan import plan
from bitfab.hw.schedule import _Actor, _actors, _settle
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Add, Concat, MaxPool2d, Threshold, Upsample
from tests.unit.test_hw_cost import network


def skips() -> Graph:
    """A slow branch beside a fast one, joined twice."""
    b = Builder("skips")
    x = b.input("x", (2, 8, 8), IntType(8, signed=False))
    pooled = b.add("pool", MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), x)
    up = b.add("up", Upsample((2, 2)), pooled)
    one = b.add("one", Threshold(np.array([[9], [7]]), IntType(1, signed=False), 0), b.add("sum", Add(), (x, up)))
    small = b.add("small", MaxPool2d((2, 2), (2, 2)), one)
    return b.build((b.add("both", Concat(), (one, b.add("again", Upsample((2, 2)), small))),))


def event_by_event(actors: list[_Actor]) -> dict[str, list[int]]:
    """When each firing ends: a clock that goes on by one, engines that start as soon as they can."""
    fired: Counter[str] = Counter()
    ends: dict[str, list[int]] = {actor.name: [] for actor in actors}
    busy: dict[str, int] = {}
    now = 0

    def taken(index: int, consumer: _Actor) -> int:
        count = fired[consumer.name]
        return int(consumer.inputs[index].free[count - 1]) if count else 0

    def ready(actor: _Actor) -> bool:
        k = fired[actor.name]
        if actor.name in busy or k == len(actor.ends) - 1:
            return False
        fed = all(fired[edge.producer.name] >= edge.need[k] for edge in actor.inputs)
        return fed and all(
            k - taken(edge.consumer.inputs.index(edge), edge.consumer) < edge.capacity for edge in actor.outputs
        )

    while any(fired[actor.name] < len(actor.ends) - 1 for actor in actors):
        for name in [name for name, end in busy.items() if end == now]:
            del busy[name]
            fired[name] += 1
            ends[name].append(now)
        for actor in actors:
            if ready(actor):
                busy[actor.name] = now + actor.cycles
        now += 1
        assert now < 10**6
    return ends


@pytest.mark.parametrize("graph", [skips(), network(channels=4)], ids=["skips", "network"])
@pytest.mark.parametrize("parallelism", [8, 40])
def test_as_event_by_event(graph: Graph, parallelism: int) -> None:
    engines, shapes = plan(graph, parallelism, {})
    slowest = max(engine.cycles for engine in engines.values())
    actors = list(_actors(graph, engines, shapes, slowest).values())
    _settle(graph, actors)
    assert {actor.name: actor.ends[1:].tolist() for actor in actors} == event_by_event(actors)
