"""From reals to integer codes, exactly as the file's own quantizers define it, and where a function's codes change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntArray, IntType, Rounding

Array = npt.NDArray[Any]

ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}
"""Rounding modes by their names in QONNX (operator Quant, attribute rounding_mode); ONNX itself has ROUND alone."""

IR_ROUNDINGS = {
    "ROUND": Rounding.HALF_EVEN,
    "HALF_EVEN": Rounding.HALF_EVEN,
    "FLOOR": Rounding.FLOOR,
    "HALF_UP": Rounding.HALF_AWAY,
}


@dataclass(frozen=True, eq=False)
class Grid:
    """`code = clip(round(x / scale) + zero, low, high)`, which means `scale * (code - zero)`.

    scale (1,) or (C,). With `zero_first` (QONNX) the zero is added before rounding, which matters for ties alone.
    """

    scale: npt.NDArray[np.float64]
    zero: int
    type: IntType
    low: int
    high: int
    rounding: str = "ROUND"
    zero_first: bool = False

    @property
    def offset(self) -> npt.NDArray[np.float64]:
        """What code 0 means."""
        return -self.scale * self.zero

    @property
    def levels(self) -> IntArray:
        """The codes above the lowest."""
        return np.arange(self.low + 1, self.high + 1)

    def codes(self, x: Array) -> Array:
        """Codes, as floats, of reals (C or 1, L)."""
        return coded(x, self.scale.astype(x.dtype)[:, None], self.zero, self)


def coded(x: Array, scale: Array, zero: Array | int, grid: Grid) -> Array:
    """Codes of any array whose shape `scale` and `zero` broadcast to, computed in x's own precision."""
    y, rounded = x / scale, ROUNDINGS[grid.rounding]
    y = rounded(y + zero) if grid.zero_first else rounded(y) + zero
    return np.clip(y, grid.low, grid.high)


def narrowed(grid: Grid, low: int, high: int) -> Grid:
    """The grid with fewer codes, in the narrowest type of the same sign that holds them."""
    bits = IntType.holding(low, high).bits
    if grid.type.signed and low >= 0:
        bits += 1
    type = IntType(min(max(bits, 2 if grid.type.signed else 1), grid.type.bits), grid.type.signed)
    return replace(grid, type=type, low=low, high=high)


@dataclass(frozen=True, eq=False)
class Ladder:
    """`code = low + step * #{i : x >= thresholds[c, i]}`, which means `scale * code + offset`; step 2 if bipolar.

    thresholds (C or 1, L), each row ascending.
    """

    thresholds: npt.NDArray[np.float64]
    type: IntType
    low: int
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]

    @property
    def levels(self) -> IntArray:
        """The codes above the lowest."""
        return self.low + (2 if self.type.bipolar else 1) * np.arange(1, self.thresholds.shape[1] + 1)

    def codes(self, x: Array) -> Array:
        """Codes of reals (C or 1, L)."""
        passed = np.zeros(np.broadcast_shapes(x.shape, (len(self.thresholds), 1)))
        for column in self.thresholds.T:
            passed += x >= column[:, None]
        return self.low + (2 if self.type.bipolar else 1) * passed


Quantizer = Grid | Ladder


def first_reaching(codes: Callable[[IntArray], Array], levels: IntArray, low: int, high: int, rows: int) -> IntArray:
    """The smallest integer of [low, high] for which each row's codes reach each level, high + 1 where none does.

    By bisection on (rows, levels) at once; `codes` maps integers (rows, L) and must not fall. Returns (rows, levels).
    """
    least, most = (np.full((rows, len(levels)), end, dtype=np.int64) for end in (low, high + 1))
    for _ in range((high + 1 - low).bit_length()):
        middle = np.minimum((least + most) >> 1, high)
        reached = codes(middle) >= levels
        open_ = least < most
        most = np.where(reached & open_, middle, most)
        least = np.where(~reached & open_, middle + 1, least)
    return least


def bipolar(scale: npt.NDArray[np.float64]) -> Ladder:
    """The sign: `+scale` where x >= 0, else `-scale` (QONNX operator BipolarQuant)."""
    return Ladder(np.zeros((1, 1)), IntType(1, signed=True), -1, scale, np.zeros(1))
