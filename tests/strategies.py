"""Hypothesis strategies that make random, valid integer graphs and batches of inputs for them.

    @given(graph=graphs())                       # any ops
    @given(graph=graphs(ops=(Conv2d, MaxPool2d)))  # Requantize is added by itself where values grow wide

Structure and attributes are drawn by hypothesis (so that failures shrink); constants come from a seeded generator.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import get_args

import numpy as np
from hypothesis import strategies as st

from bitfab.dtypes import IntArray, IntType, Rounding, multiplier_and_shift, storage
from bitfab.errors import BitfabError
from bitfab.ir import Builder, Graph, Value
from bitfab.ir.ops import (
    Add,
    Bits,
    Compare,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Lut,
    MaxPool2d,
    Multiply,
    Op,
    Pads,
    Popcount,
    Requantize,
    Reshape,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    TopK,
    Transpose,
    Upsample,
)

ALL_OPS: tuple[type, ...] = get_args(Op)
BIPOLAR = IntType(1, signed=True)
MAX_BITS = 12  # wider values are requantized before they are used again

Draw = Callable[[st.SearchStrategy], int]


def types(max_bits: int = 8, bipolar: bool = True) -> st.SearchStrategy[IntType]:
    """Integer types; 8 bits, the common case, come first and are what failures shrink to."""
    bits = st.sampled_from([min(8, max_bits), *range(1, max_bits + 1)])
    drawn = st.builds(IntType, bits, st.booleans())
    return drawn if bipolar else drawn.filter(lambda type: not type.bipolar)


@st.composite
def graphs(draw: Draw, ops: Sequence[type] = ALL_OPS, max_nodes: int = 6, max_size: int = 7) -> Graph:
    """A graph of one or two inputs and up to about `max_nodes` nodes of the kinds `ops` (and Requantize).

    Images are at most `max_size` x `max_size` with up to 5 channels at the input. Every value that no node reads is an
    output.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    builder = Builder("random_graph")
    size = st.integers(1, max_size)
    shape = (draw(st.integers(1, 5)), draw(size), draw(size))
    if draw(st.integers(0, 4)) == 4:
        shape = (draw(st.integers(1, 20)),)
    names = [builder.input("x", shape, draw(types(MAX_BITS)))]
    if draw(st.booleans()) and {Add, Concat} & set(ops):
        names.append(builder.input("x2", shape, draw(types())))
    for _ in range(draw(st.integers(1, max_nodes))):
        kind, name = draw(st.sampled_from(list(ops))), draw(st.sampled_from(names))
        try:
            added = _add_node(draw, rng, builder, kind, name, names)
            names.append(_narrowed(draw, rng, builder, added))
        except BitfabError:
            continue  # this operation does not fit this value
    graph = builder.build((names[-1],))
    read = {name for node in graph for name in node.inputs}
    return builder.build(tuple(name for name in graph.values if name not in read))


@st.composite
def far_graphs(draw: Draw) -> Graph:
    """Sums and requantizations of values far from zero, or far beyond the output's type.

    What each operation puts out is an output: two dense layers with biases up to 2**30, their sum (which may be small
    again), the sum with a narrow input, and a requantization of each, of any rounding, that often saturates.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    builder = Builder("far_graph")
    names = [builder.input("x", (3,), draw(types(MAX_BITS)))]
    for _ in range(2):
        far = draw(st.sampled_from([-1, 1])) << draw(st.integers(0, 30))
        weight = rng.integers(-9, 10, (3, 3))
        names.append(builder.add("dense", Dense(weight, far + rng.integers(-9, 10, 3)), names[0]))
    names.append(builder.add("sum", Add(), (names[1], names[2])))
    names.append(builder.add("sum", Add(), (names[draw(st.integers(1, 3))], names[0])))
    for name in names[:]:
        value, type = builder.value(name), draw(types(bipolar=False))
        zeros = draw(st.sampled_from([0, value.low, value.high])), draw(st.integers(type.low, type.high))
        farthest = max(abs(value.low - zeros[0]), abs(value.high - zeros[0]), 1)
        reach = 2 ** draw(st.sampled_from([15, 8, 16, 24])) - draw(st.integers(0, 99))  # just below what carriers hold
        constants = multiplier_and_shift(np.array([min(reach / farthest, 200.0)]), 16)
        op = Requantize(*constants, type, type.low, type.high, *zeros, draw(st.sampled_from(list(Rounding))))
        with suppress(BitfabError):  # a product that no 64 bits hold
            names.append(builder.add("requantize", op, name))
    return builder.build(tuple(names[1:]))


def batch(graph: Graph, seed: int, size: int = 3) -> list[IntArray]:
    """Inputs (size, *shape): the first image holds the lowest integers, the second the highest, the rest random."""
    rng = np.random.default_rng(seed)
    inputs = []
    for value in graph.inputs:
        x = rng.integers(value.low, value.high, (size, *value.shape), endpoint=True)
        if value.type.bipolar:
            x = np.where(x >= 0, 1, -1)
        x[:1], x[1:2] = value.low, value.high
        inputs.append(x.astype(storage(value.type)))
    return inputs


def requantize(draw: Draw, rng: np.random.Generator, value: Value, type: IntType, rounding: Rounding) -> Requantize:
    """A requantization of `value` to `type` that uses, and often exceeds, the type's range."""
    channels = value.shape[0] if draw(st.booleans()) else 1
    spread = (value.high - value.low + 1) / 2**type.bits
    ratio = rng.uniform(0.3, 3.0, channels) / spread
    if draw(st.integers(0, 3)) == 3:
        ratio = 2.0 ** np.round(np.log2(ratio))
    multiplier, shift = multiplier_and_shift(np.minimum(ratio, 200.0), draw(st.sampled_from([16, 8])))
    low = draw(st.integers(type.low, type.high))
    input_zero = draw(st.sampled_from([0, value.low, value.high]))
    output_zero = draw(st.integers(type.low, type.high))
    return Requantize(multiplier, shift, type, low, type.high, input_zero, output_zero, rounding)


