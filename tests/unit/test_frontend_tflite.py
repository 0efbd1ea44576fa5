"""TFLite import: int8 equals the reference kernels in every bit, float within rounding; damaged files are refused."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import bitfab as bf
from bitfab.dtypes import Rounding, dequantize, quantize, round_shift
from bitfab.errors import BitfabError
from bitfab.frontend.tflite import load_tflite
from bitfab.frontend.tflite_arithmetic import Ratio, division, rounded_once
from bitfab.frontend.tflite_file import read_tflite
from bitfab.frontend.tflite_quantized import is_quantized, load_quantized_tflite
from bitfab.frontend.torch import capture
from bitfab.ir import Graph, Node, trace
from bitfab.ir.ops import Conv2d, Reshape
from bitfab.ir.run_fast import run_fast
from tests.tflite_files import NONE, RELU, RELU6, SAME, VALID, FileOperator, FileTensor, tflite_bytes

MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
CIFAR = MODELS.parent / "cifar10" / "cifar10_4000.npz"
Array = NDArray[Any]

CONV = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, "Padding": SAME}
POOL = {"StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2, "Padding": VALID}
CODES = np.arange(-128, 128, dtype=np.int8)


def write(tmp_path: Path, data: bytes, name: str = "net.tflite") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# An int8 network with a bit of everything


def weights(rng: np.random.Generator, shape: tuple[int, ...], axis: int = 0) -> FileTensor:
    """Weights with a scale for each slice of an axis, one of which is a power of two."""
    scale = rng.uniform(0.002, 0.03, shape[axis])
    scale[0] = 2.0**-8
    return FileTensor("weights", scale=scale, axis=axis, data=rng.integers(-127, 128, shape).astype(np.int8))


def bias(rng: np.random.Generator, size: int) -> FileTensor:
    return FileTensor("bias", scale=[1e-4] * size, data=rng.integers(-3000, 3000, size).astype(np.int32))


def small_int8(seed: int = 0) -> bytes:
    """Two convolutions that add up, a depthwise one behind a border, two pools joined, a flatten, dense, softmax."""
    rng = np.random.default_rng(seed)

    def image(name: str, height: int, width: int, channels: int, scale: float, zero: int) -> FileTensor:
        return FileTensor(name, (1, height, width, channels), scale=[scale], zero_point=zero)

    tensors = [
        image("image", 9, 7, 3, 0.0125, -3),
        weights(rng, (8, 3, 3, 3)),
        bias(rng, 8),
        image("net/conv1/Relu;net/conv1/Conv2D", 5, 4, 8, 0.021, -128),
        weights(rng, (8, 1, 1, 3)),
        bias(rng, 8),
        image("net/conv2", 5, 4, 8, 0.033, 7),
        image("sum", 5, 4, 8, 0.019, -12),
        FileTensor("border", data=np.array([[0, 0], [1, 0], [1, 2], [0, 0]], np.int32)),
        image("bordered", 6, 7, 8, 0.019, -12),
        weights(rng, (1, 3, 3, 16), axis=3),
        bias(rng, 16),
        image("depthwise", 4, 5, 16, 0.05, -30),
        image("largest", 2, 2, 16, 0.05, -30),
        image("average", 2, 2, 16, 0.05, -30),
        image("both", 2, 2, 32, 0.05, -30),
        FileTensor("flat", (1, 128), scale=[0.05], zero_point=-30),
        FileTensor("dense_weight", scale=[0.011], data=rng.integers(-127, 128, (10, 128)).astype(np.int8)),
        bias(rng, 10),
        FileTensor("logits", (1, 10), scale=[0.4], zero_point=11),
        FileTensor("chances", (1, 10), scale=[1 / 256], zero_point=-128),
        FileTensor("shape", data=np.array([1, -1], np.int32)),
    ]
    strided = CONV | {"StrideH": 2, "StrideW": 2}
    depthwise = CONV | {"Padding": VALID, "DepthMultiplier": 2, "FusedActivationFunction": RELU6}
    operators = [
        FileOperator("CONV_2D", [0, 1, 2], [3], "Conv2DOptions", strided | {"FusedActivationFunction": RELU}, 3),
        FileOperator("CONV_2D", [0, 4, 5], [6], "Conv2DOptions", strided, 3),
        FileOperator("ADD", [3, 6], [7], "AddOptions", {"FusedActivationFunction": RELU}, 2),
        FileOperator("PAD", [7, 8], [9], "PadOptions", {}, 2),
        FileOperator("DEPTHWISE_CONV_2D", [9, 10, 11], [12], "DepthwiseConv2DOptions", depthwise, 3),
        FileOperator("MAX_POOL_2D", [12], [13], "Pool2DOptions", POOL, 2),
        FileOperator("AVERAGE_POOL_2D", [12], [14], "Pool2DOptions", POOL | {"FusedActivationFunction": RELU}, 2),
        FileOperator("CONCATENATION", [13, 14], [15], "ConcatenationOptions", {"Axis": 3}, 2),
        FileOperator("RESHAPE", [15, 21], [16], "ReshapeOptions"),
        FileOperator("FULLY_CONNECTED", [16, 17, 18], [19], "FullyConnectedOptions", {}, 4),
        FileOperator("SOFTMAX", [19], [20], "SoftmaxOptions", {"Beta": 1.0}, 2),
    ]
    return tflite_bytes(tensors, operators, [0], [20])


# TFLite's arithmetic, written down a second time: one number after the other, in C's integer divisions


def doubling_high_mul(a: int, b: int) -> int:
    product = a * b
    nudged = product + (1 << 30 if product >= 0 else 1 - (1 << 30))
    return abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)


def divide_by_power(x: int, exponent: int) -> int:
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def rescaled(x: int, ratio: float) -> int:
    mantissa, exponent = math.frexp(ratio)
    multiplier = math.floor(mantissa * 2.0**31 + 0.5)
    if multiplier == 1 << 31:
        multiplier, exponent = multiplier // 2, exponent + 1
    return divide_by_power(doubling_high_mul(x << max(exponent, 0), multiplier), max(-exponent, 0))


def c_round(x: float) -> int:
    """Ties away from zero, exactly: `x + 0.5` could round up."""
    whole = math.trunc(x)
    return whole + int(math.copysign(abs(x - whole) >= 0.5, x))


def each(function: Any, x: Array) -> Array:
    return np.array([function(int(i)) for i in x.ravel()]).reshape(x.shape)


def single(value: float) -> float:
    """A float64 as the file holds it."""
    return float(np.float32(value))


def expected_small_int8(data: bytes, image: Array) -> dict[str, Array]:
    """What the network above computes for one image (H, W, C), tensor by tensor."""
    file = read_tflite_bytes(data)
    tensors = file.tensors
    scale, zero = (lambda n: tensors[n].scale[0]), (lambda n: tensors[n].zero_point[0])
    values: dict[int, Array] = {0: image.astype(int)}

    def code(output: int, real: float) -> int:
        return zero(output) + c_round(single(np.float32(real) / np.float32(scale(output))))

    def clip(output: int, x: Array, low: int = -128, high: int = 127) -> None:
        values[output] = (x + zero(output)).clip(low, high)

    def conv(output: int, sums: Array, weight: int, source: int, **ends: int) -> None:
        ratios = [scale(source) * s / scale(output) for s in tensors[weight].scale]
        channels = [each(lambda x, r=r: rescaled(x, r), sums[..., c]) for c, r in enumerate(ratios)]
        clip(output, np.stack(channels, axis=-1), **ends)

    def windows(x: Array, stride: int, kernel: int) -> list[tuple[int, int, Array]]:
        rows, columns = ((size - kernel) // stride + 1 for size in x.shape[:2])
        ends = range(rows), range(columns)
        return [
            (r, c, x[r * stride : r * stride + kernel, c * stride : c * stride + kernel])
            for r in ends[0]
            for c in ends[1]
        ]

    def sums(x: Array, weight: int, stride: int, depthwise: bool = False) -> Array:
        w, b = tensors[weight].data.astype(int), tensors[weight + 1].data.astype(int)
        kernel = w.shape[1]
        found = {(r, c): window for r, c, window in windows(x, stride, kernel)}
        size = [1 + max(position[axis] for position in found) for axis in range(2)]
        out = np.zeros((*size, len(b)), int)
        for (r, c), window in found.items():
            if depthwise:
                out[r, c] = (np.repeat(window, len(b) // x.shape[2], axis=2) * w[0]).sum(axis=(0, 1)) + b
            else:
                out[r, c] = np.einsum("hwi,ohwi->o", window, w) + b
        return out

    shifted = image.astype(int) - zero(0)
    conv(3, sums(np.pad(shifted, ((1, 1), (1, 1), (0, 0))), 1, 2), 1, 0, low=zero(3))
    conv(6, sums(shifted, 4, 2), 4, 0)
    twice = 2 * max(scale(3), scale(6))
    operands = [each(lambda x, n=n: rescaled(x << 20, scale(n) / twice), values[n] - zero(n)) for n in (3, 6)]
    clip(7, each(lambda x: rescaled(x, twice / (2**20 * scale(7))), operands[0] + operands[1]), zero(7))
    values[9] = np.pad(values[7], ((1, 0), (1, 2), (0, 0)), constant_values=zero(7))
    conv(12, sums(values[9] - zero(9), 10, 1, True), 10, 9, low=zero(12), high=min(127, code(12, 6.0)))
    found = windows(values[12], 2, 2)
    largest = [window.max(axis=(0, 1)) for _, _, window in found]
    total = np.array([window.sum(axis=(0, 1)) for _, _, window in found])
    values[13] = np.array(largest).reshape(2, 2, 16)
    values[14] = each(lambda s: c_round(s / 4), total).reshape(2, 2, 16).clip(zero(14), 127)
    values[15] = np.concatenate([values[13], values[14]], axis=2)
    values[16] = values[15].ravel()
    dense = tensors[17].data.astype(int) @ (values[16] - zero(16)) + tensors[18].data.astype(int)
    clip(19, each(lambda x: c_round(x * (scale(16) * scale(17) / scale(19))), dense))
    return {tensors[number].name: value for number, value in values.items() if number not in (0, 9, 16)}


def read_tflite_bytes(data: bytes) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        path.write_bytes(data)
        return read_tflite(path)


# Comparisons


def traced(graph: Graph, *images: Array) -> dict[str, Array]:
    """Each tensor of the file that the graph holds in TFLite's order, for images (N, H, W, C)."""
    found = trace(graph, *(channels_first(image) for image in images))
    sources = {node.source: node.name for node in graph if not flattens(graph, node)}
    return {source: channels_last(found[value]) for source, value in sources.items()}


