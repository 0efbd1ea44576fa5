"""Small quantized ONNX files for tests, and numpy's definition of QONNX's own operators for onnx's evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from bitfab.dtypes import dequantize, quantize
from bitfab.ir import Graph, run

QONNX = "qonnx.custom_op.general"


class Model:
    """A model under construction: each method adds a node and returns the name of what it computes."""

    def __init__(self, *shape: int, seed: int = 0, opset: int = 21, type: int = TensorProto.FLOAT) -> None:
        self.rng = np.random.default_rng(seed)
        self.input = helper.make_tensor_value_info("x", type, ["n", *shape])
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.opset = opset

    def const(self, array: Any, dtype: Any = np.float32) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype=dtype), name))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], f"{operator}_{name}", domain=domain, **attributes))
        return name

    def codes(
        self, x: str, scale: Any, zero: Any = 0, dtype: Any = np.uint8, clip: tuple[int, int] | None = None
    ) -> str:
        """QuantizeLinear, perhaps Clip, DequantizeLinear."""
        parameters = self.const(scale), self.const(np.broadcast_to(zero, np.shape(scale)), dtype)
        x = self.node("QuantizeLinear", x, *parameters)
        if clip:
            x = self.node("Clip", x, self.const(clip[0], dtype), self.const(clip[1], dtype))
        return self.node("DequantizeLinear", x, *parameters)

    def integers(self, *shape: int, low: int = -128, high: int = 127) -> NDArray[np.int64]:
        """Random weights, as integers."""
        return self.rng.integers(low, high + 1, shape)

    def weights(self, codes: NDArray[np.int64], scale: Any, dtype: Any = np.int8, axis: int = 0) -> str:
        """DequantizeLinear of constant codes."""
        zero = self.const(np.zeros(np.shape(scale)), dtype)
        return self.node("DequantizeLinear", self.const(codes, dtype), self.const(scale), zero, axis=axis)

    def quant(self, x: str, scale: Any, bits: int, zero: float = 0.0, **attributes: Any) -> str:
        """QONNX's Quant."""
        given = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"} | attributes
        return self.node(
            "Quant", x, self.const(scale), self.const(zero), self.const(float(bits)), domain=QONNX, **given
        )

    def norm(self, x: str, channels: int) -> str:
        """A batch norm in which some channels fall."""
        scale, bias, mean = self.rng.uniform(-1, 1, (3, channels))
        parameters = (scale, bias, mean, self.rng.uniform(0.5, 1, channels))
        return self.node("BatchNormalization", x, *(self.const(parameter) for parameter in parameters))

    def proto(self, *outputs: str, rank: int = 2, type: int = TensorProto.FLOAT) -> onnx.ModelProto:
        """The model of these outputs, 1 image at a time or more."""
        sizes = ["n", "channels", "rows", "columns"][:rank]
        made = [helper.make_tensor_value_info(name, type, sizes) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", [self.input], made, self.constants)
        domains = [helper.make_opsetid("", self.opset), helper.make_opsetid(QONNX, 1)]
        domains.append(helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(graph, opset_imports=domains, ir_version=10)

    def save(self, folder: Path, *outputs: str, rank: int = 2, type: int = TensorProto.FLOAT) -> Path:
        """The model's file; all outputs have `rank` axes."""
        path = folder / "model.onnx"
        onnx.save(self.proto(*outputs, rank=rank, type=type), path)
        return path


def quant(x: Any, scale: Any, zero: Any, bits: Any, signed: int, narrow: int, rounding: str) -> NDArray[Any]:
    """QONNX's Quant as its specification has it: scale, shift, clip, round, shift and scale back."""
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    y = np.clip(x / scale + zero, low, high)
    match rounding:
        case "ROUND":
            y = np.round(y)
        case "CEIL":
            y = np.ceil(y)
        case "FLOOR":
            y = np.floor(y)
        case "HALF_UP":
            y = np.sign(y) * np.floor(np.abs(y) + 0.5)
        case "DOWN":
            y = np.fix(y)
    return np.asarray((y - zero) * scale, dtype=np.float32)


class Quant(OpRun):
    """The operator for onnx's reference evaluator."""

    op_domain = QONNX

    def _run(self, x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):
        return (quant(x, scale, zero, bits, signed, narrow, rounding_mode),)


class BipolarQuant(OpRun):
    """The operator for onnx's reference evaluator."""

    op_domain = QONNX

    def _run(self, x, scale):
        return (np.where(x >= 0, scale, -scale).astype(np.float32),)


class Trunc(OpRun):
    """The operator (version 1) for onnx's reference evaluator."""

    op_domain = QONNX

    def _run(self, x, scale, zero, bits, bits_out, rounding_mode="FLOOR"):
        assert rounding_mode == "FLOOR"
        return ((np.floor(np.round(x / scale + zero) / 2 ** (bits - bits_out)) - zero) * scale,)


class MultiThreshold(OpRun):
    """The operator for onnx's reference evaluator."""

    op_domain = QONNX

    def _run(self, x, thresholds, out_scale=1.0, out_bias=0.0, **_):
        passed = (np.moveaxis(x, 1, -1)[..., None] >= thresholds).sum(axis=-1)
        return ((out_scale * np.moveaxis(passed, -1, 1) + out_bias).astype(np.float32),)


def defined(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    """What a QONNX model gives by definition, in float32."""
    evaluator = ReferenceEvaluator(onnx.load(path), new_ops=[Quant, BipolarQuant, Trunc, MultiThreshold])
    return np.asarray(evaluator.run(None, {"x": x})[0])


def given(graph: Graph, x: NDArray[Any]) -> NDArray[Any]:
    """What the graph gives for real inputs, as reals."""
    (border,), (end,) = graph.inputs, graph.output_values
    assert border.qparams and end.qparams
    codes = run(graph, quantize(x, border.qparams, border.type))
    assert not isinstance(codes, tuple)
    return dequantize(codes, end.qparams)


def codes_apart(graph: Graph, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """By how many codes of its output the graph differs from another's reals."""
    (end,) = graph.output_values
    assert end.qparams
    return np.abs(np.rint((given(graph, x) - y) / end.qparams.scale[0]))
