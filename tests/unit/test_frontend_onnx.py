"""Float ONNX files: what onnxruntime computes is what the module, its normal form and the integer graph compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper
from torch import fx, nn

import bitfab as bf
from bitfab.dtypes import dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.frontend.onnx import example_input, load_onnx
from bitfab.frontend.torch import capture
from bitfab.ir import Graph, run
from bitfab.ir.ops import Concat, Conv2d, ConvTranspose2d, Multiply, Slice, Table, TopK, Transpose
from bitfab.ir.run_fast import run_fast
from tests.onnx_files import Nodes, saved, small_network

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
Shape = tuple[int | str, ...]
Network = Callable[[Nodes], tuple[Any, Shape]]  # outputs, input shape


def session(model: ModelProto) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def reference(model: ModelProto, x: np.ndarray) -> np.ndarray:
    executor = session(model)
    return np.concatenate([executor.run(None, {"x": image[None]})[0] for image in x])


def assert_whole_way(model: ModelProto, folder: Path, least_db: float = 25.0) -> tuple[Graph, fx.GraphModule]:
    """onnxruntime = the module = its normal form, `run` = `run_fast`, and the integer graph is near; both returned."""
    net = load_onnx(saved(model, folder))
    shape = [int(size) if isinstance(size, int) else 8 for size in net.input_shape[1:]]
    x = RNG.normal(size=(6, *shape)).astype(np.float32)
    expected = reference(model, x)
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
        normal = capture(net, torch.from_numpy(x[:1]))
        np.testing.assert_allclose(normal(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
    graph = bf.quantize(normal, [x])
    value, output = graph.inputs[0], graph.output_values[0]
    codes = quantize(x, value.qparams, value.type)
    found = run(graph, codes)
    np.testing.assert_array_equal(run_fast(graph, codes), found)
    if output.qparams is not None:
        noise = dequantize(found, output.qparams) - expected
        assert 10 * np.log10((expected**2).sum() / (noise**2).sum()) > least_db
    return graph, normal


def classifier(net: Nodes) -> tuple[Any, Shape]:
    y = net.add("Conv", "x", net.weight(6, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    statistics = [net.constant(RNG.uniform(0.5, 1.5, 6)) for _ in range(4)]
    y = net.add("Relu", net.add("BatchNormalization", y, *statistics))
    z = net.add("Conv", y, net.weight(6, 1, 3, 3), net.weight(6), group=6, pads=[0, 1, 2, 1], dilations=[1, 1])
    y = net.add("Add", net.add("Clip", z, net.constant(0.0), net.constant(6.0)), y)
    y = net.add("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    y = net.add("Flatten", net.add("Dropout", net.add("GlobalAveragePool", y)))
    return net.add("Gemm", y, net.weight(6, 5), net.weight(1, 5), alpha=0.5, beta=2.0), ("N", 3, 9, 9)


def keras(net: Nodes) -> tuple[Any, Shape]:
    """As tf2onnx writes: images (H, W, C) transposed first, MatMul and Add, Squeeze behind a kept mean."""
    y = net.add("Transpose", "x", perm=[0, 3, 1, 2])
    y = net.add("Conv", y, net.weight(4, 3, 2, 2))
    y = net.add("Add", y, net.weight(1, 4, 1, 1))
    y = net.add("LeakyRelu", y, alpha=0.2)
    y = net.over_axes("ReduceMean", y, 2, 3, since=18, keepdims=1)
    y = net.over_axes("Squeeze", y, 2, 3)
    y = net.add("Add", net.add("MatMul", y, net.weight(4, 6)), net.weight(6))
    return net.add("Tanh", y), (1, 8, 8, 3)


def detector(net: Nodes) -> tuple[Any, Shape]:
    """Slices as YOLOX's focus, SiLU in parts, upsampling, and heads joined behind reshapes, as detectors have it."""
    rows = [net.add("Slice", "x", net.ints(i), net.ints(99), net.ints(2), net.ints(2)) for i in (0, 1)]
    parts = [net.add("Slice", r, net.ints(i), net.ints(2**60), net.ints(-1), net.ints(2)) for r in rows for i in (0, 1)]
    y = net.add("Conv", net.add("Concat", *parts, axis=1), net.weight(8, 12, 1, 1), net.weight(8))
    y = net.add("Mul", net.add("Sigmoid", y), y)
    small = net.add("Conv", y, net.weight(8, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    roi = net.constant([]) if net.opset < 13 else ""
    wide = net.add("Resize", small, roi, net.constant([1, 1, 2, 2]), mode="nearest", nearest_mode="floor",
                   coordinate_transformation_mode="asymmetric")  # fmt: skip
    heads = [
        net.add("Reshape", net.add("Conv", net.add("Relu", value), net.weight(5, 8, 1, 1)), net.ints(1, 5, -1))
        for value in (net.add("Add", wide, y), small)
    ]
    return net.add("Transpose", net.add("Concat", *heads, axis=2), perm=[0, 2, 1]), (1, 3, 8, 8)


def layouts(net: Nodes) -> tuple[Any, Shape]:
    """Space to depth and back, splits, gathers, unsqueezed and flattened again."""
    y = net.add("SpaceToDepth", "x", blocksize=2)
    halves = {"num_outputs": 2} if net.opset >= 18 else {}
    a, b = net.add("Split", y, outputs=2, axis=1, **halves)
    y = net.add("Conv", net.add("Concat", b, a, axis=1), net.weight(8, 12, 1, 1))
    y = net.add("DepthToSpace", y, blocksize=2)
    y = net.add("Gather", y, net.ints(1, 0), axis=1)
    y = net.add("Concat", y, net.add("Relu", y), axis=-1)
    y = net.over_axes("Unsqueeze", net.add("Gather", y, net.constant(1, np.int64), axis=1), 1)
    return net.add("Flatten", net.add("Pad", net.add("Identity", y), net.ints(*[0] * 8))), ("N", 3, 8, 8)


def curves(net: Nodes) -> tuple[Any, Shape]:
    """Every activation, on channels of their own scale."""
    y = net.add("Conv", "x", net.weight(4, 3, 1, 1), net.weight(4))
    kinds: list[tuple[str, dict[str, Any]]] = [
        *(("HardSigmoid", {}), ("HardSigmoid", {"alpha": 1 / 6}), ("Elu", {"alpha": 0.7}), ("Selu", {})),
        *(("Softplus", {}), ("Softsign", {}), ("Sigmoid", {}), ("Abs", {}), ("Celu", {}), ("Erf", {})),
        *((("HardSwish", {}),) if net.opset >= 14 else ()),
        *((("Mish", {}),) if net.opset >= 18 else ()),
        *((("Gelu", {"approximate": "tanh"}),) if net.opset >= 20 else ()),
    ]
    kinds = [k for k in kinds if k[0] != "Celu" or net.opset >= 12]
    made = [net.add(kind, y, **attributes) for kind, attributes in kinds]
    made.append(net.add("PRelu", y, net.constant(RNG.uniform(0, 0.5, (4, 1, 1)))))
    made.append(net.add("PRelu", y, net.constant([[[0.3]]])))
    made.append(net.add("Max", net.add("Min", y, net.constant(0.5)), net.constant(-0.25)))
    return net.add("Concat", *made, axis=1), (1, 3, 6, 6)


def arithmetic(net: Nodes) -> tuple[Any, Shape]:
    """Constants before, between and behind layers; a normalization written out; a product with one row a pixel."""
    y = net.add("Div", net.add("Sub", "x", net.constant(RNG.normal(size=(1, 3, 1, 1)))), net.constant(0.7))
    y = net.add("ConvTranspose", y, net.weight(3, 4, 3, 3), strides=[2, 2], pads=[1, 0, 0, 1], output_padding=[1, 0])
    y = net.add("Mul", y, net.constant(RNG.uniform(0.5, 2, (4, 1, 1))))
    y = net.add("Sub", net.constant(0.3), net.add("Neg", y))
    z = net.add("Add", net.add("Relu", y), net.constant(RNG.normal(size=(4, 1, 1))))
    y = net.add("Sum", y, z)
    y = net.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    rows = net.add("Reshape", net.add("Transpose", y, perm=[0, 2, 3, 1]), net.ints(0, -1, 4))
    return net.add("MatMul", rows, net.weight(4, 3)), ("N", 3, 6, 6)


# Each in the opsets between which its operators changed.
NETWORKS: dict[Network, tuple[int, ...]] = {
    classifier: (11, 17),
    keras: (11, 13, 21),
    detector: (11, 21),
    layouts: (11, 13, 21),
    curves: (13, 21),
    arithmetic: (17,),
}
CASES = [(network, opset) for network, opsets in NETWORKS.items() for opset in opsets]


@pytest.mark.parametrize(("network", "opset"), CASES, ids=lambda case: getattr(case, "__name__", str(case)))
def test_networks_equal_onnxruntime_and_become_exact_graphs(network: Network, opset: int, tmp_path: Path) -> None:
    net = Nodes(opset)
    outputs, shape = network(net)
    assert_whole_way(net.model(outputs, shape), tmp_path, 20.0)


def test_detector_keeps_its_shape_and_names(tmp_path: Path) -> None:
    net = Nodes(13)
    outputs, shape = detector(net)
    graph, _ = assert_whole_way(net.model(outputs, shape), tmp_path)
    assert graph.name == "net" and graph.output_values[0].shape == (20, 5)
    ops = [type(node.op) for node in graph]
    assert (
        ops[-1] is Transpose and ops.count(Slice) == 6 and ops.count(Table) == 2
    )  # SiLU, and a ReLU of what others read
    assert [node.op.axis for node in graph if isinstance(node.op, Concat)] == [0, 1]
    sources = {node.source for node in graph}
    assert {"slice_0", "conv_7", "mul_9"} <= sources
    with pytest.raises(BitfabError, match="reorder them"):
        bf.generate(graph)


@pytest.mark.parametrize("name", ["SiLU", "Hardswish", "GELU", "GELU tanh", "Mish", "Hardsigmoid"])
def test_activations_written_out_are_recognized(name: str, tmp_path: Path) -> None:
    net = Nodes(17)
    y = net.add("Conv", "x", net.weight(4, 3, 1, 1), net.weight(4))

    def scaled(value: str, factor: float) -> str:
        return net.add("Mul", value, net.constant(factor))

    def shifted(value: str, shift: float) -> str:
        return net.add("Add", value, net.constant(shift))

    match name:
        case "SiLU":
            net.add("Mul", y, net.add("Sigmoid", y))
        case "Hardswish":
            ramp = net.add("Clip", shifted(y, 3), net.constant(0), net.constant(6))
            net.add("Div", net.add("Mul", y, ramp), net.constant(6))
        case "Hardsigmoid":
            net.add("Div", net.add("Clip", shifted(y, 3), net.constant(0), net.constant(6)), net.constant(6))
        case "GELU":
            gate = shifted(net.add("Erf", net.add("Div", y, net.constant(2**0.5))), 1)
            scaled(net.add("Mul", y, gate), 0.5)
        case "GELU tanh":
            cube = scaled(net.add("Pow", y, net.constant(3)), 0.044715)
            gate = shifted(net.add("Tanh", scaled(net.add("Add", y, cube), (2 / np.pi) ** 0.5)), 1)
            net.add("Mul", scaled(y, 0.5), gate)
        case "Mish":
            net.add("Mul", y, net.add("Tanh", net.add("Softplus", y)))
    model = net.model(net.nodes[-1].output[0], (1, 3, 6, 6))
    graph, normal = assert_whole_way(model, tmp_path, 30.0)
    assert [type(m).__name__ for m in normal.children()] == ["Conv2d", name.split()[0]]
    assert sum(isinstance(node.op, Table) for node in graph) == 1


def test_other_functions_of_a_value_are_one_table(tmp_path: Path) -> None:
    net = Nodes(13)
    y = net.add("Conv", "x", net.weight(4, 3, 1, 1), net.weight(4))
    root = net.add("Sqrt", net.add("Add", net.add("Mul", y, y), net.constant(0.01)))
    graph, _ = assert_whole_way(net.model(net.add("Div", y, root), (1, 3, 6, 6)), tmp_path)
    assert [type(node.op).__name__ for node in graph] == ["Conv2d", "Requantize", "Table"]


def test_constants_become_part_of_the_layer_before_them(tmp_path: Path) -> None:
    net = Nodes(13)
    y = net.add("Conv", "x", net.weight(4, 3, 3, 3))
    y = net.add("Add", net.add("Mul", y, net.weight(4, 1, 1)), net.weight(1, 4, 1, 1))
    y = net.add("MatMul", net.add("Flatten", net.add("Relu", y)), net.weight(64, 3))
    graph, _ = assert_whole_way(net.model(net.add("Add", y, net.weight(3)), ("N", 3, 6, 6)), tmp_path)
    kinds = [type(node.op).__name__ for node in graph]
    assert kinds == ["Conv2d", "Requantize", "Reshape", "Dense", "Requantize"]


def test_a_layer_read_twice_keeps_its_weights(tmp_path: Path) -> None:
    net = Nodes(13)
    y = net.add("Conv", "x", net.weight(4, 3, 3, 3))
    assert_whole_way(net.model(net.add("Add", net.add("Mul", y, net.weight(4, 1, 1)), y), (1, 3, 6, 6)), tmp_path)


MODES = st.sampled_from(["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "half_pixel_symmetric"])
ROUNDINGS = st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])


@settings(deadline=None, max_examples=100)
@given(
    *(st.sampled_from(["nearest", "linear"]), MODES, ROUNDINGS),
    *(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.booleans()),
)
def test_resize_equals_onnxruntime_or_is_refused(
    kind: str, mode: str, rounding: str, height: int, width: int, factor: int, by_sizes: bool
) -> None:
    """Whatever is accepted is what onnxruntime computes; the usual modes are accepted."""
    net = Nodes(19)
    sizes = net.ints(1, 2, height * factor, width * factor)
    scales = net.constant([1, 1, factor, factor])
    inputs = ("x", "", "", sizes) if by_sizes else ("x", "", scales)
    y = net.add("Resize", *inputs, mode=kind, coordinate_transformation_mode=mode, nearest_mode=rounding)
    model = net.model(y, (1, 2, height, width))
    x = RNG.normal(size=(2, 2, height, width)).astype(np.float32)
    try:
        with TemporaryDirectory() as folder:
            found = load_onnx(saved(model, Path(folder)))(torch.from_numpy(x))
    except BitfabError as error:
        assert "resize_0 (Resize): not supported" in str(error)
        if kind == "nearest":
            assert (mode, rounding) not in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"))
        else:
            assert mode in ("asymmetric", "align_corners")
    else:
        np.testing.assert_allclose(found.numpy(), reference(model, x), rtol=0, atol=1e-6 * (kind == "linear"))


@pytest.mark.parametrize("factors", [(2, 2), (3, 1), (4, 2)])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel"])
def test_linear_resize_is_interpolation_in_integers(coordinates: str, factors: tuple[int, int], tmp_path: Path) -> None:
    net = Nodes(13)
    y = net.add("Conv", "x", net.weight(4, 3, 3, 3), net.weight(4), pads=[1, 1, 1, 1])
    scales = net.constant([1, 1, *factors])
    y = net.add("Resize", y, "", scales, mode="linear", coordinate_transformation_mode=coordinates)
    model = net.model(net.add("Relu", y), ("N", 3, 5, 4))
    graph, normal = assert_whole_way(model, tmp_path, 30.0)
    assert [type(module).__name__ for module in normal.children()] == ["Conv2d", "Bilinear", "ReLU"]
    assert sum(isinstance(node.op, ConvTranspose2d) for node in graph) == 1
    assert graph.output_values[0].shape == (4, 5 * factors[0], 4 * factors[1])


def test_squeeze_and_excitation_multiplies_computed_values(tmp_path: Path) -> None:
    net = Nodes(13)
    image = net.add("Relu", net.add("Conv", "x", net.weight(8, 3, 3, 3), net.weight(8)))
    y = net.add("Relu", net.add("Conv", net.add("GlobalAveragePool", image), net.weight(4, 8, 1, 1), net.weight(4)))
    gate = net.add("Sigmoid", net.add("Conv", y, net.weight(8, 4, 1, 1), net.weight(8)))
    y = net.add("Conv", net.add("Mul", gate, image), net.weight(5, 8, 1, 1))
    graph, normal = assert_whole_way(net.model(y, ("N", 3, 8, 8)), tmp_path, 28.0)
    assert sum(isinstance(node.op, Multiply) for node in graph) == 1
    assert [node.target for node in normal.graph.nodes if node.op == "call_function"] == [torch.mul]


@pytest.mark.parametrize("place", ["input", "relu", "read twice"])
def test_batch_norms_behind_no_layer_get_one(place: str, tmp_path: Path) -> None:
    net = Nodes(13)
    statistics = [net.constant(RNG.uniform(0.5, 1.5, 3)) for _ in range(4)]
    y = "x" if place == "input" else net.add("Conv", "x", net.weight(3, 3, 1, 1), net.weight(3))
    source = net.add("Relu", y) if place == "relu" else y
    normed = net.add("BatchNormalization", source, *statistics)
    joined = net.add("Add", normed, y)
    model = net.model(net.add("Conv", joined, net.weight(5, 3, 3, 3)), ("N", 3, 6, 6))
    graph, _ = assert_whole_way(model, tmp_path, 28.0)
    groups = [node.op.groups for node in graph if isinstance(node.op, Conv2d)]
    assert groups == ([3, 1] if place == "input" else [1, 3, 1])


def test_batch_is_free_also_where_the_file_fixes_it(tmp_path: Path) -> None:
    net = Nodes(13)
    y = net.add("Reshape", net.add("Relu", "x"), net.ints(1, -1))
    path = saved(net.model(net.add("Gemm", y, net.weight(12, 2)), (1, 3, 2, 2)), tmp_path)
    network = load_onnx(path)
    assert network.input_shape == (None, 3, 2, 2) and example_input(network).shape == (1, 3, 2, 2)
    assert network(torch.zeros(5, 3, 2, 2)).shape == (5, 2)
    with pytest.raises(BitfabError, match=r"x: input of shape \(3, 2, 3\) per image, \(3, 2, 2\) expected"):
        network(torch.zeros(1, 3, 2, 3))
    with pytest.raises(BitfabError, match=r"\(3, 2, 3\) per image"):
        capture(network, torch.zeros(1, 3, 2, 3))


def test_weights_are_parameters_that_train(tmp_path: Path) -> None:
    network = load_onnx(saved(small_network(), tmp_path))
    assert {name for name, _ in network.named_parameters()} == {
        *("conv_0.weight", "conv_0.bias", "gemm_9.weight", "gemm_9.bias")
    }
    data = [torch.randn(4, 3, 8, 8)]
    prepared = bf.prepare(network, data)
    loss = nn.functional.mse_loss(prepared(data[0]), torch.zeros(4, 5))
    loss.backward()
    assert all(p.grad is not None for name, p in prepared.named_parameters() if name.endswith("layer.weight"))
    assert bf.lower(prepared).output_values[0].shape == (5,)


def test_several_outputs(tmp_path: Path) -> None:
    net = Nodes(13)
    y = net.add("Relu", "x")
    graph = bf.quantize(
        load_onnx(saved(net.model([y, net.add("Transpose", y, perm=[0, 3, 1, 2])], (1, 2, 3, 4)), tmp_path)),
        [RNG.normal(size=(4, 2, 3, 4)).astype(np.float32)],
    )
    assert [value.shape for value in graph.output_values] == [(2, 3, 4), (4, 2, 3)]


def test_the_indices_of_the_largest(tmp_path: Path) -> None:
    net = Nodes(13)
    scores = net.add("Gemm", "x", net.weight(6, 8), net.weight(8))
    model = net.model(net.add("TopK", scores, net.ints(3), outputs=2, axis=1)[1], ("N", 6))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    graph, _ = assert_whole_way(model, tmp_path)
    assert graph.nodes[-1].op == TopK(3)


def _largest_values() -> ModelProto:
    net = Nodes(13)
    return net.model(net.add("TopK", "x", net.ints(2), outputs=2, axis=1)[0], (1, 3, 4, 4))


def _single(kind: str, *shapes: tuple[int, ...], opset: int = 13, **attributes: Any) -> ModelProto:
    net = Nodes(opset)
    return net.model(net.add(kind, "x", *(net.weight(*s) for s in shapes), **attributes), (1, 3, 4, 4))


def _resized(factor: float, coordinates: str) -> ModelProto:
    net = Nodes(19)
    scales = net.constant([1, 1, factor, factor])
    y = net.add("Resize", "x", "", scales, mode="linear", coordinate_transformation_mode=coordinates)
    return net.model(y, (1, 3, 4, 4))


def _control_flow() -> ModelProto:
    net = Nodes(13)
    branch = helper.make_graph([], "b", [], [])
    return net.model(net.add("If", "x", then_branch=branch, else_branch=branch), (1, 3, 4, 4))


def _two_inputs() -> ModelProto:
    model = _single("Relu")
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    return model


def _quantized() -> ModelProto:
    net = Nodes(13)
    zero = net.constant(0, np.uint8)
    return net.model(net.add("QuantizeLinear", "x", net.constant(0.1), zero, name="q"), (1, 3, 4, 4))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: _single("GRU", (1, 9, 4), (1, 9, 3)), "gru_0 (GRU): this operator is not supported"),
        (lambda: _single("Relu", opset=10), "opset 10, supported are 11 to 24"),
        (lambda: _single("Resize", (0,), (4,), mode="cubic"), "resize_0 (Resize): not supported (mode cubic"),
        (lambda: _resized(2, "align_corners"), "from 4 to 8 with coordinates align_corners: use whole factors"),
        (lambda: _resized(1.5, "half_pixel"), "from 4 to 6 with coordinates half_pixel: use whole factors"),
        (lambda: _resized(1e9, "half_pixel"), "at most 134,217,728 values for each image"),
        (lambda: _single("Softmax"), "softmax_0: softmax is not supported"),
        (lambda: _single("Pad", mode="reflect", opset=10), "opset 10"),
        (_largest_values, "(its values: use its indices alone)"),
        (_control_flow, "if_0 (If): control flow is not supported"),
        (_two_inputs, "2 inputs (x, y)"),
        (_quantized, "q (QuantizeLinear): this network is quantized already"),
    ],
)
def test_unsupported_is_one_clear_line(make: Callable[[], ModelProto], expected: str, tmp_path: Path) -> None:
    path = saved(make(), tmp_path)
    with pytest.raises(BitfabError) as caught:
        bf.quantize(load_onnx(path), [RNG.normal(size=(4, 3, 4, 4)).astype(np.float32)])
    assert expected in str(caught.value) and "\n" not in str(caught.value)
