"""Quantized ONNX files become integer graphs that equal onnxruntime, or the QONNX definition, in every code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto

import bitfab as bf
from bitfab.backend import simulate
from bitfab.dtypes import IntType, QParams
from bitfab.errors import BitfabError
from bitfab.frontend.onnx_quantized import is_quantized, load_quantized_onnx
from bitfab.ir import Graph, ops, run
from tests.quantized_onnx import QONNX, Model, codes_apart, defined, given

MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
PO2 = 2.0**-6


def executed(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    """onnxruntime's result, its optimizations left out: the file as it stands."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return np.asarray(runtime.InferenceSession(path, options).run(None, {"x": x})[0])


def images(*shape: int, seed: int = 1, count: int = 40) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0.3, 0.6, (count, *shape)).astype(np.float32)


def operations(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph]


def qdq_cnn(weight_scales: NDArray[Any], act: float) -> tuple[Model, str]:
    """Conv per channel, ReLU, max pool, depthwise, residual sum, concat, average, dense: the usual layers."""
    m = Model(3, 12, 12)
    odd = np.ones(7) if np.log2(act).is_integer() else m.rng.uniform(0.9, 1.1, 7)  # else halves of codes would abound
    x = m.codes("x", act, 117)
    bias = m.weights(m.integers(8, low=-2000, high=2000), act * weight_scales, np.int32)
    x = m.node("Relu", m.node("Conv", x, m.weights(m.integers(8, 3, 3, 3), weight_scales), bias, pads=[1] * 4))
    x = m.node("MaxPool", m.codes(x, 8 * act * odd[0], 0), kernel_shape=[2, 2], strides=[2, 2])
    y = m.node("Conv", x, m.weights(m.integers(8, 1, 3, 3), weight_scales), pads=[1, 0, 1, 2], group=8)
    x = m.codes(m.node("Add", x, m.codes(y, 32 * act * odd[1], 90)), 32 * act * odd[2], 60)
    x = m.codes(m.node("Concat", x, m.codes(m.node("Sigmoid", x), 1 / 256), axis=1), 16 * act * odd[3], 61)
    twice = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    x = m.node("Resize", x, "", m.const([1, 1, 2, 1]), **twice)
    x = m.node("Conv", x, m.weights(m.integers(6, 16, 1, 1), weight_scales[:6]), strides=[2, 2])
    x = m.codes(m.node("GlobalAveragePool", m.codes(x, 128 * act * odd[4], 128)), 64 * act * odd[5], 128)
    w = m.weights(m.integers(5, 6), weight_scales[:5])
    bias = m.weights(m.integers(5, low=-2000, high=2000), 64 * act * odd[5] * weight_scales[:5], np.int32)
    x = m.node("Gemm", m.node("Flatten", x), w, bias, transB=1)
    return m, m.codes(x, 64 * act * odd[6], 128)


def test_qdq_powers_of_two_equal_onnxruntime(tmp_path: Path) -> None:
    """With scales that are powers of two onnxruntime's floats are exact too: not one code may differ."""
    m, y = qdq_cnn(2.0 ** np.random.default_rng(3).integers(-9, -6, 8), PO2)
    path, x = m.save(tmp_path, y), images(3, 12, 12)
    graph = load_quantized_onnx(path)
    assert codes_apart(graph, x, executed(path, x)).max() == 0
    assert np.ptp(given(graph, x)) > 30 * PO2  # it does not merely saturate