def threshold(draw: Draw, rng: np.random.Generator, value: Value) -> Threshold:
    """One threshold to a bipolar value, or several, some beyond the range of `value`, to any type that holds them."""
    rows = value.shape[0] if draw(st.booleans()) else 1
    type = draw(st.one_of(st.just(BIPOLAR), types(6, bipolar=False)))
    levels = 1 if type.bipolar else draw(st.integers(1, min(type.high - type.low, 15)))
    thresholds = np.sort(rng.integers(value.low - 1, value.high + 2, (rows, levels), endpoint=True), axis=1)
    low = -1 if type.bipolar else draw(st.integers(type.low, type.high - levels))
    return Threshold(thresholds, type, low)


def _narrowed(draw: Draw, rng: np.random.Generator, builder: Builder, name: str) -> str:
    value = builder.value(name)
    if value.type.bits <= MAX_BITS and draw(st.booleans()):
        return name
    op = requantize(draw, rng, value, draw(types(bipolar=False)), draw(st.sampled_from(list(Rounding))))
    return builder.add("requantize", op, name)


def _add_node(
    draw: Draw, rng: np.random.Generator, builder: Builder, kind: type, name: str, names: Sequence[str]
) -> str:
    value = builder.value(name)
    inputs = (name,)
    if kind in (Add, Concat, Multiply):
        inputs = (name, draw(st.sampled_from(list(names))))
    if kind is Multiply and len(builder.value(inputs[1]).shape) == 3 and draw(st.booleans()):  # a factor a channel
        size = builder.value(inputs[1]).shape[1:]
        inputs = (name, builder.add("squeezed", MaxPool2d((size[0], size[1]), (size[0], size[1])), inputs[1]))
    if kind in (Conv2d, ConvTranspose2d, MaxPool2d, SumPool2d, Upsample) and len(value.shape) != 3:
        raise BitfabError("an image is needed")
    if kind in (Compare, Bits, Lut, Popcount) and len(value.shape) == 3:
        value = builder.value(builder.add("flat", Reshape((math.prod(value.shape),)), name))
    if kind in (Lut, Popcount) and value.type != IntType(1, signed=False):
        value = builder.value(builder.add("encoded", _compare(draw, rng, value), value.name))
    if kind in (Compare, Bits, Lut, Popcount):
        inputs = (value.name,)
    return builder.add(kind.__name__.lower(), _op(draw, rng, kind, value), inputs)


def _op(draw: Draw, rng: np.random.Generator, kind: type, value: Value) -> Op:
    makers: dict[type, Callable[[Draw, np.random.Generator, Value], Op]] = {
        Conv2d: _conv2d,
        ConvTranspose2d: _conv_transpose2d,
        Dense: lambda draw, rng, value: Dense(*_constants(draw, rng, (draw(st.integers(1, 6)), value.shape[0]))),
        Requantize: lambda draw, rng, value: requantize(
            draw, rng, value, draw(types(bipolar=False)), draw(st.sampled_from(list(Rounding)))
        ),
        Threshold: threshold,
        Add: lambda *_: Add(),
        Multiply: lambda draw, *_: Multiply(draw(st.integers(-9, 99)), draw(st.integers(-9, 99))),
        Concat: lambda draw, _, value: Concat(draw(st.integers(0, len(value.shape) - 1))),
        MaxPool2d: lambda draw, _, value: MaxPool2d(*_window(draw)),
        SumPool2d: lambda draw, _, value: SumPool2d(*_window(draw), _pad_value(draw, value)),
        Upsample: lambda draw, *_: Upsample((draw(st.integers(1, 3)), draw(st.integers(1, 3)))),
        Table: _table,
        Compare: _compare,
        Bits: _bits,
        Lut: _lut,
        Popcount: lambda draw, rng, value: Popcount(_wiring(rng, value, _pair(draw, 5))),
        Reshape: lambda draw, _, value: Reshape(_reshaped(draw, value)),
        Transpose: lambda draw, _, value: Transpose(tuple(draw(st.permutations(range(len(value.shape)))))),
        Slice: _slice,
        TopK: lambda draw, _, value: TopK(draw(st.integers(1, min(4, value.shape[0])))),
    }
    return makers[kind](draw, rng, value)


