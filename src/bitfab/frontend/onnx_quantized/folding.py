"""Computes what depends on constants alone: shapes, transposed weights, square roots of variances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from bitfab.frontend.onnx_file import MAX_ELEMENTS
from bitfab.frontend.onnx_quantized.meaning import Const, Tensor
from bitfab.frontend.onnx_quantized.step import Known, Step

# Operators that only move values: the scales of quantized constants move with them.
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Gather"})
# Operators of which each output element comes of one element of each input.
_ELEMENTS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Abs", "Exp", "Log", "Reciprocal", "Cast", "Min", "Max", "Clip"}
    | {"Relu", "Floor", "Ceil", "Round", "Sign", "Equal", "Not", "Where", "Less", "Greater", "And", "Or"}
)
_OTHERS = frozenset({"Concat", "Shape", "Size", "Constant", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceProd"})


def foldable(step: Step) -> bool:
    """Whether the node's outputs depend on constants, or on shapes, alone."""
    if step.node.op_type in ("Shape", "Size"):
        return True
    return not any(isinstance(x, Tensor) for x in step.inputs)


def folded(step: Step, version: int) -> tuple[Known | None, ...]:
    """The constants that a node gives, as ONNX's reference evaluator computes them.

    Refused are operators that can make large results of small inputs, so that a file cannot ask for all memory.
    """
    operator = step.node.op_type
    if step.node.domain not in ("", "ai.onnx") or operator not in _MOVES | _ELEMENTS | _OTHERS:
        step.refuse("computes a constant", "fold constants before the export")
    first = step.given(0)
    if isinstance(first, Tensor):
        full = (step.batch, *first.shape)
        return (Const(np.asarray(full if operator == "Shape" else math.prod(full), dtype=np.int64)),)
    arrays = [None if x is None else step.const(i).array for i, x in enumerate(step.inputs)]
    _check_size(step, [array for array in arrays if array is not None])
    if operator in _MOVES and isinstance(first, Const) and first.step is not None:
        moved = [_evaluated(step, [part, *arrays[1:]], version)[0] for part in (first.array, first.step)]
        return (Const(moved[0], moved[1]),)
    narrow = [a.astype(np.float32) if a is not None and a.dtype == np.float64 else a for a in arrays]
    return tuple(Const(array) for array in _evaluated(step, narrow, version))


def _check_size(step: Step, arrays: list[npt.NDArray[Any]]) -> None:
    operator = step.node.op_type
    if operator in _ELEMENTS:
        count = math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    elif operator == "Gather":
        count = math.prod(max(array.size, 1) for array in arrays)
    else:
        count = sum(array.size for array in arrays)
    if count > MAX_ELEMENTS:
        step.refuse(f"computes a constant of up to {count:,} numbers", "fold constants before the export")


def _evaluated(step: Step, arrays: list[npt.NDArray[Any] | None], version: int) -> list[npt.NDArray[Any]]:
    """The node's outputs for these inputs."""
    node = onnx.NodeProto()
    node.CopyFrom(step.node)
    feeds = {}
    for i, array in enumerate(arrays):
        node.input[i] = f"input_{i}" if array is not None else ""
        if array is not None:
            feeds[f"input_{i}"] = array
    kinds = [onnx.helper.make_tensor_value_info(name, _kind(array), array.shape) for name, array in feeds.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "constant", kinds, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, feeds)]


def _kind(array: npt.NDArray[Any]) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
