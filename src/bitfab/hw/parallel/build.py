"""From an integer graph to cells: one block a node, exact ranges on every wire."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitfab.dtypes import Rounding
from bitfab.errors import BitfabError
from bitfab.hw.parallel.arithmetic import Cells, digits, largest, ones, top_k
from bitfab.hw.parallel.cells import Block, Bundle, Netlist, Wire
from bitfab.hw.parallel.names import identifiers
from bitfab.hw.parallel.sharing import shared
from bitfab.hw.parallel.windows import OUTSIDE, windows
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import (
    Add,
    Bits,
    Compare,
    Concat,
    Conv2d,
    Dense,
    Lut,
    MaxPool2d,
    Multiply,
    Popcount,
    Requantize,
    Reshape,
    Slice,
    Table,
    Threshold,
    TopK,
    Transpose,
)

MAX_TABLE_BITS = 10  # of a table's domain: each bit doubles its LUTs
MAX_CELLS = 500_000  # of a netlist: beyond, synthesis takes hours


def build(graph: Graph, serial: bool = False) -> Netlist:
    """The whole graph as one combinational function, in blocks.

    Raises BitfabError, naming the node, for operations that have no parallel hardware.
    """
    (entry,) = graph.inputs
    names = identifiers([graph.name, *graph.values])
    bundles = {entry.name: _input(entry, names[entry.name])}
    blocks: list[Block] = []
    for node in graph:
        sources = [bundles[name] for name in node.inputs]
        if isinstance(node.op, Reshape):
            bundles[node.name] = sources[0]
            continue
        block = _block(node, graph, names[node.name], sources)
        bundles[node.name] = block.value
        blocks.append(block)
        if sum(len(block.cells) for block in blocks) > MAX_CELLS:
            raise BitfabError(
                f"{graph.name}: more than {MAX_CELLS} cells at {node.name}; use a smaller network or the style stream"
            )
    (exit_,) = graph.output_values
    return Netlist(
        name=graph.name,
        input=bundles[entry.name],
        input_type=entry.type,
        blocks=tuple(blocks),
        output=bundles[exit_.name],
        output_type=exit_.type,
        serial=serial,
    )


def _input(value: Value, name: str) -> Bundle:
    count = math.prod(value.shape)
    if value.type.bits == 1:
        return Bundle(name, tuple(Wire(name, 0, 1, i) for i in range(count)))
    return Bundle(name, tuple(Wire(f"{name}_{i}", value.low, value.high) for i in range(count)))


def _block(node: Node, graph: Graph, name: str, sources: Sequence[Bundle]) -> Block:
    if type(node.op) not in _RULES:
        raise BitfabError(
            f"{node.name}: {type(node.op).__name__} has no parallel hardware; choose the style stream for this network"
        )
    cells = Cells(name)
    values = [graph.values[i] for i in node.inputs]
    operands = [list(bundle.wires) for bundle in sources]
    results = _RULES[type(node.op)](cells, node, values, operands)
    value = cells.bundle(results, all_bits=node.output.type.bits == 1)
    shapes = " + ".join("x".join(map(str, v.shape)) for v in values)
    comment = (
        f"{type(node.op).__name__}, {shapes} x {values[0].type} -> "
        f"{'x'.join(map(str, node.output.shape))} x {node.output.type}"
    )
    unique = tuple(dict.fromkeys(sources))
    return Block(name, node.name, comment, unique, tuple(cells.cells), value)


def _numbers(cells: Cells, value: Value, wires: Sequence[Wire]) -> list[Wire]:
    """The integers themselves: of a bipolar value 2 * bit - 1."""
    return [cells.total([(wire, 2)], -1) for wire in wires] if value.type.bipolar else list(wires)


def _compare(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op = node.op
    assert isinstance(op, Compare)
    x = _numbers(cells, values[0], operands[0])
    return [cells.at_least(x[c], t) for c, t in zip(op.channel.tolist(), op.threshold.tolist(), strict=True)]


def _bits(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op, x = node.op, operands[0]
    assert isinstance(op, Bits)
    return [cells.bit(x[c], p) for c, p in zip(op.channel.tolist(), op.place.tolist(), strict=True)]


def _lut(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op, x = node.op, operands[0]
    assert isinstance(op, Lut)
    rows = zip(op.wiring.tolist(), op.table.tolist(), strict=True)
    return [cells.lookup([x[i] for i in wiring], table) for wiring, table in rows]


def _popcount(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op, x = node.op, operands[0]
    assert isinstance(op, Popcount)
    return [ones(cells, [x[i] for i in group]) for group in op.wiring.tolist()]


def _threshold(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op = node.op
    assert isinstance(op, Threshold)
    x = _numbers(cells, values[0], operands[0])
    rows, pixels = op.thresholds.tolist(), math.prod(node.output.shape[1:])
    results = []
    for i, wire in enumerate(x):
        passed = [cells.at_least(wire, t) for t in rows[i // pixels if len(rows) > 1 else 0]]
        count = ones(cells, passed)
        results.append(count if op.type.bipolar else cells.total([(count, 1)], op.low))
    return results


def _top_k(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op, pixels = node.op, math.prod(node.output.shape[1:])
    assert isinstance(op, TopK)
    found = [top_k(cells, operands[0][pixel::pixels], op.k) for pixel in range(pixels)]
    return [indices[place] for place in range(op.k) for indices in found]


def _dense(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op, x = node.op, operands[0]
    assert isinstance(op, Dense)
    rows = [list(zip(x, row, strict=True)) for row in op.weight.tolist()]
    return _sums(cells, values[0], rows, op.bias.tolist())


def _conv2d(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    """One sum a pixel and channel: parts are shared between channels, and between windows that overlap."""
    op, x = node.op, operands[0]
    assert isinstance(op, Conv2d)
    outputs, ins, *kernel = op.weight.shape
    covered = windows(values[0].shape, (kernel[0], kernel[1]), op.stride, op.padding, op.dilation)
    rows, biases = [], []
    for channel in range(outputs):
        first = channel * op.groups // outputs * ins
        weights, bias = op.weight[channel].ravel().tolist(), int(op.bias[channel])
        for places in covered[first : first + ins].swapaxes(0, 1).reshape(covered.shape[1], -1).tolist():
            taps = list(zip(places, weights, strict=True))
            rows.append([(x[place], weight) for place, weight in taps if place != OUTSIDE])
            biases.append(bias + op.pad_value * sum(weight for place, weight in taps if place == OUTSIDE))
    return _sums(cells, values[0], rows, biases)


def _sums(cells: Cells, value: Value, rows: Sequence[Sequence[tuple[Wire, int]]], biases: Sequence[int]) -> list[Wire]:
    """A bias and a sum of products for each row of (wire, weight); `value` says what the wires hold."""
    if value.type.bits == 1 and all(weight in (-1, 1) for row in rows for _, weight in row):
        return [_signs(cells, row, bias, value) for row, bias in zip(rows, biases, strict=True)]
    factor = 2 if value.type.bipolar else 1  # of a bipolar value 2 * bit - 1
    terms = [[term for wire, weight in row for term in digits(wire, factor * weight)] for row in rows]
    offsets = [(factor - 1) * sum(weight for _, weight in row) for row in rows]
    return [
        cells.sum_of(parts, bias - offset)
        for parts, bias, offset in zip(shared(cells, terms), biases, offsets, strict=True)
    ]


def _signs(cells: Cells, row: Sequence[tuple[Wire, int]], bias: int, value: Value) -> Wire:
    """A sum of bits with weights of -1 and +1: the bits that agree with their weight, counted (XNOR and popcount)."""
    agree = [bit if sign > 0 else cells.lookup([bit], [1, 0]) for bit, sign in row]
    factor = 2 if value.type.bipolar else 1
    negative = sum(sign < 0 for _, sign in row)
    return cells.total([(ones(cells, agree), factor)], bias - (len(row) if factor == 2 else negative))


def _max_pool2d(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op, x = node.op, operands[0]
    assert isinstance(op, MaxPool2d)
    covered = windows(values[0].shape, op.kernel, op.stride, op.padding)
    groups = [[x[i] for i in places if i != OUTSIDE] for places in covered.reshape(-1, covered.shape[2]).tolist()]
    return [largest(cells, group) for group in groups]


def _requantize(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op = node.op
    assert isinstance(op, Requantize)
    x, pixels = _numbers(cells, values[0], operands[0]), math.prod(node.output.shape[1:])
    scales = list(zip(op.multiplier.tolist(), op.shift.tolist(), strict=True))
    return [_scaled(cells, wire, op, *scales[i // pixels if len(scales) > 1 else 0]) for i, wire in enumerate(x)]


def _scaled(cells: Cells, x: Wire, op: Requantize, multiplier: int, shift: int) -> Wire:
    """The requantize equation; output zero and the rounding's constant join the product before the shift."""
    half = 1 << (shift - 1) if shift > 0 else 0
    constant = -multiplier * op.input_zero
    later = op.output_zero << shift
    product = [(x, multiplier)]
    if op.rounding in (Rounding.HALF_EVEN, Rounding.HALF_AWAY) and shift > 0:
        exact = cells.total(product, constant)
        if op.rounding is Rounding.HALF_EVEN:
            product, constant = [(exact, 1), (cells.bit(exact, shift), 1)], later + half - 1
        else:
            negative = cells.bit(exact, exact.bits - 1) if exact.signed else cells.constant(0)
            product, constant = [(exact, 1), (negative, -1)], later + half
    else:
        constant += later + (0 if op.rounding is Rounding.FLOOR else half)
    return cells.clip(cells.shift(cells.total(product, constant), shift), op.low, op.high)


