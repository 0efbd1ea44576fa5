"""The QOperator style: operations on integers, QLinearConv and its kin, with the scales as their inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from bitfab.dtypes import IntArray, QParams, Rounding
from bitfab.export.onnx_model import MICROSOFT_DOMAIN, Attributes
from bitfab.export.onnx_ops import convolution, passing, pooling
from bitfab.export.onnx_qdq import INT32, Qdq
from bitfab.ir.graph import Graph, Node
from bitfab.ir.ops import Add, Concat, Conv2d, Dense, Requantize, SumPool2d

INT8 = np.iinfo(np.int8)


@dataclass(frozen=True)
class Fused:
    """An operator that adds and requantizes at once: its inputs before and behind the output's scale and zero point."""

    kind: str
    before: list[str]
    behind: list[str] = field(default_factory=list)
    attributes: Attributes = field(default_factory=dict)

    @property
    def domain(self) -> str:
        return "" if self.kind == "QLinearConv" else MICROSOFT_DOMAIN


class QOperator(Qdq):
    """Writes a sum and the requantize that alone reads it as one operator; what has none is written as QDQ.

    Convolutions are the standard's QLinearConv. Its QLinearMatMul adds no bias, and it has no addition, average or
    concatenation of several scales: there stand onnxruntime's QGemm, QLinearAdd, QLinearAveragePool and QLinearConcat.
    """

    fuses_additions = True

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._fused: dict[str, Fused] = {}

    def visit(self, node: Node) -> None:
        if isinstance(node.op, Requantize) and node.inputs[0] in self._fused:
            self._requantized(node, node.op, self._fused[node.inputs[0]])
        elif fused := self._fusable(node):
            self._fused[node.name] = fused
        else:
            super().visit(node)

    def move(self, node: Node) -> None:
        if isinstance(node.op, Concat):
            operands = [self.operand(name, self.meanings[node.name]) for name in node.inputs]
            known = [part for operand in operands if operand for part in operand]
            if all(operands):
                out = node.output
                inputs = [*self.parameters(node.name, self.meanings[node.name], self.carrier(node.name)), *known]
                more: Attributes = {"domain": MICROSOFT_DOMAIN, "axis": node.op.axis + 1, "source": node.source}
                codes = self.elementwise("QLinearConcat", inputs, out, "_codes", TensorProto.UINT8, **more)
                self.codes[node.name] = self.clipped_codes(out, codes, (out.type.low, out.type.high))
                return
        elif node.inputs[0] in self.codes and node.output.type.bits <= 8:
            inputs = [self.codes[node.inputs[0]]]
            self.codes[node.name] = passing(self.model, node, inputs, f"{node.name}_codes", TensorProto.UINT8)
            return
        super().move(node)

    def operand(self, name: str, want: QParams) -> list[str] | None:
        """Codes, scale and zero point of an operator's input, of up to 8 bits; None where it has no such codes."""
        if name in self.absorbed:
            op = self.absorbed[name].op
            assert isinstance(op, Requantize)
            if op.output_zero != want.zero_point:
                return None
            name, want = self.unrounded(name, want)
        if name not in self.codes or self.graph.values[name].type.bits > 8 or len(want.scale) > 1:
            return None
        carrier = self.carrier(name)
        if not carrier.holds(want.zero_point):
            return None
        prefix = name if want == self.meanings[name] else f"{name}_operand"
        return [self.codes[name], *self.parameters(prefix, want, carrier)]

    def _fusable(self, node: Node) -> Fused | None:
        """The operator for a sum that one requantize alone reads."""
        readers = self.graph.users[node.name]
        if len(readers) != 1 or node.name in self.graph.outputs or readers[0].name in self.absorbed:
            return None
        op = readers[0].op
        if not isinstance(op, Requantize) or op.type.bits > 8 or op.rounding is Rounding.FLOOR:
            return None
        if (
            op.output_zero != self.meanings[readers[0].name].zero_point
            or op.input_zero != self.meanings[node.name].zero_point
        ):
            return None
        match node.op:
            case Conv2d() | Dense():
                return self._product(node, node.op)
            case SumPool2d() if len(op.multiplier) == 1:
                return self._averaged(node, node.op)
            case Add() if len(op.multiplier) == 1:
                operands = [self.operand(name, want) for name, want in self.addends(node)]
                return Fused("QLinearAdd", operands[0] + operands[1]) if operands[0] and operands[1] else None
        return None

    def _product(self, node: Node, op: Conv2d | Dense) -> Fused | None:
        x, scale, bias = self.constants(node, op)
        operand = self.operand(node.inputs[0], x)
        fits = _within(op.weight, INT8) and _within(bias, INT32)
        if operand is None or not fits:
            return None
        shape = () if len(scale) == 1 else (-1,)
        factor = scale.astype(np.float32).reshape(shape)
        weight = [
            self.model.constant(f"{node.name}_weight", op.weight.astype(np.int8)),
            self.model.constant(f"{node.name}_weight_scale", factor),
            self.model.constant(f"{node.name}_weight_zero_point", np.zeros(factor.shape, np.int8)),
        ]
        added = [self.model.constant(f"{node.name}_bias", bias.astype(np.int32))]
        kind, attributes = convolution(node, op)
        if kind == "Conv":
            return Fused("QLinearConv", [*operand, *weight], added, attributes)
        return Fused("QGemm", [*operand, *weight, *added], [], attributes)

    def _averaged(self, node: Node, op: SumPool2d) -> Fused | None:
        operand = self.operand(node.inputs[0], self.pooled(node, op))
        if operand is None:
            return None
        kind, attributes = pooling(op, self.graph.values[node.inputs[0]].shape)
        return Fused(f"QLinear{kind}", operand, [], attributes | {"channels_last": 0})

    def _requantized(self, node: Node, op: Requantize, fused: Fused) -> None:
        parts = self.parameters(node.name, self.meanings[node.name], self.carrier(node.name))
        inputs, more = [*fused.before, *parts, *fused.behind], {"domain": fused.domain, "source": node.source}
        codes = self.elementwise(
            fused.kind, inputs, node.output, "_codes", TensorProto.UINT8, **more, **fused.attributes
        )
        self.codes[node.name] = self.clipped_codes(node.output, codes, (op.low, op.high))


def _within(numbers: IntArray, limits: np.iinfo) -> bool:
    return bool(limits.min <= numbers.min() and numbers.max() <= limits.max)
