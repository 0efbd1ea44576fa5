"""Reads .onnx files that nobody vouches for: sizes, paths and structure are checked before anything is believed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, external_data_helper, numpy_helper

from bitfab.errors import BitfabError

__all__ = ["MAX_BYTES", "MAX_ELEMENTS", "attributes", "initializers", "node_name", "opset", "read_model", "to_array"]

OPSETS: Final = range(11, 25)
MAX_BYTES: Final = 1 << 30
"""Of a model with all its external data: far more than any network that is to become hardware holds."""
MAX_ELEMENTS: Final = 1 << 27
"""Of one tensor: a file may claim no larger ones, whether it holds them or has them computed."""

_STANDARD: Final = ("", "ai.onnx")


def read_model(path: str | os.PathLike[str], oldest: int = OPSETS.start) -> ModelProto:
    """The model of a file, passed by the ONNX checker, with all of its external data inlined.

    Every tensor holds as many bytes as its shape claims; there are no subgraphs, local functions or sparse tensors.
    External data are read from the model's own folder alone: absolute paths, `..` and links that leave it are refused.

    Args:
        path: the file.
        oldest: the oldest version of the standard operators that the caller understands; the newest is 24.

    Raises:
        BitfabError: the file is missing, too large, damaged, of another version, or claims what it does not hold.
    """
    path = Path(path)
    try:
        model = _parsed(path)
        _check_versions(model, oldest)
        _check_text(model)
        _check_structure(model)
        _inline_external(model, path)
        for tensor in _tensors(model):
            _check_size(tensor)
        _declare_domains(model)
        onnx.checker.check_model(model)
    except OSError as error:
        raise BitfabError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except BitfabError as error:
        raise BitfabError(f"{path}: {error}") from error
    except Exception as error:  # protobuf and the checker raise many kinds on damaged files
        raise BitfabError(f"{path}: no ONNX model or damaged ({first_line(error)}); export it again") from error
    return model


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes that a node gives: integers, floats, text, lists of them, and tensors as numpy arrays.

    Raises BitfabError for attributes of other kinds and damaged ones.
    """
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        try:
            value = onnx.helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                value = value.decode()
            found[attribute.name] = to_array(value) if isinstance(value, TensorProto) else value
        except (ValueError, TypeError, UnicodeDecodeError) as error:
            raise BitfabError(
                f"{node_name(node)}: attribute {attribute.name} is unreadable ({first_line(error)}); export it again"
            ) from error
    return found


def initializers(model: ModelProto) -> dict[str, NDArray[Any]]:
    """The model's constant tensors by their names, as read-only or fresh arrays."""
    return {tensor.name: to_array(tensor) for tensor in model.graph.initializer}


def to_array(tensor: TensorProto) -> NDArray[Any]:
    """A tensor as an array; types that numpy lacks (4-bit integers, bfloat16) as ml_dtypes' ones.

    Raises BitfabError where it is damaged, or holds text.
    """
    try:
        if tensor.data_type == TensorProto.STRING:
            raise BitfabError(f"{tensor.name}: a tensor of text is not supported; take it out of the model")
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError, RuntimeError) as error:
        raise BitfabError(f"{tensor.name}: damaged tensor ({first_line(error)}); export it again") from error


def node_name(node: NodeProto) -> str:
    """The node's name, or where it has none that of its first output, with its operator: `Conv_3 (Conv)`."""
    name = node.name or next((output for output in node.output if output), "a node")
    return f"{name} ({node.op_type})"


def opset(model: ModelProto) -> int:
    """The version of the standard operators that the model uses."""
    return max(entry.version for entry in model.opset_import if entry.domain in _STANDARD)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def _parsed(path: Path) -> ModelProto:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BitfabError(f"holds {size:,} bytes, at most {MAX_BYTES:,} are read; split or shrink the model")
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    if not model.HasField("graph"):
        raise BitfabError("no ONNX model: it holds no graph; export it again")
    return model


def _check_versions(model: ModelProto, oldest: int) -> None:
    versions = [entry.version for entry in model.opset_import if entry.domain in _STANDARD]
    if not versions or len(set(versions)) > 1:
        raise BitfabError("damaged: it names no single version of the standard operators (opset); export it again")
    if not oldest <= versions[0] < OPSETS.stop:
        raise BitfabError(
            f"opset {versions[0]}, supported are {oldest} to {OPSETS.stop - 1}; export it with one of these, or "
            "convert it with onnx.version_converter"
        )


