"""Registers between the cells: after every so many levels of logic, balanced over all paths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bitfab.hw.parallel.cells import (
    AtLeast,
    Bit,
    Block,
    Cell,
    Clip,
    Join,
    Less,
    Lookup,
    Mux,
    Netlist,
    Register,
    Shift,
    Sum,
    Wire,
    substitute,
)

# Measured out of context: 300 tables of six inputs on 200 comparisons, counted for three classes: 7.7 ns with registers
# after every 3 levels, 20.5 ns for all 14 levels; comparisons alone 3.6 ns for 2.
NS_PER_LEVEL = 2.0  # of a stage on the slowest ECP5, routing included
NS_OF_REGISTERS = 1.0  # clock to output and setup

Time = tuple[int, int]  # stage, and levels of logic in it


def levels_for(clock_mhz: float) -> int:
    """The levels of logic that a stage may have at this clock, by the estimate for the ECP5; at least one."""
    return max(1, int((1000 / clock_mhz - NS_OF_REGISTERS) / NS_PER_LEVEL))


def cost(cell: Cell) -> int:
    """Levels of lookup tables that a cell takes: one for up to six inputs, two or three for carry chains."""
    match cell:
        case Bit() | Join() | Shift() | Register():
            return 0
        case Lookup():
            return 0 if cell.address_bits <= 1 else 1 if cell.address_bits <= 6 else cell.address_bits - 5
        case AtLeast(source=source):
            return 1 if source.bits <= 6 else 2 if source.bits <= 12 else 3
        case Less(left=left, right=right):
            return 1 if left.bits + right.bits <= 6 else 2 if max(left.bits, right.bits) <= 10 else 3
        case Mux():
            return 1
        case Clip():
            return 2
        case Sum(terms=terms):
            plain = len(terms) == 0 or (len(terms) == 1 and not terms[0].negative and cell.constant == 0)
            if plain:
                return 0
            carry = 1 if cell.output.bits <= 2 else 2 if cell.output.bits <= 16 else 3
            return carry + (len(terms) == 2 and cell.constant != 0)


def depth(netlist: Netlist) -> int:
    """Levels of logic from the input to the output, without any register between."""
    _, times = _scheduled(netlist, None)
    return max((times[wire][1] for wire in netlist.output.wires), default=0)


def pipeline(netlist: Netlist, levels: int) -> Netlist:
    """The netlist with a rank of registers after every `levels` levels of logic; 0 for none at all.

    A result leaves its block in one cycle; whatever is read later than it is made is delayed where it is read.
    """
    blocks, _ = _scheduled(netlist, levels or None)
    stages = {block.value.name: block.stage for block in blocks}
    return replace(netlist, blocks=tuple(blocks), stages=stages.get(netlist.output.name, 0) + 1)


def _scheduled(netlist: Netlist, levels: int | None) -> tuple[list[Block], dict[Wire, Time]]:
    times: dict[Wire, Time] = dict.fromkeys(netlist.input.wires, (0, 0))
    blocks = []
    for block in netlist.blocks:
        stage = _time_cells(block, levels, times)
        blocks.append(_registered(block, stage, times))
        times |= {wire: max(times[wire], (stage, 0)) for wire in block.value.wires}
    return blocks, times


def _time_cells(block: Block, levels: int | None, times: dict[Wire, Time]) -> int:
    """Enter when each cell's output is there; returns the stage in which the block's value is complete."""
    for cell in block.cells:
        stage, level = max((times[source] for source in cell.sources), default=(0, 0))
        taken = cost(cell)
        if levels is not None and level > 0 and taken > 0 and level + taken > levels:
            stage, level = stage + 1, 0
        times[cell.output] = (stage, level + taken)
    return max(times[wire][0] for wire in block.value.wires)


@dataclass
class _Delays:
    """Grows a block's cells; wires that are read later than they are made get registers, once each."""

    times: dict[Wire, Time]
    vectors: dict[str, tuple[Wire, ...]]
    cells: list[Cell] = field(default_factory=list)
    made: dict[tuple[Wire, int], Wire] = field(default_factory=dict)

    def later(self, wire: Wire, cycles: int) -> Wire:
        """The wire so many cycles later; the bits of a vector are delayed together."""
        for number in range(1, cycles + 1):
            if (wire, number) not in self.made:
                together = self.vectors[wire.name] if wire.index is not None else (wire,)
                for each in together:
                    delayed = replace(each, name=f"{each.name}_d{number}")
                    self.cells.append(Register(delayed, self.made.get((each, number - 1), each)))
                    self.made[each, number] = delayed
        return self.made.get((wire, cycles), wire)

    def at(self, wires: Iterable[Wire], stage: int) -> dict[Wire, Wire]:
        """What carries each wire in that stage; constants are the same at any time."""
        return {wire: self.later(wire, stage - self.times[wire][0]) for wire in wires if wire.low != wire.high}


def _registered(block: Block, stage: int, times: dict[Wire, Time]) -> Block:
    early = {wire: _draft(wire) for wire in block.value.wires if times[wire][0] < stage}
    vectors = {bundle.name: bundle.wires for bundle in block.inputs if bundle.vector}
    times = times | {draft: times[wire] for wire, draft in early.items()}
    delays = _Delays(times, vectors)
    for cell in block.cells:
        renamed = substitute(cell, early)
        inputs = delays.at(dict.fromkeys(renamed.sources), times[renamed.output][0])
        delays.cells.append(substitute(renamed, inputs))
    for wire, draft in early.items():
        before = delays.later(draft, stage - times[draft][0] - 1)
        delays.cells.append(Register(wire, before))
    return replace(block, cells=tuple(delays.cells), stage=stage)


def _draft(wire: Wire) -> Wire:
    """The wire before the registers that bring it to its block's last stage."""
    number = "" if wire.index is None else f"_{wire.index}"
    return Wire(f"{wire.name}{number}_d0", wire.low, wire.high)
