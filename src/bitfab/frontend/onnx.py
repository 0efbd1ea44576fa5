"""Float ONNX files as torch modules: one submodule a node, named after it: an ordinary layer, or torch calls."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.frontend import onnx_file
from bitfab.frontend.calls import Unsupported
from bitfab.frontend.onnx_modules import layer
from bitfab.frontend.onnx_ops import OPERATORS
from bitfab.frontend.onnx_static import STATIC, Budget, evaluate
from bitfab.frontend.onnx_values import Value

__all__ = ["Network", "Operator", "example_input", "load_onnx"]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
# Operators whose constants are weights, even single ones; in others a single constant is a number.
_WEIGHTED = {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul"}
_NUMBERS = {"Clip", "Pad", "Resize"}  # operators whose constants are numbers, never weights
_PARAMETERS = {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}
# What torch and Python raise where attributes, weights and inputs do not fit each other.
_MISFITS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError, OverflowError, ZeroDivisionError)
_QUANTIZED = re.compile(r"QLinear.*|.*Integer|QGemm|.*QuantizeLinear|Quant|BipolarQuant|Trunc")
_FOREIGN_QUANTIZED = ("onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general")


def load_onnx(path: str | os.PathLike[str]) -> Network:
    """The network of a float ONNX file (opset 11 to 24) as an ordinary module, in eval mode.

    It takes one tensor of the shape that the file declares, with any batch size (also where the file fixes it), and
    computes in float32. Its parameters are the file's weights; `quantize` and `prepare` take it as any other module.
    What depends on constants alone is computed here; nodes that no output needs are left out.

    Raises:
        BitfabError: the file is missing, damaged or quantized, or a node has no torch counterpart; one line that names
            it and the remedy.
    """
    path = Path(path)
    model = onnx_file.read_model(path)
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    kind = type(name if name[:1].isalpha() else f"net_{name}", (Network,), {"__module__": __name__})
    try:
        network = kind(model)
    except BitfabError as error:
        raise BitfabError(f"{path}: {error}") from error
    return network.eval()


def example_input(network: Network) -> Tensor:
    """Zeros of the shape that the network takes, one image; raises BitfabError where the file leaves it open."""
    sizes = network.input_shape[1:]
    if any(size is None for size in sizes):
        raise BitfabError(f"{network.input_name}: its shape {sizes} is open; give an input of the shape that you use")
    return torch.zeros(1, *(size for size in sizes if size is not None))


class Operator(nn.Module):
    """One node: `forward(inputs)` takes its computed inputs by position and gives its output, or a tuple of them.

    Float constants are parameters (`weight`, `bias` at positions 1 and 2); the other ones are in `constants`.
    """

    def __init__(self, node: NodeProto, constants: Mapping[int, NDArray[Any]], opset: int, batch: int | None) -> None:
        super().__init__()
        self.node, self.opset, self.batch = node, opset, batch
        self.kind, self.outputs = node.op_type, len(node.output)
        self.attributes = onnx_file.attributes(node)
        self.constants = dict(constants)
        self.names: dict[int, str] = {}
        for position, array in constants.items():
            if array.dtype.kind == "f" and self.kind not in _NUMBERS and (array.size > 1 or self.kind in _WEIGHTED):
                self._register(position, array)

    def _register(self, position: int, array: NDArray[Any]) -> None:
        tensor = torch.from_numpy(array.astype(np.float32, copy=True))
        name = _PARAMETERS.get(position, f"input_{position}")
        if self.kind == "BatchNormalization" and position > 2:
            self.register_buffer(name, tensor)
        else:
            setattr(self, name, nn.Parameter(tensor))
        self.names[position] = name

    def forward(self, inputs: Mapping[int, Value]) -> Any:
        computed = any(isinstance(value, Tensor) for value in inputs.values())
        if self.kind in ("Shape", "Size") and computed:
            return self._sizes(inputs[0])
        try:
            if not computed:
                return evaluate(self.node, self.opset, {**self.constants, **inputs}, Budget())
            values = [self._value(position, inputs) for position in range(len(self.node.input))]
            if self.kind not in OPERATORS:
                raise Unsupported("of values computed from the network's input")
            return OPERATORS[self.kind](self, *values)
        except Unsupported as unsupported:
            raise BitfabError(f"{onnx_file.node_name(self.node)}: not supported ({unsupported})") from None
        except _MISFITS as error:
            reason = onnx_file.first_line(error)
            raise BitfabError(f"{onnx_file.node_name(self.node)}: does not fit its input ({reason})") from error

    def _value(self, position: int, inputs: Mapping[int, Value]) -> Value:
        if position in self.names:
            return getattr(self, self.names[position])
        return inputs[position] if position in inputs else self.constants.get(position)

    def _sizes(self, x: Value) -> NDArray[np.int64]:
        assert isinstance(x, Tensor)
        if self.kind == "Size":
            return np.asarray(x.numel(), dtype=np.int64)
        start, end = self.attributes.get("start", 0), self.attributes.get("end")
        return np.asarray(tuple(x.shape)[start:end], dtype=np.int64)

    def extra_repr(self) -> str:
        return self.kind


class Network(nn.Module):
    """The nodes of a file in their order; `input_shape` holds None for axes of any size, the batch among them."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        constants = {
            name: array.astype(np.float32) if array.dtype.kind == "f" or "float" in array.dtype.name else array
            for name, array in onnx_file.initializers(model).items()
        }
        self.input_name, self.input_shape, batch = _input(model, constants)
        self.output_names = [output.name for output in model.graph.output]
        self.steps: list[tuple[str, NodeProto]] = []
        budget, opset = Budget(), onnx_file.opset(model)
        for number, node in enumerate(_needed(model, constants)):
            if _is_static(node, constants):
                constants |= _computed(node, opset, constants, budget)
                continue
            _check_supported(node)
            known = {i: constants[name] for i, name in enumerate(node.input) if name in constants}
            name = self._free(node.name or f"{node.op_type}_{number}")
            plain = layer(node.op_type, onnx_file.attributes(node), known)
            self.add_module(name, plain or Operator(node, known, opset, batch))
            self.steps.append((name, node))
        if self.input_name not in {name for _, node in self.steps for name in node.input}:
            raise BitfabError(f"its outputs do not depend on its input {self.input_name!r}; export the whole network")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """One tensor, or a tuple where the file has several outputs, in its order."""
        self._check_input(x)
        values: dict[str, Any] = {self.input_name: x}
        for name, node in self.steps:
            inputs = {i: values[source] for i, source in enumerate(node.input) if source in values}
            module = self.get_submodule(name)
            result = module(inputs) if isinstance(module, Operator) else _applied(module, node, inputs)
            results = result if isinstance(result, tuple | list) else (result,)
            values.update(zip(node.output, results, strict=False))
        outputs = tuple(values[name] for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs

    def _check_input(self, x: Tensor) -> None:
        given, wanted = tuple(x.shape), self.input_shape
        if len(given) != len(wanted) or any(w not in (None, g) for g, w in zip(given[1:], wanted[1:], strict=True)):
            sizes = ", ".join("any" if size is None else str(size) for size in wanted[1:])
            raise BitfabError(f"{self.input_name}: input of shape {given[1:]} per image, ({sizes}) expected")

    def _free(self, name: str) -> str:
        """An attribute's name like the node's: letters, digits and _ alone."""
        name = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "node"
        free, number = name, 1
        while hasattr(self, free):
            number += 1
            free = f"{name}_{number}"
        return free


def _applied(module: nn.Module, node: NodeProto, inputs: Mapping[int, Value]) -> Any:
    """An ordinary layer on the node's computed inputs."""
    try:
        return module(*(inputs[position] for position in sorted(inputs)))
    except _MISFITS as error:
        reason = onnx_file.first_line(error)
        raise BitfabError(f"{onnx_file.node_name(node)}: does not fit its input ({reason})") from error


def _input(model: ModelProto, constants: Mapping[str, Any]) -> tuple[str, tuple[int | None, ...], int | None]:
    """The name and shape of the network's one input, and the batch size that the file fixes."""
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise BitfabError(f"{len(inputs)} inputs ({names[:80]}), a network of one is supported; export it with one")
    (value,) = inputs
    tensor = value.type.tensor_type
    if tensor.elem_type not in _FLOATS or not tensor.HasField("shape") or len(tensor.shape.dim) < 2:
        raise BitfabError(f"{value.name}: floats of shape (N, ...) expected as the network's input; export it so")
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim]
    if math.prod(size or 1 for size in sizes) > onnx_file.MAX_ELEMENTS:
        raise BitfabError(f"{value.name}: input of shape {tuple(sizes)}, too large; use smaller images")
    return value.name, (None, *sizes[1:]), sizes[0]