def test_qdq_of_any_scales_is_within_one_code(tmp_path: Path) -> None:
    m, y = qdq_cnn(np.random.default_rng(4).uniform(0.002, 0.01, 8), 0.0173)
    path, x = m.save(tmp_path, y), images(3, 12, 12)
    apart = codes_apart(load_quantized_onnx(path), x, executed(path, x))
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.05


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_what_quantize_static_makes(form: str, symmetric: bool, tmp_path: Path, caplog: Any) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    x, source = images(3, 12, 12, count=64), tmp_path / "float.onnx"
    m = Model(3, 12, 12, opset=17)
    draw = m.rng.normal
    y = m.node("Conv", "x", m.const(draw(0, 0.3, (8, 3, 3, 3))), m.const(draw(size=8)), pads=[1] * 4)
    p = m.node("MaxPool", m.node("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    y = m.node("Conv", p, m.const(draw(0, 0.3, (8, 8, 3, 3))), pads=[1] * 4)
    y = m.node("Concat", m.node("Add", y, p), m.node("Sigmoid", y), axis=1)
    y = m.node("LeakyRelu", m.node("Conv", y, m.const(draw(0, 0.3, (6, 16, 1, 1)))), alpha=0.1)
    y = m.node("Gemm", m.node("Flatten", m.node("GlobalAveragePool", y)), m.const(draw(size=(6, 5))))
    m.save(tmp_path, y).rename(source)

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"x": x[:32]}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    types = quantization.QuantType
    path = tmp_path / "quantized.onnx"
    quantization.quantize_static(
        source,
        path,
        Reader(),
        quant_format=quantization.QuantFormat[form],
        per_channel=True,
        activation_type=types.QInt8 if symmetric else types.QUInt8,
        weight_type=types.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    apart = codes_apart(load_quantized_onnx(path), x, executed(path, x))
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.05


def test_qcdq_below_8_bits_becomes_thresholds(tmp_path: Path) -> None:
    m = Model(3, 8, 8)
    narrow = m.node("Clip", m.const(m.integers(4, 3, 3, 3), np.int8), m.const(-8, np.int8), m.const(7, np.int8))
    w = m.node("DequantizeLinear", narrow, m.const(2.0**-5), m.const(0, np.int8))
    x = m.node("Conv", m.codes("x", PO2, 0, np.int8), w)
    x = m.codes(m.node("Relu", m.norm(x, 4)), 2.0**-4, 0, clip=(0, 15))
    y = m.codes(m.node("Conv", x, m.weights(m.integers(2, 4, 6, 6), 2.0**-6)), 2.0**-2, 0, np.int8, clip=(-8, 7))
    path, x = m.save(tmp_path, y, rank=4), images(3, 8, 8)
    graph = load_quantized_onnx(path)
    assert [node.output.type for node in graph if isinstance(node.op, ops.Threshold)] == [
        IntType(4, False),
        IntType(4, True),
    ]
    assert operations(graph) == ["Conv2d", "Threshold", "Conv2d", "Threshold"]
    assert codes_apart(graph, x, executed(path, x)).max() == 0


@pytest.mark.parametrize(("bits", "signed"), [(4, True), (4, False), (16, True), (16, False)])
def test_codes_of_4_and_16_bits(bits: int, signed: bool, tmp_path: Path) -> None:
    types = {4: (TensorProto.INT4, TensorProto.UINT4), 16: (TensorProto.INT16, TensorProto.UINT16)}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(types[bits][not signed])
    m = Model(16)
    x = m.codes("x", 0.25 if bits == 4 else 2.0**-12, 0 if signed else 5, dtype)
    x = m.node("MatMul", x, m.weights(m.integers(16, 6, low=-8, high=7), 2.0 ** -np.arange(6.0), dtype=np.int8, axis=1))
    path = m.save(tmp_path, m.codes(x, 1.0 if bits == 4 else 2.0**-9, 0 if signed else 6, dtype))
    graph, x = load_quantized_onnx(path), images(16)
    assert graph.inputs[0].type == graph.output_values[0].type == IntType(bits, signed)
    assert codes_apart(graph, x, executed(path, x)).max() == 0


def test_qoperator_chain_equals_onnxruntime(tmp_path: Path) -> None:
    """QLinearConv with weights around a zero point, QLinearMatMul, and integers in and out."""
    m = Model(4, 6, 6, type=TensorProto.UINT8)
    scale, u8 = m.const(PO2), lambda v: m.const(v, np.uint8)
    w = m.const(m.integers(5, 4, 3, 3, low=0, high=255), np.uint8)
    bias = m.const(m.integers(5, low=-999, high=999), np.int32)
    parameters = scale, u8(140), w, m.const(2.0**-8), u8(120), m.const(2.0**-3), u8(110), bias
    x = m.node("QLinearConv", "x", *parameters, auto_pad="SAME_UPPER", strides=[2, 2])
    x = m.node("Flatten", x)
    w = m.const(m.integers(45, 7), np.int8)
    zeros = m.const(np.zeros(7), np.int8)
    x = m.node(
        "QLinearMatMul", x, m.const(2.0**-3), u8(110), w, m.const(np.full(7, 2.0**-7)), zeros, m.const(1.0), u8(99)
    )
    path = m.save(tmp_path, m.node("DequantizeLinear", x, m.const(1.0), u8(99)))
    x = m.rng.integers(0, 256, (30, 4, 6, 6), dtype=np.uint8)
    graph = load_quantized_onnx(path)
    assert graph.inputs[0].type == IntType(8, False)
    np.testing.assert_array_equal(given(graph, x.astype(np.float64)), executed(path, x))


def test_conv_integer_and_matmul_integer(tmp_path: Path) -> None:
    m = Model(3, 5, 5, type=TensorProto.UINT8)
    u8 = lambda v: m.const(v, np.uint8)  # noqa: E731
    x = m.node("ConvInteger", "x", m.const(m.integers(4, 3, 3, 3), np.int8), u8(128), m.const(2, np.int8), pads=[1] * 4)
    x = m.node("Mul", m.node("Cast", x, to=TensorProto.FLOAT), m.const(2.0**-12))
    q = m.node("QuantizeLinear", m.node("Flatten", m.node("MaxPool", x, kernel_shape=[5, 5])), m.const(PO2), u8(7))
    y = m.node("MatMulInteger", q, m.const(m.integers(4, 3), np.int8), u8(7))
    path = m.save(tmp_path, m.node("Mul", m.node("Cast", y, to=TensorProto.FLOAT), m.const(0.5)))
    x = m.rng.integers(0, 256, (30, 3, 5, 5), dtype=np.uint8)
    np.testing.assert_array_equal(given(load_quantized_onnx(path), x.astype(np.float64)), executed(path, x))


def qonnx_mlp(signs: bool) -> tuple[Model, str]:
    """28x28 pixels as a Brevitas export treats them, batch norms of which some fall, 2-bit codes or signs."""
    m = Model(1, 6, 6)
    full = m.node(
        "Concat", m.node("Gather", m.node("Shape", "x"), m.const([0], np.int64)), m.const([-1], np.int64), axis=0
    )
    x = m.node("Sub", m.node("Mul", m.node("Reshape", "x", full), m.const(2.0)), m.const(1.0))
    quantized = (lambda v: m.node("BipolarQuant", v, m.const(0.5), domain=QONNX)) if signs else None
    x = quantized(x) if quantized else m.quant(x, 0.5, 2, narrow=1)
    for ins, outs in ((36, 12), (12, 12)):
        w = m.const(m.rng.normal(size=(outs, ins)))
        w = quantized(w) if quantized else m.quant(w, 0.75, 2, narrow=1)
        x = m.norm(m.node("MatMul", x, m.node("Transpose", w, perm=[1, 0])), outs)
        x = quantized(x) if quantized else m.quant(x, 0.5, 2, narrow=1)
    w = m.quant(m.const(m.rng.normal(size=(12, 5))), 0.125, 4)
    return m, m.node("Softmax", m.node("Div", m.node("MatMul", x, w), m.const(1.7)), axis=1)


@pytest.mark.parametrize("signs", [False, True])
def test_qonnx_mlp_equals_the_definition_in_every_decision(signs: bool, tmp_path: Path) -> None:
    m, y = qonnx_mlp(signs)
    path = m.save(tmp_path, y)
    x = m.rng.integers(0, 256, (300, 1, 6, 6)).astype(np.float32) / np.float32(255)
    graph = load_quantized_onnx(path)
    assert graph.inputs[0].type == IntType(8, False)
    assert set(operations(graph)) == {"Reshape", "Dense", "Threshold"}
    logits, wanted = given(graph, x), defined(path, x)
    np.testing.assert_array_equal(logits.argmax(axis=1), wanted.argmax(axis=1))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, wanted, atol=1e-6)
    assert len(set(wanted.argmax(axis=1))) > 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(
    bits=st.integers(2, 9),
    signed=st.booleans(),
    narrow=st.booleans(),
    rounding=st.sampled_from(["ROUND", "FLOOR", "CEIL", "HALF_UP", "DOWN"]),
    scale=st.sampled_from([0.25, 0.5, 1.0, 0.3714159, 0.0512347]),
    seed=st.integers(0, 99),
)
def test_quant_of_any_form_equals_the_definition(
    bits: int, signed: bool, narrow: bool, rounding: str, scale: float, seed: int, tmp_path: Path
) -> None:
    """Every code of a sum of products, ties included, through every rounding mode."""
    m = Model(4, seed=seed)
    x = m.quant("x", 1.0, 4)
    w = m.quant(m.const(m.rng.uniform(-4, 4, (4, 3))), 0.5, 4)
    x = m.node("Add", m.node("MatMul", x, w), m.const(m.integers(3, low=-9, high=9) / 2))
    given_ = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": rounding}
    path = m.save(tmp_path, m.quant(x, scale, bits, **given_))
    x = m.rng.integers(-8, 8, (200, 4)).astype(np.float32)
    np.testing.assert_allclose(given(load_quantized_onnx(path), x), defined(path, x), rtol=1e-6, atol=1e-6)


def test_trunc_and_multi_threshold(tmp_path: Path) -> None:
    m = Model(2, 6, 6)
    x = m.node("AveragePool", m.quant("x", 0.25, 4, signed=0), kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("Mul", x, m.const(4.0))
    scalars = m.const(0.25), m.const(0.0), m.const(6.0), m.const(4.0)
    x = m.node("Trunc", x, *scalars, domain=QONNX, rounding_mode="FLOOR")
    steps = m.const(np.sort(m.rng.uniform(0, 4, (2, 7)), axis=1))
    y = m.node("MultiThreshold", x, steps, domain=QONNX, out_scale=0.5, out_bias=-1.0)
    path, x = m.save(tmp_path, y, rank=4), np.abs(images(2, 6, 6)) * 4
    graph = load_quantized_onnx(path)
    np.testing.assert_array_equal(given(graph, x), defined(path, x))
    assert np.ptp(given(graph, x)) > 1


def decoder(m: Model, x: str) -> str:
    """Zeros around, an odd kernel, a transposed convolution, a difference, a transposed image."""
    pads = m.const([0, 0, 1, 0, 0, 0, 2, 1], np.int64)
    w = m.quant(m.const(m.rng.normal(size=(4, 2, 3, 2))), 0.25, 4)
    x = m.quant(m.node("Conv", m.node("Pad", x, pads), w, m.const(m.integers(4) / 64), strides=[2, 2]), 0.25, 6)
    w = m.quant(m.const(m.rng.normal(size=(4, 3, 3, 3))), 0.25, 4)
    x = m.quant(m.node("ConvTranspose", x, w, strides=[2, 2], pads=[1, 0, 0, 1], output_padding=[1, 0]), 0.5, 7)
    x = m.node("Sub", x, m.quant(m.node("Neg", x), 2.0, 4))
    return m.node("Transpose", m.quant(x, 1.0, 8), perm=[0, 1, 3, 2])


def pooled(m: Model, x: str) -> str:
    """Uneven padding, dilation, averages of windows and of images, axes that come and go, alpha and beta."""
    w = m.quant(m.const(m.rng.normal(size=(2, 1, 3, 3))), 0.25, 4)
    x = m.quant(m.node("Conv", x, w, group=2, pads=[0, 1, 1, 1], strides=[2, 1]), 0.25, 6)
    w = m.quant(m.const(m.rng.normal(size=(4, 2, 2, 2))), [[[[0.25]]], [[[0.5]]], [[[0.125]]], [[[0.25]]]], 4)
    x = m.node("Clip", m.node("Conv", x, w, dilations=[2, 1]), m.const(-1.5), m.const(2.0))
    x = m.node("AveragePool", m.quant(x, 0.25, 6), kernel_shape=[2, 2], pads=[1, 0, 0, 1], count_include_pad=1)
    x = m.quant(m.node("ReduceMean", m.quant(x, 0.125, 8), m.const([2, 3], np.int64), keepdims=0), 2.0**-6, 8)
    x = m.node("Squeeze", m.node("Unsqueeze", x, m.const([2], np.int64)), m.const([2], np.int64))
    w = m.quant(m.const(m.rng.normal(size=(4, 3))), 0.25, 4)
    return m.quant(m.node("Gemm", x, w, m.const([0.25, 0.5, -1.0]), alpha=0.5, beta=2.0), 2.0**-5, 8)


def scaled(m: Model, x: str) -> str:
    """Scales of each channel for activations, a depthwise convolution of them, joined parts, steps after a clip."""
    x = m.quant(m.node("Mul", x, m.const([[[1.0]], [[-2.0]]])), [[[[0.25]], [[0.5]]]], 6)
    w = m.quant(m.const(m.rng.normal(size=(4, 1, 2, 2))), 0.25, 4)
    x = m.node("Conv", x, w, group=2)
    x = m.node("Concat", m.node("Relu", x), m.quant(m.node("MaxPool", x, kernel_shape=[1, 1]), 0.5, 5), axis=1)
    x = m.norm(m.quant(m.node("Add", x, m.const(0.25)), 0.25, 8), 8)
    return m.quant(m.node("Tanh", m.node("Clip", x, m.const(-1.0), m.const(1.0))), 0.25, 3)


@pytest.mark.parametrize("layers", [decoder, pooled, scaled])
def test_every_layer_equals_the_definition(layers: Callable[[Model, str], str], tmp_path: Path) -> None:
    m = Model(2, 6, 7)
    path = m.save(tmp_path, layers(m, m.quant("x", 0.25, 5)), rank=2 if layers is pooled else 4)
    x = images(2, 6, 7, count=60) * 2
    made, wanted = given(load_quantized_onnx(path), x), defined(path, x)
    np.testing.assert_array_equal(made, wanted)
    assert np.ptp(wanted) > 1


def test_functions_between_quantizers_are_tables(tmp_path: Path) -> None:
    """Unary operators, and products of functions of one tensor (a SiLU written out), each code by definition."""
    m = Model(5)
    x = m.quant("x", 0.125, 6)
    silu = m.quant(m.node("Mul", x, m.node("Sigmoid", x)), 0.125, 8)
    y = m.quant(m.node("Tanh", m.node("HardSwish", m.node("PRelu", silu, m.const([0.25])))), 2.0**-7, 8)
    path = m.save(tmp_path, m.quant(m.node("LeakyRelu", y, alpha=0.5), 2.0**-7, 5))
    x = images(5, count=200) * 3
    graph = load_quantized_onnx(path)
    assert operations(graph).count("Table") >= 2
    np.testing.assert_array_equal(given(graph, x), defined(path, x))


def test_channels_of_their_own_scales_are_brought_to_one_for_the_decision(tmp_path: Path) -> None:
    m = Model(8)
    x = m.codes("x", PO2, 128)
    w = m.weights(m.integers(8, 4), 2.0 ** -np.arange(4.0, 8.0), axis=1)
    path = m.save(tmp_path, m.node("ArgMax", m.node("MatMul", x, w), axis=1), type=TensorProto.INT64)
    x = images(8, count=200)
    graph = load_quantized_onnx(path)
    picked = run(graph, np.clip(np.rint(x / PO2) + 128, 0, 255).astype(np.uint8))
    np.testing.assert_array_equal(picked, executed(path, x))


def largest(m: Model, x: str, **attributes: Any) -> str:
    """The indices of the three largest; the values are called `values`."""
    inputs, outputs = [x, m.const([3], np.int64)], ["values", "indices"]
    m.nodes.append(onnx.helper.make_node("TopK", inputs, outputs, "best", **attributes))
    return outputs[1]


def largest_values(m: Model) -> str:
    largest(m, m.codes("x", 0.5))
    return m.codes("values", 0.5)


def test_the_k_largest_in_order(tmp_path: Path) -> None:
    """Coarse scores have many ties, where onnxruntime too puts the lower index first."""
    m = Model(8)
    scores = m.codes(m.node("MatMul", m.codes("x", PO2, 128), m.weights(m.integers(8, 6), 2.0**-8)), 2.0**-1, 128)
    path = m.save(tmp_path, largest(m, scores, axis=1), type=TensorProto.INT64)
    x = images(8, count=200)
    graph = load_quantized_onnx(path)
    picked = run(graph, np.clip(np.rint(x / PO2) + 128, 0, 255).astype(np.uint8))
    np.testing.assert_array_equal(picked, executed(path, x))


@pytest.mark.parametrize("end", ["Softmax", "quantized Softmax", "Sigmoid"])
def test_what_squashes_at_the_end_is_left_out(end: str, tmp_path: Path) -> None:
    m = Model(8)
    x = m.node("MatMul", m.codes("x", PO2, 128), m.weights(m.integers(8, 4), 2.0**-8))
    plain = m.codes(x, 2.0**-4, 128)
    squashed = m.node(end.split()[-1], plain)
    path = m.save(tmp_path, m.codes(squashed, 2.0**-8) if "quantized" in end else squashed)
    graph, x = load_quantized_onnx(path), images(8)
    m.save(tmp_path, plain)
    np.testing.assert_array_equal(given(graph, x), executed(path, x))


def test_logits_beside_their_softmax_are_the_same_integers(tmp_path: Path) -> None:
    m = Model(8)
    logits = m.codes(m.node("MatMul", m.codes("x", PO2, 128), m.weights(m.integers(8, 4), 2.0**-8)), 2.0**-4, 128)
    model = m.proto(m.node("Softmax", logits))
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, (1, 4)))
    path = tmp_path / "both.onnx"
    onnx.save(model, path)
    with pytest.raises(BitfabError, match=rf"outputs {logits} and \S+: the same integers, .*; leave one of them out"):
        load_quantized_onnx(path)