def flattens(graph: Graph, node: Node) -> bool:
    """Whether a node makes a vector of an image of several pixels, in (C, H, W) order and not in TFLite's."""
    before = graph.values[node.inputs[0]].shape
    return isinstance(node.op, Reshape) and len(before) == 3 and before[1] * before[2] > 1


def channels_first(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def channels_last(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def interpreted(data: bytes, images: Sequence[Array]) -> dict[str, Array]:
    """Every tensor of TFLite's reference kernels, one image after the other; images is one batch an input."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    interpreter = litert.Interpreter(
        model_content=data,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    names = {tensor["name"]: tensor["index"] for tensor in interpreter.get_tensor_details()}
    found: dict[str, list[Array]] = {name: [] for name in names}
    for batch in zip(*images, strict=True):
        for entry, image in zip(interpreter.get_input_details(), batch, strict=True):
            interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        for name, index in names.items():
            found[name].append(interpreter.get_tensor(index).copy())
    return {name: np.concatenate(arrays) for name, arrays in found.items() if arrays[0].ndim in (2, 4)}


def assert_equal(graph: Graph, data: bytes, *images: Array) -> None:
    """Every tensor that the graph holds equals the interpreter's."""
    ours, theirs = traced(graph, *images), interpreted(data, images)
    compared = [name for name in ours if name in theirs]
    assert compared, "nothing to compare"
    for name in compared:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def random_images(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


# The int8 import


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, bytes]:
    data = small_int8()
    return load_quantized_tflite(write(tmp_path_factory.mktemp("tflite"), data)), data


def test_int8_network_equals_the_definition_in_every_tensor(small: tuple[Graph, bytes]) -> None:
    graph, data = small
    images = random_images((3, 9, 7, 3), seed=1)
    found = traced(graph, images)
    for position, image in enumerate(images):
        for name, expected in expected_small_int8(data, image).items():
            np.testing.assert_array_equal(found[name][position], expected, err_msg=name)


def test_int8_network_equals_the_interpreter_in_every_tensor(small: tuple[Graph, bytes]) -> None:
    graph, data = small
    assert_equal(graph, data, random_images((20, 9, 7, 3)))


def test_int8_network_in_the_fast_executor(small: tuple[Graph, bytes]) -> None:
    graph, _ = small
    images = channels_first(random_images((20, 9, 7, 3)))
    np.testing.assert_array_equal(run_fast(graph, images), trace(graph, images)[graph.outputs[0]])


def test_values_are_named_after_tensors_and_carry_their_scales(small: tuple[Graph, bytes]) -> None:
    graph, _ = small
    assert graph.name == "net_int8"
    assert graph.outputs == ("logits_19",)  # no softmax
    relu = graph.values["net_conv1_Relu_3"]
    assert relu.qparams is not None and (relu.qparams.scale, relu.qparams.zero_point) == ((single(0.021),), -128)
    padded = next(node.op for node in graph if node.name == "depthwise_12_sums")
    assert isinstance(padded, Conv2d) and (padded.padding, padded.pad_value) == ((1, 1, 0, 2), -12)


def test_the_int8_import_loads_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path, small_int8())
    code = (
        "import sys; from bitfab.frontend.tflite_quantized import load_quantized_tflite as load; "
        f"load({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# One operator at a time


def one_operator(
    tmp_path: Path,
    kind: str,
    ends: tuple[FileTensor, FileTensor],
    constants: Sequence[FileTensor] = (),
    options: tuple[str, dict[str, Any]] = ("", {}),
    version: int = 2,
) -> tuple[Graph, bytes]:
    inputs = [0, *range(2, 2 + len(constants))]
    data = tflite_bytes([*ends, *constants], [FileOperator(kind, inputs, [1], *options, version)], [0], [1])
    return load_quantized_tflite(write(tmp_path, data)), data


def vectors(before: tuple[float, int], after: tuple[float, int]) -> tuple[FileTensor, FileTensor]:
    """An input of all codes, and an output."""
    return tuple(
        FileTensor(name, (1, 256), scale=[scale], zero_point=zero)
        for name, (scale, zero) in (("x", before), ("y", after))
    )


SCALES = [((0.05, 3), (0.03, -20)), ((0.5, -128), (1.0, 5)), ((0.011, 127), (0.25, 0)), ((3.0, 0), (0.75, 1))]


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("kind", ["RELU", "RELU6", "LEAKY_RELU", "QUANTIZE", "LOGISTIC", "TANH"])
def test_functions_of_every_code(tmp_path: Path, kind: str, scales: Any) -> None:
    before, after = scales
    after = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}.get(kind, after)
    options = {
        "LEAKY_RELU": ("LeakyReluOptions", {"Alpha": 0.2}),
        "QUANTIZE": ("QuantizeOptions", {}),
    }.get(kind, ("", {}))
    graph, data = one_operator(tmp_path, kind, vectors(before, after), options=options)
    assert len(graph.nodes) == 1
    assert_equal(graph, data, CODES[None])


def test_uint8_ends_are_rescaled(tmp_path: Path) -> None:
    ends = [
        FileTensor("x", (1, 256), "uint8", [0.02], 128),
        FileTensor("m", (1, 256), "int8", [0.02], 0),
        FileTensor("y", (1, 256), "uint8", [0.03], 100),
    ]
    quantize = [FileOperator("QUANTIZE", [i], [i + 1], "QuantizeOptions", {}, 2) for i in range(2)]
    data = tflite_bytes(ends, quantize, [0], [2])
    assert_equal(load_quantized_tflite(write(tmp_path, data)), data, np.arange(256, dtype=np.uint8)[None])


def test_a_float_input_is_quantized_at_the_border(tmp_path: Path) -> None:
    tensors = [
        FileTensor("x", (1, 4), "float32"),
        FileTensor("q", (1, 4), scale=[0.5], zero_point=3),
        FileTensor("r", (1, 4), scale=[0.5], zero_point=3),
        FileTensor("y", (1, 4), "float32"),
    ]
    operators = [
        FileOperator("QUANTIZE", [0], [1], "QuantizeOptions"),
        FileOperator("RELU", [1], [2]),
        FileOperator("DEQUANTIZE", [2], [3], "DequantizeOptions"),
    ]
    graph = load_quantized_tflite(write(tmp_path, tflite_bytes(tensors, operators, [0], [3])))
    (x,) = graph.inputs
    assert x.qparams is not None and (x.qparams.scale, x.qparams.zero_point) == ((0.5,), 3)
    assert traced(graph, np.array([[-128, 2, 3, 127]], np.int8))["r"].tolist() == [[3, 3, 3, 127]]


@pytest.mark.parametrize("scales", [(0.02, 0.05, 0.03), (0.5, 0.25, 0.5), (0.001, 0.9, 0.01), (1.0, 1.0, 0.125)])
@pytest.mark.parametrize("activation", [NONE, RELU])
def test_sums_of_all_pairs_of_codes(tmp_path: Path, scales: tuple[float, ...], activation: int) -> None:
    zeros = (-7, 100, 3)
    tensors = [
        FileTensor(name, (1, 65536), scale=[scale], zero_point=zero)
        for name, scale, zero in zip(("a", "b", "y"), scales, zeros, strict=True)
    ]
    operator = FileOperator("ADD", [0, 1], [2], "AddOptions", {"FusedActivationFunction": activation}, 2)
    data = tflite_bytes(tensors, [operator], [0, 1], [2])
    graph = load_quantized_tflite(write(tmp_path, data))
    assert_equal(graph, data, np.repeat(CODES, 256)[None], np.tile(CODES, 256)[None])


ACCUMULATORS = np.unique(np.concatenate([np.arange(-3000, 3000), np.arange(-300_000, 300_000, 97)])).astype(np.int32)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("ratio", [1 / 6, 0.125, 2.0**-11, 0.0123, 1.7, 20.0, 1e-12])
def test_rescaling_of_many_accumulators(tmp_path: Path, kind: str, ratio: float) -> None:
    """Weights are 0, so that the biases are the accumulators; the ratio is 1 over the output's scale."""
    accumulators = ACCUMULATORS[np.abs(ACCUMULATORS) < 1000] if ratio > 1 else ACCUMULATORS
    size, dense = len(accumulators), kind == "FULLY_CONNECTED"
    depthwise = kind == "DEPTHWISE_CONV_2D"
    shape = (size, 1) if dense else (1, 1, 1, size) if depthwise else (size, 1, 1, 1)
    shapes = ((1, 1), (1, size)) if dense else ((1, 1, 1, 1), (1, 1, 1, size))
    ends = (FileTensor("x", shapes[0], scale=[1.0]), FileTensor("y", shapes[1], scale=[1 / ratio], zero_point=-3))
    constants = [
        FileTensor("w", scale=[1.0], axis=3 if depthwise else 0, data=np.zeros(shape, np.int8)),
        FileTensor("b", scale=[1.0], data=accumulators),
    ]
    name = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}.get(
        kind, "FullyConnectedOptions"
    )
    options = {} if dense else CONV | ({"DepthMultiplier": size} if depthwise else {})
    graph, data = one_operator(tmp_path, kind, ends, constants, (name, options), 4 if dense else 3)
    exact = 1.0 / single(1 / ratio)
    expected = each(lambda x: c_round(x * exact) if dense else rescaled(x, exact), accumulators)
    found = traced(graph, np.zeros((1, *shapes[0][1:]), np.int8))["y"]
    np.testing.assert_array_equal(found.ravel(), (expected - 3).clip(-128, 127))
    assert_equal(graph, data, np.zeros((1, *shapes[0][1:]), np.int8))


