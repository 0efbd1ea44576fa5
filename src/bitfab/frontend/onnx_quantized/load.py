"""Reads a quantized ONNX file node by node, folds its constants, and writes the integer graph."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.frontend.onnx_file import MAX_ELEMENTS, attributes, initializers, node_name, opset, read_model
from bitfab.frontend.onnx_quantized import folding, formats, pointwise, shapes, sums, windows
from bitfab.frontend.onnx_quantized.emitter import RAW_SCALE, Emitter
from bitfab.frontend.onnx_quantized.meaning import Const, Source, Tensor
from bitfab.frontend.onnx_quantized.step import Known, Step
from bitfab.ir import Graph
from bitfab.ir.names import plain
from bitfab.ir.verify import verify

OLDEST_OPSET = 9  # of the QONNX models that early Brevitas exported

_RULES = {**pointwise.RULES, **sums.RULES, **windows.RULES, **shapes.RULES, **formats.RULES}
_INPUT_TYPES = {2: IntType(8, False), 3: IntType(8, True), 4: IntType(16, False), 5: IntType(16, True)}
_FLOATS = (1, 10, 11, 16)
# What rules and numpy raise on models that no exporter writes.
_BROKEN = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


def is_quantized(model: ModelProto) -> bool:
    """Whether the model has a quantizing operator of any of the four formats."""
    return any(node.op_type in formats.RULES for node in model.graph.node)


def load_quantized_onnx(path: str | os.PathLike[str], raw_scale: float = RAW_SCALE) -> Graph:
    """The integer graph of a quantized ONNX file: QDQ, QCDQ, QOperator or QONNX; what the file quantizes stays so.

    Exact, that is equal to the file's definition in real numbers for every input: sums, poolings and joins;
    activations of up to 4 bits (thresholds), signs, and tables; requantizing where a multiplier of at most 30 bits
    equals the definition on all integers that can occur, which is tested for each. The other differences are at most
    one code: biases that are no multiples of the sums' scale are rounded to it (or to a finer one, where 1/64 of a code
    would be lost), and sums of two tensors of unequal scales are made at a scale 2**12 finer. A softmax at the end,
    with the quantizers behind it, and an unquantized sigmoid there are left out: they change no decision.

    The input of the graph are the codes of the file's own first quantizer, where it acts on the input itself. Where
    float operations come first (`2 * x - 1`, mean and deviation), it is an image of unsigned 8-bit codes, which mean
    0 to 1, or 0 to 255 where the first factor is below 1/16; where nothing quantizes it, 16-bit codes of `raw_scale`.

    Args:
        path: the file.
        raw_scale: the scale of the codes of an input that the file does not quantize; 2**-11 reaches from -16 to 16.

    Raises:
        BitfabError: the file is unreadable or damaged, or has an operator without exact integers (named, in one line).
    """
    model = read_model(path, OLDEST_OPSET)
    if not is_quantized(model):
        raise BitfabError(f"{path}: holds no quantized operator; import it as a float model and quantize it")
    emitter = Emitter(_graph_name(Path(path)), raw_scale)
    values: dict[str, Known] = {name: Const(array) for name, array in initializers(model).items()}
    batch = _add_inputs(model, values)
    left_out = _left_out(model)
    for index, node in enumerate(model.graph.node):
        step = _step(node, values, emitter, batch)
        made = _visit(step, opset(model), index in left_out)
        values.update(
            {name: value for name, value in zip(node.output, made, strict=False) if name and value is not None}
        )
    return _finished(model, emitter, values)


def _graph_name(path: Path) -> str:
    """An identifier like the file's name; the end keeps it off the keywords of hardware languages."""
    return f"{plain(path.stem, 'net')}_int"


def _add_inputs(model: ModelProto, values: dict[str, Known]) -> int:
    """Enter the model's inputs; returns the size of their batch axis, 1 where it is open."""
    batches = {1}
    for entry in model.graph.input:
        if entry.name not in values:
            sizes = _sizes(entry)
            batches.add(sizes[0] or 1)
            source = Source(entry.name, tuple(sizes[1:]), _INPUT_TYPES.get(entry.type.tensor_type.elem_type))
            values[entry.name] = Tensor(source, source.shape)
    if len(batches) > 2:
        raise BitfabError(f"inputs of {sorted(batches)} images; export the model for one")
    return max(batches)