def test_float_features_that_nothing_quantizes_get_16_bits(tmp_path: Path) -> None:
    m = Model(6)
    x = m.node("MatMul", "x", m.quant(m.const(m.rng.normal(size=(6, 4))), 2.0**-4, 6))
    path = m.save(tmp_path, m.quant(m.node("Relu", x), 2.0**-3, 6, signed=0))
    graph = load_quantized_onnx(path, raw_scale=2.0**-10)
    assert (graph.inputs[0].type, graph.inputs[0].qparams) == (IntType(16, True), QParams((2.0**-10,)))
    x = np.rint(images(6) * 2**10) / np.float32(2**10)
    np.testing.assert_array_equal(given(graph, x), defined(path, x))


def test_is_quantized(tmp_path: Path) -> None:
    m = Model(4)
    plain = m.node("Relu", "x")
    assert not is_quantized(m.proto(plain))
    assert is_quantized(m.proto(m.codes(plain, 0.5)))
    with pytest.raises(BitfabError, match="no quantized operator; import it as a float model"):
        m = Model(4)
        load_quantized_onnx(m.save(tmp_path, m.node("Relu", "x")))


def dynamic(m: Model) -> str:
    m.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"))
    return m.node("DequantizeLinear", "q", "s", "z")


MISTAKES = {
    "float weights": lambda m: m.node("MatMul", m.codes("x", 0.5), m.const(m.rng.normal(size=(8, 4)))),
    "run time": dynamic,
    "without a quantizer": lambda m: m.node(
        "MatMul", m.node("Sigmoid", m.codes("x", 0.5)), m.weights(m.integers(8, 4), 0.5)
    ),
    "no exact integer operation": lambda m: m.node("CumSum", m.codes("x", 0.5), m.const(1, np.int64)),
    "scales must be positive": lambda m: m.codes("x", -0.5),
    "batch axis must stay": lambda m: m.node("Reshape", m.codes("x", 0.5), m.const([-1], np.int64)),
    "use 1 to 16 bits": lambda m: m.quant("x", 0.5, 24),
    "floats": lambda m: m.node("FloatQuant", m.codes("x", 0.5), domain=QONNX),
    "or the smallest": lambda m: largest(m, m.codes("x", 0.5), axis=1, largest=0),
    "the 3 largest of 2": lambda m: largest(m, m.node("MatMul", m.codes("x", 0.5), m.weights(m.integers(8, 2), 0.5))),
    "(a TopK its indices alone)": largest_values,
    "softmax inside": lambda m: m.node("Relu", m.codes(m.node("Softmax", m.codes("x", 0.5)), 0.5)),
}


