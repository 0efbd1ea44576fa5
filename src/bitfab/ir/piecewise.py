"""Tables that are piecewise linear: a base and a slope for each segment in the place of an entry for each code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.ir.ops import Table

GUARD_BITS = 3  # fractional bits beyond those of the place: rounded slopes are off by 1/16 of a code at the most
LONGEST = 9  # bits of the place in the longest segment


@dataclass(frozen=True, eq=False)
class Piecewise:
    """`y = clip((base[s] + slope[s] * t) >> shift)` within `type`, where s, t = divmod(x - domain.low, 2**place_bits).

    base, slope (2**(domain.bits - place_bits),), with `shift` fractional bits; a base holds the half that rounds.
    """

    base: IntArray
    slope: IntArray
    place_bits: int
    domain: IntType
    type: IntType

    @property
    def shift(self) -> int:
        return self.place_bits + GUARD_BITS

    def table(self) -> Table:
        """The same function with an entry for each code."""
        places = np.arange(1 << self.place_bits)
        sums = self.base.astype(np.int64)[:, None] + self.slope.astype(np.int64)[:, None] * places
        entries = np.clip(sums >> self.shift, self.type.low, self.type.high).ravel()
        return Table(entries.astype(np.int32), self.domain, self.type)


def recover(op: Table) -> Piecewise | None:
    """Bases and slopes in the fewest segments that give every entry of the table exactly; None where none do.

    Entry y at place t says `y << shift <= base + slope * t < (y + 1) << shift`, on one side alone where y is an end of
    the type. For some base to satisfy all, it suffices that each two of them agree on the slope.
    """
    for place_bits in range(min(LONGEST, op.domain.bits - 1), 1, -1):
        entries = op.table.astype(np.int64).reshape(-1, 1 << place_bits)
        shift, far = place_bits + GUARD_BITS, 1 << 48
        least = np.where(entries == op.type.low, -far, entries << shift)
        most = np.where(entries == op.type.high, far, ((entries + 1) << shift) - 1)
        slope = _slopes(least, most)
        if slope is not None:
            rises = slope[:, None] * np.arange(1 << place_bits)
            base = np.clip(0, (least - rises).max(axis=1), (most - rises).min(axis=1))
            return Piecewise(base, slope, place_bits, op.domain, op.type)
    return None


def _slopes(least: IntArray, most: IntArray) -> IntArray | None:
    """For each row the whole slope nearest 0 on which all pairs of bounds agree; None if some row has none."""
    size = least.shape[1]
    low, high = np.full(len(least), -(1 << 40)), np.full(len(least), 1 << 40)
    for d in range(1, size):
        low = np.maximum(low, -((most[:, :-d] - least[:, d:]) // d).min(axis=1))
        high = np.minimum(high, ((most[:, d:] - least[:, :-d]) // d).min(axis=1))
        if (low > high).any():
            return None
    return np.clip(0, low, high)