@pytest.mark.parametrize("size", [(7, 7), (4, 4), (3, 5), (6, 1)])
@pytest.mark.parametrize("scales", [((0.05, 3), (0.05, 3)), ((0.5, -128), (0.25, 12)), ((0.01, 0), (0.1, -9))])
@pytest.mark.parametrize("keeps", [True, False])
def test_means(tmp_path: Path, size: tuple[int, int], scales: Any, keeps: bool) -> None:
    (before, after), channels = scales, 64
    ends = (
        FileTensor("x", (1, *size, channels), scale=[before[0]], zero_point=before[1]),
        FileTensor("y", (1, 1, 1, channels) if keeps else (1, channels), scale=[after[0]], zero_point=after[1]),
    )
    axes = FileTensor("axes", data=np.array([1, 2], np.int32))
    graph, data = one_operator(tmp_path, "MEAN", ends, [axes], ("ReducerOptions", {"KeepDims": keeps}))
    assert_equal(graph, data, random_images((6, *size, channels)))


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("window", [(2, 2), (3, 3), (3, 5)])
@pytest.mark.parametrize("activation", [NONE, RELU])
def test_pools(tmp_path: Path, kind: str, window: tuple[int, int], activation: int) -> None:
    padding = SAME if kind == "MAX_POOL_2D" else VALID
    size = tuple(-(-8 // 2) if padding == SAME else (8 - taps) // 2 + 1 for taps in window)
    ends = tuple(
        FileTensor(name, (1, *pixels, 5), scale=[0.07], zero_point=-11) for name, pixels in (("x", (8, 8)), ("y", size))
    )
    kernel = {"FilterHeight": window[0], "FilterWidth": window[1]}
    options = POOL | kernel | {"Padding": padding, "FusedActivationFunction": activation}
    graph, data = one_operator(tmp_path, kind, ends, options=("Pool2DOptions", options))
    assert_equal(graph, data, random_images((9, 8, 8, 5)))


def test_a_border_that_no_convolution_takes_over(tmp_path: Path) -> None:
    ends = (
        FileTensor("x", (1, 3, 2, 4), scale=[0.1], zero_point=9),
        FileTensor("y", (1, 5, 5, 4), scale=[0.1], zero_point=9),
    )
    border = FileTensor("border", data=np.array([[0, 0], [0, 2], [3, 0], [0, 0]], np.int32))
    graph, data = one_operator(tmp_path, "PAD", ends, [border], ("PadOptions", {}))
    assert_equal(graph, data, random_images((2, 3, 2, 4)))


def test_nearest_upsampling(tmp_path: Path) -> None:
    ends = tuple(FileTensor(name, (1, size, size, 3), scale=[0.1]) for name, size in (("x", 3), ("y", 6)))
    size = FileTensor("size", data=np.array([6, 6], np.int32))
    options = ("ResizeNearestNeighborOptions", {"HalfPixelCenters": True})
    graph, data = one_operator(tmp_path, "RESIZE_NEAREST_NEIGHBOR", ends, [size], options)
    assert_equal(graph, data, random_images((2, 3, 3, 3)))


@pytest.mark.parametrize("height", [5, 6])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (2, 2, 1), (4, 1, 1), (5, 3, 1), (3, 1, 2), (1, 2, 1)]
)
def test_padding_of_convolutions(tmp_path: Path, height: int, kernel: int, stride: int, dilation: int) -> None:
    rng, rows, columns = np.random.default_rng(0), -(-height // stride), -(-7 // stride)
    ends = (
        FileTensor("x", (1, height, 7, 2), scale=[0.02], zero_point=-100),
        FileTensor("y", (1, rows, columns, 4), scale=[0.5], zero_point=-100),
    )
    steps = {"StrideH": stride, "StrideW": stride, "DilationHFactor": dilation, "DilationWFactor": dilation}
    constants = [weights(rng, (4, kernel, kernel, 2)), bias(rng, 4)]
    graph, data = one_operator(tmp_path, "CONV_2D", ends, constants, ("Conv2DOptions", CONV | steps), 3)
    assert_equal(graph, data, random_images((3, height, 7, 2)))


def transposed(kernel: int, stride: int, padding: int, size: int, dtype: str) -> tuple[bytes, Array]:
    """A transposed convolution of a 4x3 image to `size` rows, and three images."""
    rng, columns = np.random.default_rng(kernel), 3 * stride if padding == SAME else 2 * stride + kernel
    whole = dtype == "int8"
    images = random_images((3, 4, 3, 2))
    weight, offset = weights(rng, (5, kernel, kernel, 2)), bias(rng, 5)
    if not whole:
        images = images.astype(np.float32) / 50
        weight, offset = (FileTensor(t.name, data=t.data.astype(np.float32) / 100) for t in (weight, offset))
    tensors = [
        FileTensor("x", (1, 4, 3, 2), dtype, scale=[0.02] * whole, zero_point=-9),
        weight,
        offset,
        FileTensor("size", data=np.array([1, size, columns, 5], np.int32)),
        FileTensor("y", (1, size, columns, 5), dtype, scale=[0.05] * whole, zero_point=-90),
    ]
    options = {"StrideH": stride, "StrideW": stride, "Padding": padding, "FusedActivationFunction": RELU}
    operator = FileOperator("TRANSPOSE_CONV", [3, 1, 0, 2], [4], "TransposeConvOptions", options, 4)
    return tflite_bytes(tensors, [operator], [0], [4]), images


TRANSPOSED = [(2, 2, VALID, 8), (3, 2, SAME, 8), (3, 2, SAME, 7), (4, 2, SAME, 8), (3, 2, VALID, 9), (2, 3, SAME, 12)]


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolutions(tmp_path: Path, case: tuple[int, int, int, int]) -> None:
    data, images = transposed(*case, "int8")
    assert_equal(load_quantized_tflite(write(tmp_path, data)), data, images)


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolutions_in_float(tmp_path: Path, case: tuple[int, int, int, int]) -> None:
    data, images = transposed(*case, "float32")
    with torch.no_grad():
        found = load_tflite(write(tmp_path, data))(torch.from_numpy(channels_first(images))).numpy()
    np.testing.assert_allclose(channels_last(found), interpreted(data, [images])["y"], atol=1e-4)


# The arithmetic


@pytest.mark.parametrize("ratio", [0.75, 2.0**-5, 1 / 3, 0.9999999999, 3.3, 2.0**-31, 1e-11])
def test_ratio_equals_the_definition(ratio: float) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.arange(-600, 600), rng.integers(-(1 << 28), 1 << 28, 500)])
    expected = each(lambda value: rescaled(value, ratio), x) if ratio >= 2.0**-32 else np.zeros_like(x)
    np.testing.assert_array_equal(Ratio.of(ratio).times(x), expected)


