"""Cells for sums, counts of ones and the largest of many: balanced trees of small parts."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from bitfab.hw.parallel.cells import (
    AtLeast,
    Bit,
    Bundle,
    Cell,
    Clip,
    Join,
    Less,
    Lookup,
    Mux,
    Shift,
    Sum,
    Term,
    Wire,
    substitute,
)

# Three counts of 100 bits in LUT6, in LUT4 and period on an ECP5: counters of six bits 340, 1067, 12.3 ns; of three
# 465, 890, 11.6 ns. One count as a sum of bits (in any order, Yosys joins them) 160, 445; of six at once 118, 325.
COMPRESSOR = 6  # bits that a counter takes at once
FINAL = 2  # bits a column may have when the adder takes over
# Five values of 7 bits: 55 LUT6 and 5.3 ns on an ECP5 where a tournament takes 43 and 10.2 ns.
EACH_WITH_EACH = 7  # values up to which the largest are found by comparing all at once


@dataclass
class Cells:
    """Grows the cells of one block; a cell that is there already is not made again."""

    name: str
    cells: list[Cell] = field(default_factory=list)
    _known: dict[Cell, Wire] = field(default_factory=dict)
    _depth: dict[Wire, int] = field(default_factory=dict)  # sums one after the other
    _numbers: count[int] = field(default_factory=count)

    def bit(self, source: Wire, place: int) -> Wire:
        """A bit of the two's complement, sign extension included."""
        if source.bits == 1 and not source.signed and place == 0:
            return source
        if place >= source.bits and not source.signed:
            return self.constant(0)
        return self._add(Bit(_bit(), source, min(place, source.bits - 1)))

    def at_least(self, source: Wire, constant: int) -> Wire:
        """One where `source >= constant`."""
        if constant <= source.low or constant > source.high:
            return self.constant(int(constant <= source.low))
        if source.bits == 1 and not source.signed:
            return source
        return self._add(AtLeast(_bit(), source, constant))

    def lookup(self, sources: Sequence[Wire], entries: Sequence[int]) -> Wire:
        """`entries[address]`, the first source's bits lowest."""
        return self._add(Lookup(Wire("", min(entries), max(entries)), tuple(sources), tuple(entries)))

    def constant(self, value: int) -> Wire:
        return self._add(Sum(Wire("", value, value), (), value))

    def join(self, bits: Sequence[Wire]) -> Wire:
        """Single bits as a number, the first the lowest."""
        while len(bits) > 1 and bits[-1].high == 0:
            bits = bits[:-1]
        if len(bits) == 1:
            return bits[0]
        return self._add(Join(Wire("", 0, sum(bit.high << i for i, bit in enumerate(bits))), tuple(bits)))

    def less(self, left: Wire, right: Wire) -> Wire:
        """One where `left < right`."""
        if left.high < right.low or left.low >= right.high:
            return self.constant(int(left.high < right.low))
        return self._add(Less(_bit(), left, right))

    def mux(self, select: Wire, zero: Wire, one: Wire) -> Wire:
        low, high = min(zero.low, one.low), max(zero.high, one.high)
        return zero if zero == one else self._add(Mux(Wire("", low, high), select, zero, one))

    def shift(self, source: Wire, places: int) -> Wire:
        """`source >> places`, towards minus infinity."""
        low, high = source.low >> places, source.high >> places
        if places == 0:
            return source
        return self.constant(low) if low == high else self._add(Shift(Wire("", low, high), source, places))

    def clip(self, source: Wire, low: int, high: int) -> Wire:
        if low <= source.low and source.high <= high:
            return source
        bounds = min(max(source.low, low), high), max(min(source.high, high), low)
        return self.constant(bounds[0]) if bounds[0] == bounds[1] else self._add(Clip(Wire("", *bounds), source))

    def total(self, products: Sequence[tuple[Wire, int]], constant: int = 0) -> Wire:
        """`constant + sum factor * wire`, each factor in canonical signed digits, in a tree of sums of two."""
        terms = [term for wire, factor in products for term in digits(wire, factor)]
        return self.sum_of(terms, constant)

    def sum_of(self, terms: Sequence[Term], constant: int = 0) -> Wire:
        """The terms and the constant added in a balanced tree: first what is there first, the narrowest of it."""
        last = tuple(sorted(self._fewer(terms, 2), key=lambda term: term.negative))
        alone = len(last) == 1 and constant == 0 and last[0] == Term(last[0].source)
        return last[0].source if alone else self._sum(last, constant)

    def tree(self, terms: Sequence[Term]) -> Term:
        """At least one term, added as in `sum_of`, as one term."""
        (term,) = self._fewer(terms, 1)
        return term

    def _fewer(self, terms: Sequence[Term], most: int) -> list[Term]:
        queue: list[tuple[int, int, int, Term]] = []
        numbers = count()
        for term in terms:
            heapq.heappush(queue, self._rank(term, next(numbers)))
        while len(queue) > most:
            both = self.pair(heapq.heappop(queue)[3], heapq.heappop(queue)[3])
            heapq.heappush(queue, self._rank(both, next(numbers)))
        return [entry[3] for entry in queue]

    def _rank(self, term: Term, number: int) -> tuple[int, int, int, Term]:
        return self._depth.get(term.source, 0), term.source.bits + term.shift, number, term

    def pair(self, a: Term, b: Term) -> Term:
        """Two terms as one: their common shift, and the sign of two negative ones, go outside."""
        shift, negative = min(a.shift, b.shift), a.negative and b.negative
        inner = [Term(t.source, t.shift - shift, t.negative and not negative) for t in (a, b)]
        return Term(self._sum(tuple(sorted(inner, key=lambda term: term.negative)), 0), shift, negative)

    def product(self, a: Wire, b: Wire) -> Wire:
        """`a * b`: multiples of the wider one, chosen by the bits of the other, in a tree of sums of two."""
        slim, wide = sorted((a, b), key=lambda wire: wire.bits)
        ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        zero, top = self.constant(0), slim.bits - 1
        chosen = [self.mux(self.bit(slim, place), zero, wide) for place in range(slim.bits)]
        terms = [Term(wire, place, slim.signed and place == top) for place, wire in enumerate(chosen)]
        last = tuple(sorted(self._fewer(terms, 2), key=lambda term: term.negative))
        return self._add(Sum(Wire("", min(ends), max(ends)), last))  # as wide as the product, not as its terms

    def bundle(self, results: Sequence[Wire], all_bits: bool) -> Bundle:
        """The block's result: its wires get the block's name; those of other blocks, or used twice, are copied."""
        renamed: dict[Wire, Wire] = {}
        own = {cell.output for cell in self.cells}
        wires = []
        for i, wire in enumerate(results):
            final = Wire(self.name, 0, 1, i) if all_bits else Wire(f"{self.name}_{i}", wire.low, wire.high)
            if wire in own and wire not in renamed:
                renamed[wire] = final
            else:
                self.cells.append(Sum(final, (Term(wire),)))
            wires.append(final)
        self.cells = _live([substitute(cell, renamed) for cell in self.cells], set(wires))
        return Bundle(self.name, tuple(wires))

    def _sum(self, terms: tuple[Term, ...], constant: int) -> Wire:
        spans = [
            sorted((-1 if t.negative else 1) * (end << t.shift) for end in (t.source.low, t.source.high)) for t in terms
        ]
        low, high = constant + sum(span[0] for span in spans), constant + sum(span[1] for span in spans)
        return self._add(Sum(Wire("", low, high), terms, constant))

    def _add(self, cell: Cell) -> Wire:
        if cell not in self._known:
            output = Wire(f"{self.name}_t{next(self._numbers)}", cell.output.low, cell.output.high)
            self.cells.append(substitute(cell, {cell.output: output}))
            self._known[cell] = output
            self._depth[output] = isinstance(cell, Sum) + max((self._depth.get(w, 0) for w in cell.sources), default=0)
        return self._known[cell]


