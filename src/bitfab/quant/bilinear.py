"""Bilinear upsampling in integers: the image with its borders repeated, then a depthwise transposed convolution."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.ir import ops as ir


class Add(Protocol):
    """Adds an operation that reads these values, named with this ending; returns its value."""

    def __call__(self, op: ir.Op, inputs: tuple[str, ...], *, end: str) -> str: ...


def weights(factor: int) -> tuple[IntArray, int]:
    """The weights of a pixel over the output pixels around it, and the sum of those that an output pixel sees.

    For output pixels at distance d from the pixel's centre, in output pixels: `factor - |d|`; doubled where the factor
    is even, for then the distances are halves. So every output is a sum of products over `factor` or `2 * factor`.
    """
    reach = np.arange(1, 2 * factor, 2) if factor % 2 == 0 else np.arange(1, factor + 1)
    mirrored = reach[::-1] if factor % 2 == 0 else reach[-2::-1]
    return np.concatenate([reach, mirrored]).astype(np.int32), factor * (2 - factor % 2)


def emit(add: Add, value: str, shape: tuple[int, ...], factor: tuple[int, int]) -> tuple[str, int]:
    """Add the operations; the value of the exact sums, and what they are to be divided by.

    `shape` (C, H, W) is the value's. Each output is the sum of 4 pixels' products at the most.
    """
    channels, crops, kernels, divisor = shape[0], [], [], 1
    for axis, times in ((1, factor[0]), (2, factor[1])):
        size = shape[axis]
        if times > 1:
            first = add(ir.Slice(axis, 0, 1), (value,), end=f"_first_{axis}")
            last = add(ir.Slice(axis, size - 1, size), (value,), end=f"_last_{axis}")
            value = add(ir.Concat(axis), (first, value, last), end=f"_bordered_{axis}")
        kernel, total = weights(times)
        kernels.append(kernel)
        crops.append((times + len(kernel)) // 2 if times > 1 else 0)
        divisor *= total
    weight = np.broadcast_to(np.outer(*kernels).astype(np.int32), (channels, 1, len(kernels[0]), len(kernels[1])))
    padding = (crops[0], crops[1], crops[0], crops[1])
    op = ir.ConvTranspose2d(np.ascontiguousarray(weight), np.zeros(channels, np.int32), factor, padding, channels)
    return add(op, (value,), end=""), divisor
