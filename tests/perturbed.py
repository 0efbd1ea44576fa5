"""Another graph of the same structure: every constant that a design can load drawn anew, from all that fit it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.hw.folding import weight_bits
from bitfab.hw.loading import widened
from bitfab.ir import Graph, Node, Value
from bitfab.ir.graph import rebuild
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Op, Requantize, Threshold


def perturbed(graph: Graph, seed: int) -> Graph:
    """The graph with other weights, biases, factors and thresholds."""
    rng, wide = np.random.default_rng(seed), widened(graph).values
    nodes = tuple(replace(node, op=_op(rng, node, wide[node.inputs[0]], wide[node.name])) for node in graph)
    return rebuild(graph, nodes)


def _op(rng: np.random.Generator, node: Node, x: Value, y: Value) -> Op:
    match node.op:
        case Conv2d() | ConvTranspose2d() | Dense() as op:
            largest = min(-y.low, y.high) >> 1
            bias = rng.integers(-largest, largest + 1, op.bias.shape)
            return replace(op, weight=_weights(rng, weight_bits(node), op.weight.shape), bias=bias)
        case Requantize(multiplier=multiplier) as op if (multiplier == 1).all():
            return replace(op, shift=np.maximum(op.shift + rng.integers(-2, 3, op.shift.shape), 0))
        case Requantize() as op:
            normal = np.array([int(m).bit_length() for m in op.multiplier])
            shift = np.clip(op.shift + 16 - normal + rng.integers(-2, 3, op.shift.shape), 0, 62)
            return replace(op, multiplier=rng.integers(1 << 15, 1 << 16, shift.shape), shift=shift)
        case Threshold() as op:
            drawn = rng.integers(x.low, x.high + 1, op.thresholds.shape)
            return replace(op, thresholds=np.sort(drawn, axis=1))
    return node.op


def _weights(rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> IntArray:
    """Both ends of the type among them."""
    if bits == 1:
        return rng.choice([-1, 1], shape)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    drawn = rng.integers(low, high + 1, shape)
    drawn.flat[0], drawn.flat[-1] = low, high
    return drawn