@pytest.mark.parametrize("seed", range(20))
def test_rounded_once_equals_the_product_in_double_precision(seed: int) -> None:
    """At random ratios, and reciprocals, whose ties double precision decides; next to every tie and in between."""
    rng = np.random.default_rng(seed)
    real = 2.0 ** -rng.uniform(-3, 14) if seed % 2 else 1.0 / rng.integers(2, 5000)
    largest = int(260 / real) + 5
    multiplier, shift = rounded_once(real, largest, 255)
    ties = np.rint((np.arange(256) + 0.5) / real)[:, None] + np.arange(-3, 4)
    x = np.unique(np.concatenate([ties.ravel(), -ties.ravel(), rng.integers(-largest, largest, 2000)])).astype(np.int64)
    x = x[np.abs(x) <= largest]
    found = round_shift(x * multiplier, shift, Rounding.HALF_AWAY).clip(-255, 255)
    np.testing.assert_array_equal(found, each(lambda value: c_round(value * real), x).clip(-255, 255))
    assert multiplier.bit_length() <= 31


def test_a_ratio_that_no_31_bits_hold_is_refused() -> None:
    with pytest.raises(BitfabError, match="31 bits"):
        rounded_once(2.0**-20.0003, 1 << 29, 255)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 9, 12, 25, 36, 49, 63, 64, 144])