def _needed(model: ModelProto, constants: Mapping[str, Any]) -> list[NodeProto]:
    """The nodes that the outputs depend on, in the file's order, which is topological."""
    wanted = {output.name for output in model.graph.output}
    needed = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output) - {""}:
            needed.append(node)
            wanted |= set(node.input)
    missing = [output.name for output in model.graph.output if output.name in constants]
    if missing or not model.graph.output:
        raise BitfabError("its outputs do not depend on its input; export the whole network")
    return needed[::-1]


def _is_static(node: NodeProto, constants: Mapping[str, Any]) -> bool:
    return all(name in constants for name in node.input if name) and node.op_type in STATIC and not node.domain


def _computed(
    node: NodeProto, opset: int, constants: Mapping[str, NDArray[Any]], budget: Budget
) -> dict[str, NDArray[Any]]:
    inputs = {i: constants[name] for i, name in enumerate(node.input) if name}
    try:
        results = evaluate(node, opset, inputs, budget)
    except Unsupported as unsupported:
        raise BitfabError(f"{onnx_file.node_name(node)}: not supported ({unsupported})") from None
    return dict(zip(node.output, results if isinstance(results, tuple) else (results,), strict=False))


def _check_supported(node: NodeProto) -> None:
    name, kind = onnx_file.node_name(node), node.op_type
    if _QUANTIZED.fullmatch(kind) or node.domain in _FOREIGN_QUANTIZED:
        raise BitfabError(
            f"{name}: this network is quantized already; import it as an integer graph, or give the float network"
        )
    if node.domain not in ("", "ai.onnx") or (kind not in OPERATORS and kind not in STATIC):
        known = ", ".join(sorted(OPERATORS))
        raise BitfabError(f"{name}: this operator is not supported; export the network with others: {known}")
