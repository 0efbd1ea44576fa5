"""Sums of several outputs that share their parts: the most frequent common part becomes a wire, again and again."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bitfab.hw.parallel.arithmetic import Cells
from bitfab.hw.parallel.cells import Term, Wire

Pair = tuple[int, int, int, bool]  # two numbers, how much further the second is shifted, whether their signs differ
Place = tuple[int, int]  # a row's number, or a column's, and a shift


def shared(cells: Cells, rows: Sequence[Sequence[Term]]) -> list[list[Term]]:
    """The rows with what they have in common, shifted and negated alike, replaced by one term each.

    Greedy, what saves most additions first: a pair of terms that k rows hold, or k terms that a pair of rows holds;
    either saves k - 1. Pairs of terms: Hartley 1996, "Subexpression sharing in filters using canonic signed digit
    multipliers", section II. Pairs of rows are the same search in the transposed matrix; da4ml (Sun et al. 2025,
    2507.04535) finds such rows by a spanning tree over their differences. Of a layer of 64 x 32 weights of 8 bits,
    pairs of terms alone leave 28,262 bits of adders, both together 26,966.
    """
    work = _Matrix([[(term.source, term.shift, term.negative) for term in terms] for terms in rows])
    while work.share_most():
        pass
    return [work.terms(cells, number) for number in range(len(rows))]


@dataclass
class _Pairs:
    """How often each pair occurs among lines, which are rows or columns of a matrix."""

    lines: list[dict[Place, bool]] = field(default_factory=list)  # by number: what stands where, whether negated
    _counts: Counter[Pair] = field(default_factory=Counter)
    _queue: list[tuple[int, Pair]] = field(default_factory=list)  # with counts that may have fallen since

    def insert(self, line: int, place: Place, negative: bool) -> None:
        assert place not in self.lines[line]
        for other, sign in self.lines[line].items():
            pair = _pair(place, other, negative != sign)
            self._counts[pair] += 1
            if self._counts[pair] > 1:
                heapq.heappush(self._queue, (-self._counts[pair], pair))
        self.lines[line][place] = negative

    def remove(self, line: int, place: Place) -> bool:
        """Take out what stands there; returns whether it was negated."""
        negative = self.lines[line].pop(place)
        for other, sign in self.lines[line].items():
            self._counts[_pair(place, other, negative != sign)] -= 1
        return negative

    def most_frequent(self) -> tuple[int, Pair | None]:
        """The pair that occurs most often, and how often; None where none does twice."""
        while self._queue:
            count, pair = self._queue[0]
            if -count == self._counts[pair]:
                return -count, pair
            heapq.heappop(self._queue)
            if self._counts[pair] > 1:
                heapq.heappush(self._queue, (-self._counts[pair], pair))
        return 0, None


class _Matrix:
    """Rows, which are sums, over columns, which are what they add: wires, and results of other rows."""

    def __init__(self, rows: Sequence[Sequence[tuple[Wire, int, bool]]]) -> None:
        self._wires = list(dict.fromkeys(wire for row in rows for wire, _, _ in row))
        self._rows, self._columns = _Pairs(), _Pairs([{} for _ in self._wires])
        self._definitions: dict[int, int] = {}  # of columns that are results: their row
        self._made: dict[int, Term] = {}
        numbers = {wire: number for number, wire in enumerate(self._wires)}
        for row in rows:
            self._rows.lines.append({})
            for wire, shift, negative in row:
                self._insert(len(self._rows.lines) - 1, numbers[wire], shift, negative)

    def share_most(self) -> bool:
        """Give the most frequent common part a row of its own; False where nothing occurs twice."""
        in_rows, terms = self._rows.most_frequent()
        in_columns, rows = self._columns.most_frequent()
        if terms is not None and in_rows >= in_columns:
            self._share_terms(terms)
        elif rows is not None:
            self._share_rows(rows)
        return terms is not None or rows is not None

    def terms(self, cells: Cells, row: int) -> list[Term]:
        """A row's terms, those that are results of other rows made as cells."""
        return [
            _moved(self._term(cells, column), shift, negative)
            for (column, shift), negative in self._rows.lines[row].items()
        ]

    def _term(self, cells: Cells, column: int) -> Term:
        if column < len(self._wires):
            return Term(self._wires[column])
        if column not in self._made:
            self._made[column] = cells.tree(self.terms(cells, self._definitions[column]))
        return self._made[column]

    def _share_terms(self, pair: Pair) -> None:
        """A column for two terms, in the place of both wherever they are."""
        first, second, distance, differ = pair
        found = []
        for row, shift in list(self._columns.lines[first]):
            terms, other = self._rows.lines[row], (second, shift + distance)
            # The same wire twice can overlap, as in x + 2x + 4x: a term goes into one pair only.
            if (first, shift) in terms and other in terms and (terms[other] != terms[first, shift]) == differ:
                negative = self._remove(row, first, shift)
                self._remove(row, *other)
                found.append((row, shift, negative))
        self._define([(first, 0, False), (second, distance, differ)], found)

    def _share_rows(self, pair: Pair) -> None:
        """A row for what two rows have in common, and its column in both."""
        first, second, distance, differ = pair
        common = []
        for column, shift in list(self._rows.lines[first]):
            here, there, other = self._rows.lines[first], self._rows.lines[second], (column, shift + distance)
            if (column, shift) in here and other in there and (there[other] != here[column, shift]) == differ:
                negative = self._remove(first, column, shift)
                self._remove(second, *other)
                common.append((column, shift, negative))
        lowest = min(shift for _, shift, _ in common)
        self._define(
            [(column, shift - lowest, negative) for column, shift, negative in common],
            [(first, lowest, False), (second, lowest + distance, differ)],
        )

    def _define(self, terms: Sequence[tuple[int, int, bool]], uses: Sequence[tuple[int, int, bool]]) -> None:
        """A row of these terms (column, shift, negated); its column in the rows that use it (row, shift, negated)."""
        row, column = len(self._rows.lines), len(self._columns.lines)
        self._rows.lines.append({})
        self._columns.lines.append({})
        self._definitions[column] = row
        for used, shift, negative in terms:
            self._insert(row, used, shift, negative)
        for user, shift, negative in uses:
            self._insert(user, column, shift, negative)

    def _insert(self, row: int, column: int, shift: int, negative: bool) -> None:
        self._rows.insert(row, (column, shift), negative)
        self._columns.insert(column, (row, shift), negative)

    def _remove(self, row: int, column: int, shift: int) -> bool:
        self._columns.remove(column, (row, shift))
        return self._rows.remove(row, (column, shift))


def _moved(term: Term, shift: int, negative: bool) -> Term:
    return Term(term.source, term.shift + shift, term.negative != negative)


def _pair(a: Place, b: Place, differ: bool) -> Pair:
    if (b[1], b[0]) < (a[1], a[0]):
        a, b = b, a
    return a[0], b[0], b[1] - a[1], differ
