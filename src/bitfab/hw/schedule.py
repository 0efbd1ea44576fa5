"""The schedule: a pixel-by-pixel simulation of the engines that predicts cycles and the depths of skip FIFOs.

Each engine is an actor that needs input pixels, takes cycles and room downstream, and gives one output pixel
(synchronous dataflow; Lee and Messerschmitt 1987). Line buffers have their real sizes. Pixels come in at the pace of
the slowest engine, and a FIFO at a join may grow without bound: its peak is the depth to build. Self-timed dataflow is
monotonic (a firing that comes earlier never delays another; Wiggers et al. 2009), so with these depths the real design,
whatever the pace of its input and the pauses of its output, cannot deadlock and is at least as fast as this schedule.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bitfab.hw.design import Shape3
from bitfab.hw.plan import Engine, Window
from bitfab.ir.graph import Graph
from bitfab.ir.ops import Add, Concat, Reshape

IMAGES = 3  # the first fills the pipeline, the distance between the last two is the steady state
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
    producer: _Actor
    consumer: _Actor
    capacity: float
    produced: int = 0
    taken: int = 0
    peak: int = 0
    waits: bool = False  # some pixel came before its partner at the join


@dataclass
class _Actor:
    name: str
    pixels: int
    cycles: int
    need: list[list[int]]  # for each input edge and output pixel: how many input pixels must have come
    free: list[list[int]]  # and how many are done with afterwards
    per_image: list[int]  # input pixels an image, for each input edge
    inputs: list[_Edge] = field(default_factory=list)
    outputs: list[_Edge] = field(default_factory=list)
    fired: int = 0
    busy: bool = False

    def ready(self) -> bool:
        image, pixel = divmod(self.fired, self.pixels)
        if self.busy or image >= IMAGES:
            return False
        for edge, need, per_image in zip(self.inputs, self.need, self.per_image, strict=True):
            if edge.produced < image * per_image + need[pixel]:
                return False
        return all(edge.produced - edge.taken < edge.capacity for edge in self.outputs)

    def finish(self) -> None:
        image, pixel = divmod(self.fired, self.pixels)
        for edge, free, per_image in zip(self.inputs, self.free, self.per_image, strict=True):
            edge.taken = image * per_image + free[pixel]
        for edge in self.outputs:
            edge.produced += 1
            edge.peak = max(edge.peak, edge.produced - edge.taken)
            partners = (other for other in edge.consumer.inputs if other is not edge)
            edge.waits |= any(other.produced < edge.produced for other in partners)
        self.fired += 1
        self.busy = False


def schedule(graph: Graph, engines: Mapping[str, Engine], shapes: Mapping[str, Shape3], input_cycles: int) -> Schedule:
    """Run the engines until three images have left; an image needs at least `input_cycles` to come in."""
    slowest = max([input_cycles, *(engine.cycles for engine in engines.values())])
    actors = _actors(graph, engines, shapes, slowest)
    last = actors[_resolve(graph, graph.outputs[0])]
    ends: list[int] = []
    heap: list[tuple[int, int, _Actor]] = []
    order = 0

    def start(candidates: list[_Actor], now: int) -> None:
        nonlocal order
        for actor in candidates:
            if actor.ready():
                actor.busy = True
                order += 1
                heapq.heappush(heap, (now + actor.cycles, order, actor))

    start(list(actors.values()), 0)
    while heap:
        now, _, actor = heapq.heappop(heap)
        actor.finish()
        if actor is last and actor.fired % actor.pixels == 0:
            ends.append(now)
        neighbours = [edge.producer for edge in actor.inputs] + [edge.consumer for edge in actor.outputs]
        start([actor, *neighbours], now)
    assert len(ends) == IMAGES, f"the schedule of {graph.name} stops after {len(ends)} images"
    fifos = {
        (edge.producer.name, edge.consumer.name): edge.peak + MARGIN
        for actor in actors.values()
        for edge in actor.inputs
        if edge.capacity == float("inf") and (edge.waits or _direct(graph, engines, edge.producer.name))
    }
    return Schedule(ends[-1] - ends[-2], ends[0], fifos)


def _resolve(graph: Graph, name: str) -> str:
    """The value behind flattens, which are no engines."""
    nodes = {node.name: node for node in graph}
    while name in nodes and isinstance(nodes[name].op, Reshape):
        name = nodes[name].inputs[0]
    return name


def _actors(
    graph: Graph, engines: Mapping[str, Engine], shapes: Mapping[str, Shape3], slowest: int
) -> dict[str, _Actor]:
    actors = {}
    for value in graph.inputs:
        pixels = _pixels(shapes[value.name])
        actors[value.name] = _Actor(value.name, pixels, -(-slowest // pixels), [], [], [])
    for name, engine in engines.items():
        out_pixels = _pixels(engine.output)
        per_image = [_pixels(shape) for shape in engine.inputs]
        need, free = zip(*(_needs(engine, shape) for shape in engine.inputs), strict=True)
        actor = _Actor(name, out_pixels, max(1, engine.cycles // out_pixels), list(need), list(free), per_image)
        actors[name] = actor
        for source, shape in zip(engine.node.inputs, engine.inputs, strict=True):
            edge = _Edge(actors[_resolve(graph, source)], actor, _capacity(engine, shape))
            edge.producer.outputs.append(edge)
            actor.inputs.append(edge)
    return actors


def _direct(graph: Graph, engines: Mapping[str, Engine], name: str) -> bool:
    """Whether a value comes from a fork without a line buffer in between.

    Such a branch must hold at least the pixel that the other branch is still collecting, whichever is faster.
    """
    while True:
        if len(graph.users[name]) > 1:
            return True
        engine = engines.get(name)
        if engine is None or engine.window is not None or isinstance(engine.node.op, Add | Concat):
            return False
        name = engine.node.inputs[0]


def _pixels(shape: Shape3) -> int:
    return shape[1] * shape[2]


def _capacity(engine: Engine, shape: Shape3) -> float:
    if isinstance(engine.node.op, Add | Concat):
        return float("inf")
    return SLACK if engine.window is None else engine.window.rows * shape[2] + SLACK


def _needs(engine: Engine, shape: Shape3) -> tuple[list[int], list[int]]:
    """For each output pixel: input pixels needed before, and done with after."""
    if engine.window is None:
        counts = list(range(1, _pixels(shape) + 1))
        return counts, counts
    window, (_, height, width) = engine.window, shape
    rows, columns = (_positions(window, axis) for axis in (0, 1))
    last_row = np.clip(rows + window.kernel[0] - 1, 0, height - 1)
    last_column = np.clip(columns + window.kernel[1] - 1, 0, width - 1)
    need = last_row[:, None] * width + last_column[None, :] + 1
    kept = np.append(np.clip(rows[1:], 0, height), height)  # the first row that the next output row still needs
    free = np.broadcast_to(np.append([0], kept[:-1])[:, None] * width, need.shape).copy()
    free[:, -1] = kept * width
    return need.ravel().tolist(), free.ravel().tolist()


def _positions(window: Window, axis: int) -> np.ndarray:
    """The first tap's row (or column) for each output row (or column)."""
    steps = (np.arange(window.out[axis]) + window.phase[axis]) // window.up[axis]
    return window.origin[axis] + steps * window.stride[axis]
