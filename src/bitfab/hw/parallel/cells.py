"""A language-neutral netlist: cells, each of which defines one wire from earlier ones, grouped by the graph's nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from bitfab.dtypes import IntType


@dataclass(frozen=True)
class Wire:
    """Integers of [low, high] on the fewest bits that hold them, two's complement where low < 0.

    With `index` the wire is that bit of the vector `name`, all of whose wires are single unsigned bits.
    """

    name: str
    low: int
    high: int
    index: int | None = None

    @property
    def signed(self) -> bool:
        return self.low < 0

    @property
    def bits(self) -> int:
        if self.low >= 0:
            return max(1, self.high.bit_length())
        return max((-self.low - 1).bit_length(), max(self.high, 0).bit_length()) + 1


@dataclass(frozen=True)
class Bit:
    """Bit `place` of the source's two's complement, 0 the least significant."""

    output: Wire
    source: Wire
    place: int

    @property
    def sources(self) -> tuple[Wire, ...]:
        return (self.source,)


@dataclass(frozen=True)
class AtLeast:
    """One where `source >= constant`; low < constant <= high, so that it is neither always nor never."""

    output: Wire
    source: Wire
    constant: int

    @property
    def sources(self) -> tuple[Wire, ...]:
        return (self.source,)


@dataclass(frozen=True)
class Lookup:
    """`entries[address]`, the address being the sources' bits one after the other, the first source's lowest.

    A truth table of up to six inputs where sources and output are single bits; entries may be negative.
    """

    output: Wire
    sources: tuple[Wire, ...]
    entries: tuple[int, ...]

    @property
    def address_bits(self) -> int:
        return sum(source.bits for source in self.sources)


@dataclass(frozen=True)
class Term:
    """What a sum adds: `source << shift`, or with `negative` subtracts."""

    source: Wire
    shift: int = 0
    negative: bool = False


@dataclass(frozen=True)
class Sum:
    """The terms and a constant added: up to two terms, exact; with no term a constant."""

    output: Wire
    terms: tuple[Term, ...]
    constant: int = 0

    @property
    def sources(self) -> tuple[Wire, ...]:
        return tuple(term.source for term in self.terms)


@dataclass(frozen=True)
class Join:
    """The sources' bits one after the other as one unsigned number, the first source's lowest."""

    output: Wire
    sources: tuple[Wire, ...]


@dataclass(frozen=True)
class Shift:
    """`source >> places`: arithmetic, towards minus infinity."""

    output: Wire
    source: Wire
    places: int

    @property
    def sources(self) -> tuple[Wire, ...]:
        return (self.source,)


@dataclass(frozen=True)
class Clip:
    """The source, or the bound it lies beyond; the bounds are the output's low and high."""

    output: Wire
    source: Wire

    @property
    def sources(self) -> tuple[Wire, ...]:
        return (self.source,)


@dataclass(frozen=True)
class Less:
    """One where `left < right`, as integers, whatever their signs and widths."""

    output: Wire
    left: Wire
    right: Wire

    @property
    def sources(self) -> tuple[Wire, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Mux:
    """`one` where the bit `select` is set, else `zero`."""

    output: Wire
    select: Wire
    zero: Wire
    one: Wire

    @property
    def sources(self) -> tuple[Wire, ...]:
        return (self.select, self.zero, self.one)


@dataclass(frozen=True)
class Register:
    """The source one cycle later; no reset. The bits of a vector are always delayed together."""

    output: Wire
    source: Wire

    @property
    def sources(self) -> tuple[Wire, ...]:
        return (self.source,)


Cell = Bit | AtLeast | Lookup | Sum | Join | Shift | Clip | Less | Mux | Register


@dataclass(frozen=True)
class Bundle:
    """Wires that cross from block to block side by side as one port, the first lowest.

    Either all are the bits 0, 1, ... of the vector `name`, or all are wires of their own with other names.
    """

    name: str
    wires: tuple[Wire, ...]

    @property
    def vector(self) -> bool:
        """Whether the wires are the bits of the vector of the bundle's name."""
        return self.wires[0].index is not None

    @property
    def bits(self) -> int:
        return sum(wire.bits for wire in self.wires)


@dataclass(frozen=True)
class Block:
    """A node of the graph in hardware: its cells in an order of definition before use.

    Its ports are clk_i where it is `clocked`, `inputs`, which are results of other blocks (or the netlist's input), and
    `value`, the node's own result, all of whose wires are there in combinational stage `stage`. Registers, where there
    are any, lie within the block, also those that delay its inputs. Bipolar integers are wires of one bit, 0 for -1 and
    1 for +1.
    """

    name: str  # an identifier in both languages: the module or entity is called <netlist's name>_<block's name>
    node: str  # the graph's name
    comment: str
    inputs: tuple[Bundle, ...]
    cells: tuple[Cell, ...]
    value: Bundle
    stage: int = 0

    @property
    def clocked(self) -> bool:
        """Whether it holds a register; without one it has no clock port."""
        return any(isinstance(cell, Register) for cell in self.cells)


@dataclass(frozen=True)
class Netlist:
    """A whole function of one frame between an input register and an output register.

    `data_i` holds the input's wires, each as wide as `input_type`, the first lowest; `data_o` the output's, as wide as
    `output_type`, sign-extended where the wire is narrower. `stages` is the number of combinational stages:
    `stages - 1` ranks of registers lie in the blocks. With `serial` data_i is one integer of the input a cycle, the
    first first, shifted into the input register, and last_i comes with the last.
    """

    name: str
    input: Bundle
    input_type: IntType
    blocks: tuple[Block, ...]
    output: Bundle
    output_type: IntType
    stages: int = 1
    serial: bool = False

    @property
    def latency(self) -> int:
        """Cycles from a frame's (last) input, valid_i, to its result, valid_o."""
        return self.stages + 1

    def __iter__(self) -> Iterator[Cell]:
        for block in self.blocks:
            yield from block.cells


def substitute(cell: Cell, wires: Mapping[Wire, Wire]) -> Cell:
    """The cell with other wires in the place of some, its output's included."""
    return replace(cell, **{field.name: _swapped(getattr(cell, field.name), wires) for field in fields(cell)})


def _swapped(part: Any, wires: Mapping[Wire, Wire]) -> Any:
    match part:
        case Wire():
            return wires.get(part, part)
        case Term():
            return replace(part, source=wires.get(part.source, part.source))
        case tuple():
            return tuple(_swapped(element, wires) for element in part)
    return part