def _table(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    op = node.op
    assert isinstance(op, Table)
    if op.domain.bits > MAX_TABLE_BITS:
        raise BitfabError(
            f"{node.name}: a table of {op.domain.bits} bits has no parallel hardware; use {MAX_TABLE_BITS} or fewer"
        )
    results = []
    for wire in operands[0]:
        codes = np.arange(1 << wire.bits)
        numbers = np.where(wire.signed & (codes >= 1 << (wire.bits - 1)), codes - (1 << wire.bits), codes)
        seen = np.clip(numbers, wire.low, wire.high) - op.domain.low  # what lies outside never comes
        results.append(cells.lookup([wire], op.table[seen].tolist()))
    return results


def _add(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    a, b = (_numbers(cells, value, wires) for value, wires in zip(values, operands, strict=True))
    return [cells.total([(left, 1), (right, 1)]) for left, right in zip(a, b, strict=True)]


def _multiply(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    """Number by number, or each channel by its factor."""
    op = node.op
    assert isinstance(op, Multiply)
    zeros = (op.first_zero, op.second_zero)
    a, b = (
        [cells.total([(wire, 1)], -zero) for wire in _numbers(cells, value, wires)]
        for value, wires, zero in zip(values, operands, zeros, strict=True)
    )
    pixels = len(a) // len(b)
    return [cells.product(left, b[i // pixels]) for i, left in enumerate(a)]


def _move(cells: Cells, node: Node, values: Sequence[Value], operands: Sequence[list[Wire]]) -> list[Wire]:
    """Concat, transpose and slice: the same wires, in the order in which the operation puts their numbers."""
    wires = [wire for operand in operands for wire in operand]
    places = np.split(np.arange(len(wires)), np.cumsum([len(operand) for operand in operands])[:-1])
    shaped = [place.reshape(value.shape) for place, value in zip(places, values, strict=True)]
    match op := node.op:
        case Concat():
            moved = np.concatenate(shaped, axis=op.axis)
        case Transpose():
            moved = shaped[0].transpose(op.axes)
        case Slice():
            moved = shaped[0][(slice(None),) * op.axis + (slice(op.start, op.stop, op.step),)]
        case _:
            raise AssertionError(op)
    return [wires[place] for place in moved.ravel().tolist()]


Rule = Callable[[Cells, Any, Sequence[Value], Sequence[list[Wire]]], list[Wire]]
_RULES: dict[type, Rule] = {
    Compare: _compare,
    Bits: _bits,
    Lut: _lut,
    Popcount: _popcount,
    Threshold: _threshold,
    TopK: _top_k,
    Dense: _dense,
    Conv2d: _conv2d,
    MaxPool2d: _max_pool2d,
    Requantize: _requantize,
    Table: _table,
    Add: _add,
    Multiply: _multiply,
    Concat: _move,
    Transpose: _move,
    Slice: _move,
}