def _bit() -> Wire:
    return Wire("", 0, 1)


def _live(cells: Sequence[Cell], needed: set[Wire]) -> list[Cell]:
    """The cells that the needed wires depend on."""
    kept = []
    for cell in reversed(cells):
        if cell.output in needed:
            needed |= set(cell.sources)
            kept.append(cell)
    return kept[::-1]


def digits(wire: Wire, factor: int) -> list[Term]:
    """`factor * wire` as terms: the non-adjacent form of the factor, which has the fewest digits that are not 0."""
    terms, rest, shift = [], abs(factor), 0
    while rest:
        if rest & 1:
            digit = 2 - (rest & 3)  # 1 or -1, such that the next digit is 0
            terms.append(Term(wire, shift, (digit < 0) != (factor < 0)))
            rest -= digit
        rest, shift = rest >> 1, shift + 1
    return terms


def ones(cells: Cells, bits: Sequence[Wire]) -> Wire:
    """How many of the bits are one: counters of up to six bits, column by column, then one addition."""
    columns = {0: list(bits)}
    while max(len(column) for column in columns.values()) > FINAL:
        columns = _compressed(cells, columns)
    rows = [
        [columns[place][row] if len(columns[place]) > row else None for place in sorted(columns)]
        for row in range(max(len(column) for column in columns.values()))
    ]
    numbers = [cells.join([cells.constant(0) if bit is None else bit for bit in row]) for row in rows]
    return cells.sum_of([Term(number) for number in numbers])