def _pair(draw: Draw, high: int) -> tuple[int, int]:
    return draw(st.integers(1, high)), draw(st.integers(1, high))


def _pad_value(draw: Draw, value: Value) -> int:
    zero = [] if value.type.bipolar else [0]
    return draw(st.sampled_from([*zero, value.low, value.high]))


def _constants(
    draw: Draw, rng: np.random.Generator, shape: tuple[int, ...], outputs: int = 0
) -> tuple[IntArray, IntArray]:
    """A weight of 2 to 9 bits (9 do not fit int8) and a bias, as a quantizer makes them."""
    high = (1 << (draw(st.sampled_from([8, 2, 9])) - 1)) - 1
    weight = rng.integers(-high, high, shape, endpoint=True, dtype=np.int32)
    return weight, rng.integers(-5000, 5000, outputs or shape[0], dtype=np.int32)


def _conv2d(draw: Draw, rng: np.random.Generator, value: Value) -> Conv2d:
    channels = value.shape[0]
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    shape = (groups * draw(st.integers(1, 3)), channels // groups, *_pair(draw, 4))
    padding: Pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    constants = _constants(draw, rng, shape)
    return Conv2d(*constants, _pair(draw, 3), padding, _pair(draw, 2), groups, _pad_value(draw, value))


def _conv_transpose2d(draw: Draw, rng: np.random.Generator, value: Value) -> ConvTranspose2d:
    channels = value.shape[0]
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    outputs = draw(st.integers(1, 3))
    constants = _constants(draw, rng, (channels, outputs, *_pair(draw, 4)), outputs * groups)
    crop = (draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.integers(-2, 2)), draw(st.integers(-2, 2)))
    return ConvTranspose2d(*constants, _pair(draw, 3), crop, groups, _pad_value(draw, value))


def _window(draw: Draw) -> tuple[tuple[int, int], tuple[int, int], Pads]:
    kernel = _pair(draw, 3)
    padding: Pads = tuple(draw(st.integers(0, kernel[axis % 2] - 1)) for axis in range(4))
    return kernel, _pair(draw, 3), padding


def _table(draw: Draw, rng: np.random.Generator, value: Value) -> Table:
    type = draw(types(bipolar=False))
    table = rng.integers(type.low, type.high, 1 << value.type.bits, endpoint=True)
    return Table(table.astype(storage(type)), value.type, type)


def _wiring(rng: np.random.Generator, value: Value, shape: tuple[int, ...]) -> IntArray:
    return rng.integers(0, value.shape[0], shape)


def _compare(draw: Draw, rng: np.random.Generator, value: Value) -> Compare:
    channel = _wiring(rng, value, (draw(st.integers(1, 12)),))
    return Compare(channel, rng.integers(value.low - 1, value.high + 2, len(channel), endpoint=True))


def _bits(draw: Draw, rng: np.random.Generator, value: Value) -> Bits:
    channel = _wiring(rng, value, (draw(st.integers(1, 12)),))
    return Bits(channel, rng.integers(0, value.type.bits, len(channel)))


def _lut(draw: Draw, rng: np.random.Generator, value: Value) -> Lut:
    wiring = _wiring(rng, value, (draw(st.integers(1, 8)), draw(st.integers(1, 6))))
    return Lut(wiring, rng.integers(0, 2, (len(wiring), 1 << wiring.shape[1])))


def _slice(draw: Draw, rng: np.random.Generator, value: Value) -> Slice:
    axis = draw(st.integers(0, len(value.shape) - 1))
    start = draw(st.integers(0, value.shape[axis] - 1))
    return Slice(axis, start, draw(st.integers(start + 1, value.shape[axis])), draw(st.integers(1, 3)))


def _reshaped(draw: Draw, value: Value) -> tuple[int, ...]:
    if len(value.shape) == 1:
        return (value.shape[0], 1, 1)
    channels, height, width = value.shape
    return draw(st.sampled_from([(channels * height * width,), (height, width, channels)]))
