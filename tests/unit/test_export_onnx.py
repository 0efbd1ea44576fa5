"""Exported ONNX files against `run`: exact where ONNX's arithmetic is, else within one step; their looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import bitfab as bf
from bitfab.dtypes import IntArray, IntType, QParams, Rounding, dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.export import Style, export_onnx
from bitfab.export.meaning import SUMS, absorbed
from bitfab.ir import Builder, Graph, run
from bitfab.ir.graph import rebuild
from bitfab.ir.ops import Add, Bits, Compare, Concat, Lut, Op, Popcount, Requantize, Table, TopK
from tests.nets import Spec, build, specs
from tests.qonnx_standard import standard
from tests.strategies import ALL_OPS, batch, graphs

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LUT_OPS = (Compare, Bits, Lut, Popcount)
STYLES = tuple(Style)
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # each example loads a file: it would take minutes
Export = Callable[[Graph, str], "onnx.ModelProto"]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Write, read again, and check with ONNX's own checker, shapes of all tensors included."""
    path = tmp_path_factory.mktemp("export") / "net.onnx"

    def exported(graph: Graph, style: str) -> onnx.ModelProto:
        export_onnx(graph, path, style)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        return model

    return exported


def execute(model: onnx.ModelProto, inputs: Sequence[np.ndarray], optimize: bool = True) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(standard(model).SerializeToString(), options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def codes_of(graph: Graph, model: onnx.ModelProto, inputs: Sequence[IntArray], optimize: bool = True) -> list[IntArray]:
    """What a file makes of the reals that integers mean, as the output values' integers."""
    reals = [
        dequantize(x, value.qparams or QParams((1.0,))).astype(np.float32)
        for x, value in zip(inputs, graph.inputs, strict=True)
    ]
    found = []
    for real, value in zip(execute(model, reals, optimize), graph.output_values, strict=True):
        meaning = value.qparams or QParams((1.0,))
        steps = np.rint(real / meaning.scale_array(real.ndim - 1)) + meaning.zero_point
        found.append(real if real.dtype == np.int64 else steps.astype(np.int64))
    return found


def expected(graph: Graph, inputs: Sequence[IntArray]) -> tuple[IntArray, ...]:
    result = run(graph, *inputs)
    return result if isinstance(result, tuple) else (result,)


def powers_of_two(op: Op, even_zero: bool) -> Op:
    """A requantize whose factors are powers of two, and that rounds as ONNX does (or down).

    QONNX's Quant adds the zero point before it rounds, so that a tie goes to another even number where that is odd.
    """
    if not isinstance(op, Requantize):
        return op
    exponent = np.rint(np.log2(op.multiplier.astype(float))).astype(np.int64) - op.shift
    multiplier, shift = np.left_shift(1, np.maximum(exponent, 0)), np.maximum(-exponent, 0)
    down = op.rounding is Rounding.FLOOR and shift.max() <= 11
    zero = op.output_zero & ~1 if even_zero else op.output_zero
    rounding = Rounding.FLOOR if down else Rounding.HALF_EVEN
    return replace(op, multiplier=multiplier, shift=shift, rounding=rounding, output_zero=zero)


def exact_graph(graph: Graph, style: str, optimize: bool) -> Graph:
    """The graph with powers of two; leaves out what ONNX cannot compute exactly, or onnxruntime approximates."""
    try:
        graph = rebuild(graph, tuple(replace(n, op=powers_of_two(n.op, style == Style.QONNX)) for n in graph.nodes))
    except BitfabError:
        assume(False)
    assume(all(max(-value.low, value.high) < 1 << 23 for value in graph.values.values()))
    unrounded, sums = (
        absorbed(graph, fine=style == Style.QOPERATOR),
        {n.name for n in graph.nodes if isinstance(n.op, SUMS)},
    )
    for node in graph:
        if node.name in unrounded:  # in front of an addition they leave out a rounding
            assume(not node.op.shift.any() or all(isinstance(n.op, Concat) for n in graph.users[node.name]))
        elif isinstance(node.op, Requantize) and style == Style.QDQ and optimize:
            assume(node.inputs[0] in sums)  # onnxruntime merges two quantizations in a row, at a scale of its own
    return graph


@pytest.mark.parametrize("style", STYLES)
def test_random_graphs_are_exact(style: str, export: Export) -> None:
    """Every operation, type, padding, zero point and clip; scales are powers of two, so equality is exact."""

    @given(graph=graphs(ops=tuple(set(ALL_OPS) - set(LUT_OPS))), seed=st.integers(0, 99), optimize=st.booleans())
    @settings(deadline=None, max_examples=50, phases=WITHOUT_SHRINKING)
    def check(graph: Graph, seed: int, optimize: bool) -> None:
        graph = exact_graph(graph, style, optimize)
        try:
            model = export(graph, style)
        except BitfabError as error:
            assert "transposed convolution" in str(error)
            return
        inputs = batch(graph, seed)
        for found, wanted in zip(codes_of(graph, model, inputs, optimize), expected(graph, inputs), strict=True):
            np.testing.assert_array_equal(found, wanted)

    check()


def calibrated(net: nn.Module, shape: Sequence[int], recipe: bf.Recipe, count: int = 16) -> tuple[Graph, np.ndarray]:
    images = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    return bf.quantize(net, images, recipe), images


def test_random_networks(export: Export) -> None:
    """Quantized torch networks, any scales: few outputs off in any style; with powers of two, none."""
    off: list[float] = []

    @given(spec=specs(max_stages=3), po2=st.booleans(), bits=st.sampled_from([8, 8, 4, 6, 16]))
    @settings(deadline=None, max_examples=8, phases=WITHOUT_SHRINKING)
    def check(spec: Spec, po2: bool, bits: int) -> None:
        kind, rounding = ("po2", Rounding.HALF_EVEN) if po2 else ("real", Rounding.HALF_UP)
        recipe = bf.Recipe(weights=min(bits, 8), activations=bits, scale=kind, rounding=rounding)
        try:
            graph, images = calibrated(build(spec), spec.shape, recipe)
        except BitfabError:  # a layer whose outputs are all the same
            return
        inputs = [quantize(images, graph.inputs[0].qparams, graph.inputs[0].type)]
        (wanted,) = expected(graph, inputs)
        factors = [node.op.multiplier for node in graph if isinstance(node.op, Requantize)]
        shifts_only = all((factor & (factor - 1) == 0).all() for factor in factors)
        small = all(max(-value.low, value.high) < 1 << 24 for value in graph.values.values())
        for style in STYLES:
            (found,) = codes_of(graph, export(graph, style), inputs)
            if style != Style.QONNX and po2 and shifts_only and small:
                np.testing.assert_array_equal(found, wanted)
            off.append(float((found != wanted).mean()))

    check()
    assert np.mean(off) <= 0.05


class Wide(nn.Module):
    """What a detector's neck is made of: branches, a concatenation, an addition, averages, SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.left, self.right = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 1)
        self.tail = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.SiLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        left = torch.relu(self.left(x))
        return self.head(self.tail(torch.cat([left + self.right(x), left], dim=1)))


@pytest.fixture(scope="module")
def wide() -> tuple[Graph, np.ndarray]:
    torch.manual_seed(0)
    return calibrated(Wide().eval(), (3, 32, 32), bf.Recipe(), 64)


def test_float32_rounds_as_the_graph_does(wide: tuple[Graph, np.ndarray], export: Export) -> None:
    graph, images = wide
    inputs = [quantize(images, graph.inputs[0].qparams, graph.inputs[0].type)]
    (wanted,) = expected(graph, inputs)
    for style in STYLES:
        for optimize in (True, False):
            (found,) = codes_of(graph, export(graph, style), inputs, optimize)
            if optimize or style is not Style.QDQ:  # whose convolutions are then float ones
                np.testing.assert_array_equal(found, wanted)
            assert np.abs(found - wanted).max() <= 1
            assert (found != wanted).mean() <= 0.05
            assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.995


def test_onnxruntime_fuses_all(wide: tuple[Graph, np.ndarray], export: Export, tmp_path: Path) -> None:
    """No convolution, product or addition is left in float: QDQ becomes what QOperator says directly."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 4
    for style in (Style.QDQ, Style.QOPERATOR):
        model = export(wide[0], style)
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
        assert (kinds["QLinearConv"], kinds["QLinearConcat"], kinds["QGemm"]) == (4, 1, 1)
        assert kinds["QLinearGlobalAveragePool"] == 1
        assert not {"Conv", "Concat", "Gemm", "GlobalAveragePool"} & set(kinds)
        assert kinds["QLinearAdd"] == 1


def test_names_shapes_and_metadata(wide: tuple[Graph, np.ndarray], export: Export) -> None:
    graph, _ = wide
    for style in STYLES:
        model = export(graph, style)
        assert model.producer_name == "bitfab"
        assert model.metadata_props[0].key == "bitfab"
        assert model.ir_version <= 10
        assert [value.name for value in model.graph.input] == [value.name for value in graph.inputs]
        assert [value.name for value in model.graph.output] == list(graph.outputs)
        known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
        made = {name for node in model.graph.node for name in node.output}
        assert made == known.keys()
        for name, value in known.items():
            if name in graph.values and style is not Style.QONNX:
                shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
                assert tuple(shape) == graph.values[name].shape
        assert {node.doc_string for node in model.graph.node} >= {"left", "right", "head.2"}


def test_the_same_graph_gives_the_same_bytes(wide: tuple[Graph, np.ndarray], tmp_path: Path) -> None:
    for style in STYLES:
        for path in (tmp_path / "a.onnx", tmp_path / "b.onnx"):
            export_onnx(wide[0], path, style)
        assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(("weights", "activations", "kinds"), [
    (8, 8, {"INT8", "UINT8"}), (4, 4, {"INT4", "UINT8"}), (8, 16, {"INT8", "UINT16"}), (2, 6, {"INT4", "UINT8"})
])  # fmt: skip
def test_types(weights: int, activations: int, kinds: set[str], export: Export) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    recipe = bf.Recipe(weights=weights, activations=activations)
    graph, images = calibrated(net, (2, 9, 9), recipe)
    model = export(graph, Style.QDQ)
    stored = {tensor.data_type for tensor in model.graph.initializer}
    assert {getattr(onnx.TensorProto, kind) for kind in kinds} <= stored
    assert model.opset_import[0].version == (21 if {"INT4", "UINT16"} & kinds else 13)
    clips = sum(node.op_type == "Clip" for node in model.graph.node)
    assert clips == (activations < 8)  # the boundary keeps 8 bits
    inputs = [quantize(images, graph.inputs[0].qparams, graph.inputs[0].type)]
    (found,), (wanted,) = codes_of(graph, model, inputs), expected(graph, inputs)
    assert np.abs(found - wanted).max() <= (8 if activations == 16 else 1)


def test_binary_networks(export: Export) -> None:
    """Signs and thresholds are exact in every style; QONNX has a node for each."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Hardtanh(), nn.Conv2d(8, 8, 3), nn.Hardtanh(),
                        nn.Conv2d(8, 4, 3)).eval()  # fmt: skip
    graph, images = calibrated(net, (2, 10, 10), bf.Recipe(weights=1, activations=1, symmetric_activations=True))
    inputs = [quantize(images, graph.inputs[0].qparams, graph.inputs[0].type)]
    for style in STYLES:
        model = export(graph, style)
        (found,), (wanted,) = codes_of(graph, model, inputs), expected(graph, inputs)
        assert np.abs(found - wanted).max() <= 1
        if style is Style.QONNX:
            assert Counter(node.op_type for node in model.graph.node)["BipolarQuant"] == 5


@pytest.mark.parametrize("k", [1, 3])
def test_the_largest_channels_of_an_image(k: int, export: Export) -> None:
    """Ties abound; the indices leave as int64, and are numbers to who reads them."""
    builder = Builder("largest")
    best = builder.add("best", TopK(k), builder.input("x", (5, 3, 4), IntType(2, signed=True)))
    graph = builder.build((best, builder.add("twice", Add(), (best, best))))
    inputs = batch(graph, seed=0, size=20)
    for style in STYLES:
        indices, twice = codes_of(graph, export(graph, style), inputs)
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(indices, expected(graph, inputs)[0])
        np.testing.assert_array_equal(twice, 2 * indices)


def test_a_table_is_exact(export: Export) -> None:
    """Any table over signed codes of 5 bits, every code looked up."""
    type = IntType(5, signed=True)
    builder, rng = Builder("lookup"), np.random.default_rng(0)
    x = builder.input("x", (32,), type, QParams((0.1,), 3))
    builder.add("y", Table(rng.integers(0, 256, 32).astype(np.uint8), type, IntType(8, False)), x, QParams((0.02,), 7))
    graph = builder.build(("y",))
    inputs = [np.arange(type.low, type.high + 1)[None]]
    for style in STYLES:
        np.testing.assert_array_equal(codes_of(graph, export(graph, style), inputs)[0], expected(graph, inputs)[0])


def test_errors(wide: tuple[Graph, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(BitfabError, match="style 'tflite': choose one of qdq, qoperator, qonnx"):
        export_onnx(wide[0], tmp_path / "net.onnx", "tflite")
    builder = Builder("luts")
    bits = builder.add(
        "bits", Compare(np.zeros(2, np.int64), np.arange(2)), builder.input("x", (3,), IntType(4, False))
    )
    with pytest.raises(BitfabError, match="bits: Compare of a LUT network has no ONNX form"):
        export_onnx(builder.build((bits,)), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