def test_division_is_exact_for_every_sum(count: int) -> None:
    largest = 255 * count
    multiplier, shift = division(count, largest)
    sums = np.arange(-largest, largest + 1)
    expected = np.where(sums > 0, (sums + count // 2) // count, -((-sums + count // 2) // count))
    np.testing.assert_array_equal(round_shift(sums * multiplier, shift, Rounding.HALF_AWAY), expected)


# The float import


def small_float(flatten: bool = True) -> bytes:
    """Uneven padding, a depthwise convolution, an add, a max pool that overhangs, a flatten, dense, softmax."""
    rng = np.random.default_rng(3)

    def constant(*shape: int) -> FileTensor:
        return FileTensor("constant", data=rng.normal(0, 0.3, shape).astype(np.float32))

    def value(name: str, *shape: int) -> FileTensor:
        return FileTensor(name, (1, *shape), "float32")

    tensors = [
        value("image", 10, 7, 3),
        constant(6, 3, 3, 3),
        constant(6),
        value("conv", 5, 4, 6),
        constant(1, 3, 3, 6),
        constant(6),
        value("depthwise", 5, 4, 6),
        value("sum", 5, 4, 6),
        value("largest", 3, 2, 6),
        value("leaky", 3, 2, 6),
        value("flat", 36) if flatten else value("flat", 6),
        constant(4, 36 if flatten else 6),
        constant(4),
        value("logits", 4),
        value("chances", 4),
        FileTensor("axes", data=np.array([1, 2], np.int32)),
        FileTensor("shape", data=np.array([1, -1], np.int32)),
    ]
    strided = CONV | {"StrideH": 2, "StrideW": 2, "FusedActivationFunction": RELU}
    flat = FileOperator("RESHAPE", [9, 16], [10], "ReshapeOptions")
    operators = [
        FileOperator("CONV_2D", [0, 1, 2], [3], "Conv2DOptions", strided),
        FileOperator("DEPTHWISE_CONV_2D", [3, 4, 5], [6], "DepthwiseConv2DOptions", CONV | {"DepthMultiplier": 1}),
        FileOperator("ADD", [3, 6], [7], "AddOptions", {"FusedActivationFunction": RELU6}),
        FileOperator("MAX_POOL_2D", [7], [8], "Pool2DOptions", POOL | {"Padding": SAME}),
        FileOperator("LEAKY_RELU", [8], [9], "LeakyReluOptions", {"Alpha": 0.3}),
        flat if flatten else FileOperator("MEAN", [9, 15], [10], "ReducerOptions", {"KeepDims": False}),
        FileOperator("FULLY_CONNECTED", [10, 11, 12], [13], "FullyConnectedOptions", {"FusedActivationFunction": RELU}),
        FileOperator("SOFTMAX", [13], [14], "SoftmaxOptions", {"Beta": 1.0}),
    ]
    return tflite_bytes(tensors, operators, [0], [14])


@pytest.mark.parametrize("flatten", [True, False])
def test_float_network_and_its_capture_equal_the_interpreter(tmp_path: Path, flatten: bool) -> None:
    data = small_float(flatten)
    net = load_tflite(write(tmp_path, data))
    assert net.left_off == ("SOFTMAX",)
    images = np.random.default_rng(0).normal(0, 1, (5, 10, 7, 3)).astype(np.float32)
    x = torch.from_numpy(channels_first(images))
    normal = capture(net, x)
    expected = interpreted(data, [images])["logits"]
    assert np.abs(expected).max() > 0.5
    with torch.no_grad():
        np.testing.assert_allclose(net(x).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(normal(x).numpy(), expected, atol=1e-5)


def test_float_modules_are_named_after_outputs(tmp_path: Path) -> None:
    net = load_tflite(write(tmp_path, small_float()))
    assert [name for name, _ in net.named_children()][:3] == ["conv_3", "depthwise_6", "sum_7"]
    assert isinstance(net.get_submodule("conv_3.conv"), torch.nn.Conv2d)


def test_float16_weights_are_widened(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (5, 3)).astype(np.float16)
    tensors = [
        FileTensor("x", (1, 3), "float32"),
        FileTensor("half", data=weight),
        FileTensor("weight", (5, 3), "float32"),
        FileTensor("y", (1, 5), "float32"),
    ]
    operators = [
        FileOperator("DEQUANTIZE", [1], [2], "DequantizeOptions", {}, 3),
        FileOperator("FULLY_CONNECTED", [0, 2, -1], [3], "FullyConnectedOptions"),
    ]
    data = tflite_bytes(tensors, operators, [0], [3])
    x = np.random.default_rng(1).normal(0, 1, (4, 3)).astype(np.float32)
    with torch.no_grad():
        found = load_tflite(write(tmp_path, data))(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, x @ weight.astype(np.float32).T, rtol=1e-5)
    np.testing.assert_allclose(found, interpreted(data, [x])["y"], rtol=1e-5)


def bilinear(size: int, dtype: str = "float32", **options: bool) -> bytes:
    """An image of 3x4 pixels and 2 channels, resized to `size` rows and 8 columns."""
    scale = [0.1] * (dtype == "int8")
    tensors = [
        FileTensor("x", (1, 3, 4, 2), dtype, scale=scale),
        FileTensor("size", data=np.array([size, 8], np.int32)),
        FileTensor("y", (1, size, 8, 2), dtype, scale=scale),
    ]
    operator = FileOperator("RESIZE_BILINEAR", [0, 1], [2], "ResizeBilinearOptions", options, 3)
    return tflite_bytes(tensors, [operator], [0], [2])


@pytest.mark.parametrize("size", [3, 6, 9])
def test_bilinear_upsampling_in_float(tmp_path: Path, size: int) -> None:
    data = bilinear(size, HalfPixelCenters=True)
    net, images = load_tflite(write(tmp_path, data)), random_images((5, 3, 4, 2)).astype(np.float32) / 50
    x = torch.from_numpy(channels_first(images))
    with torch.no_grad():
        found = channels_last(net(x).numpy())
    np.testing.assert_allclose(found, interpreted(data, [images])["y"], atol=1e-5)
    graph = bf.quantize(net, [x])
    value, output = graph.inputs[0], graph.output_values[0]
    assert value.qparams is not None and output.qparams is not None
    integers = run_fast(graph, quantize(channels_first(images), value.qparams, value.type))
    assert isinstance(integers, np.ndarray)
    real = channels_last(dequantize(integers, output.qparams))
    assert np.abs(real - found).max() < 1.1 * float(output.qparams.scale[0])


@pytest.mark.parametrize(
    ("size", "options", "load", "expected"),
    [
        (6, {}, load_tflite, "y_2: RESIZE_BILINEAR without half_pixel_centers"),
        (6, {"AlignCorners": True}, load_tflite, "RESIZE_BILINEAR with align_corners"),
        (7, {"HalfPixelCenters": True}, load_tflite, "RESIZE_BILINEAR from [3, 4] to (7, 8); only by whole factors"),
        (6, {"HalfPixelCenters": True}, load_quantized_tflite, "RESIZE_BILINEAR in an int8 model"),
    ],
)
def test_other_bilinear_upsampling_is_refused(
    tmp_path: Path, size: int, options: dict[str, bool], load: Any, expected: str
) -> None:
    dtype = "float32" if load is load_tflite else "int8"
    assert expected in refusal(write(tmp_path, bilinear(size, dtype, **options)), load)


# What is refused


def single_line(error: BitfabError, path: Path) -> str:
    text = str(error)
    assert "\n" not in text and str(path) in text
    return text


def refusal(path: Path, load: Any = load_quantized_tflite) -> str:
    with pytest.raises(BitfabError) as caught:
        load(path)
    return single_line(caught.value, path)


def test_what_is_no_tflite_file(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "missing.tflite")
    assert "no TFLite file" in refusal(write(tmp_path, b""))
    assert "no TFLite file" in refusal(write(tmp_path, b"PK\x03\x04 something else"))
    assert "damaged" in refusal(write(tmp_path, b"\xff\xff\xff\x7fTFL3"))


def test_unsupported_operators_are_named(tmp_path: Path) -> None:
    tensors = [FileTensor(name, (1, 4), scale=[0.1]) for name in ("x", "y")]
    data = tflite_bytes(tensors, [FileOperator("SIN", [0], [1])], [0], [1])
    assert "y_1: SIN is not supported; supported are ADD," in refusal(write(tmp_path, data))


def test_float_and_int8_point_to_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, small_float())
    assert not is_quantized(path)
    assert "load_tflite reads float32" in refusal(path)
    path = write(tmp_path, small_int8())
    assert is_quantized(path)
    assert "load_quantized_tflite reads such models" in refusal(path, load_tflite)


def test_shapes_that_contradict_are_found(tmp_path: Path) -> None:
    ends = (FileTensor("x", (1, 4, 4, 2), scale=[0.1]), FileTensor("y", (1, 3, 4, 2), scale=[0.1]))
    options = POOL | {"StrideH": 1, "StrideW": 1}
    with pytest.raises(BitfabError, match="the file says"):
        one_operator(tmp_path, "MAX_POOL_2D", ends, options=("Pool2DOptions", options))


def test_constants_that_do_not_fill_their_shapes_are_found(tmp_path: Path) -> None:
    data = bytearray(small_int8())
    shape = np.array([4, 8, 3, 3, 3], np.int32).tobytes()  # a vector's length, then the first weight's shape
    place = data.find(shape)
    assert place > 0
    data[place + 4] = 9
    assert "takes 243" in refusal(write(tmp_path, bytes(data)))


def test_truncated_files(tmp_path: Path) -> None:
    data = small_int8()
    for size in range(8, len(data), 97):
        refusal(write(tmp_path, data[:size]))


@pytest.mark.parametrize("load", [load_quantized_tflite, load_tflite])
def test_mutated_files_load_or_are_refused(tmp_path: Path, load: Any) -> None:
    """Bytes overwritten at random, half of the times where tables and offsets lie and not weights."""
    rng, refused = np.random.default_rng(0), 0
    original = small_int8() if load is load_quantized_tflite else small_float()
    for case in range(200):
        data = bytearray(original)
        for _ in range(rng.integers(1, 12)):
            place = rng.integers(8, len(data)) if case % 2 else rng.integers(8, len(data) // 3)
            data[place] = rng.integers(0, 256)
        path = write(tmp_path, bytes(data))
        try:
            load(path)
        except BitfabError as error:
            single_line(error, path)
            refused += 1
    assert 20 < refused < 200


# The models of MLPerf Tiny


def needed(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    return path


def test_resnet8_int8_equals_the_interpreter() -> None:
    path, images = needed(MODELS / "pretrainedResnet_quant.tflite"), np.load(needed(CIFAR))["x"][:2]
    codes = (images.astype(np.int16) - 128).astype(np.int8)
    graph = load_quantized_tflite(path)
    assert_equal(graph, path.read_bytes(), codes)
    np.testing.assert_array_equal(
        run_fast(graph, channels_first(codes)), traced(graph, codes)["model/dense/MatMul;model/dense/BiasAdd"]
    )


@pytest.mark.parametrize(("name", "tolerance"), [("pretrainedResnet", 1e-4), ("vww_96_float", 1e-5)])
def test_float_models_equal_the_interpreter(name: str, tolerance: float) -> None:
    path = needed(MODELS / f"{name}.tflite")
    net = load_tflite(path)
    if name == "pretrainedResnet":
        images = np.load(needed(CIFAR))["x"][:3].astype(np.float32)
    else:
        images = np.random.default_rng(0).uniform(0, 1, (3, 96, 96, 3)).astype(np.float32)
    found = interpreted(path.read_bytes(), [images])
    with torch.no_grad():
        logits = net(torch.from_numpy(channels_first(images))).numpy()
    np.testing.assert_allclose(logits, found["model/dense/MatMul;model/dense/BiasAdd"], atol=tolerance)