def _compressed(cells: Cells, columns: dict[int, list[Wire]]) -> dict[int, list[Wire]]:
    """Each column's bits counted in sixes or threes; what a count's bits weigh decides on their column."""
    result: dict[int, list[Wire]] = {}
    for place, column in sorted(columns.items()):
        start = 0
        while start < len(column):
            rest = len(column) - start
            size = 1 if len(column) <= FINAL or rest < 3 else COMPRESSOR if rest >= COMPRESSOR else 3
            group, start = column[start : start + size], start + size
            for i in range(size.bit_length()):
                table = [(address.bit_count() >> i) & 1 for address in range(1 << size)]
                bit = group[0] if size == 1 else cells.lookup(group, table)
                result.setdefault(place + i, []).append(bit)
    return result


def top_k(cells: Cells, values: Sequence[Wire], k: int) -> list[Wire]:
    """The indices of the k largest, the largest first: all are compared with all, or many play a tournament for one."""
    if k == 1 and len(values) > EACH_WITH_EACH:
        return [_tournament(cells, values)]
    count = len(values)
    smaller = {(i, j): cells.less(values[i], values[j]) for j in range(count) for i in range(j)}
    losses = [_losses(cells, smaller, j, count) for j in range(1, count)]
    return [_at_place(cells, losses, place) for place in range(k)]


def _tournament(cells: Cells, values: Sequence[Wire]) -> Wire:
    entries: list[tuple[Wire, Wire]] = [(wire, cells.constant(index)) for index, wire in enumerate(values)]
    while len(entries) > 1:
        paired = [_larger(cells, *entries[i : i + 2]) for i in range(0, len(entries) - 1, 2)]
        entries = paired + ([entries[-1]] if len(entries) % 2 else [])
    return entries[0][1]


def _losses(
    cells: Cells, smaller: Mapping[tuple[int, int], Wire], j: int, count: int
) -> tuple[list[Wire], Sequence[int]]:
    """How many games value j loses, by the address that some wires form: those to values before it that are no smaller,
    and to values behind it that are larger. The wires are the games themselves if they are up to six, else their count.
    """
    before, behind = [smaller[i, j] for i in range(j)], [smaller[j, k] for k in range(j + 1, count)]
    if count <= EACH_WITH_EACH:
        return before + behind, [(address ^ ((1 << j) - 1)).bit_count() for address in range(1 << (count - 1))]
    total = ones(cells, [cells.lookup([game], [1, 0]) for game in before] + behind)
    bits = [cells.bit(total, place) for place in range(total.high.bit_length())]
    return bits, range(1 << len(bits))


def _at_place(cells: Cells, losses: Sequence[tuple[list[Wire], Sequence[int]]], place: int) -> Wire:
    """The index of the value that loses `place` games."""
    wins = [cells.lookup(wires, [int(lost == place) for lost in table]) for wires, table in losses]
    places = range(len(losses).bit_length())
    winners = [[win for j, win in enumerate(wins, start=1) if j >> place & 1] for place in places]
    bits = [_any(cells, group) for group in winners]
    return cells.join(bits) if bits else cells.constant(0)


def _any(cells: Cells, bits: Sequence[Wire]) -> Wire:
    groups = [bits[i : i + COMPRESSOR] for i in range(0, len(bits), COMPRESSOR)]
    found = [cells.lookup(group, [int(address > 0) for address in range(1 << len(group))]) for group in groups]
    return found[0] if len(found) == 1 else _any(cells, found)


def largest(cells: Cells, values: Sequence[Wire]) -> Wire:
    """The largest value itself, by a tournament; bipolar values compare as their bits do."""
    while len(values) > 1:
        pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
        values = [cells.mux(cells.less(p[0], p[1]), p[0], p[1]) if len(p) > 1 else p[0] for p in pairs]
    return values[0]


def _larger(cells: Cells, left: tuple[Wire, Wire], right: tuple[Wire, Wire]) -> tuple[Wire, Wire]:
    """The right one, value and index, only where its value is larger."""
    right_wins = cells.less(left[0], right[0])
    return cells.mux(right_wins, left[0], right[0]), cells.mux(right_wins, left[1], right[1])
