"""Which numbers of an image each window of a convolution or pooling covers."""

from __future__ import annotations

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.ir.ops import Pads, Pair

OUTSIDE = -1


def windows(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pads = (0, 0, 0, 0), dilation: Pair = (1, 1)
) -> IntArray:
    """Places in the flattened image (channels, height, width): (channels, windows, taps), OUTSIDE where it is padded.

    Windows row by row, and so are a window's taps.
    """
    top, left, bottom, right = padding
    places = np.arange(int(np.prod(shape))).reshape(shape)
    places = np.pad(places, ((0, 0), (top, bottom), (left, right)), constant_values=OUTSIDE)
    rows, columns = (
        np.arange(0, places.shape[axis + 1] - dilation[axis] * (kernel[axis] - 1), stride[axis])[:, None]
        + dilation[axis] * np.arange(kernel[axis])
        for axis in (0, 1)
    )
    covered = places[:, rows[:, None, :, None], columns[None, :, None, :]]  # (channels, rows, columns, taps, taps)
    return covered.reshape(shape[0], len(rows) * len(columns), kernel[0] * kernel[1])
