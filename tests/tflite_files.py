"""Small TFLite files for tests, written with the schema's own builder functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

TYPES = {
    "float32": tflite.TensorType.FLOAT32,
    "float16": tflite.TensorType.FLOAT16,
    "int8": tflite.TensorType.INT8,
    "uint8": tflite.TensorType.UINT8,
    "int16": tflite.TensorType.INT16,
    "int32": tflite.TensorType.INT32,
}
SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID
NONE, RELU, RELU6 = (getattr(tflite.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6"))


@dataclass(frozen=True)
class FileTensor:
    """A tensor of the file; constants have `data`, whose shape and dtype then count."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "int8"
    scale: Sequence[float] = ()
    zero_point: int = 0
    axis: int = 0
    data: NDArray[Any] | None = None


@dataclass(frozen=True)
class FileOperator:
    """An operator; its options as (class of the schema, fields in the schema's spelling)."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: str = ""
    fields: Mapping[str, int | float | bool] = field(default_factory=dict)
    version: int = 1


def tflite_bytes(
    tensors: Sequence[FileTensor], operators: Sequence[FileOperator], inputs: Sequence[int], outputs: Sequence[int]
) -> bytes:
    """The file's contents; buffer 0 is empty, as the format wants."""
    builder = flatbuffers.Builder(1024)
    arrays = [None if t.data is None else np.ascontiguousarray(t.data) for t in tensors]
    buffers = [_buffer(builder, None)]
    places = []
    for array in arrays:
        places.append(0 if array is None else len(buffers))
        if array is not None:
            buffers.append(_buffer(builder, array))
    made = [_tensor(builder, t, array, place) for t, array, place in zip(tensors, arrays, places, strict=True)]
    codes = [_code(builder, operator) for operator in operators]
    nodes = [_operator(builder, operator, position) for position, operator in enumerate(operators)]
    graph = _subgraph(builder, made, nodes, inputs, outputs)
    vectors = [_offsets(builder, items) for items in (codes, [graph], buffers)]
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, vectors[0])
    tflite.ModelAddSubgraphs(builder, vectors[1])
    tflite.ModelAddBuffers(builder, vectors[2])
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def _offsets(builder: flatbuffers.Builder, items: Sequence[int]) -> int:
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return builder.EndVector()


def _numbers(builder: flatbuffers.Builder, values: Sequence[float], dtype: str) -> int:
    return builder.CreateNumpyVector(np.asarray(values, dtype=dtype))


def _buffer(builder: flatbuffers.Builder, array: NDArray[Any] | None) -> int:
    data = None
    if array is not None:
        raw = array.tobytes()
        builder.StartVector(1, len(raw), 16)
        builder.head = builder.head - len(raw)
        builder.Bytes[builder.head : builder.head + len(raw)] = raw
        data = builder.EndVector()
    tflite.BufferStart(builder)
    if data is not None:
        tflite.BufferAddData(builder, data)
    return tflite.BufferEnd(builder)


def _tensor(builder: flatbuffers.Builder, tensor: FileTensor, array: NDArray[Any] | None, buffer: int) -> int:
    name = builder.CreateString(tensor.name)
    shape = _numbers(builder, tensor.shape if array is None else array.shape, "int32")
    quantization = None
    if len(tensor.scale):
        scale = _numbers(builder, tensor.scale, "float32")
        zeros = _numbers(builder, [tensor.zero_point] * len(tensor.scale), "int64")
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scale)
        tflite.QuantizationParametersAddZeroPoint(builder, zeros)
        tflite.QuantizationParametersAddQuantizedDimension(builder, tensor.axis)
        quantization = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, TYPES[tensor.dtype if array is None else str(array.dtype)])
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, name)
    if quantization is not None:
        tflite.TensorAddQuantization(builder, quantization)
    return tflite.TensorEnd(builder)


def _code(builder: flatbuffers.Builder, operator: FileOperator) -> int:
    code = getattr(tflite.BuiltinOperator, operator.kind)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(code, 127))
    tflite.OperatorCodeAddVersion(builder, operator.version)
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    return tflite.OperatorCodeEnd(builder)


def _operator(builder: flatbuffers.Builder, operator: FileOperator, position: int) -> int:
    options = None
    if operator.options:
        getattr(tflite, f"{operator.options}Start")(builder)
        for name, value in operator.fields.items():
            getattr(tflite, f"{operator.options}Add{name}")(builder, value)
        options = getattr(tflite, f"{operator.options}End")(builder)
    inputs, outputs = (_numbers(builder, ends, "int32") for ends in (operator.inputs, operator.outputs))
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, position)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    if options is not None:
        tflite.OperatorAddBuiltinOptionsType(builder, getattr(tflite.BuiltinOptions, operator.options))
        tflite.OperatorAddBuiltinOptions(builder, options)
    return tflite.OperatorEnd(builder)


def _subgraph(
    builder: flatbuffers.Builder,
    tensors: Sequence[int],
    nodes: Sequence[int],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> int:
    name = builder.CreateString("main")
    vectors = (_offsets(builder, tensors), _numbers(builder, inputs, "int32"), _numbers(builder, outputs, "int32"))
    operators = _offsets(builder, nodes)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, vectors[0])
    tflite.SubGraphAddInputs(builder, vectors[1])
    tflite.SubGraphAddOutputs(builder, vectors[2])
    tflite.SubGraphAddOperators(builder, operators)
    tflite.SubGraphAddName(builder, name)
    return tflite.SubGraphEnd(builder)
