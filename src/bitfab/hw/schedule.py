"""The schedule: a pixel-by-pixel model of the engines that predicts cycles and the depths of skip FIFOs.

Each engine is an actor that needs input pixels, takes cycles and room downstream, and gives one output pixel
(synchronous dataflow; Lee and Messerschmitt 1987). Line buffers have their real sizes. Pixels come in evenly, at the
pace of the slowest engine, and a FIFO at a join may grow without bound: its peak is the depth to build (whole images,
where they wait for factors that are made of all their pixels). Self-timed dataflow is monotonic (a firing that comes
earlier never delays another; Wiggers et al. 2009), so with these depths the real design, whatever the pace of its input
and the pauses of its output, cannot deadlock and is at least as fast as this schedule.

Each firing starts at the largest of the times at which what it needs is there (max-plus algebra; Baccelli, Cohen,
Olsder and Quadrat 1992): the least solution of these equations is found by solving each actor's for all its firings at
once, with what its neighbours have so far, until nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bitfab.hw.design import Shape3
from bitfab.hw.plan import JOINS, Engine, Window
from bitfab.ir.graph import Graph
from bitfab.ir.ops import Concat, Multiply, Reshape, Slice

IMAGES = 3  # the first fills the pipeline, the distance between the last two is the steady state
MOST_IMAGES = 24  # where FIFOs grow from image to image: so many images can be on their way at once
SLACK = 2  # pixels that the registers between two engines hold
MARGIN = 2  # pixels added to a FIFO, since in this model a pixel passes at once and not word by word


@dataclass(frozen=True)
class Schedule:
    """Predicted steady-state cycles an image, first image's latency, each join input's FIFO in pixels."""

    cycles_per_image: int
    latency_cycles: int
    fifos: Mapping[tuple[str, str], int]


@dataclass
class _Edge:
    """For each of the consumer's firings: how many of the producer's pixels it needs, and how many it is done with."""

    producer: _Actor
    consumer: _Actor
    capacity: float  # in pixels
    need: np.ndarray
    free: np.ndarray

    @functools.cached_property
    def room(self) -> np.ndarray:
        """For each of the producer's firings: how many of the consumer's must have ended for its pixel to find room."""
        wanted = np.arange(1, len(self.producer.ends)) - int(self.capacity)
        return np.where(wanted > 0, np.searchsorted(self.free, wanted) + 1, 0)

    @functools.cached_property
    def held(self) -> np.ndarray:
        """How many pixels it holds when each of them comes."""
        ended = np.searchsorted(self.consumer.ends[1:], self.producer.ends[1:])
        taken = np.concatenate([[0], self.free])[ended]
        return np.arange(1, len(taken) + 1) - taken

    @property
    def peak(self) -> int:
        """The most pixels that it ever holds."""
        return int(self.held.max())

    @property
    def grows(self) -> bool:
        """Whether it holds the most only when the last image comes: further ones might be more."""
        return int(self.held.argmax()) >= len(self.held) - self.producer.pixels

    @property
    def waits(self) -> bool:
        """Whether some pixel comes before its partner at the join; of two at the same time the later engine's does."""
        others = [edge for edge in self.consumer.inputs if edge is not self]
        mine, rank = self.producer.ends[self.need], self.producer.rank
        return any((edge.producer.ends[edge.need] + (edge.producer.rank >= rank) > mine).any() for edge in others)


@dataclass
class _Actor:
    name: str
    rank: int  # in the order of the graph
    pixels: int
    work: np.ndarray  # cycles of all firings up to each one, behind a 0
    ends: np.ndarray  # of each firing, behind a 0
    inputs: list[_Edge] = field(default_factory=list)
    outputs: list[_Edge] = field(default_factory=list)

    def settle(self) -> bool:
        """Each firing as early as the neighbours' allow; whether one changed."""
        ready = np.zeros(len(self.ends) - 1, dtype=np.int64)
        for edge in self.inputs:
            np.maximum(ready, edge.producer.ends[edge.need], out=ready)
        for edge in self.outputs:
            if edge.capacity != float("inf"):
                np.maximum(ready, edge.consumer.ends[edge.room], out=ready)
        ends = np.maximum.accumulate(ready - self.work[:-1]) + self.work[1:]
        if np.array_equal(ends, self.ends[1:]):
            return False
        self.ends[1:] = ends
        return True


def schedule(graph: Graph, engines: Mapping[str, Engine], shapes: Mapping[str, Shape3], input_cycles: int) -> Schedule:
    """Run the engines until three images have left, or more while FIFOs grow with each of them.

    An image needs at least `input_cycles` to come in.
    """
    slowest = max([input_cycles, *(engine.cycles for engine in engines.values())])
    images = IMAGES
    while True:
        actors = _actors(graph, engines, shapes, slowest, images)
        _settle(graph, list(actors.values()))
        joined = {
            (source, name): edge
            for name, engine in engines.items()
            if isinstance(engine.node.op, JOINS)
            for source, edge in zip(engine.node.inputs, actors[name].inputs, strict=True)
        }
        if images == MOST_IMAGES or not any(edge.grows for edge in joined.values()):
            break
        images *= 2
    lasts = [actors[_resolve(graph, name)] for name in graph.outputs]
    ends = np.max([last.ends[last.pixels :: last.pixels] for last in lasts], axis=0)
    fifos = {
        (source, name): edge.peak + MARGIN
        for (source, name), edge in joined.items()
        if _in_turns(engines[name]) or edge.waits or _direct(graph, engines, source)
    }
    return Schedule(int(ends[-1] - ends[-2]), int(ends[0]), fifos)


