"""The torch kernels of the fast executor, one an operation, each chosen by its node's proven range and exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bitfab.ir.graph import Node, Value
from bitfab.ir.kernels import bits, elementwise, layout, products
from bitfab.ir.kernels.carrier import Kernel
from bitfab.ir.ops import (
    Add,
    Bits,
    Compare,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Lut,
    MaxPool2d,
    Multiply,
    Popcount,
    Requantize,
    Reshape,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    TopK,
    Transpose,
    Upsample,
)

__all__ = ["kernel_of"]


def kernel_of(node: Node, values: Mapping[str, Value]) -> Kernel:
    """The prepared kernel of a node: tensors of its inputs in, tensor of its output out, each in its carrier."""
    return _KERNELS[type(node.op)](node.op, [values[name] for name in node.inputs], node.output)


_KERNELS: dict[type, Callable[[Any, Sequence[Value], Value], Kernel]] = {
    Conv2d: products.conv2d,
    ConvTranspose2d: products.conv_transpose2d,
    Dense: products.dense,
    Requantize: elementwise.requantize,
    Threshold: elementwise.threshold,
    Add: elementwise.add,
    Multiply: elementwise.multiply,
    Table: elementwise.table,
    Compare: bits.compare,
    Bits: bits.bits,
    Lut: bits.lut,
    Popcount: bits.popcount,
    Concat: layout.concat,
    MaxPool2d: layout.max_pool2d,
    SumPool2d: layout.sum_pool2d,
    Upsample: layout.upsample,
    Reshape: layout.reshape,
    Transpose: layout.transpose,
    Slice: layout.slice_axis,
    TopK: layout.top_k,
}
