"""Reads a TFLite file into plain Python values: tensors, operators and their options, checked and never executed."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["Operator", "Tensor", "TfliteFile", "read_tflite"]

IDENTIFIER = b"TFL3"
MAX_BYTES = 1 << 31  # what the offsets of a flatbuffer reach
# Tensors may share buffers, so what is read may be more than the file; but a file that refers to the same bytes again
# and again must not make much of little.
READ_FACTOR = 8

_DTYPES = {
    getattr(tflite.TensorType, name.upper()): name
    for name in ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")
}
_KINDS = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
_ACTIVATIONS = {code: name for name, code in vars(tflite.ActivationFunctionType).items() if isinstance(code, int)}
_PADDINGS = {code: name for name, code in vars(tflite.Padding).items() if isinstance(code, int)}

_WINDOW = ("padding", "stride_h", "stride_w", "fused_activation_function")
_DILATION = ("dilation_h_factor", "dilation_w_factor")
_OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {  # class of the schema, and the fields that are read
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, *_DILATION)),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, *_DILATION, "depth_multiplier")),
    "TRANSPOSE_CONV": ("TransposeConvOptions", _WINDOW),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "filter_height", "filter_width")),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "filter_height", "filter_width")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("fused_activation_function", "weights_format")),
    "ADD": ("AddOptions", ("fused_activation_function",)),
    "CONCATENATION": ("ConcatenationOptions", ("axis", "fused_activation_function")),
    "MEAN": ("ReducerOptions", ("keep_dims",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("alpha",)),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("align_corners", "half_pixel_centers")),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("align_corners",)),
}
_MEANINGS: Mapping[str, Mapping[int, str]] = {"padding": _PADDINGS, "fused_activation_function": _ACTIVATIONS}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file; `real = scale * (q - zero_point)` where it has scales, one or one for each slice of `axis`.

    dtype is numpy's name; data is a read-only view of the file's bytes, None where the tensor is no constant.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: NDArray[Any] | None
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class Operator:
    """An operator by its builtin name; inputs and outputs are numbers of tensors, -1 for an absent optional input.

    Options have the schema's names in lower case (`stride_h`); padding and activation are words ("SAME", "RELU6").
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float | bool | str]


