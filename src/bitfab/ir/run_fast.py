"""The fast executor: runs a graph with torch, piece by piece of the batch, equal to `run` in every bit.

A value of at most 8 bits travels as uint8 `q - type.low`, images channels-last: what oneDNN's int8 convolution reads
and what moves least; wider values travel as floats that hold them exactly. Each thread takes whole pieces through all
of the graph, so threads wait for one another once per call, not once per operation.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bitfab.dtypes import IntArray, storage
from bitfab.ir.graph import Graph, Node
from bitfab.ir.kernels import kernel_of
from bitfab.ir.kernels.carrier import Kernel, carrier, to_torch
from bitfab.ir.ops import MaxPool2d, Requantize, Threshold
from bitfab.ir.run import checked_inputs, run

PIECE = 1 << 21  # integers of the largest value that are worked on at once: more memory would save no more time
LEAST = 1 << 17  # the same, for a piece of its own to be worth a thread


@dataclass(frozen=True)
class Step:
    """A prepared node; `dead` are the values that nothing reads after it."""

    name: str
    kernel: Kernel
    inputs: tuple[str, ...]
    dead: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A prepared graph: its steps and the size of its largest value, in integers an image."""

    steps: tuple[Step, ...]
    largest: int

    def images(self, batch: int, threads: int) -> int:
        """How many images a piece has: even shares, but neither above PIECE nor below LEAST."""
        most, least = max(1, PIECE // self.largest), max(1, LEAST // self.largest)
        rounds = math.ceil(batch / (most * threads))
        return max(min(least, most), math.ceil(batch / (rounds * threads)))


def run_fast(graph: Graph, *inputs: IntArray) -> IntArray | tuple[IntArray, ...]:
    """What `run` computes, bit for bit, with torch; same arguments, result and errors.

    The first call on a graph prepares it (packs weights); later calls on the same graph reuse that. It works on
    `torch.get_num_threads()` threads.
    """
    arrays = checked_inputs(graph, inputs)
    batch, threads = len(arrays[0]), torch.get_num_threads()
    if batch == 0:
        return run(graph, *inputs)
    plan = _planned(graph)
    outputs = [np.empty((batch, *value.shape), storage(value.type)) for value in graph.output_values]

    def work(piece: slice) -> None:
        found = _execute(graph, plan.steps, [x[piece] for x in arrays])
        for output, value, tensor in zip(outputs, graph.output_values, found, strict=True):
            np.add(tensor.numpy(), np.int16(carrier(value).offset), out=output[piece], casting="unsafe")

    size = plan.images(batch, threads)
    pieces = [slice(start, start + size) for start in range(0, batch, size)]
    for _ in _workers(threads).map(work, pieces) if min(threads, len(pieces)) > 1 else map(work, pieces):
        pass
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


@torch.inference_mode()
def _execute(graph: Graph, steps: Sequence[Step], arrays: Sequence[IntArray]) -> list[Tensor]:
    """The outputs for some images, each in its carrier."""
    values = {value.name: to_torch(x, carrier(value)) for value, x in zip(graph.inputs, arrays, strict=True)}
    for step in steps:
        values[step.name] = step.kernel(*(values[name] for name in step.inputs))
        for name in step.dead:
            del values[name]
    return [values[name] for name in graph.outputs]


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """That many threads, on each of which torch is single-threaded; elsewhere it keeps `threads`.

    A thread has its own number; but setting it also sets the default of threads to come, and a thread's first question
    for it overwrites it with that default: so each thread asks first, and the default is put back once all have set it.
    """
    ready = threading.Barrier(threads)

    def start() -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(threads, "run_fast", start)
    list(pool.map(lambda _: ready.wait(), range(threads)))
    torch.set_num_threads(threads)
    return pool


os.register_at_fork(after_in_child=_workers.cache_clear)  # threads do not live on in a forked process

_PLANS: dict[int, Plan] = {}


def _planned(graph: Graph) -> Plan:
    """The plan of a graph, kept as long as the graph lives."""
    key = id(graph)
    if key not in _PLANS:
        _PLANS[key] = _plan(_pools_first(graph))
        weakref.finalize(graph, _PLANS.pop, key, None)
    return _PLANS[key]


def _plan(graph: Graph) -> Plan:
    last_reader = {name: node.name for node in graph for name in node.inputs}
    steps = []
    for node in graph:
        dead = {name for name in node.inputs if last_reader[name] == node.name} - set(graph.outputs)
        steps.append(Step(node.name, kernel_of(node, graph.values), node.inputs, tuple(dead)))
    return Plan(tuple(steps), max(math.prod(value.shape) for value in graph.values.values()))


def _pools_first(graph: Graph) -> Graph:
    """Max pools moved before the requantize or threshold that they alone read: monotone, and then less to do."""
    nodes: dict[str, Node] = {}
    values = dict(graph.values)
    for node in graph:
        before = nodes.get(node.inputs[0], node)
        smaller = math.prod(node.output.shape) < math.prod(before.output.shape)
        alone = len(graph.users[before.name]) == 1 and before.name not in graph.outputs
        if isinstance(node.op, MaxPool2d) and isinstance(before.op, Requantize | Threshold) and alone and smaller:
            pooled = replace(values[before.inputs[0]], name=before.name, shape=node.output.shape)
            nodes[before.name], values[before.name] = Node(node.op, before.inputs, pooled), pooled
            nodes[node.name] = Node(before.op, (before.name,), node.output)
        else:
            nodes[node.name] = node
    return replace(graph, nodes=tuple(nodes.values()))
