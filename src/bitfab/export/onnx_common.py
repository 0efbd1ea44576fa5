"""What all ONNX styles share: the walk over an integer graph, and the operations that work on real values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from bitfab.dtypes import FloatArray, IntArray, QParams, Rounding
from bitfab.errors import BitfabError
from bitfab.export.meaning import UNIT, absorbed, choose_meanings, near_power, padding_zero, ratio, scaled, single
from bitfab.export.onnx_model import Attributes, Model, batched
from bitfab.export.onnx_ops import convolution, output_sums, passing, pooling
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import (
    Add,
    Bits,
    Compare,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Lut,
    Multiply,
    Popcount,
    Requantize,
    SumPool2d,
    Table,
    Threshold,
    TopK,
)

Clip = tuple[int, int]
FREQUENT_TIES = 12  # bits shifted out: with more a tie is rare, and float32 no longer tells it from its neighbours
SAME_STEPS = 2.0**-14  # scales with which no code is off by more than this many steps count as one


class Exporter(ABC):
    """Writes a graph node by node. A value v is a float tensor `scale * (v - zero_point)` with the value's name.

    A style says how reals are rounded to codes (`quantized`) and how constants are stored (`weight`, `bias`).
    """

    fuses_additions = False  # whether an addition and the roundings around it become one operator
    fuses_products = True  # whether a convolution and the rounding behind it become one operator

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model = Model()
        self.meanings = choose_meanings(graph, whole=not self.fuses_products)
        self.absorbed = absorbed(graph, self.fuses_additions)
        self._reals: dict[tuple[str, QParams], str] = {}
        self._indices: dict[str, str] = {}
        self.makers = {node.name: node.op for node in graph}

    def export(self) -> onnx.ModelProto:
        """The file's contents; inputs and outputs are floats with the graph's names, but an argmax puts out int64."""
        for value in self.graph.inputs:
            self._input(value)
        for node in self.graph:
            self.visit(node)
        made = [(value, self._output(value)) for value in self.graph.output_values]
        return self.model.finish(self.graph.name, [self._named(value, tensor) for value, tensor in made])

    @abstractmethod
    def quantized(
        self, value: Value, real: str, clip: Clip | None = None, rounding: Rounding = Rounding.HALF_EVEN
    ) -> None:
        """Round a float tensor to the codes of `value`, and settle what stands for the value.

        `clip` bounds the codes; None says that the reals mean codes of the value's type already.
        """

    @abstractmethod
    def rounds_down(self, value: Value) -> bool:
        """Whether `quantized` rounds exactly to the lower code where that is asked for."""

    @abstractmethod
    def weight(self, name: str, codes: IntArray, scale: FloatArray, axis: int) -> str:
        """The real weights `scale * codes`; scale (1,), or one for each entry along `axis`."""

    @abstractmethod
    def bias(self, name: str, codes: IntArray, scale: FloatArray) -> str:
        """The real biases `scale * codes`; codes (O,), scale (1,) or (O,)."""

    @abstractmethod
    def is_codes(self, name: str) -> bool:
        """Whether operations that only move the value's codes should put out codes again."""

    def visit(self, node: Node) -> None:
        """Append what the node becomes."""
        match node.op:
            case Conv2d() | ConvTranspose2d() | Dense():
                self.settle(node.output, self._accumulation(node, node.op))
            case SumPool2d():
                self.settle(node.output, self._average(node, node.op))
            case Add():
                addends = [self.real(name, want) for name, want in self.addends(node)]
                self.settle(node.output, self.elementwise("Add", addends, node.output, source=node.source))
            case Multiply():
                self.settle(node.output, self._multiplied(node, node.op))
            case Requantize():
                if node.name not in self.absorbed:
                    self._requantize(node, node.op)
            case Threshold():
                self.threshold(node, node.op)
            case Table():
                self.lookup(node, node.op)
            case TopK():
                self._top_k(node, node.op)
            case Compare() | Bits() | Lut() | Popcount():
                raise BitfabError(
                    f"{node.source or node.name}: {type(node.op).__name__} of a LUT network has no ONNX form; generate "
                    "hardware from this graph instead"
                )
            case _:
                self.move(node)

    # Values as reals

    def settle(self, value: Value, real: str) -> None:
        """Let a float tensor stand for the value with the meaning chosen for it."""
        self._reals[value.name, self.meanings[value.name]] = real

    def real(self, name: str, want: QParams) -> str:
        """The float tensor `scale * (v - zero_point)` of a value v for the scale and zero point wanted."""
        key = (name, want)
        if key not in self._reals:
            self._reals[key] = self.express(name, want)
        return self._reals[key]

    def express(self, name: str, want: QParams) -> str:
        """A tensor as `real` gives it, made from what stands for the value already."""
        value = self.graph.values[name]
        if name in self.absorbed:
            source, meaning = self.unrounded(name, want)
            op = self.absorbed[name].op
            assert isinstance(op, Requantize)
            return self.shifted(value, self.real(source, meaning), want, op.output_zero - want.zero_point)
        have = self.meanings[name]
        made, factor = self.real(name, have), np.asarray(want.scale) / np.asarray(have.scale)
        span = max(value.high - have.zero_point, have.zero_point - value.low)
        if (np.abs(factor - 1) * span > SAME_STEPS).any():
            factors = self.channels(f"{name}_factor", factor, len(value.shape))
            made = self.elementwise("Mul", [made, factors], value, "_scaled")
        return self.shifted(value, made, want, have.zero_point - want.zero_point)

    def unrounded(self, name: str, want: QParams) -> tuple[str, QParams]:
        """What an absorbed requantize reads, and the meaning with which that is its output (about its own zero)."""
        node = self.absorbed[name]
        assert isinstance(node.op, Requantize)
        return node.inputs[0], scaled(want, ratio(node.op), node.op.input_zero)

    def shifted(self, value: Value, real: str, meaning: QParams, steps: float) -> str:
        """The tensor plus so many steps of a meaning's scale."""
        if not steps:
            return real
        amount = self.channels(f"{value.name}_shift", np.asarray(meaning.scale) * steps, len(value.shape))
        return self.elementwise("Add", [real, amount], value, "_shifted")

    def clipped_real(self, value: Value, real: str, clip: Clip) -> str:
        """The tensor between the reals of two codes; a ReLU where that is all it does."""
        meaning = self.meanings[value.name]
        if clip == (meaning.zero_point, value.type.high):
            return self.elementwise("Relu", [real], value, "_clipped")
        ends = (np.asarray(clip) - meaning.zero_point) * meaning.scale[0]
        names = [f"{value.name}_{which}" for which in ("low", "high")]
        limits = [self.channels(name, end[None], 0) for name, end in zip(names, ends, strict=True)]
        return self.elementwise("Clip", [real, *limits], value, "_clipped")

    def rounded(self, value: Value, real: str, clip: Clip | None, rounding: Rounding) -> str:
        """The tensor rounded to codes in float arithmetic: for what is wider than ONNX's quantized types (scale 1)."""
        if clip is not None:
            real = self.clipped_real(value, real, clip)
        return self.elementwise("Floor" if rounding is Rounding.FLOOR else "Round", [real], value)

    def channels(self, name: str, numbers: FloatArray, rank: int) -> str:
        """A constant of one number, or of one for each channel of a value of `rank` axes."""
        shape = () if len(numbers) == 1 else (-1, *(1,) * (rank - 1))
        return self.model.constant(name, numbers.astype(np.float32).reshape(shape))

    def elementwise(
        self, op: str, inputs: list[str], value: Value, suffix: str = "", type: int = TensorProto.FLOAT, **more: Any
    ) -> str:
        """A node whose output has the shape of `value`, named after it."""
        return self.model.node(op, inputs, f"{value.name}{suffix}", batched(value.shape), type, **more)

    # Operations

    def addends(self, node: Node) -> list[tuple[str, QParams]]:
        """The operands of an addition at the scale of its sum, each about its own zero."""
        scale = self.meanings[node.name].scale
        return [(name, QParams(scale, self.meanings[name].zero_point)) for name in node.inputs]

    def constants(self, node: Node, op: Conv2d | ConvTranspose2d | Dense) -> tuple[QParams, FloatArray, IntArray]:
        """The input's meaning, the weights' scales (1,) or (O,), and the bias (O,) int64 about that meaning's zero.

        Where the sum is an exact integer (scale 1), so are input and weights.
        """
        have, x = self.meanings[node.name], self.meanings[node.inputs[0]]
        scale = UNIT.scale if have.scale == UNIT.scale else near_power(x).scale
        zero = padding_zero(op, x)
        bias = op.bias.astype(np.int64) + zero * output_sums(op) - have.zero_point
        return QParams(scale, zero), np.asarray(have.scale) / scale[0], bias

    def move(self, node: Node) -> None:
        """An operation that moves or selects values: on reals, rounded where its inputs were not, or were codes."""
        want = self.meanings[node.name]
        rounds = any(n in self.absorbed for n in node.inputs) or all(self.is_codes(n) for n in node.inputs)
        inputs = [self.real(name, want) for name in node.inputs]
        made = passing(self.model, node, inputs, f"{node.name}_real" if rounds else node.name, TensorProto.FLOAT)
        if rounds:
            out = node.output
            self.quantized(out, made, (out.type.low, out.type.high) if isinstance(node.op, Concat) else None)
        else:
            self.settle(node.output, made)

    def lookup(self, node: Node, op: Table) -> None:
        """A table of reals, gathered at the index that the input's reals round to."""
        meaning = self.meanings[node.name]
        reals = (op.table.astype(np.float64) - meaning.zero_point) * meaning.scale[0]
        table = self.model.constant(f"{node.name}_table", reals.astype(np.float32))
        self.settle(node.output, self.elementwise("Gather", [table, self.index(node, op)], node.output, axis=0))

    def index(self, node: Node, op: Table) -> str:
        """Which entry of the table each value reads, int32."""
        real = self.real(node.inputs[0], QParams(UNIT.scale, op.domain.low))
        rounded = self.elementwise("Round", [real], node.output, "_rounded")
        return self.elementwise("Cast", [rounded], node.output, "_index", TensorProto.INT32, to=TensorProto.INT32)

    def threshold(self, node: Node, op: Threshold) -> None:
        """How many thresholds each value reaches; in reals they lie halfway between the integers."""
        (x,), meaning = node.inputs, self.meanings[node.name]
        have, value = self.meanings[x], node.output
        places = ((op.thresholds - 0.5 - have.zero_point) * have.scale_array(2)).astype(np.float32)
        levels = (np.asarray([op.low, op.low + op.step]) - meaning.zero_point) * meaning.scale[0]
        if places.shape[1] == 1:
            made = self._select(value, self.real(x, have), places, levels)
        else:
            made = self._count(value, self.real(x, have), places, levels)
        self.quantized(value, made)

    def _select(self, value: Value, real: str, places: FloatArray, levels: FloatArray) -> str:
        """The second level where a tensor reaches the place of its channel (C or 1, 1), else the first."""
        place = self.channels(f"{value.name}_threshold", places[:, 0], len(value.shape))
        reached = self.elementwise("GreaterOrEqual", [real, place], value, "_reached", TensorProto.BOOL)
        low, high = (self.channels(f"{value.name}_level", level[None], 0) for level in levels)
        return self.elementwise("Where", [reached, high, low], value, "_real")

    def _count(self, value: Value, real: str, places: FloatArray, levels: FloatArray) -> str:
        """The first level plus the step to the second for each of the places (C or 1, L) reached."""
        rank, (rows, count) = len(value.shape), places.shape
        shape = (*batched(value.shape), count)
        last = self.model.constant("last_axis", np.asarray([rank + 1]))
        column = self.model.node("Unsqueeze", [real, last], f"{value.name}_column", (*shape[:-1], 1))
        placed = self.model.constant(f"{value.name}_thresholds", places.reshape(rows, *(1,) * (rank - 1), count))
        reached = self.model.node("GreaterOrEqual", [column, placed], f"{value.name}_reached", shape, TensorProto.BOOL)
        ones = self.model.node("Cast", [reached], f"{value.name}_ones", shape, to=TensorProto.FLOAT)
        made = self.elementwise("ReduceSum", [ones, last], value, "_count", keepdims=0)
        step = self.channels(f"{value.name}_step", np.diff(levels), 0)
        made = self.elementwise("Mul", [made, step], value, "_steps")
        return self.elementwise("Add", [made, self.channels(f"{value.name}_level", levels[:1], 0)], value, "_real")

    def _accumulation(self, node: Node, op: Conv2d | ConvTranspose2d | Dense) -> str:
        x, scale, bias = self.constants(node, op)
        inputs = [
            self.real(node.inputs[0], x),
            self.weight(f"{node.name}_weight", op.weight, scale, axis=1 if isinstance(op, ConvTranspose2d) else 0),
            self.bias(f"{node.name}_bias", bias, np.asarray(self.meanings[node.name].scale)),
        ]
        kind, attributes = convolution(node, op)
        return self.elementwise(kind, inputs, node.output, source=node.source, **attributes)

    def factors(self, node: Node, op: Multiply) -> list[tuple[str, QParams]]:
        """The operands of a product with their meanings: the first about its scale, the second at what is left."""
        first = QParams(near_power(self.meanings[node.inputs[0]]).scale, op.first_zero)
        rest = self.meanings[node.name].scale[0] / first.scale[0]
        return [(node.inputs[0], first), (node.inputs[1], QParams((rest,), op.second_zero))]

    def _multiplied(self, node: Node, op: Multiply) -> str:
        inputs = [self.real(name, want) for name, want in self.factors(node, op)]
        return self.elementwise("Mul", inputs, node.output, source=node.source)

    def pooled(self, node: Node, op: SumPool2d) -> QParams:
        """The meaning of a sum pool's input with which the average is what the sum means."""
        zero = padding_zero(op, self.meanings[node.inputs[0]])
        return scaled(self.meanings[node.name], op.kernel[0] * op.kernel[1], zero)

    def _average(self, node: Node, op: SumPool2d) -> str:
        kind, attributes = pooling(op, self.graph.values[node.inputs[0]].shape)
        real = self.real(node.inputs[0], self.pooled(node, op))
        return self.elementwise(kind, [real], node.output, source=node.source, **attributes)

    def _requantize(self, node: Node, op: Requantize) -> None:
        meaning = self.meanings[node.name]
        real = self.real(node.inputs[0], scaled(meaning, ratio(op), op.input_zero))
        more, rounding = self._upwards(node, op)
        real = self.shifted(node.output, real, meaning, op.output_zero - meaning.zero_point + more)
        free = op.low < node.output.low and node.output.high < op.high  # else the range would end where it is clipped
        self.quantized(node.output, real, None if free and node.output.type.bits > 8 else (op.low, op.high), rounding)

    def _upwards(self, node: Node, op: Requantize) -> tuple[float, Rounding]:
        """What makes ties round up where they are frequent and nothing is fused, and the rounding behind it.

        Half a step, rounded down, or where only nearest codes can be had a quarter of the finest step.
        """
        source = self.makers.get(node.inputs[0])
        products = isinstance(source, Conv2d | ConvTranspose2d | Dense | SumPool2d | Multiply)
        if op.rounding is not Rounding.HALF_UP or products or not 0 < op.shift.max() <= FREQUENT_TIES:
            return 0, op.rounding
        if self.rounds_down(node.output):
            return 0.5, Rounding.FLOOR
        return 2.0 ** -(int(op.shift.max()) + 2), op.rounding

    def _top_k(self, node: Node, op: TopK) -> None:
        """ONNX orders equal values as the graph does, in both operators."""
        x, out = node.inputs[0], node.output
        real = self.real(x, single(self.meanings[x]))
        attributes: Attributes = {"axis": 1, "source": node.source}
        if op.k == 1:
            made = self.elementwise("ArgMax", [real], out, "", TensorProto.INT64, keepdims=1, **attributes)
        else:
            count = self.model.constant(f"{out.name}_k", np.asarray([op.k], dtype=np.int64))
            inputs, attributes["unread"] = [real, count], f"{out.name}_values"
            made = self.elementwise("TopK", inputs, out, "", TensorProto.INT64, **attributes)
        self._indices[node.name] = made
        if self.graph.users[node.name]:
            index = self._indices[node.name]
            self.settle(out, self.elementwise("Cast", [index], out, "_real", to=TensorProto.FLOAT))

    # Ends

    def _input(self, value: Value) -> None:
        real, meaning = self.model.input(value.name, value.shape), self.meanings[value.name]
        factor = np.asarray((value.qparams or UNIT).scale) / meaning.scale[0]
        if not self.fuses_products and (factor != 1).any():
            factors = self.channels(f"{value.name}_factor", factor, len(value.shape))
            real = self.elementwise("Div", [real, factors], value, "_scaled")
        if value.type.bipolar:
            self.quantized(value, self._select(value, real, np.zeros((1, 1)), np.asarray([-1, 1]) * meaning.scale[0]))
        else:
            self.quantized(value, real, (value.type.low, value.type.high))

    def _output(self, value: Value) -> str:
        """A tensor of the reals that an output value means, or the index that an argmax is."""
        return self._indices.get(value.name) or self.real(value.name, value.qparams or UNIT)

    def _named(self, value: Value, made: str) -> str:
        """Let an output's tensor bear the name of its value, unless an input does."""
        if made == value.name and value not in self.graph.inputs:
            return made
        if self.model.is_input(value.name) or self.model.is_input(made):
            type = TensorProto.INT64 if value.name in self._indices else TensorProto.FLOAT
            return self.elementwise("Identity", [made], value, "_output", type)
        if self.model.taken(value.name):  # by the same value at another scale
            self.model.rename(value.name, f"{value.name}_inside")
        self.model.rename(made, value.name)
        return value.name


def reals(codes: IntArray, scale: FloatArray, axis: int) -> FloatArray:
    """`scale * codes` as float32; scale (1,), or one for each entry along `axis`."""
    shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
    return (codes * scale.reshape(shape if len(scale) > 1 else 1)).astype(np.float32)
