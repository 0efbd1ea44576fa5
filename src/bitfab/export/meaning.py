"""Which real numbers the values of an integer graph stand for, chosen so that the graph's own multipliers follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bitfab.dtypes import MAX_BITS, FloatArray, IntType, QParams, Rounding
from bitfab.ir.graph import Graph, Node
from bitfab.ir.infer import infer, sees_padding
from bitfab.ir.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Multiply,
    Op,
    Requantize,
    SumPool2d,
    Table,
    Threshold,
    TopK,
)

UNIT = QParams((1.0,))
WIDEST_CODES = 16  # bits: the widest integers that ONNX quantizes to
FINE_RATIO = 2.0**-5  # what is requantized to a scale as much finer than the next codes' may stay unrounded
SUMS = (Conv2d, ConvTranspose2d, Dense, SumPool2d, Add, Multiply)


def ratio(op: Requantize) -> FloatArray:
    """The real factor of each channel, `multiplier / 2**shift`."""
    return op.multiplier.astype(np.float64) * 2.0 ** -op.shift.astype(np.float64)


def single(meaning: QParams) -> QParams:
    """The meaning with one scale: its own, or 1 where each channel has another."""
    return meaning if len(meaning.scale) == 1 else QParams(UNIT.scale, meaning.zero_point)


def scaled(meaning: QParams, factor: FloatArray | float, zero: int) -> QParams:
    """The scales times a factor (one, or one a channel), about another zero."""
    return QParams(tuple((np.asarray(meaning.scale) * factor).ravel().tolist()), zero)


def padding_zero(op: Conv2d | ConvTranspose2d | Dense | SumPool2d, x: QParams) -> int:
    """The code of x that a real 0 must mean: the operation's pad value where it sees padding, else as x has it."""
    return op.pad_value if not isinstance(op, Dense) and sees_padding(op) else x.zero_point


def near_power(meaning: QParams) -> QParams:
    """The meaning with one scale: the power of two nearest to its own."""
    return QParams((2.0 ** round(math.log2(single(meaning).scale[0])),), meaning.zero_point)


def choose_meanings(graph: Graph, whole: bool) -> dict[str, QParams]:
    """For each value a scale and zero point with which float32 computes what the graph does, but for one rounding.

    Codes inside have the power of two nearest to their scale, so that products with it and quotients by it are exact;
    inputs keep their qparams (scale 1 without). Where a requantize alone reads a sum,
    `s_sum = s_codes * multiplier / 2**shift` (for each channel), so that dividing by the codes' scale is the graph's
    multiplication and shift: in what is fused, integers times one exact float32 factor. What is not fused (transposed
    convolutions; with `whole`, all products) sums integers times a power of two, which the factor multiplies behind.
    Sums that others read have scale 1: floats then hold their integers exactly up to 2**24. Zero points follow the
    operations: `pad_value`, `output_zero`.
    """
    meanings = {value.name: value.qparams or UNIT for value in graph.inputs}
    if whole:
        meanings = {name: near_power(meaning) for name, meaning in meanings.items()}
    makers = {node.name: node.op for node in graph}
    for node in graph:
        match node.op:
            case Requantize():
                meanings[node.name] = _codes(node, node.op, makers.get(node.inputs[0]))
            case Threshold() | Table():
                meanings[node.name] = near_power(node.output.qparams or UNIT)
            case Conv2d() | ConvTranspose2d() | Dense() | SumPool2d() | Add() | Multiply():
                meanings[node.name] = _sum(graph, node, meanings, whole)
            case TopK():
                meanings[node.name] = UNIT
            case _:
                meanings[node.name] = single(meanings[node.inputs[0]])
    return meanings


def absorbed(graph: Graph, fine: bool) -> dict[str, Node]:
    """The requantizes, by name, that need no rounding of their own, because what reads them rounds.

    Those of one factor that bring codes to the scale of a concatenation (which is quantized as a whole), or an operand
    of an addition, without clipping, to a finer scale: where that is exact, and if `fine` where the rounding behind the
    addition is so much coarser that it alone counts (with 2**8, as `quantize` has it, one sum in 800 comes out other).
    """
    return {
        node.name: node for node in graph if isinstance(node.op, Requantize) and _absorbs(graph, node, node.op, fine)
    }


def _absorbs(graph: Graph, node: Node, op: Requantize, fine: bool) -> bool:
    readers = graph.users[node.name]
    if not readers or node.name in graph.outputs or len(op.multiplier) > 1 or op.rounding is Rounding.FLOOR:
        return False
    if all(isinstance(reader.op, Concat) for reader in readers):
        full = (op.low, op.high) == (op.type.low, op.type.high)
        made = next((n for n in graph if n.name == node.inputs[0]), None)
        return full and op.type.bits <= WIDEST_CODES and not (made and isinstance(made.op, SUMS))
    if not all(isinstance(reader.op, Add) for reader in readers) or _clips(graph, node, op):
        return False
    return not op.shift.any() or (fine and all(_rounds_coarsely(graph, reader) for reader in readers))


def _clips(graph: Graph, node: Node, op: Requantize) -> bool:
    wide = IntType(MAX_BITS, signed=True)
    reached = infer(replace(op, type=wide, low=wide.low, high=wide.high), [graph.values[node.inputs[0]].signature])
    return reached.low < op.low or reached.high > op.high


def _rounds_coarsely(graph: Graph, add: Node) -> bool:
    readers = graph.users[add.name]
    return add.name not in graph.outputs and all(
        isinstance(reader.op, Requantize) and ratio(reader.op).max() <= FINE_RATIO for reader in readers
    )


def _codes(node: Node, op: Requantize, source: Op | None) -> QParams:
    """The meaning of what a requantize puts out; the operands of an addition, and so its sum, count steps."""
    zero = int(np.clip(op.output_zero, op.type.low, op.type.high))
    if op.type.bits > WIDEST_CODES:
        return QParams(UNIT.scale, zero)
    if isinstance(source, Add) and len(op.multiplier) == 1 == op.multiplier[0]:
        return QParams((2.0 ** int(op.shift[0]),), zero)
    return QParams(near_power(node.output.qparams or UNIT).scale, zero)


def _sum(graph: Graph, node: Node, meanings: Mapping[str, QParams], whole: bool) -> QParams:
    op, x = node.op, meanings[node.inputs[0]]
    readers = graph.users[node.name]
    wanted = UNIT
    if node.name in graph.outputs:
        wanted = node.output.qparams or UNIT
    elif len(readers) == 1 and isinstance(readers[0].op, Requantize):
        reader = readers[0].op
        wanted = scaled(_codes(readers[0], reader, op), ratio(reader), reader.input_zero)
        if isinstance(op, ConvTranspose2d) or (whole and isinstance(op, Conv2d | Dense)):
            wanted = QParams(near_power(x).scale, reader.input_zero)
    match op:
        case SumPool2d():
            return QParams(single(wanted).scale, op.kernel[0] * op.kernel[1] * padding_zero(op, x))
        case Add():
            return QParams(single(wanted).scale, sum(meanings[name].zero_point for name in node.inputs))
        case Multiply():
            return QParams(single(wanted).scale, 0)
        case ConvTranspose2d() if op.groups > 1:  # ONNX has no scale for each channel of each group
            return QParams(single(wanted).scale, wanted.zero_point)
    return wanted
