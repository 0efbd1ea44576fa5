"""The schedule: the same as a simulation of its engines event by event."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bitfab.backend import simulate
from bitfab.dtypes import IntType
from bitfab.hw import generate
from bitfab.hw.plan import plan
from bitfab.hw.schedule import _Actor, _actors, _settle, schedule
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Add, Concat, Conv2d, MaxPool2d, Multiply, Requantize, Threshold, Upsample
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


def unpadded() -> Graph:
    """A convolution of 3x3 without padding, beside a smaller one: an input pixel meets no whole number of cycles."""
    rng, b = np.random.default_rng(0), Builder("unpadded")
    x = b.input("x", (2, 9, 8), IntType(8, signed=False))
    wide = b.add("wide", Conv2d(rng.integers(-9, 10, (4, 2, 3, 3)), np.zeros(4, int)), x)
    byte = b.add("byte", Requantize(np.full(4, 2**9), np.full(4, 14), IntType(8, signed=True), -128, 127), wide)
    near = b.add("near", Conv2d(rng.integers(-9, 10, (4, 4, 3, 3)), np.zeros(4, int), padding=(1, 1, 1, 1)), byte)
    same = b.add("same", Requantize(np.full(4, 2**9), np.full(4, 14), IntType(8, signed=True), -128, 127), near)
    return b.build((b.add("sum", Add(), (byte, same)),))


def gated() -> Graph:
    """Factors for all pixels of an image, from all its pixels, by way of two slow layers."""
    b = Builder("gated")
    x = b.input("x", (4, 3, 3), IntType(4, signed=False))
    y = b.add("pool", MaxPool2d((3, 3), (3, 3)), x)
    for name in ("squeeze", "excite"):
        y = b.add(name, Conv2d(np.ones((4, 4, 1, 1), np.int32), np.zeros(4, np.int32)), y)
    return b.build((b.add("product", Multiply(), (x, y)),))


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
                busy[actor.name] = now + int(np.diff(actor.work)[fired[actor.name]])
        now += 1
        assert now < 10**6
    return ends


GRAPHS = {"skips": skips(), "network": network(channels=4), "unpadded": unpadded(), "gated": gated()}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("parallelism", [8, 40])
def test_as_event_by_event(graph: Graph, parallelism: int) -> None:
    engines, shapes = plan(graph, parallelism, {})
    slowest = max(engine.cycles for engine in engines.values())
    actors = list(_actors(graph, engines, shapes, slowest).values())
    _settle(graph, actors)
    assert {actor.name: actor.ends[1:].tolist() for actor in actors} == event_by_event(actors)


def test_pixels_come_in_as_evenly_as_whole_cycles_are() -> None:
    engines, shapes = plan(unpadded(), 24, {})
    source = _actors(unpadded(), engines, shapes, 700)["x"]  # 72 pixels
    assert set(np.diff(source.work)) == {9, 10}
    assert [source.work[72 * image] for image in range(4)] == [0, 700, 1400, 2100]


def test_an_image_takes_the_cycles_of_the_slowest_engine(tmp_path: Path) -> None:
    """As foretold and as simulated, and the sum's FIFO suffices."""
    graph = unpadded()
    design = generate(graph, parallelism=24)
    slowest = max(layer.cycles for layer in design.layers)
    assert slowest % (9 * 8) != 0
    simulation = simulate(design, np.random.default_rng(1).integers(0, 256, (4, 2, 9, 8)), tmp_path / "net")
    assert simulation.mismatches == 0
    assert simulation.steady.cycles_per_image == design.expected_cycles == slowest


def test_no_pixel_goes_before_its_factors() -> None:
    engines, shapes = plan(gated(), 2, {})
    actors = _actors(gated(), engines, shapes, 40)
    _settle(gated(), list(actors.values()))
    factors, product = actors["excite"].ends[1:], actors["product"].ends[1:].reshape(-1, 9)
    assert (product[:, 0] > factors).all() and (np.diff(product) > 0).all()


def test_room_for_all_images_on_their_way() -> None:
    """The deeper the branch of the factors, the more pixels wait for them: at least the image that they are made of."""
    graph = gated()
    engines, shapes = plan(graph, 2, {})
    found = schedule(graph, engines, shapes, 9)
    assert found.cycles_per_image == max(engine.cycles for engine in engines.values())
    assert found.fifos["x", "product"] > 2 * 9 and found.fifos["excite", "product"] >= 1
    fast, _ = plan(graph, 32, {})
    assert 9 < schedule(graph, fast, shapes, 9).fifos["x", "product"] < found.fifos["x", "product"]
