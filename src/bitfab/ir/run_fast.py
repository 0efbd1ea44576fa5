"""The fast executor: runs a graph with torch, piece by piece of the batch, equal to `run` in every bit.

A value of at most 8 bits travels as uint8 `q - type.low`, images channels-last: what oneDNN's int8 convolution reads
and what moves least; wider values travel as floats that hold them exactly.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitfab.dtypes import IntArray, storage
from bitfab.ir.fast_kernels import Kernel, carrier, kernel_of, to_torch
from bitfab.ir.graph import Graph
from bitfab.ir.run import checked_inputs, run

PIECE = 1 << 20  # integers of the largest value that are worked on at once: its accumulators stay in the cache


@dataclass(frozen=True)
class Step:
    """A prepared node; `dead` are the values that nothing reads after it."""

    name: str
    kernel: Kernel
    inputs: tuple[str, ...]
    dead: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A prepared graph: its steps and how many images are worked on at once."""

    steps: tuple[Step, ...]
    images: int


def run_fast(graph: Graph, *inputs: IntArray) -> IntArray | tuple[IntArray, ...]:
    """What `run` computes, bit for bit, with torch; same arguments, result and errors.

    The first call on a graph prepares it (packs weights); later calls on the same graph reuse that.
    """
    arrays = checked_inputs(graph, inputs)
    batch = len(arrays[0])
    if batch == 0:
        return run(graph, *inputs)
    plan = _planned(graph)
    outputs = [np.empty((batch, *value.shape), storage(value.type)) for value in graph.output_values]
    with torch.inference_mode():
        for start in range(0, batch, plan.images):
            piece = slice(start, start + plan.images)
            values = {
                value.name: to_torch(x[piece], carrier(value)) for value, x in zip(graph.inputs, arrays, strict=True)
            }
            results = _execute(plan.steps, values, graph.outputs)
            for output, value, result in zip(outputs, graph.output_values, results, strict=True):
                np.add(result.numpy(), np.int16(carrier(value).offset), out=output[piece], casting="unsafe")
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _execute(steps: Sequence[Step], values: dict[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
    for step in steps:
        values[step.name] = step.kernel(*(values[name] for name in step.inputs))
        for name in step.dead:
            del values[name]
    return [values[name] for name in outputs]


_PLANS: dict[int, Plan] = {}


def _planned(graph: Graph) -> Plan:
    """The plan of a graph, kept as long as the graph lives."""
    key = id(graph)
    if key not in _PLANS:
        _PLANS[key] = _plan(graph)
        weakref.finalize(graph, _PLANS.pop, key, None)
    return _PLANS[key]


def _plan(graph: Graph) -> Plan:
    last_reader = {name: node.name for node in graph for name in node.inputs}
    steps = []
    for node in graph:
        dead = {name for name in node.inputs if last_reader[name] == node.name} - set(graph.outputs)
        steps.append(Step(node.name, kernel_of(node, graph.values), node.inputs, tuple(dead)))
    largest = max(math.prod(value.shape) for value in graph.values.values())
    return Plan(tuple(steps), max(1, PIECE // largest))
