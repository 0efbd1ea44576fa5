"""One node of the file with what is known of its inputs: how the rules read it, and how they refuse it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from bitfab.errors import BitfabError
from bitfab.frontend.onnx_file import node_name
from bitfab.frontend.onnx_quantized.emitter import Emitter
from bitfab.frontend.onnx_quantized.meaning import NO_PADS, Const, Reals, Tensor
from bitfab.ir.ops import Shape

Known = Tensor | Const


@dataclass(frozen=True, eq=False)
class Step:
    """A node; `inputs` holds None where one is left out, `batch` is the size of that axis in the file's own shapes."""

    node: NodeProto
    attributes: dict[str, Any]
    inputs: tuple[Known | None, ...]
    emitter: Emitter
    batch: int

    @property
    def name(self) -> str:
        """The node's name, or that of its output: from it come the names of the graph's nodes."""
        return self.node.name or self.node.output[0]

    def refuse(self, reason: str, remedy: str) -> NoReturn:
        """Raise the one-line error that names the node."""
        raise BitfabError(f"{node_name(self.node)}: {reason}; {remedy}")

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute, or the default where the node has none."""
        return self.attributes.get(attribute, default)

    def given(self, index: int) -> Known | None:
        """An input, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int, padded: bool = False) -> Tensor:
        """An input that depends on the model's input; with zeros around it only where the rule says so."""
        x = self.given(index)
        if not isinstance(x, Tensor):
            self.refuse(f"input {index} is no tensor that the model computes", "fold constants before the export")
        if x.pads != NO_PADS and not padded:
            self.refuse("its input is padded", "padding is supported before a convolution alone")
        return x

    def const(self, index: int) -> Const:
        """An input that is constant."""
        x = self.given(index)
        if not isinstance(x, Const):
            self.refuse(f"input {index} must be constant", "export the model with fixed parameters")
        return x

    def array(self, index: int) -> npt.NDArray[Any] | None:
        """The values of a constant input, None where it is left out."""
        return None if self.given(index) is None else self.const(index).array

    def integers_of(self, index: int) -> tuple[int, ...] | None:
        """A constant input as plain integers, None where it is left out."""
        array = self.array(index)
        return None if array is None else tuple(int(i) for i in array.reshape(-1))

    def settled(self, x: Tensor, what: str = "its input") -> Tensor:
        """The tensor as a rising affine map of integers; refused where functions wait for a quantizer."""
        t = self.emitter.settled(x)
        if t is None:
            function = x.then[-1].name if x.then else "a clip"
            self.refuse(f"{what} is {function} without a quantizer behind it", "quantize it there")
        return t

    def per_channel(self, array: npt.NDArray[Any], shape: Shape) -> Reals:
        """A constant that broadcasts to (batch, *shape) as one number, or one for each channel."""
        full = array.reshape((1,) * (len(shape) + 1 - array.ndim) + array.shape)
        fits = full.ndim == len(shape) + 1 and all(a in (1, b) for a, b in zip(full.shape, (1, *shape), strict=True))
        if not fits or full.size == 0:
            self.refuse(f"a constant of shape {array.shape} does not fit {shape}", "use one number a channel")
        by_channel = full.reshape(full.shape[1], -1)
        if (by_channel != by_channel[:, :1]).any():
            self.refuse("its constant differs within a channel", "use one number a channel")
        values = np.asarray(by_channel[:, 0], dtype=np.float64)
        if not np.isfinite(values).all():
            self.refuse("its constant is not finite", "check the model's parameters")
        return values
