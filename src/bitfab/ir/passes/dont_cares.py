"""Chooses the entries of truth tables that do not matter, so that tables read fewer bits or equal each other.

A table of up to 64 entries is one word of 64 bits, so that thousands of tables are treated at once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntArray
from bitfab.ir.ops import Lut
from bitfab.ir.passes.truth_tables import Mask, readdressed, sorted_places

Words = npt.NDArray[np.uint64]


def settle(op: Lut, care: Mask) -> Lut:
    """Equal to `op` wherever care (N, 2**K) is true; elsewhere chosen, first for few inputs, then for equal tables.

    Each table reads the smallest set of its places on which the entries that matter can depend (of equally small
    ones that of the lowest places; none: it is constant). Then tables over the same bits that nowhere contradict each
    other become one (as sub-tables do in ReducedLUT: Cassidy et al. 2025, arXiv:2412.18579). An entry that
    still is free keeps its value, or what most of the entries had that became one.
    """
    ones, zeros, dropped = _least_places(_words(op.table & care), _words((1 - op.table) & care), op.wiring.shape[1])
    settled, address = sorted_places(Lut(op.wiring, _filled(op.table, ones, zeros, dropped)))
    entries = op.table.shape[1]
    ones, zeros = (_words(readdressed(_bits(word, entries), address)) for word in (ones, zeros))
    return Lut(settled.wiring, _merged(settled, ones, zeros))


def _words(table: IntArray) -> Words:
    """Tables of bits (N, 2**K) as words, entry a in bit a."""
    places = np.arange(table.shape[1], dtype=np.uint64)
    return np.left_shift(table.astype(np.uint64), places).sum(axis=1, dtype=np.uint64)


def _bits(words: Words, entries: int) -> IntArray:
    """Words as tables of bits (N, entries)."""
    return (words[:, None] >> np.arange(entries, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)


def _either(words: Words, place: int) -> Words:
    """Entry a holds what entry a or its neighbour across `place` held."""
    step = np.uint64(1 << place)
    low = np.uint64(sum(1 << entry for entry in range(64) if not entry >> place & 1))
    return words | words >> step & low | (words & low) << step


def _least_places(ones: Words, zeros: Words, fan_in: int) -> tuple[Words, Words, IntArray]:
    """For each table the entries that must be 1 and 0 once all places are dropped that can be, and these, as a mask."""
    everything = (1 << fan_in) - 1
    spread = {0: (ones, zeros)}
    best, best_ones, best_zeros = np.zeros(len(ones), dtype=np.int64), ones, zeros
    for dropped in sorted(range(1, everything + 1), key=lambda mask: (mask.bit_count(), mask)):
        place = dropped.bit_length() - 1
        spread[dropped] = (
            _either(spread[dropped ^ 1 << place][0], place),
            _either(spread[dropped ^ 1 << place][1], place),
        )
        free = spread[dropped][0] & spread[dropped][1] == 0
        best = np.where(free, dropped, best)
        best_ones, best_zeros = (
            np.where(free, new, old) for new, old in zip(spread[dropped], (best_ones, best_zeros), strict=True)
        )
    return best_ones, best_zeros, best


def _filled(table: IntArray, ones: Words, zeros: Words, dropped: IntArray) -> IntArray:
    """What must be is; a free entry is what most of the entries had that differ in dropped places alone (a tie: 0)."""
    votes = 2 * table.astype(np.int64) - 1
    entries = np.arange(table.shape[1])
    for place in range(table.shape[1].bit_length() - 1):
        both = votes + votes[:, entries ^ 1 << place]
        votes = np.where((dropped >> place & 1)[:, None] == 1, both, votes)
    must, must_not = (_bits(word, table.shape[1]) == 1 for word in (ones, zeros))
    return np.where(must, 1, np.where(must_not, 0, votes > 0)).astype(table.dtype)


def _merged(op: Lut, ones: Words, zeros: Words) -> IntArray:
    """Tables over the same bits, each joined to the first that it does not contradict."""
    entries = op.table.shape[1]
    order = np.lexsort(op.wiring.T[::-1])
    ends = 1 + np.flatnonzero((op.wiring[order[1:]] != op.wiring[order[:-1]]).any(axis=1))
    ones, zeros, leader = ones.copy(), zeros.copy(), np.arange(len(op.table))
    for start, end in pairwise((0, *ends.tolist(), len(order))):
        leaders: list[int] = []
        for row in order[start:end].tolist():
            match = (one for one in leaders if not (ones[one] & zeros[row] or zeros[one] & ones[row]))
            leader[row] = first = next(match, row)
            if first == row:
                leaders.append(row)
            ones[first] |= ones[row]
            zeros[first] |= zeros[row]
    must, must_not = (_bits(word[leader], entries) == 1 for word in (ones, zeros))
    return np.where(must, 1, np.where(must_not, 0, op.table[leader])).astype(op.table.dtype)