def _declare_domains(model: ModelProto) -> None:
    """Add the domains of other operators that the model uses and forgot to import, as old exporters did."""
    known = {entry.domain for entry in model.opset_import} | set(_STANDARD)
    for domain in sorted({node.domain for node in model.graph.node} - known):
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))


def _check_text(model: ModelProto) -> None:
    """Raise where a name is no text: protobuf then gives bytes."""
    graph = model.graph
    names: list[str | bytes] = [graph.name, *(value.name for value in (*graph.input, *graph.output, *graph.value_info))]
    for tensor in _tensors(model):
        names += [tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value))]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    for value in graph.input:
        names += [dim.dim_param for dim in value.type.tensor_type.shape.dim]
    names += [entry.domain for entry in model.opset_import]
    if any(isinstance(name, bytes) for name in names):
        raise BitfabError("damaged: a name in it is no text (UTF-8); export it again")


def _check_structure(model: ModelProto) -> None:
    """Raise for what is refused as a whole, so that what follows sees nothing but one flat list of nodes."""
    if model.functions:
        raise BitfabError(
            f"local function {model.functions[0].name!r}: not supported; inline it with "
            "onnx.inliner.inline_local_functions"
        )
    if model.graph.sparse_initializer:
        raise BitfabError("sparse tensors are not supported; export dense ones")
    for node in model.graph.node:
        for attribute in node.attribute:
            kind = attribute.type
            if kind in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.HasField("g") or attribute.graphs:
                raise BitfabError(
                    f"{node_name(node)}: control flow is not supported; export the model with fixed shapes and "
                    "without it"
                )
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise BitfabError(f"{node_name(node)}: sparse tensors are not supported; export dense ones")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_size(tensor: TensorProto) -> None:
    """Raise unless the tensor holds as much as its shape claims."""
    if min(tensor.dims, default=0) < 0 or tensor.HasField("segment"):
        raise BitfabError(f"{tensor.name}: damaged tensor of shape {tuple(tensor.dims)[:8]}; export it again")
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        held = len(tensor.raw_data) * 8 // _bits(tensor.data_type, dtype)
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        held = len(getattr(tensor, field)) * {4: 2, 2: 4}.get(_bits(tensor.data_type), 1)
        held //= 2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1
    packed = 8 // _bits(tensor.data_type) if _bits(tensor.data_type) < 8 else 1
    if count > MAX_ELEMENTS or not count <= held < count + packed:
        raise BitfabError(
            f"{tensor.name}: damaged tensor, {held:,} elements held where shape {tuple(tensor.dims)[:8]} claims "
            f"{count:,}; export it again"
        )


def _bits(data_type: int, dtype: np.dtype[Any] | None = None) -> int:
    """Bits of one element in raw data; 8 stands for any whole number of bytes where no dtype is given."""
    name = TensorProto.DataType.Name(data_type)
    if name.endswith(("INT4", "E2M1")):
        return 4
    if name.endswith("INT2"):
        return 2
    return 8 * dtype.itemsize if dtype is not None else 8


def _inline_external(model: ModelProto, path: Path) -> None:
    """Put external data into their tensors, as many bytes as the tensors' shapes claim."""
    folder, left = path.parent.resolve(), MAX_BYTES - path.stat().st_size
    for tensor in _tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        source = _external_file(folder, entries.get("location", ""), tensor.name)
        offset, size = _external_span(entries, source.stat().st_size, tensor.name)
        left -= size
        if left < 0:
            raise BitfabError(f"holds more than {MAX_BYTES:,} bytes with its external data; split or shrink the model")
        with source.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(size)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _external_file(folder: Path, location: str, tensor: str) -> Path:
    """The file that a tensor's data lie in; raises unless it is a plain one inside the model's folder."""
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts or "\\" in location:
        raise BitfabError(f"{tensor}: external data at {location!r}: only files inside the model's folder are read")
    source = (folder / relative).resolve()
    if not source.is_relative_to(folder):
        raise BitfabError(f"{tensor}: external data at {location!r}: a link that leaves the model's folder is not read")
    if not source.is_file():
        raise BitfabError(f"{tensor}: external data at {location!r}: no such file; put it beside the model")
    return source


def _external_span(entries: Mapping[str, str], held: int, tensor: str) -> tuple[int, int]:
    """Where a tensor's data begin in their file of `held` bytes, and how many bytes they are."""
    try:
        offset = int(entries.get("offset", 0))
        size = int(entries.get("length", held - offset))
    except ValueError:
        offset = size = -1
    if offset < 0 or size < 0 or offset + size > held:
        raise BitfabError(f"{tensor}: external data beyond the end of their file of {held:,} bytes; export it again")
    return offset, size
