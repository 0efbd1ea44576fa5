"""What depends on no data: arithmetic on constants and shapes, by ONNX's own definition, within a budget of memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from bitfab.frontend.calls import Unsupported
from bitfab.frontend.onnx_file import first_line

MAX_COMPUTED = 1 << 26
"""Elements that all constant nodes of a file together may compute."""

STATIC = frozenset(
    (
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Exp"),
        *("Expand", "Flatten", "Floor", "Gather", "Greater", "Identity", "Less", "Log", "MatMul", "Max", "Min", "Mod"),
        *(
            "Mul",
            "Neg",
            "Not",
            "Or",
            "Pow",
            "Range",
            "Reciprocal",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
        ),
        *("ReduceSum", "Reshape", "Round", "Shape", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile"),
        *("Transpose", "Unsqueeze", "Where"),
    )
)


@dataclass
class Budget:
    """How many elements may still be computed."""

    left: int = MAX_COMPUTED


def evaluate(node: NodeProto, opset: int, inputs: Mapping[int, Any], budget: Budget) -> Any:
    """The node's output, or the tuple of its outputs, for constant inputs by position.

    Raises Unsupported for operators outside STATIC, for inputs that do not fit, and beyond the budget.
    """
    if node.op_type not in STATIC or node.domain:
        raise Unsupported("computed from constants alone")
    arrays = {node.input[position]: np.asarray(array) for position, array in inputs.items()}
    ordered = [arrays.get(name) for name in node.input]
    try:
        budget.left -= _size(node, ordered)
        if budget.left < 0:
            raise Unsupported(f"constants of more than {MAX_COMPUTED:,} elements are computed")
        values = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in arrays]
        outputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
        graph = onnx.helper.make_graph([node], "node", values, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(model).run(None, arrays)
    except Unsupported:
        raise
    except Exception as error:  # of many kinds where inputs do not fit
        raise Unsupported(f"its constants do not fit: {first_line(error)}") from error
    found = tuple(_plain(result) for result in results)
    return found[0] if len(found) == 1 else found


def _plain(result: Any) -> NDArray[Any]:
    array = np.asarray(result)
    if array.dtype.kind not in "fiub":
        raise Unsupported(f"constants of type {array.dtype}")
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _size(node: NodeProto, inputs: list[NDArray[Any] | None]) -> int:
    """A bound on the elements of the outputs."""
    arrays = [array for array in inputs if array is not None]
    match node.op_type:
        case "Constant":
            return 0  # read and checked already
        case "ConstantOfShape":
            return _product(arrays[0])
        case "Expand":
            return _product(np.maximum(arrays[1], 1)) * arrays[0].size
        case "Tile":
            return _product(arrays[1]) * arrays[0].size
        case "Range":
            start, limit, delta = (float(array.reshape(())) for array in arrays)
            return max(math.ceil((limit - start) / delta), 0)
        case "Gather":
            return arrays[0].size * arrays[1].size
        case "MatMul":
            return arrays[0].size * arrays[1].size
        case "Concat" | "Split" | "Reshape" | "Slice":
            return sum(array.size for array in arrays)
    shapes = [array.shape for array in arrays]
    try:
        return math.prod(np.broadcast_shapes(*shapes))
    except ValueError:
        return sum(array.size for array in arrays)


def _product(sizes: NDArray[Any]) -> int:
    return math.prod(abs(int(size)) for size in sizes.reshape(-1))