@dataclass(frozen=True, eq=False)
class TfliteFile:
    """What the file says: operators in the order in which they run, each after the producers of its inputs."""

    path: Path
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(path: Path | str) -> TfliteFile:
    """The model in a .tflite file.

    Checked: the identifier, that every offset, vector and buffer lies within the file, that constants fill their
    shapes, numbers of tensors, types, and that operators come after what they read. Constants are views of the file's
    bytes; nothing larger than the file is allocated.

    Raises:
        BitfabError: the file is missing, damaged, holds several subgraphs or tensors of an unsupported type.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BitfabError(f"{path}: larger than 2 GiB; TFLite files have at most that")
        data = path.read_bytes()
    except OSError as error:
        raise BitfabError(f"{path}: cannot be read ({error.strerror})") from error
    if data[4:8] != IDENTIFIER:
        raise BitfabError(f"{path}: is no TFLite file (it lacks the identifier TFL3)")
    try:
        return _Reader(path, data).read()
    except BitfabError as error:
        raise BitfabError(f"{path}: {error}") from error
    except (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError) as error:
        # What the flatbuffers package raises where an offset or a length leaves the file.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BitfabError(f"{path}: is damaged ({reason}); export the model again") from error


class _Reader:
    """Walks the flatbuffer once."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.left = READ_FACTOR * len(data)
        self.model = tflite.Model.GetRootAsModel(data, 0)

    def read(self) -> TfliteFile:
        if self.model.SubgraphsLength() != 1:
            raise BitfabError(f"{self.model.SubgraphsLength()} subgraphs; only models without control flow are read")
        graph = self.model.Subgraphs(0)
        count = self.count(graph.TensorsLength())
        tensors = tuple(self.tensor(graph.Tensors(i)) for i in range(count))
        operators = tuple(self.operator(graph.Operators(i)) for i in range(self.count(graph.OperatorsLength())))
        file = TfliteFile(self.path, tensors, operators, self.numbers(graph, "Inputs"), self.numbers(graph, "Outputs"))
        _check_order(file)
        return file

    def count(self, length: int, size: int = 4) -> int:
        """The length of a vector whose elements take `size` bytes, found not to read more than the file holds."""
        self.left -= int(length) * size
        if self.left < 0:
            raise ValueError("its parts are larger than the file")
        return int(length)

    def numbers(self, table: Any, field: str) -> tuple[int, ...]:
        """A vector of integers."""
        self.count(getattr(table, f"{field}Length")())
        return tuple(int(i) for i in _vector(table, field))

    def reals(self, table: Any, field: str) -> tuple[float, ...]:
        """A vector of floats."""
        self.count(getattr(table, f"{field}Length")())
        return tuple(float(i) for i in _vector(table, field))

    def tensor(self, table: Any) -> Tensor:
        name = "".join(c if c.isprintable() else "?" for c in (table.Name() or b"").decode("utf-8", "replace"))
        self.count(len(name), 1)
        label = name[:60] or "a tensor"
        dtype = _named(_DTYPES, table.Type(), f"{label}: type")
        shape = self.numbers(table, "Shape")
        if any(size < 0 for size in shape):
            raise BitfabError(f"{label}: shape {shape} has a negative size")
        if table.Sparsity() is not None or table.IsVariable():
            raise BitfabError(
                f"{label}: sparse and variable tensors are not supported; export a dense, stateless model"
            )
        scale, zero_point, axis = self.quantization(table.Quantization(), label)
        return Tensor(name, shape, dtype, self.data(table, label, shape, dtype), scale, zero_point, axis)

    def quantization(self, table: Any, label: str) -> tuple[tuple[float, ...], tuple[int, ...], int]:
        if table is None:
            return (), (), 0
        scale, zero_point = self.reals(table, "Scale"), self.numbers(table, "ZeroPoint")
        if not all(math.isfinite(s) and s > 0 for s in scale):
            raise BitfabError(f"{label}: its scales must be positive and finite; export the model again")
        if scale and len(zero_point) not in (0, len(scale)):
            raise BitfabError(f"{label}: {len(scale)} scales but {len(zero_point)} zero points; export the model again")
        return scale, (zero_point or (0,) * len(scale))[: len(scale)], int(table.QuantizedDimension())

    def data(self, table: Any, label: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any] | None:
        """The constant's elements; None for what is computed."""
        number = table.Buffer()
        if not 0 <= number < self.model.BuffersLength():
            raise BitfabError(f"{label}: its buffer {number} does not exist; the file is damaged, export it again")
        buffer = self.model.Buffers(number)
        if buffer.Offset() or buffer.Size():
            raise BitfabError(f"{label}: its data lie outside the flatbuffer; export a model of less than 2 GiB")
        size = buffer.DataLength()
        if size == 0:
            return None
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        if size != wanted:
            raise BitfabError(f"{label}: {size} bytes of data for shape {shape} of {dtype}, which takes {wanted}")
        self.count(size, 1)
        return _vector(buffer, "Data").view(np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def operator(self, table: Any) -> Operator:
        number = table.OpcodeIndex()
        if not 0 <= number < self.model.OperatorCodesLength():
            raise BitfabError(f"an operator has code {number}, which does not exist; the file is damaged")
        code = self.model.OperatorCodes(number)
        # Old files have the code in one byte, new ones in both fields.
        kind = _named(_KINDS, max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "operator")
        return Operator(kind, self.numbers(table, "Inputs"), self.numbers(table, "Outputs"), self.options(table, kind))

    def options(self, table: Any, kind: str) -> Mapping[str, int | float | bool | str]:
        if kind not in _OPTIONS:
            return {}
        name, fields = _OPTIONS[kind]
        found = table.BuiltinOptions()
        if found is None or table.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, name):
            raise BitfabError(f"{kind}: its options are missing; the file is damaged, export it again")
        options = getattr(tflite, name)()
        options.Init(found.Bytes, found.Pos)
        values = {
            field: getattr(options, "".join(word.capitalize() for word in field.split("_")))() for field in fields
        }
        return {
            field: _named(_MEANINGS[field], value, f"{kind}: {field}") if field in _MEANINGS else value
            for field, value in values.items()
        }


def _vector(table: Any, field: str) -> NDArray[Any]:
    """A vector as an array; the schema's classes say 0 where there is none."""
    read: Callable[[], Any] = getattr(table, f"{field}AsNumpy")
    found = read()
    return found if isinstance(found, np.ndarray) else np.empty(0, np.uint8)


def _named(names: Mapping[int, str], code: int, what: str) -> str:
    if code not in names:
        raise BitfabError(f"{what} {code} is not supported; supported are {', '.join(sorted(names.values())[:20])}")
    return names[code]


def _check_order(file: TfliteFile) -> None:
    """Every number of a tensor exists, every tensor has one producer, and it comes before its readers."""
    known = {i for i, tensor in enumerate(file.tensors) if tensor.data is not None}
    _check_numbers(file, (*file.inputs, *file.outputs), "the model")
    if not file.inputs or not file.outputs:
        raise BitfabError("the model has no inputs or no outputs; export it again")
    known.update(file.inputs)
    for operator in file.operators:
        present = [i for i in operator.inputs if i != -1]
        _check_numbers(file, (*present, *operator.outputs), operator.kind)
        unknown = [i for i in present if i not in known]
        if unknown:
            raise BitfabError(f"{operator.kind}: its input {file.tensors[unknown[0]].name[:60]!r} comes from nowhere")
        if not operator.outputs or any(i in known for i in operator.outputs):
            raise BitfabError(f"{operator.kind}: its output is missing or defined already; export the model again")
        known.update(operator.outputs)
    missing = [i for i in file.outputs if i not in known]
    if missing:
        raise BitfabError(f"its output {file.tensors[missing[0]].name[:60]!r} comes from nowhere; export it again")


def _check_numbers(file: TfliteFile, numbers: Sequence[int], what: str) -> None:
    if any(not 0 <= i < len(file.tensors) for i in numbers):
        raise BitfabError(f"{what}: refers to a tensor that does not exist; the file is damaged, export it again")
