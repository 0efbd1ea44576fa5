"""Small float ONNX models made on the spot, for tests of the front end and of its robustness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference


class Nodes:
    """Grows a list of nodes over one input `x`; constants become initializers by themselves."""

    def __init__(self, opset: int, seed: int = 0) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.rng = np.random.default_rng(seed)

    def constant(self, array: Any, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype=dtype)
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(numbers, np.int64)

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.normal(size=shape) * (2 / max(np.prod(shape[1:]), 1)) ** 0.5)

    def add(self, kind: str, *inputs: str, outputs: int = 1, name: str | None = None, **attributes: Any) -> Any:
        """A node named `kind_number` unless named; returns the name of its output, or of its outputs."""
        name = f"{kind.lower()}_{len(self.nodes)}" if name is None else name
        made = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def over_axes(self, kind: str, x: str, *axes: int, since: int = 13, **attributes: Any) -> str:
        """Squeeze, Unsqueeze and reductions: their axes are an attribute in old opsets, an input since `since`."""
        if self.opset >= since:
            return self.add(kind, x, self.ints(*axes), **attributes)
        return self.add(kind, x, axes=list(axes), **attributes)

    def model(self, outputs: Sequence[str] | str, shape: Sequence[int | str | None]) -> ModelProto:
        """The model, with the shapes that follow; `shape` is that of the input `x`, batch axis included."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8 if self.opset < 22 else 10)
        inferred = shape_inference.infer_shapes(model, data_prop=True)
        for output in inferred.graph.output:
            if not output.type.tensor_type.HasField("shape"):
                output.type.tensor_type.shape.dim.add()
        return inferred


def saved(model: ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def small_network(opset: int = 13) -> ModelProto:
    """A convolution with its activation, a pool, shape arithmetic and a dense layer, for images (N, 3, 8, 8)."""
    net = Nodes(opset)
    y = net.add("Conv", "x", net.weight(4, 3, 3, 3), net.weight(4), pads=[1, 1, 1, 1])
    y = net.add("Mul", y, net.add("Sigmoid", y))
    y = net.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    batch = net.add("Gather", net.add("Shape", y), net.constant(0, np.int64), axis=0)
    size = net.add("Concat", net.over_axes("Unsqueeze", batch, 0), net.ints(-1), axis=0)
    y = net.add("Reshape", y, size)
    return net.model(net.add("Gemm", y, net.weight(5, 64), net.weight(5), transB=1), ["N", 3, 8, 8])


def damage_targets() -> list[ModelProto]:
    """Small ONNX files that reach most of the reader: sizes from shapes, slices, resizes, pads, transposes."""
    net = Nodes(17)
    y = net.add("Conv", "x", net.weight(4, 3, 3, 3), net.weight(4), auto_pad="SAME_UPPER", strides=[2, 2])
    y = net.add("BatchNormalization", y, *(net.constant(np.ones(4)) for _ in range(4)))
    y = net.add("Slice", net.add("Relu", y), net.ints(0), net.ints(3), net.ints(1), net.ints(2))
    y = net.add("Resize", y, "", net.constant([1, 1, 2, 2]), mode="nearest", nearest_mode="floor",
                coordinate_transformation_mode="asymmetric")  # fmt: skip
    y = net.add("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1))
    y = net.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.add("Transpose", net.add("Concat", y, net.add("Tanh", y), axis=3), perm=[0, 2, 3, 1])
    y = net.add("Expand", net.over_axes("ReduceMean", y, 2, 3, since=18), net.ints(1, 1, 1, 1))
    shaped = net.model(net.add("Reshape", y, net.ints(0, -1)), (1, 3, 8, 8))
    return [small_network(), shaped]
