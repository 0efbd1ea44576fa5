"""Writes all parameters of an integer graph as tables for hardware and firmware, with a manifest of them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from bitfab.dtypes import IntArray, IntType, QParams, storage
from bitfab.errors import BitfabError
from bitfab.export import table_formats
from bitfab.ir.graph import Graph, Node
from bitfab.ir.ops import Table
from bitfab.ir.verify import verify
from bitfab.output import MARKER, whole_folder

WIDTHS = (2, 4, 8, 16, 32)
EACH: dict[str, Callable[[IntArray, IntType], str]] = {
    "mem": table_formats.mem,
    "hex": table_formats.intel_hex,
    "coe": table_formats.coe,
    "mif": table_formats.mif,
    "csv": table_formats.csv,
}
TOGETHER = {"h": "parameters.h", "npz": "parameters.npz"}
FORMATS = (*EACH, *TOGETHER)


@dataclass(frozen=True)
class Parameter:
    """A constant tensor of a node; each integer of `array` is of `type`."""

    name: str
    node: Node
    attribute: str
    array: IntArray
    type: IntType


def export_tables(graph: Graph, folder: str | os.PathLike[str], formats: Sequence[str] = FORMATS) -> None:
    """Write weights, biases, multipliers, shifts, thresholds and tables, one file each or one for all, by format.

    `mem` ($readmemh), `coe` (Xilinx) and `mif` (Intel) hold one integer a word, hexadecimal two's complement; `hex`
    (Intel HEX) the bytes, little endian, integers of 1, 2 and 4 bits packed with the first one lowest; a bipolar -1 is
    the bit 0. `csv` has a row for each entry of the first axis, `h` C arrays, `npz` arrays in their shapes. All go in
    C order. Biases are the graph's: the input's zero point folded in, corrected where the recipe corrects. Widths are
    1 for bipolar tensors, else the first of 2, 4, 8, 16 and 32 bits that holds all of the tensor's integers.
    `manifest.json` names each tensor, its files, shape, bits and signedness, and scale and zero point of each value.

    The folder appears whole or not at all. Raises BitfabError for an unknown format, a malformed graph, and a folder
    that cannot be written or holds what is not bitfab's.
    """
    for unknown in set(formats) - set(FORMATS):
        raise BitfabError(f"format '{unknown}' is unknown; choose from {', '.join(FORMATS)}")
    parameters = list(_parameters(verify(graph)))
    with whole_folder(Path(folder)) as draft:
        for parameter in parameters:
            for suffix in EACH.keys() & set(formats):
                (draft / f"{parameter.name}.{suffix}").write_text(EACH[suffix](parameter.array, parameter.type))
        if "h" in formats:
            (draft / TOGETHER["h"]).write_text(_header(graph, parameters))
        if "npz" in formats:
            (draft / TOGETHER["npz"]).write_bytes(_archive(graph, parameters))
        kept = [suffix for suffix in FORMATS if suffix in formats]
        (draft / "manifest.json").write_text(json.dumps(_manifest(graph, parameters, kept), indent=1) + "\n")
        (draft / MARKER).write_text(json.dumps({"tables": graph.name}) + "\n")


def _parameters(graph: Graph) -> Iterator[Parameter]:
    """Every array that an operation holds, in the graph's order."""
    for node in graph:
        for field in dataclasses.fields(node.op):
            array = getattr(node.op, field.name)
            if isinstance(array, np.ndarray):
                type = node.op.type if isinstance(node.op, Table) else _type(array)
                yield Parameter(f"{node.name}_{field.name}", node, field.name, array.astype(storage(type)), type)


def _type(array: IntArray) -> IntType:
    """Bipolar, or of the first width that holds all integers; signed where one is negative."""
    if array.size and (np.abs(array) == 1).all() and (array < 0).any():
        return IntType(1, signed=True)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    least = IntType.holding(low, high)
    if least == IntType(1, signed=False):
        return least
    return IntType(next(width for width in WIDTHS if width >= least.bits), least.signed)


def _manifest(graph: Graph, parameters: Sequence[Parameter], formats: Sequence[str]) -> dict[str, object]:
    tensors = [
        {
            "name": parameter.name,
            "node": parameter.node.name,
            "operation": type(parameter.node.op).__name__,
            "attribute": parameter.attribute,
            "layer": parameter.node.source,
            "shape": list(parameter.array.shape),
            "bits": parameter.type.bits,
            "signed": parameter.type.signed,
            "bipolar": parameter.type.bipolar,
            "order": "C",
            "files": {suffix: TOGETHER.get(suffix, f"{parameter.name}.{suffix}") for suffix in formats},
        }
        for parameter in parameters
    ]
    values = [
        {
            "name": value.name,
            "shape": list(value.shape),
            "bits": value.type.bits,
            "signed": value.type.signed,
            "scale": list(value.qparams.scale) if value.qparams else None,
            "zero_point": value.qparams.zero_point if value.qparams else None,
        }
        for value in graph.values.values()
    ]
    ends = {"inputs": [value.name for value in graph.inputs], "outputs": list(graph.outputs)}
    return {"bitfab": metadata.version("bitfab"), "graph": graph.name, **ends, "tensors": tensors, "values": values}


def _qparams(graph: Graph) -> dict[str, QParams]:
    """The scales and zero points of all values that have some."""
    return {value.name: value.qparams for value in graph.values.values() if value.qparams is not None}


def _header(graph: Graph, parameters: Sequence[Parameter]) -> str:
    """One C header: an array and its size for each tensor, scale and zero point for each value."""
    guard = f"BITFAB_{re.sub('[^0-9A-Z]', '_', graph.name.upper())}_H"
    lines = [f"/* Parameters of {graph.name}, all arrays in C order. */", f"#ifndef {guard}", f"#define {guard}"]
    lines += ["#include <stdint.h>", ""]
    for parameter in parameters:
        lines.append(f"/* {list(parameter.array.shape)}, {parameter.type} */")
        lines += table_formats.c_array(parameter.name, parameter.array.ravel(), parameter.type)
    for name, qparams in _qparams(graph).items():
        lines += table_formats.c_array(f"{name}_scale", np.asarray(qparams.scale), None)
        lines.append(f"#define {name.upper()}_ZERO_POINT ({qparams.zero_point})")
    return "\n".join([*lines, "", "#endif", ""])


def _archive(graph: Graph, parameters: Sequence[Parameter]) -> bytes:
    """One .npz archive: tensors in their shapes and narrowest types, scales as float64, zero points as int32."""
    arrays = {parameter.name: parameter.array for parameter in parameters}
    for name, qparams in _qparams(graph).items():
        arrays[f"{name}_scale"] = np.asarray(qparams.scale, np.float64)
        arrays[f"{name}_zero_point"] = np.asarray(qparams.zero_point, np.int32)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
