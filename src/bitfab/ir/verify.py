"""Checks that a graph is well formed: every pass, saved file and lowering must leave it so."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray, IntType, QParams, Rounding
from bitfab.errors import BitfabError, require
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.infer import Signature, infer, sees_padding
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Lut, Op, Pads, Pair, Popcount, Shape, Threshold

MAX_VALUES = 1 << 31  # integers in one image of a value
MAX_INTEGER = 1 << 32  # attributes lie within +-MAX_INTEGER, so that int64 arithmetic on them is exact

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Axes of the constants that are no vectors.
_RANKS: dict[tuple[type, str], int] = {
    (Conv2d, "weight"): 4,
    (ConvTranspose2d, "weight"): 4,
    (Dense, "weight"): 2,
    (Threshold, "thresholds"): 2,
    (Lut, "wiring"): 2,
    (Lut, "table"): 2,
    (Popcount, "wiring"): 2,
}


def verify(graph: Graph, after: str = "") -> Graph:
    """The graph itself, found to be well formed; `after` names the pass that ran before, for the message.

    Checked: names are identifiers and defined once, before their use (SSA, topological order); no value is two of the
    outputs; every attribute has its declared type, constants fit a type of 32 bits, signed or not; each stored shape,
    type and range equals what `infer` finds, and every range lies within its type. Raises BitfabError naming the
    graph's or the node's fault.
    """
    try:
        _verify(graph)
    except BitfabError as error:
        raise BitfabError(f"{error} (after pass {after})" if after else str(error)) from error
    return graph


def _verify(graph: Graph) -> None:
    require(isinstance(graph, Graph), f"graph: a {type(graph).__name__} given; give what bitfab.quantize gives")
    require(_is_name(graph.name), f"graph {graph.name!r}: the name must be an identifier")
    require(bool(graph.inputs and graph.outputs), f"{graph.name}: a graph needs at least one input and one output")
    known: dict[str, Value] = {}
    for value in graph.inputs:
        _check_value(value, known)
        known[value.name] = value
    for node in graph.nodes:
        _check_node(node, known)
        known[node.name] = node.output
    for name in graph.outputs:
        require(name in known, f"{graph.name}: output {name!r} is not defined by any node")
        once = graph.outputs.count(name) == 1
        require(once, f"{graph.name}: value {name!r} is more than one of the outputs; let it be one of them alone")


def _check_value(value: Value, known: dict[str, Value]) -> None:
    name = value.name
    require(_is_name(name), f"{name!r}: the name of a value must be an identifier (letters, digits, _)")
    require(name not in known, f"{name}: defined twice; a value is defined once")
    require(isinstance(value.type, IntType), f"{name}: type {value.type!r} is no IntType")
    shape = value.shape
    require(
        isinstance(shape, tuple) and len(shape) > 0 and all(_is_int(size) and size > 0 for size in shape),
        f"{name}: shape {shape!r} must be a tuple of positive integers",
    )
    require(math.prod(shape) <= MAX_VALUES, f"{name}: shape {shape} holds more than 2**31 integers; use smaller images")
    require(
        _is_int(value.low) and _is_int(value.high) and value.type.low <= value.low <= value.high <= value.type.high,
        f"{name}: range [{value.low}, {value.high}] does not fit {value.type}",
    )
    require(not value.type.bipolar or 0 not in (value.low, value.high), f"{name}: a range of bipolar values ends in 0")
    if value.qparams is not None:
        fits = isinstance(value.qparams, QParams) and len(value.qparams.scale) in (1, shape[0])
        require(fits, f"{name}: {value.qparams!r} must hold one scale, or one for each of the {shape[0]} channels")


def _check_node(node: Node, known: dict[str, Value]) -> None:
    _check_value(node.output, known)
    for name in node.inputs:
        require(name in known, f"{node.name}: input {name!r} is not defined before its use")
    _check_attributes(node.name, node.op)
    inputs = [known[name].signature for name in node.inputs]
    _check_partial_sums(node.name, node.op, inputs)
    try:
        expected = infer(node.op, inputs)
    except BitfabError as error:
        raise BitfabError(f"{node.name}: {error}") from error
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise BitfabError(f"{node.name}: attributes of {type(node.op).__name__} do not fit: {error}") from error
    found = node.output.signature
    require(found == expected, f"{node.name}: stored as {found}, but the operation gives {expected}; use rebuild")
    _check_pad_value(node, inputs[0].type)


def _check_pad_value(node: Node, type: IntType) -> None:
    pad = getattr(node.op, "pad_value", None)
    if pad is None:
        return
    require(pad == 0 or type.low <= pad <= type.high, f"{node.name}: pad value {pad} does not fit {type}")
    require(
        not (pad == 0 and type.bipolar and sees_padding(node.op)),
        f"{node.name}: pad value 0 of a bipolar input, which has no 0; pad with -1 or +1",
    )


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The declared type of each field of a dataclass, resolved."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _check_attributes(name: str, op: Op) -> None:
    require(type(op) in typing.get_args(Op), f"{name}: {type(op).__name__} is no operation of the graph")
    cls: type = type(op)
    for field, hint in field_types(cls).items():
        fault = _fault(getattr(op, field), hint, _RANKS.get((cls, field), 1))
        require(not fault, f"{name}: {field} of {cls.__name__} {fault}")
    require(getattr(op, "groups", 1) >= 1, f"{name}: groups must be at least 1")
    top, left, bottom, right = getattr(op, "padding", (0, 0, 0, 0))
    cropped = min(top, left) if isinstance(op, ConvTranspose2d) else min(top, left, bottom, right)
    require(cropped >= 0, f"{name}: padding {(top, left, bottom, right)} must not be negative")


def _fault(attribute: object, hint: Any, rank: int) -> str:
    """What is wrong with an attribute that was declared as `hint`; empty where nothing is."""
    if hint == IntArray:
        return _tensor_fault(attribute, rank)
    if hint in (Pair, Pads, Shape):
        size = {Pair: 2, Pads: 4}.get(hint)
        whole = isinstance(attribute, tuple) and all(_is_int(item) for item in attribute)
        if not whole or (size and len(attribute) != size):  # type: ignore[arg-type]
            return f"must be a tuple of {size or 'some'} integers, not {attribute!r}"
        smallest = {Pads: -MAX_INTEGER, Pair: 1}.get(hint, 0)  # a shape may be axes, which count from 0
        return "" if all(smallest <= i <= MAX_INTEGER for i in attribute) else f"{attribute} is out of range"  # type: ignore[attr-defined]
    if hint is int:
        fits = _is_int(attribute) and abs(attribute) <= MAX_INTEGER  # type: ignore[arg-type]
        return "" if fits else f"must be an integer within 32 bits, not {attribute!r}"
    assert hint in (IntType, Rounding), hint
    return "" if isinstance(attribute, hint) else f"must be of type {hint.__name__}, not {attribute!r}"


def _tensor_fault(tensor: object, rank: int) -> str:
    if not isinstance(tensor, np.ndarray) or not np.issubdtype(tensor.dtype, np.integer):
        return f"must be an array of integers, not {getattr(tensor, 'dtype', type(tensor).__name__)}"
    if tensor.ndim != rank or tensor.size == 0:
        return f"has shape {tensor.shape}; {rank} axes and at least one element expected"
    low, high = int(tensor.min()), int(tensor.max())
    fits = low >= -MAX_INTEGER // 2 and high < (MAX_INTEGER if low >= 0 else MAX_INTEGER // 2)
    return "" if fits else f"holds [{low}, {high}], beyond 32 bits"


def _check_partial_sums(name: str, op: Op, inputs: list[Signature]) -> None:
    """Partial sums, in any order, must stay in int64, where ranges are computed and `run` accumulates."""
    if not isinstance(op, Conv2d | ConvTranspose2d | Dense) or len(inputs) != 1:
        return
    largest = max(abs(inputs[0].low), abs(inputs[0].high), abs(getattr(op, "pad_value", 0)))
    bound = np.abs(op.weight, dtype=np.float64).sum() * largest + np.abs(op.bias, dtype=np.float64).max()
    require(
        bound < 2.0**62, f"{name}: sums of up to 2**{math.log2(max(bound, 1)):.0f} do not fit 64 bits; use fewer bits"
    )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
