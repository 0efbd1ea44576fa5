"""The QDQ style: codes between QuantizeLinear and DequantizeLinear, all else on reals; what onnxruntime fuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from bitfab.dtypes import FloatArray, IntArray, IntType, QParams, Rounding
from bitfab.export.onnx_common import Clip, Exporter, reals
from bitfab.export.onnx_model import Attributes
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import Table

INT32 = np.iinfo(np.int32)
FLOOR_STEPS = -0.5 + 2.0**-12  # rounding to nearest behind it rounds down; ties of up to 11 bits are exact
_WEIGHTS = ((4, TensorProto.INT4), (8, TensorProto.INT8), (16, TensorProto.INT16))
_DTYPES: dict[int, type[np.integer]] = {
    TensorProto.UINT8: np.uint8,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT16: np.int16,
}


@dataclass(frozen=True)
class Carrier:
    """The ONNX type that carries codes of an integer type, `offset` added to code and zero point.

    Signed codes of up to 8 bits travel as uint8 with offset 128: with x86's byte products onnxruntime fuses uint8 by
    uint8 everywhere, int8 only where no Clip follows (measured with 1.31: four 3x3 convolutions took 0.9 ms in place
    of 4.6). Codes of fewer bits are clipped (QCDQ): onnxruntime 1.31 fuses no uint4, and refuses some.
    """

    kind: int
    offset: int

    @classmethod
    def of(cls, type: IntType) -> Carrier | None:
        """The carrier of a type of up to 16 bits."""
        if type.bits <= 8:
            return cls(TensorProto.UINT8, 128 if type.signed else 0)
        if type.bits <= 16:
            return cls(TensorProto.INT16 if type.signed else TensorProto.UINT16, 0)
        return None

    @property
    def dtype(self) -> type[np.integer]:
        return _DTYPES[self.kind]

    @property
    def range(self) -> Clip:
        """The codes, without the offset, that it can carry."""
        limits = np.iinfo(self.dtype)
        return int(limits.min) - self.offset, int(limits.max) - self.offset

    def holds(self, code: int) -> bool:
        return self.range[0] <= code <= self.range[1]


class Qdq(Exporter):
    """Writes each quantized value as `<name>_codes`, and its reals, dequantized for whoever reads them, as `<name>`."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.codes: dict[str, str] = {}

    def is_codes(self, name: str) -> bool:
        return name in self.codes

    def quantized(
        self, value: Value, real: str, clip: Clip | None = None, rounding: Rounding = Rounding.HALF_EVEN
    ) -> None:
        meaning, carrier = self.meanings[value.name], Carrier.of(value.type)
        if carrier is None:
            self.settle(value, self.rounded(value, real, clip, rounding))
            return
        if rounding is Rounding.FLOOR:
            real = self.shifted(value, real, meaning, FLOOR_STEPS)
        if clip is not None and clip != carrier.range and value.type.bits > 8:  # onnxruntime clips no 16-bit codes
            real = self.clipped_real(value, real, clip)
        inputs = [real, *self.parameters(value.name, meaning, carrier)]
        codes = self.elementwise("QuantizeLinear", inputs, value, "_codes", carrier.kind, **_axis(meaning))
        self.codes[value.name] = self.clipped_codes(value, codes, clip)

    def rounds_down(self, value: Value) -> bool:
        return Carrier.of(value.type) is None

    def clipped_codes(self, value: Value, codes: str, clip: Clip | None) -> str:
        """Codes of up to 8 bits within `clip`."""
        carrier = self.carrier(value.name)
        if clip is None or clip == carrier.range or value.type.bits > 8:
            return codes
        ends = [
            self.model.constant(f"{value.name}_{end}", np.asarray(code + carrier.offset, carrier.dtype))
            for end, code in zip(("low", "high"), clip, strict=True)
        ]
        return self.elementwise("Clip", [codes, *ends], value, "_clipped", carrier.kind)

    def carrier(self, name: str) -> Carrier:
        """What carries the codes of a value."""
        carrier = Carrier.of(self.graph.values[name].type)
        assert carrier is not None, name
        return carrier

    def parameters(self, name: str, meaning: QParams, carrier: Carrier) -> list[str]:
        """Constants of scale and zero point: scalars, or one for each channel."""
        scale = np.asarray(meaning.scale, np.float32).reshape(() if len(meaning.scale) == 1 else -1)
        zero = np.full(scale.shape, meaning.zero_point + carrier.offset, carrier.dtype)
        return [self.model.constant(f"{name}_scale", scale), self.model.constant(f"{name}_zero_point", zero)]

    def express(self, name: str, want: QParams) -> str:
        if name not in self.codes or not self.carrier(name).holds(want.zero_point):
            return super().express(name, want)
        value = self.graph.values[name]
        own = want == self.meanings[name]
        suffix = "" if own and not self.model.taken(name) else "_dequantized"
        inputs = [self.codes[name], *self.parameters(f"{name}{'' if own else suffix}", want, self.carrier(name))]
        return self.elementwise("DequantizeLinear", inputs, value, suffix, **_axis(want))

    def weight(self, name: str, codes: IntArray, scale: FloatArray, axis: int) -> str:
        bits = IntType.holding(min(int(codes.min()), -1), int(codes.max())).bits
        kind = next((kind for most, kind in _WEIGHTS if bits <= most), None)
        if kind is None:
            return self.model.constant(name, reals(codes, scale, axis))
        return self._dequantized(name, codes, kind, scale, axis)

    def bias(self, name: str, codes: IntArray, scale: FloatArray) -> str:
        if codes.min() < INT32.min or codes.max() > INT32.max:
            return self.model.constant(name, reals(codes, scale, 0))
        return self._dequantized(name, codes, TensorProto.INT32, scale, 0)

    def lookup(self, node: Node, op: Table) -> None:
        carrier = Carrier.of(op.type)
        if carrier is None:
            super().lookup(node, op)
            return
        entries = (op.table.astype(np.int64) + carrier.offset).astype(carrier.dtype)
        inputs = [self.model.constant(f"{node.name}_table", entries), self.index(node, op)]
        more: Attributes = {"axis": 0, "source": node.source}
        self.codes[node.name] = self.elementwise("Gather", inputs, node.output, "_codes", carrier.kind, **more)

    def index(self, node: Node, op: Table) -> str:
        if node.inputs[0] not in self.codes:
            return super().index(node, op)
        codes, first = self.codes[node.inputs[0]], op.domain.low + self.carrier(node.inputs[0]).offset
        index = self.elementwise("Cast", [codes], node.output, "_index", TensorProto.INT32, to=TensorProto.INT32)
        if not first:
            return index
        offset = self.model.constant(f"{node.name}_first", np.int32(first))
        return self.elementwise("Sub", [index, offset], node.output, "_entry", TensorProto.INT32)

    def _dequantized(self, name: str, codes: IntArray, kind: int, scale: FloatArray, axis: int) -> str:
        """Stored integers and their reals; the zero points are spelt out, else onnxruntime fuses no Gemm."""
        factor = scale.astype(np.float32).reshape(() if len(scale) == 1 else -1)
        inputs = [
            self.model.constant(f"{name}_codes", codes, kind),
            self.model.constant(f"{name}_scale", factor),
            self.model.constant(f"{name}_zero_point", np.zeros(factor.shape, np.int64), kind),
        ]
        attributes: Attributes = {} if len(scale) == 1 else {"axis": axis}
        return self.model.node("DequantizeLinear", inputs, name, codes.shape, **attributes)


def _axis(meaning: QParams) -> Attributes:
    """The attribute that says where the channels are; none for one scale."""
    return {} if len(meaning.scale) == 1 else {"axis": 1}