def _settle(graph: Graph, actors: list[_Actor]) -> None:
    """Solve until nothing changes, forth and back along the graph."""
    changed = {actor.name for actor in actors}
    longest = sum(int(actor.work[-1]) for actor in actors)  # as if one engine worked at a time
    while changed:
        for actor in actors:
            if actor.name in changed:
                changed.remove(actor.name)
                if actor.settle():
                    changed |= {edge.consumer.name for edge in actor.outputs}
                    changed |= {edge.producer.name for edge in actor.inputs}
        assert max(actor.ends[-1] for actor in actors) <= longest, f"the schedule of {graph.name} stops"
        actors = actors[::-1]


def _resolve(graph: Graph, name: str) -> str:
    """The value behind flattens, which are no engines."""
    nodes = {node.name: node for node in graph}
    while name in nodes and isinstance(nodes[name].op, Reshape):
        name = nodes[name].inputs[0]
    return name


def _actors(
    graph: Graph, engines: Mapping[str, Engine], shapes: Mapping[str, Shape3], slowest: int, images: int = IMAGES
) -> dict[str, _Actor]:
    actors: dict[str, _Actor] = {}

    def add(name: str, pixels: int, cycles: int) -> _Actor:
        """An actor that takes so many cycles an image, spread over its pixels as evenly as whole cycles are."""
        fired = np.arange(images * pixels + 1)
        actors[name] = _Actor(name, len(actors), pixels, -(-fired * cycles // pixels), np.zeros_like(fired))
        return actors[name]

    for value in graph.inputs:
        pixels = _pixels(shapes[value.name])
        add(value.name, pixels, slowest)
    for name, engine in engines.items():
        out_pixels = _pixels(engine.output)
        timed = _pixels(engine.inputs[0]) if isinstance(engine.node.op, Slice) else out_pixels  # dropped ones as well
        actor = add(name, out_pixels, out_pixels * max(1, engine.cycles // timed))
        for i, (source, shape) in enumerate(zip(engine.node.inputs, engine.inputs, strict=True)):
            need, free = (_each_image(counts, _pixels(shape), images) for counts in _needs(engine, i))
            edge = _Edge(actors[_resolve(graph, source)], actor, _capacity(engine, shape), need, free)
            edge.producer.outputs.append(edge)
            actor.inputs.append(edge)
    return actors


def _each_image(counts: np.ndarray, pixels: int, images: int) -> np.ndarray:
    """Counts of one image's pixels, for each of the images: those of the earlier images are added."""
    return (np.arange(images)[:, None] * pixels + counts).ravel()


def _in_turns(engine: Engine) -> bool:
    """Whether each input waits while the others have their turn: rows, columns, the factors of whole images."""
    return (isinstance(engine.node.op, Concat) and engine.node.op.axis > 0) or _by_factors(engine)


def _by_factors(engine: Engine) -> bool:
    """Whether it multiplies all pixels of an image by the one pixel of another."""
    return isinstance(engine.node.op, Multiply) and engine.inputs[0] != engine.inputs[1]


def _direct(graph: Graph, engines: Mapping[str, Engine], name: str) -> bool:
    """Whether a value comes from a fork without a line buffer in between.

    Such a branch must hold at least the pixel that the other branch is still collecting, whichever is faster.
    """
    while True:
        if len(graph.users[name]) > 1 or len(graph.users[_resolve(graph, name)]) > 1:
            return True
        engine = engines.get(_resolve(graph, name))
        if engine is None or engine.window is not None or isinstance(engine.node.op, JOINS):
            return False
        name = engine.node.inputs[0]


def _pixels(shape: Shape3) -> int:
    return shape[1] * shape[2]


def _capacity(engine: Engine, shape: Shape3) -> float:
    if isinstance(engine.node.op, (*JOINS, Slice)):  # a slice takes at once what it drops
        return float("inf")
    return SLACK if engine.window is None else engine.window.rows * shape[2] + SLACK


def _needs(engine: Engine, index: int) -> tuple[np.ndarray, np.ndarray]:
    """For each output pixel: pixels of an input needed before, and done with after."""
    op, shape = engine.node.op, engine.inputs[index]
    if isinstance(op, Slice) and op.axis:
        taken = slice(op.start, op.stop, op.step)
        places = np.arange(1, _pixels(shape) + 1).reshape(shape[1:])
        counts = (places[taken] if op.axis == 1 else places[:, taken]).ravel()
        return counts, np.append(counts[:-1], _pixels(shape))
    if isinstance(op, Concat) and op.axis:
        own = [np.full(image[1:], i == index) for i, image in enumerate(engine.inputs)]
        counts = np.concatenate(own, axis=op.axis - 1).cumsum()
        return counts, counts
    if _by_factors(engine) and index == 1:
        counts = np.ones(_pixels(engine.output), dtype=np.int64)
        return counts, counts
    if engine.window is None:
        counts = np.arange(1, _pixels(shape) + 1)
        return counts, counts
    window, height, width = engine.window, shape[1], shape[2]
    rows, columns = (_positions(window, axis) for axis in (0, 1))
    last_row = np.clip(rows + window.reach[0] - 1, 0, height - 1)
    last_column = np.clip(columns + window.reach[1] - 1, 0, width - 1)
    need = last_row[:, None] * width + last_column[None, :] + 1
    kept = np.append(np.clip(rows[1:], 0, height), height)  # the first row that the next output row still needs
    free = np.broadcast_to(np.append([0], kept[:-1])[:, None] * width, need.shape).copy()
    free[:, -1] = kept * width
    return need.ravel(), free.ravel()


def _positions(window: Window, axis: int) -> np.ndarray:
    """The first tap's row (or column) for each output row (or column)."""
    steps = (np.arange(window.out[axis]) + window.phase[axis]) // window.up[axis]
    return window.origin[axis] + steps * window.stride[axis]
