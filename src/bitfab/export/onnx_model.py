"""An ONNX file under construction: nodes, constants, unique names, and the type and shape of every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfab.ir.ops import Shape

QONNX_DOMAIN = "qonnx.custom_op.general"
MICROSOFT_DOMAIN = "com.microsoft"
# The oldest operator set with quantized types of 8 bits, per channel, and the first with 4 and 16 bits.
PLAIN_OPSET, PLAIN_IR = 13, 8
NARROW_OPSET, NARROW_IR = 21, 10
_NARROW_TYPES = (TensorProto.INT4, TensorProto.UINT4, TensorProto.INT16, TensorProto.UINT16)

Attributes = dict[str, Any]


def batched(shape: Shape) -> tuple[int | str, ...]:
    """The shape of a tensor with the batch axis."""
    return ("N", *shape)


class Model:
    """Nodes in order; each tensor bears the name asked for, with a number where that is taken."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._known: dict[str, onnx.ValueInfoProto] = {}
        self._inputs: list[str] = []
        self._domains: set[str] = set()

    def input(self, name: str, shape: Shape) -> str:
        """A float input (N, *shape)."""
        self._inputs.append(self._declare(name, TensorProto.FLOAT, batched(shape)))
        return name

    def constant(self, name: str, array: NDArray[np.generic] | np.generic, type: int | None = None) -> str:
        """An initializer of a type, the array's own by default; the same name and content again is the same one."""
        if type == TensorProto.INT4:
            tensor = helper.make_tensor(name, type, array.shape, array.ravel())
        else:
            dtype = array.dtype if type is None else helper.tensor_dtype_to_np_dtype(type)
            tensor = numpy_helper.from_array(np.asarray(array, dtype, order="C"), name)
        if name in self._constants and self._constants[name] == tensor:
            return name
        tensor.name = self._unique(name)
        self._constants[tensor.name] = tensor
        return tensor.name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        output: str,
        shape: Sequence[int | str],
        type: int = TensorProto.FLOAT,
        source: str = "",
        domain: str = "",
        unread: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node of one output, a tensor of `type` and `shape` (the batch axis included); returns its name.

        `unread` names an output before that one, which nothing reads.
        """
        name = self._declare(self._unique(output), type, shape)
        self._domains |= {domain} - {""}
        outputs = [self._unique(unread), name] if unread else [name]
        made = helper.make_node(op, inputs, outputs, name=name, domain=domain or None, **attributes)
        if source:
            made.doc_string = source
        self._nodes.append(made)
        return name

    def rename(self, old: str, new: str) -> None:
        """Give the output of a node a name that is free."""
        for node in self._nodes:
            node.input[:] = [new if name == old else name for name in node.input]
            if old in node.output:
                node.name = new
                node.output[:] = [new if name == old else name for name in node.output]
        self._known[new] = self._known.pop(old)
        self._known[new].name = new

    def taken(self, name: str) -> bool:
        """Whether a tensor bears this name."""
        return name in self._known or name in self._constants

    def is_input(self, name: str) -> bool:
        """Whether the tensor is an input of the file."""
        return name in self._inputs

    def finish(self, name: str, outputs: Sequence[str]) -> onnx.ModelProto:
        """The file's contents; constants stand in the order of their use, unused ones are left out."""
        used = dict.fromkeys(name for node in self._nodes for name in node.input)
        ends = {*self._inputs, *outputs}
        graph = helper.make_graph(
            self._nodes,
            name,
            [self._known[n] for n in self._inputs],
            [self._known[n] for n in outputs],
            [self._constants[n] for n in used if n in self._constants],
            value_info=[info for n, info in self._known.items() if n not in ends],
        )
        types = {info.type.tensor_type.elem_type for info in self._known.values()}
        types |= {tensor.data_type for tensor in self._constants.values()}
        opset, version = (NARROW_OPSET, NARROW_IR) if types & set(_NARROW_TYPES) else (PLAIN_OPSET, PLAIN_IR)
        imports = [
            helper.make_opsetid("", opset),
            *(helper.make_opsetid(domain, 1) for domain in sorted(self._domains)),
        ]
        made = helper.make_model(graph, opset_imports=imports, ir_version=version)
        made.producer_name, made.producer_version = "bitfab", metadata.version("bitfab")
        helper.set_model_props(made, {"bitfab": made.producer_version})
        return made

    def _declare(self, name: str, type: int, shape: Sequence[int | str]) -> str:
        self._known[name] = helper.make_tensor_value_info(name, type, list(shape))
        return name

    def _unique(self, name: str) -> str:
        unique, suffix = name, 1
        while self.taken(unique):
            suffix += 1
            unique = f"{name}_{suffix}"
        return unique
