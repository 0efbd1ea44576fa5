"""Sums of several outputs that share their parts: the most frequent pair of terms becomes a wire, again and again."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bitfab.hw.parallel.arithmetic import Cells
from bitfab.hw.parallel.cells import Term, Wire

Pair = tuple[int, int, int, bool]  # two wires, how much further the second is shifted, whether their signs differ
Row = dict[tuple[int, int], bool]  # (wire, shift) of each term, and whether it is negative


def shared(cells: Cells, rows: Sequence[Sequence[Term]]) -> list[list[Term]]:
    """The rows with pairs that occur more than once, shifted and negated alike, replaced by one term each.

    Greedy, the most frequent first (Hartley 1996, "Subexpression sharing in filters using canonic signed digit
    multipliers", section II; over all outputs of a matrix as in da4ml).
    """
    work = _Rows()
    for terms in rows:
        work.append(terms)
    while (pair := work.most_frequent()) is not None:
        first, second, shift, differ = pair
        both = cells.pair(Term(work.wires[first]), Term(work.wires[second], shift, differ))
        work.replace(pair, both)
    return [[Term(work.wires[i], shift, negative) for (i, shift), negative in row.items()] for row in work.rows]


@dataclass
class _Rows:
    """The rows, and how often each pair occurs in them."""

    wires: list[Wire] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    _numbers: dict[Wire, int] = field(default_factory=dict)
    _counts: Counter[Pair] = field(default_factory=Counter)
    _queue: list[tuple[int, Pair]] = field(default_factory=list)  # with counts that may have fallen since

    def append(self, terms: Sequence[Term]) -> None:
        row: Row = {}
        self.rows.append(row)
        for term in terms:
            self._insert(row, (self._number(term.source), term.shift), term.negative)

    def most_frequent(self) -> Pair | None:
        """The pair that occurs most often, None where none does twice."""
        while self._queue:
            count, pair = heapq.heappop(self._queue)
            if -count == self._counts[pair]:
                return pair
            if self._counts[pair] > 1:
                heapq.heappush(self._queue, (-self._counts[pair], pair))
        return None

    def replace(self, pair: Pair, both: Term) -> None:
        """Put one term, `both` shifted and negated as needed, in the place of each of the pairs."""
        first, second, distance, differ = pair
        number = self._number(both.source)
        for row in self.rows:
            for wire, shift in [key for key in row if key[0] == first]:
                other = (second, shift + distance)
                if (wire, shift) not in row or other not in row or other == (wire, shift):
                    continue
                negative = row[wire, shift]
                if (row[other] != negative) != differ:
                    continue
                self._remove(row, (wire, shift))
                self._remove(row, other)
                self._insert(row, (number, shift + both.shift), negative != both.negative)
        self._counts.pop(pair, None)

    def _number(self, wire: Wire) -> int:
        if wire not in self._numbers:
            self._numbers[wire] = len(self.wires)
            self.wires.append(wire)
        return self._numbers[wire]

    def _insert(self, row: Row, key: tuple[int, int], negative: bool) -> None:
        assert key not in row
        for other, sign in row.items():
            pair = _pair(key, other, negative != sign)
            self._counts[pair] += 1
            if self._counts[pair] > 1:
                heapq.heappush(self._queue, (-self._counts[pair], pair))
        row[key] = negative

    def _remove(self, row: Row, key: tuple[int, int]) -> None:
        negative = row.pop(key)
        for other, sign in row.items():
            self._counts[_pair(key, other, negative != sign)] -= 1


def _pair(a: tuple[int, int], b: tuple[int, int], differ: bool) -> Pair:
    if (b[1], b[0]) < (a[1], a[0]):
        a, b = b, a
    return a[0], b[0], b[1] - a[1], differ
