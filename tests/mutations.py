"""Seeded damage to files: to any bytes, and to the structure of ONNX models, where a wrong number gets furthest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

Rng = np.random.Generator

# What arithmetic on sizes stumbles over.
EXTREMES = (0, 1, -1, 2, 3, 7, -2, 255, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))


def damaged(data: bytes, rng: Rng) -> bytes:
    """One to four bytes changed, or a part cut off, left out, doubled, overwritten or filled with zeros."""
    array = bytearray(data)
    start, end = sorted(int(i) for i in rng.integers(0, len(array) + 1, 2))
    match int(rng.integers(0, 7)):
        case 0:
            return bytes(array[:start])
        case 1:
            return bytes(array[:start] + array[end:])
        case 2:
            return bytes(array[:end] + array[start:])
        case 3:
            array[start:end] = bytes(end - start)
        case 4:
            end = min(end, start + 16)
            array[start:end] = rng.bytes(end - start)
        case _:
            for _ in range(int(rng.integers(1, 5))):
                array[int(rng.integers(0, len(array)))] = int(rng.integers(0, 256))
    return bytes(array)


def damaged_onnx(model: ModelProto, rng: Rng) -> bytes:
    """The model with one to three changes of its parts, each such that protobuf still reads it."""
    changed = ModelProto()
    changed.CopyFrom(model)
    for _ in range(int(rng.integers(1, 4))):
        _CHANGES[int(rng.integers(0, len(_CHANGES)))](changed, rng)
    return changed.SerializeToString()


def _extreme(rng: Rng) -> int:
    return EXTREMES[int(rng.integers(0, len(EXTREMES)))]


def _pick(items: Iterable[Any], rng: Rng) -> Any:
    found = list(items)
    return found[int(rng.integers(0, len(found)))] if found else None


def _array(tensor: TensorProto) -> np.ndarray:
    """A copy of its values; an empty one where an earlier change has spoilt it."""
    try:
        return numpy_helper.to_array(tensor).copy()
    except (ValueError, checker.ValidationError):
        return np.zeros(0, np.int64 if tensor.data_type == TensorProto.INT64 else np.float32)


def _dims(model: ModelProto, rng: Rng) -> None:
    tensor = _pick(model.graph.initializer, rng)
    if isinstance(tensor, TensorProto) and tensor.dims:
        tensor.dims[int(rng.integers(0, len(tensor.dims)))] = _extreme(rng)


def _integers(model: ModelProto, rng: Rng) -> None:
    """Shapes, axes and indices."""
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]
    tensor = _pick(tensors, rng)
    if isinstance(tensor, TensorProto):
        array = _array(tensor)
        if array.size:
            array.reshape(-1)[int(rng.integers(0, array.size))] = _extreme(rng)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _type(model: ModelProto, rng: Rng) -> None:
    tensor = _pick(model.graph.initializer, rng)
    assert isinstance(tensor, TensorProto)
    tensor.data_type = int(rng.integers(0, 26))


def _reals(model: ModelProto, rng: Rng) -> None:
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    tensor = _pick(floats, rng)
    if isinstance(tensor, TensorProto):
        array = _array(tensor)
        if array.size:
            wild = (np.nan, np.inf, -np.inf, 1e38, -1e-45, 0.0)
            array.reshape(-1)[int(rng.integers(0, array.size))] = wild[int(rng.integers(0, len(wild)))]
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _attribute(model: ModelProto, rng: Rng) -> None:
    found = [attribute for node in model.graph.node for attribute in node.attribute]
    attribute = _pick(found, rng)
    if attribute is None:
        return
    if attribute.ints:
        attribute.ints[int(rng.integers(0, len(attribute.ints)))] = _extreme(rng)
    elif attribute.HasField("i"):
        attribute.i = _extreme(rng)
    elif attribute.HasField("f"):
        attribute.f = float(rng.choice([np.nan, np.inf, 0.0, -1e30]))
    else:
        attribute.s = rng.bytes(4)


def _wiring(model: ModelProto, rng: Rng) -> None:
    """An input comes from elsewhere, or from nowhere."""
    node = model.graph.node[int(rng.integers(0, len(model.graph.node)))]
    names = ["", "x", "absent", *(n for other in model.graph.node for n in (*other.input, *other.output))]
    if node.input:
        node.input[int(rng.integers(0, len(node.input)))] = names[int(rng.integers(0, len(names)))]


def _operator(model: ModelProto, rng: Rng) -> None:
    node = model.graph.node[int(rng.integers(0, len(model.graph.node)))]
    kinds = ("Add", "Conv", "Reshape", "Tile", "Expand", "Pad", "ConstantOfShape", "Resize", "Slice", "Softmax", "Loop")
    node.op_type = kinds[int(rng.integers(0, len(kinds)))]


def _fewer(model: ModelProto, rng: Rng) -> None:
    if len(model.graph.node) > 1:
        del model.graph.node[int(rng.integers(0, len(model.graph.node)))]


def _input_shape(model: ModelProto, rng: Rng) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if dims:
        dims[int(rng.integers(0, len(dims)))].dim_value = _extreme(rng)


def _opset(model: ModelProto, rng: Rng) -> None:
    model.opset_import[0].version = int(rng.integers(-1, 30))


def _external(model: ModelProto, rng: Rng) -> None:
    tensor = _pick(model.graph.initializer, rng)
    assert isinstance(tensor, TensorProto)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(rng.choice(["../w", "/dev/zero", ".", "w", "net.onnx"])))
    tensor.external_data.add(key="length", value=str(_extreme(rng)))


def _computed(model: ModelProto, rng: Rng) -> None:
    """A constant as large as it can be claimed, computed by the file itself and read by a node."""
    sizes = numpy_helper.from_array(np.array([max(_extreme(rng), 0), max(_extreme(rng), 0)], np.int64), "claimed")
    model.graph.initializer.append(sizes)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["claimed"], ["huge"], name="huge"))
    node = model.graph.node[-1]
    if node.input:
        node.input[int(rng.integers(0, len(node.input)))] = "huge"


_CHANGES: tuple[Callable[[ModelProto, Rng], None], ...] = (
    *(_dims, _integers, _type, _reals, _attribute, _attribute, _wiring, _operator, _fewer, _input_shape, _opset),
    *(_external, _computed),
)
