"""Saves a graph as one safetensors file and loads it again, trusting nothing that the file says.

The constants are the file's tensors, named `<node>.<attribute>`, each in its narrowest dtype. The rest of the graph is
one JSON text under one metadata key: a single key, because safetensors writes several in no fixed order.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from bitfab.dtypes import IntArray, IntType, storage
from bitfab.errors import BitfabError
from bitfab.ir.graph import Graph, Node
from bitfab.ir.ops import Op
from bitfab.ir.verify import field_types, verify
from bitfab.output import write_whole

FORMAT = 1
METADATA_KEY = "bitfab"
MAX_HEADER_BYTES = 1 << 26
DTYPES = ("I8", "U8", "I16", "U16", "I32", "U32")

_OPS: dict[str, type] = {op.__name__: op for op in typing.get_args(Op)}
_FORMER = {"Argmax": ("TopK", {"k": 1})}  # what files hold from before an operation was generalized, and what it is now


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write the graph; the same graph gives the same bytes. The file appears whole or not at all.

    Raises BitfabError for a malformed graph (see `verify`) and where the file cannot be written.
    """
    path = Path(path)
    tensors: dict[str, IntArray] = {}
    text = json.dumps({"format": FORMAT, "graph": _encode(verify(graph), "", tensors)}, separators=(",", ":"))
    write_whole(path, safetensors.numpy.save(tensors, {METADATA_KEY: text}))


def load(path: str | os.PathLike[str]) -> Graph:
    """Read a graph written by `save`; all that the file claims is inferred anew and compared.

    Raises BitfabError where the file cannot be read, is truncated, damaged, or holds no valid graph.
    """
    path = Path(path)
    try:
        _check_header_size(path)
        text, tensors = _read(path)
        document = json.loads(text)
        if not isinstance(document, dict) or set(document) != {"format", "graph"} or document["format"] != FORMAT:
            raise BitfabError(f"not of format {FORMAT}")
        used: set[str] = set()
        graph = verify(_decode(document["graph"], Graph, tensors, used))
        if unused := sorted(tensors.keys() - used):
            raise BitfabError(f"tensor {unused[0]!r} belongs to no node")
    except OSError as error:
        raise BitfabError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (BitfabError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise BitfabError(f"{path}: not a bitfab graph or damaged: {error}; save it again with this bitfab") from error
    return graph


def _check_header_size(path: Path) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= min(MAX_HEADER_BYTES, path.stat().st_size - 8):
        held = path.stat().st_size
        raise BitfabError(
            f"it begins with a header of {size:,} bytes and holds {held:,} in all: cut short, or no graph"
        )


def _read(path: Path) -> tuple[str, dict[str, IntArray]]:
    tensors = {}
    with safetensors.safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
        if text is None:
            raise BitfabError(f"it has no {METADATA_KEY!r} metadata")
        for name in file.keys():  # noqa: SIM118 (no mapping: only keys() iterates)
            dtype = file.get_slice(name).get_dtype()
            if dtype not in DTYPES:
                raise BitfabError(f"tensor {name!r} is {dtype}, integers of at most 32 bits expected")
            tensors[name] = file.get_tensor(name)
    return text, tensors


def _encode(item: Any, node: str, tensors: dict[str, IntArray]) -> Any:
    """JSON of a dataclass, enum, tuple or plain value inside the named node; arrays go to `tensors`."""
    if isinstance(item, enum.Enum):
        return item.value
    if isinstance(item, tuple):
        return [_encode(part, node, tensors) for part in item]
    if isinstance(item, np.integer):
        return int(item)
    if not dataclasses.is_dataclass(item):
        return item
    node = item.name if isinstance(item, Node) else node
    encoded: dict[str, Any] = {"op": type(item).__name__} if type(item).__name__ in _OPS else {}
    for field in dataclasses.fields(item):
        attribute = getattr(item, field.name)
        if isinstance(attribute, np.ndarray):
            encoded[field.name] = f"{node}.{field.name}"
            tensors[f"{node}.{field.name}"] = _narrow(attribute)
        else:
            encoded[field.name] = _encode(attribute, node, tensors)
    return encoded


def _narrow(tensor: IntArray) -> IntArray:
    dtype = storage(IntType.holding(int(tensor.min()), int(tensor.max())))
    return np.ascontiguousarray(tensor, dtype=dtype)


def _decode(data: Any, hint: Any, tensors: Mapping[str, IntArray], used: set[str]) -> Any:
    """The inverse of `_encode` for what was declared as `hint`; raises BitfabError where data is something else."""
    if isinstance(hint, types.UnionType) and data is None and types.NoneType in typing.get_args(hint):
        return None
    if hint == Op:
        name = data.pop("op", None) if isinstance(data, dict) else data
        if isinstance(name, str) and name in _FORMER and data == {}:
            name, data = _FORMER[name]
        hint = _OPS[name] if isinstance(name, str) and name in _OPS else _refuse(name, "an operation")
    elif isinstance(hint, types.UnionType):  # X | None
        hint = typing.get_args(hint)[0]
    if hint == IntArray:
        used.add(data if isinstance(data, str) and data in tensors else _refuse(data, "the name of a tensor"))
        return tensors[data]
    if typing.get_origin(hint) is tuple:
        return _decode_tuple(data, typing.get_args(hint), tensors, used)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(data, typing.cast(type, hint), tensors, used)
    if issubclass(hint, enum.Enum):
        return hint(data)
    return data if type(data) is hint else _refuse(data, hint.__name__)


def _refuse(data: Any, expected: str) -> typing.NoReturn:
    raise BitfabError(f"{str(data)[:60]!r} found where {expected} is expected")


def _decode_tuple(data: Any, hints: tuple[Any, ...], tensors: Mapping[str, IntArray], used: set[str]) -> Any:
    if not isinstance(data, list):
        _refuse(data, "a list")
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(data)
    if len(hints) != len(data):
        _refuse(data, f"a list of {len(hints)}")
    return tuple(_decode(part, hint, tensors, used) for part, hint in zip(data, hints, strict=True))


def _decode_dataclass(data: Any, cls: type, tensors: Mapping[str, IntArray], used: set[str]) -> Any:
    hints = field_types(cls)
    if not isinstance(data, dict) or data.keys() != hints.keys():
        _refuse(data, f"{cls.__name__} ({', '.join(hints)})")
    return cls(**{name: _decode(data[name], hint, tensors, used) for name, hint in hints.items()})
