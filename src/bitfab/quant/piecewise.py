"""Functions of codes of more than 8 bits, as straight lines over segments: a short table for the hardware."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import IntType
from bitfab.ir.ops import Table
from bitfab.ir.piecewise import GUARD_BITS, LONGEST, Piecewise

WHOLE_BITS = 8  # up to here a table has an entry for each code
TOLERANCE = 1  # codes that a line may be off the rounded function


def shortened(wanted: NDArray[np.float64], exact: Table) -> Table:
    """The table of the fewest lines that are nowhere more than TOLERANCE codes off `exact`, or `exact` itself.

    wanted (2**bits,): the function's value for each code, in output codes but not rounded nor clipped.
    """
    bits = exact.domain.bits
    for place_bits in range(min(LONGEST, bits - 2), 1, -1) if bits > WHOLE_BITS else ():
        table = _lines(wanted, place_bits, exact.domain, exact.type).table()
        if np.abs(table.table - exact.table.astype(np.int64)).max() <= TOLERANCE:
            return table
    return exact


def _lines(wanted: NDArray[np.float64], place_bits: int, domain: IntType, type: IntType) -> Piecewise:
    """In each segment the chord, moved to the middle of the function's distance from it (best for a convex one)."""
    codes = np.clip(wanted, type.low - 1, type.high + 1).reshape(-1, 1 << place_bits)
    places, unit = np.arange(1 << place_bits), 1 << (place_bits + GUARD_BITS)
    slope = np.rint((codes[:, -1] - codes[:, 0]) / (len(places) - 1) * unit)
    rest = codes - slope[:, None] / unit * places
    base = np.rint(((rest.max(axis=1) + rest.min(axis=1)) / 2 + 0.5) * unit)
    return Piecewise(base.astype(np.int64), slope.astype(np.int64), place_bits, domain, type)
