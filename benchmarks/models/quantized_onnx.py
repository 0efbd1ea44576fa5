"""Quantized ONNX files as integer graphs, beside their reference executors on real inputs.

Parts: `qonnx` (TFC_2W2A on MNIST's test images, or random ones where these are not installed; the QKeras jet tagger on
jets; beside QONNX's own executor, in an environment of its own) and `static` (a residual CNN with random weights, made
int8 by onnxruntime's quantize_static in both of its formats, on CIFAR-10 images; beside onnxruntime without its
optimizations). Data: ../shared/data; a part whose data is absent is left out, visibly.

Decisions must be equal for every input; values that differ are counted. Both sides get what the graph's integer inputs
mean: normalized pixels lie on halves of codes, which float32 and float64 round to different sides, and the jet tagger
quantizes its input nowhere, so that it gets 16-bit codes; what it makes of the jets as they are stands beside.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from benchmarks.common import ROOT, Check, peer_python
from bitfab.data import jets, mnist
from bitfab.dtypes import dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.frontend.onnx_quantized import load_quantized_onnx
from bitfab.ir import Graph
from bitfab.ir.run_fast import run_fast

DATA = ROOT.parent / "shared" / "data"
WORK = ROOT / "build" / "bench"
QONNX = ["qonnx==1.0.0", "onnx==1.21.0", "onnxruntime==1.31.0", "numpy==2.4.6"]
SAME = 1e-5  # of a softmax's value: what float32 leaves open

Images = NDArray[np.float32]


def qonnx(count: int) -> Iterator[Check]:
    """QONNX files beside QONNX's own executor, on `count` inputs each."""
    tfc, tagger = DATA / "models" / "TFC_2W2A.onnx", DATA / "models" / "qkeras_jettagging.onnx"
    features = DATA / "jets" / "jets_20k.npz"
    if not all(path.exists() for path in (tfc, tagger, features)):
        print("qonnx: left out, ../shared/data/models or jets is absent", file=sys.stderr)
        return
    try:
        digits = mnist.load()
        pixels, figures = digits.test_images[:count, None], digits.test_labels[:count]
        yield from _compared("TFC_2W2A, MNIST", tfc, (pixels / np.float32(255)).astype(np.float32), figures)
    except BitfabError as error:
        print(f"qonnx: random strokes instead of MNIST ({error})", file=sys.stderr)
        yield from _compared("TFC_2W2A, random strokes", tfc, _strokes(count), None)
    values, _ = jets.load(features)
    values = ((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32)
    yield from _compared("qkeras_jettagging", tagger, values[:count], None)  # trained on other jets


def _strokes(count: int) -> Images:
    """Images (count, 1, 28, 28) of a few bright rectangles: as dark at the border and as bright inside as digits."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 1, 28, 28), np.float32)
    for image in images[:, 0]:
        for top, left, height, width in rng.integers((4, 4, 2, 2), (18, 18, 12, 5), (6, 4)):
            image[top : top + height, left : left + width] = rng.integers(128, 256) / np.float32(255)
    return images


def _compared(name: str, model: Path, x: Images, labels: NDArray[np.int64] | None) -> Iterator[Check]:
    graph = load_quantized_onnx(model)
    border = graph.inputs[0].qparams
    assert border
    codes = quantize(x, border, graph.inputs[0].type)
    seen = dequantize(codes, border).astype(np.float32)
    ours, theirs = _run(graph, codes), _executed(model, seen)
    softmax = name == "qkeras_jettagging"
    yield Check.at_least(f"{name}: share of equal decisions, {len(x)} inputs", _agreement(ours, theirs), 1.0)
    meaning = graph.output_values[0].qparams
    assert meaning
    values, near, unit = (_softmax(ours), SAME, f"{SAME:g}") if softmax else (ours, meaning.scale[0] / 2, "half a code")
    apart = np.abs(values - theirs)
    yield Check(f"{name}: values apart by more than {unit}, of {apart.size:,}", float((apart > near).sum()))
    yield Check(f"{name}: largest difference of a value", float(apart.max()))
    if labels is not None:
        yield Check(f"{name}: accuracy of the integer graph", float((ours.argmax(axis=1) == labels).mean()))
    if softmax:
        agreement = _agreement(ours, _executed(model, x))
        yield Check(f"{name}: share of equal decisions, its input in float32", agreement)


def _run(graph: Graph, codes: NDArray[Any]) -> NDArray[np.float64]:
    made, meaning = run_fast(graph, codes), graph.output_values[0].qparams
    assert meaning and not isinstance(made, tuple)
    return np.asarray(dequantize(made, meaning), dtype=np.float64)


def _executed(model: Path, x: Images) -> NDArray[np.float32]:
    """What QONNX's executor gives."""
    given, made = WORK / "qonnx_images.npy", WORK / "qonnx_outputs.npy"
    np.save(given, x)
    script = ROOT / "benchmarks" / "peers" / "interop_qonnx.py"
    subprocess.run([peer_python("qonnx", QONNX), script, model, given, made], check=True)
    return np.asarray(np.load(made))


def _agreement(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def static(count: int) -> Iterator[Check]:
    """A network made int8 by onnxruntime, beside onnxruntime without its optimizations, on `count` images."""
    file = DATA / "cifar10" / "cifar10_4000.npz"
    if not file.exists():
        print("static: left out, ../shared/data/cifar10 is absent", file=sys.stderr)
        return
    images = np.load(file)["x"][: count + 100].transpose(0, 3, 1, 2)
    x = ((images / 255 - 0.5) / 0.25).astype(np.float32)
    source = WORK / "interop_float.onnx"
    onnx.save(_network(np.random.default_rng(0)), source)
    for form in ("QDQ", "QOperator"):
        for signed in (False, True):
            model = WORK / "interop_int8.onnx"
            _quantized(source, model, x[:100], form, signed)
            graph = load_quantized_onnx(model)
            border, meaning = graph.inputs[0], graph.output_values[0].qparams
            assert border.qparams and meaning
            codes = quantize(x[100:], border.qparams, border.type)
            ours = _run(graph, codes)
            theirs = _runtime(model, dequantize(codes, border.qparams).astype(np.float32))
            apart = np.abs(np.rint((ours - theirs) / meaning.scale[0]))
            name = f"quantize_static {form}, {'int8' if signed else 'uint8'} activations"
            yield Check.at_most(f"{name}: largest difference in codes", float(apart.max()), 1)
            yield Check.at_most(f"{name}: share of differing outputs", float((apart > 0).mean()), 0.05)
            yield Check.at_least(f"{name}: share of equal decisions", _agreement(ours, theirs), 0.995)


def _quantized(source: Path, model: Path, x: Images, form: str, signed: bool) -> None:
    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"x": x}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    types = quantization.QuantType
    quantization.quantize_static(
        source,
        model,
        Reader(),
        quant_format=quantization.QuantFormat[form],
        per_channel=True,
        activation_type=types.QInt8 if signed else types.QUInt8,
        weight_type=types.QInt8,
        extra_options={"ActivationSymmetric": signed},
    )


def _runtime(model: Path, x: Images) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return np.asarray(onnxruntime.InferenceSession(model, options).run(None, {"x": x})[0])


def _network(rng: np.random.Generator) -> onnx.ModelProto:
    """Two residual blocks, depthwise and pointwise, pooling, a concat with a table, a dense layer."""
    nodes, constants = [], []

    def layer(operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(array: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(np.asarray(array, np.float32), f"constant_{len(constants)}"))
        return str(constants[-1].name)

    def conv(x: str, outs: int, ins: int, size: int, group: int = 1, stride: int = 1) -> str:
        weight = rng.normal(0, np.sqrt(2 / (ins * size * size)), (outs, ins, size, size))
        parameters = constant(weight), constant(rng.normal(0, 0.1, outs))
        return layer("Conv", x, *parameters, pads=[size // 2] * 4, group=group, strides=[stride, stride])

    x = layer("Relu", conv("x", 16, 3, 3))
    x = layer("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = layer("Add", conv(layer("Relu", conv(x, 16, 16, 3)), 16, 16, 3), x)
    x = layer("Concat", x, layer("Sigmoid", x), axis=1)
    x = layer("Relu", conv(layer("Relu", conv(x, 32, 1, 3, group=32, stride=2)), 32, 32, 1))
    x = layer("Relu", layer("Add", conv(x, 32, 32, 3), x))
    x = layer("Flatten", layer("GlobalAveragePool", x))
    y = layer("Gemm", x, constant(rng.normal(size=(32, 10))), constant(rng.normal(size=10)))
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["n", 3, 32, 32]), (y, ["n", 10]))
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
