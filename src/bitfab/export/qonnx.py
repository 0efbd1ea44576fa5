"""The QONNX style: floats with a Quant node wherever codes are rounded, as Brevitas, FINN and hls4ml exchange them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitfab.dtypes import FloatArray, IntArray, IntType, Rounding
from bitfab.export.onnx_common import Clip, Exporter, reals
from bitfab.export.onnx_model import QONNX_DOMAIN, Attributes, batched
from bitfab.ir.graph import Node, Value
from bitfab.ir.ops import Shape, Threshold


class Qonnx(Exporter):
    """Writes a float network of the same results: weights, biases and activations pass a Quant of their own bits.

    (Pappalardo et al. 2022, 2206.07527.) Quant rounds half to even, or down where the graph does.
    """

    fuses_products = False

    def is_codes(self, name: str) -> bool:
        return False

    def rounds_down(self, value: Value) -> bool:
        return True

    def quantized(
        self, value: Value, real: str, clip: Clip | None = None, rounding: Rounding = Rounding.HALF_EVEN
    ) -> None:
        meaning, scale = self.meanings[value.name], np.asarray(self.meanings[value.name].scale)
        if value.type.bipolar:
            self.settle(value, self._bipolar(self._free(value.name), real, batched(value.shape), scale.reshape(())))
            return
        if clip is not None and clip != (value.type.low, value.type.high):
            real = self.clipped_real(value, real, clip)
        mode = "FLOOR" if rounding is Rounding.FLOOR else "ROUND"
        factor = self.channels(f"{value.name}_scale", scale, len(value.shape))
        parts = [factor, *self._type(value.name, value.type, meaning.zero_point)]
        more: Attributes = {"signed": int(value.type.signed), "narrow": 0, "rounding_mode": mode}
        shape = batched(value.shape)
        made = self.model.node("Quant", [real, *parts], self._free(value.name), shape, domain=QONNX_DOMAIN, **more)
        self.settle(value, made)

    def threshold(self, node: Node, op: Threshold) -> None:
        if op.type.bipolar:
            super().threshold(node, op)
            return
        (x,), value, meaning = node.inputs, node.output, self.meanings[node.name]
        have, (scale,) = self.meanings[x], meaning.scale
        places = (op.thresholds - 0.5 - have.zero_point) * have.scale_array(2)
        inputs = [self.real(x, have), self.model.constant(f"{node.name}_thresholds", places.astype(np.float32))]
        numbers: Attributes = {"out_scale": scale * op.step, "out_bias": scale * (op.low - meaning.zero_point)}
        kind = f"{'' if op.type.signed else 'U'}INT{op.type.bits}"
        made = self.elementwise(
            "MultiThreshold", inputs, value, domain=QONNX_DOMAIN, source=node.source, out_dtype=kind, **numbers
        )
        self.settle(value, made)

    def weight(self, name: str, codes: IntArray, scale: FloatArray, axis: int) -> str:
        real = self.model.constant(f"{name}_values", reals(codes, scale, axis))
        factor = scale.reshape([-1 if i == axis else 1 for i in range(codes.ndim)] if len(scale) > 1 else [])
        if (np.abs(codes) == 1).all():
            return self._bipolar(name, real, codes.shape, factor)
        low, high = int(codes.min()), int(codes.max())
        type = IntType.holding(min(low, -1), high)
        return self._constant(name, real, codes.shape, type, factor, narrow=low > type.low)

    def bias(self, name: str, codes: IntArray, scale: FloatArray) -> str:
        real = self.model.constant(f"{name}_values", reals(codes, scale, 0))
        limits = min(int(codes.min()), -1), int(codes.max())
        if limits[0] < -(2**24) or limits[1] > 2**24:  # no float32 integers any more
            return real
        factor = scale.reshape(-1 if len(scale) > 1 else ())
        return self._constant(name, real, codes.shape, IntType.holding(*limits), factor)

    def _constant(
        self, name: str, real: str, shape: Shape, type: IntType, scale: FloatArray, narrow: bool = False
    ) -> str:
        factor = self.model.constant(f"{name}_scale", scale.astype(np.float32))
        more: Attributes = {"signed": 1, "narrow": int(narrow), "rounding_mode": "ROUND"}
        inputs = [real, factor, *self._type(name, type, 0)]
        return self.model.node("Quant", inputs, name, shape, domain=QONNX_DOMAIN, **more)

    def _bipolar(self, name: str, real: str, shape: Sequence[int | str], scale: FloatArray) -> str:
        factor = self.model.constant(f"{name}_scale", scale.astype(np.float32))
        return self.model.node("BipolarQuant", [real, factor], name, shape, domain=QONNX_DOMAIN)

    def _type(self, name: str, type: IntType, zero: int) -> list[str]:
        numbers = {"zero_point": zero, "bits": type.bits}
        return [self.model.constant(f"{name}_{what}", np.float32(number)) for what, number in numbers.items()]

    def _free(self, name: str) -> str:
        """The value's name, or for an input, whose name the float tensor bears, another."""
        return f"{name}_quantized" if self.model.taken(name) else name