def _sizes(entry: ValueInfoProto) -> list[int]:
    """The sizes of an input's axes, 0 for an open batch axis."""
    kind = entry.type.tensor_type
    sizes = [axis.dim_value for axis in kind.shape.dim]
    if kind.elem_type not in (*_INPUT_TYPES, *_FLOATS):
        raise BitfabError(f"input {entry.name}: of a type that holds no image; export floats or 8- or 16-bit integers")
    if not 2 <= len(sizes) <= 4 or min(sizes[1:]) < 1 or sizes[0] < 0:
        raise BitfabError(
            f"input {entry.name}: shape {sizes}; export fixed sizes (0 is an open one) behind a batch axis"
        )
    if math.prod(sizes[1:]) > MAX_ELEMENTS:
        raise BitfabError(f"input {entry.name}: {math.prod(sizes[1:]):,} values; use smaller images")
    return sizes


def _left_out(model: ModelProto) -> set[int]:
    """The softmax at the end with the quantizers behind it, or the unquantized sigmoid, by their places."""
    nodes = list(model.graph.node)
    readers: dict[str, set[int]] = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, set()).add(index)
    behind, left_out = set[int](), set[int]()
    for index in reversed(range(len(nodes))):
        after = {reader for name in nodes[index].output for reader in readers.get(name, ())}
        if after <= behind and nodes[index].op_type in formats.PASSING:
            behind.add(index)
        elif after <= behind and (
            nodes[index].op_type in formats.SQUASHING or (nodes[index].op_type == "Sigmoid" and not after)
        ):
            left_out.add(index)
    for index in sorted(left_out | behind):
        if any(nodes[before].output[0] in nodes[index].input for before in left_out):
            left_out.add(index)
    return left_out


def _step(node: NodeProto, values: Mapping[str, Known], emitter: Emitter, batch: int) -> Step:
    inputs: list[Known | None] = []
    for name in node.input:
        if name and name not in values:
            raise BitfabError(
                f"{node_name(node)}: its input {name!r} is not known; no node gives it (a TopK its indices alone)"
            )
        inputs.append(values[name] if name else None)
    return Step(node, attributes(node), tuple(inputs), emitter, batch)


def _visit(step: Step, version: int, left_out: bool) -> tuple[Known | None, ...]:
    """The values of a node's outputs."""
    operator = step.node.op_type
    try:
        with np.errstate(all="ignore"):
            if left_out:
                return (formats.passed(step),)
            if operator not in formats.RULES and folding.foldable(step):
                return folding.folded(step, version)
            if operator not in _RULES:
                step.refuse("has no exact integer operation", "take it out of the model, or import it as a float model")
            made = _RULES[operator](step)
    except BitfabError as error:
        text = str(error)
        raise BitfabError(text if step.name in text else f"{node_name(step.node)}: {text}") from error
    except _BROKEN as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BitfabError(
            f"{node_name(step.node)}: damaged or of an unknown form ({first}); export it again"
        ) from error
    return made if isinstance(made, tuple) else (made,)


def _finished(model: ModelProto, emitter: Emitter, values: Mapping[str, Known]) -> Graph:
    """The graph with its inputs and outputs in the file's order, and what the outputs mean."""
    names: list[str] = []
    meanings = {}
    for entry in model.graph.output:
        known = values.get(entry.name)
        if not isinstance(known, Tensor):
            raise BitfabError(f"output {entry.name}: does not depend on an input; leave it out")
        name, codes = emitter.output(known, entry.name)
        if name in names:
            twin = model.graph.output[names.index(name)].name
            raise BitfabError(f"outputs {twin} and {entry.name}: the same integers, {name}; leave one of them out")
        names.append(name)
        meanings[name] = codes
    graph = emitter.builder.build(tuple(names))
    known_inputs = (emitter.input_of(entry.name) for entry in model.graph.input)
    inputs = tuple(graph.values[known] for known in known_inputs if known)
    nodes = tuple(
        replace(node, output=replace(node.output, qparams=meanings.get(node.name, node.output.qparams)))
        for node in graph.nodes
    )
    return verify(replace(graph, inputs=inputs, nodes=nodes))