@pytest.mark.parametrize("reason", MISTAKES)
def test_what_has_no_integers_is_refused_in_one_line(reason: str, tmp_path: Path) -> None:
    m = Model(8)
    path = m.save(tmp_path, MISTAKES[reason](m))
    with pytest.raises(BitfabError) as caught:
        load_quantized_onnx(path)
    wanted = "not quantized" if reason == "float weights" else reason
    assert wanted in str(caught.value) and "\n" not in str(caught.value) and ";" in str(caught.value)


def test_damaged_files_give_one_error_each(tmp_path: Path) -> None:
    m, y = qdq_cnn(np.full(8, 0.01), 0.02)
    whole = bytearray(m.save(tmp_path, y).read_bytes())
    rng, path, refused = np.random.default_rng(5), tmp_path / "damaged.onnx", 0
    for _ in range(120):
        damaged = whole.copy()
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_quantized_onnx(path)
        except BitfabError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


def test_a_qdq_cnn_and_a_qonnx_mlp_become_hardware(tmp_path: Path) -> None:
    m, y = qdq_cnn(np.full(8, 0.01), 0.02)
    assert bf.generate(load_quantized_onnx(m.save(tmp_path, y)), "ecp5-25k").files
    for signs in (False, True):
        m, y = qonnx_mlp(signs)
        graph = load_quantized_onnx(m.save(tmp_path, y))
        design = bf.generate(graph, "ecp5-25k")
        assert design.files
    simulate(design, m.rng.integers(0, 256, (3, 1, 6, 6), dtype=np.uint8), tmp_path / "design")


def test_the_models_of_the_qonnx_zoo_load() -> None:
    """Their decisions against QONNX's executor are measured in benchmarks/interop.py."""
    found = [MODELS / name for name in ("TFC_2W2A.onnx", "qkeras_jettagging.onnx")]
    if not all(path.exists() for path in found):
        pytest.skip("../shared/data/models is absent")
    mnist, jets = (load_quantized_onnx(path) for path in found)
    assert (mnist.inputs[0].shape, jets.inputs[0].shape) == ((1, 28, 28), (16,))
    assert all(bf.generate(graph, "ecp5-85k").files for graph in (mnist, jets))
