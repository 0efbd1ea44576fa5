"""QONNX's operators written out in standard ONNX by their definitions, so that onnxruntime runs such files."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

DOMAIN = "qonnx.custom_op.general"


def standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without nodes of QONNX's domain: each is replaced by operators that compute its definition."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [
        part
        for node in model.graph.node
        for part in (_EXPANSIONS[node.op_type](copy, node) if node.domain == DOMAIN else [node])
    ]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    kept = [opset for opset in copy.opset_import if opset.domain != DOMAIN]
    del copy.opset_import[:]
    copy.opset_import.extend(kept)
    return copy


def _quant(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """`(round(clip(x / scale + zero)) - zero) * scale`; the clip is that of the type's integers."""
    x, scale, zero, bits_name = node.input
    attributes = _attributes(node)
    bits = int(next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == bits_name))
    signed, narrow = attributes["signed"], attributes["narrow"]
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    rounding = {"ROUND": "Round", "FLOOR": "Floor"}[attributes["rounding_mode"].decode()]
    name = node.output[0]
    ends = [_constant(model, f"{name}/end{end}", end) for end in (low, high)]
    steps = [("Div", x, scale), ("Add", zero), ("Clip", *ends), (rounding,), ("Sub", zero), ("Mul", scale)]
    return _chain(name, steps)


def _bipolar_quant(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """`scale` where x >= 0, else `-scale`."""
    name, (x, scale) = node.output[0], node.input
    minus = helper.make_node("Neg", [scale], [f"{name}/minus"])
    reached = helper.make_node("GreaterOrEqual", [x, _constant(model, f"{name}/zero", 0)], [f"{name}/reached"])
    return [minus, reached, helper.make_node("Where", [reached.output[0], scale, minus.output[0]], [name])]


def _multi_threshold(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """`out_scale * #{i : x >= threshold[c, i]} + out_bias`, one comparison after the other."""
    name, (x, thresholds) = node.output[0], node.input
    rows = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == thresholds)
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    rank = len(known[name].type.tensor_type.shape.dim)
    total, nodes = _constant(model, f"{name}/none", 0), []
    for i, column in enumerate(rows.T):
        place = _constant(model, f"{name}/place{i}", column.reshape(-1, *(1,) * (rank - 2)))
        nodes += [
            helper.make_node("GreaterOrEqual", [x, place], [f"{name}/reached{i}"]),
            helper.make_node("Cast", [f"{name}/reached{i}"], [f"{name}/one{i}"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Add", [total, f"{name}/one{i}"], [f"{name}/total{i}"]),
        ]
        total = f"{name}/total{i}"
    attributes = _attributes(node)
    numbers = [_constant(model, f"{name}/{what}", attributes[what]) for what in ("out_scale", "out_bias")]
    return [*nodes, *_chain(name, [("Mul", total, numbers[0]), ("Add", numbers[1])])]


def _chain(name: str, steps: list[tuple[str, ...]]) -> list[onnx.NodeProto]:
    """Operators one behind the other; the last one's output bears the name."""
    nodes, inputs = [], list(steps[0][1:])
    for i, (kind, *more) in enumerate(steps):
        inputs = inputs if i == 0 else [nodes[-1].output[0], *more]
        nodes.append(helper.make_node(kind, inputs, [name if i == len(steps) - 1 else f"{name}/{i}"]))
    return nodes


def _constant(model: onnx.ModelProto, name: str, number: object) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(number, np.float32), name))
    return name


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


_EXPANSIONS = {"Quant": _quant, "BipolarQuant": _bipolar_quant, "MultiThreshold": _multi_threshold}
