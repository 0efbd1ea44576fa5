"""Products of two computed values: squeeze-and-excite gates and SiLU by hand, from torch to integers and to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bitfab as bf
from bitfab.dtypes import IntType, QParams, dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.export import Style, export_onnx
from bitfab.ir import Builder, Graph, run
from bitfab.ir.ops import Multiply
from bitfab.ir.run_fast import run_fast
from tests.qonnx_standard import standard

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


class Gated(nn.Module):
    """A block with squeeze-and-excitation (Hu et al. 2018, 1709.01507), and a product of two images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.side = nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y = gate * x
        return self.head(torch.relu(y * self.side(y)))


@pytest.fixture(scope="module")
def gated() -> tuple[Gated, Graph, np.ndarray]:
    torch.manual_seed(0)
    net = Gated().eval()
    images = np.random.default_rng(0).normal(size=(48, 3, 12, 12)).astype(np.float32)
    return net, bf.quantize(net, images[:32]), images


def test_the_graph_follows_the_network(gated: tuple[Gated, Graph, np.ndarray]) -> None:
    net, graph, images = gated
    products = [node for node in graph if isinstance(node.op, Multiply)]
    assert [graph.values[node.inputs[1]].shape for node in products] == [(8, 1, 1), (8, 12, 12)]
    (x,), (y,) = graph.inputs, graph.output_values
    assert x.qparams is not None and y.qparams is not None
    codes = quantize(images, x.qparams, x.type)
    found = run(graph, codes)
    np.testing.assert_array_equal(run_fast(graph, codes), found)
    with torch.no_grad():
        wanted = net(torch.from_numpy(images)).numpy()
    error = dequantize(np.asarray(found), y.qparams) - wanted
    assert 10 * np.log10((wanted**2).sum() / (error**2).sum()) > 30


@pytest.mark.parametrize("style", list(Style))
def test_exported_files_are_exact(style: str, gated: tuple[Gated, Graph, np.ndarray], tmp_path: Path) -> None:
    _, graph, images = gated
    export_onnx(graph, tmp_path / "net.onnx", style)
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    (x,), (y,) = graph.inputs, graph.output_values
    assert x.qparams is not None and y.qparams is not None
    codes = quantize(images, x.qparams, x.type)
    session = onnxruntime.InferenceSession(standard(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (real,) = session.run(None, {x.name: dequantize(codes, x.qparams).astype(np.float32)})
    np.testing.assert_array_equal(np.rint(real / y.qparams.scale[0]) + y.qparams.zero_point, run(graph, codes))


def test_training_under_quantization(gated: tuple[Gated, Graph, np.ndarray]) -> None:
    """With powers of two the prepared network and its graph agree in every bit."""
    net, _, images = gated
    recipe = bf.Recipe(scale="po2")
    prepared = bf.prepare(net, images[:32], recipe)
    graph = bf.lower(prepared)
    (x,), (y,) = graph.inputs, graph.output_values
    assert x.qparams is not None and y.qparams is not None
    codes = quantize(images, x.qparams, x.type)
    with torch.no_grad():
        trained = prepared.eval().double()(torch.from_numpy(images).double()).numpy()
    np.testing.assert_array_equal(dequantize(np.asarray(run(graph, codes)), y.qparams), trained)


@given(
    types=st.tuples(*[st.builds(IntType, st.integers(2, 16), st.booleans())] * 2),
    zeros=st.tuples(st.integers(-200, 200), st.integers(-200, 200)),
    shape=st.sampled_from([(3, 2, 2), (3, 1, 1)]),
)
def test_the_definition(types: tuple[IntType, IntType], zeros: tuple[int, int], shape: tuple[int, int, int]) -> None:
    builder, rng = Builder("product"), np.random.default_rng(0)
    a = builder.input("a", (3, 2, 2), types[0], QParams((1.0,)))
    b = builder.input("b", shape, types[1], QParams((1.0,)))
    try:
        graph = builder.build((builder.add("y", Multiply(*zeros), (a, b)),))
    except BitfabError as error:
        assert "32 are supported" in str(error)
        return
    x, y = (rng.integers(v.type.low, v.type.high, (4, *v.shape), endpoint=True).astype(np.int64) for v in graph.inputs)
    wanted = [[(int(p) - zeros[0]) * (int(q) - zeros[1]) for p, q in zip(r, s, strict=True)]
              for r, s in zip(x.reshape(4, -1), np.broadcast_to(y, x.shape).reshape(4, -1), strict=True)]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(run(graph, x, y)).reshape(4, -1), wanted)
    np.testing.assert_array_equal(np.asarray(run_fast(graph, x, y)).reshape(4, -1), wanted)
    value = graph.output_values[0]
    corners = [(p - zeros[0]) * (q - zeros[1]) for p in (types[0].low, types[0].high)
               for q in (types[1].low, types[1].high)]  # fmt: skip
    assert (value.low, value.high) == (min(corners), max(corners))


def test_shapes_that_do_not_fit() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.relu(x[:, :, :1])

    with pytest.raises(BitfabError, match="of one shape, or an image by a factor for each channel"):
        bf.quantize(Odd(), np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32))
