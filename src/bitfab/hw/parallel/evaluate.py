"""What the cells compute, in numpy integers: the netlist proved equal to the graph before any HDL exists."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.hw.parallel.cells import (
    AtLeast,
    Bit,
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
)

Values = Mapping[Wire, IntArray]


def evaluate(netlist: Netlist, x: IntArray) -> IntArray:
    """The output (batch, wires) for the input (batch, wires), int64; a register passes its value on at once.

    Bipolar integers are 0 and 1 here, as on the wires. Raises AssertionError where a value leaves its wire's range.
    """
    values: dict[Wire, IntArray] = {wire: x[:, i].astype(np.int64) for i, wire in enumerate(netlist.input.wires)}
    for cell in netlist:
        result = np.broadcast_to(np.asarray(_computed(cell, values), dtype=np.int64), (len(x),))
        wire = cell.output
        assert len(x) == 0 or (wire.low <= result.min() and result.max() <= wire.high), (cell, result)
        values[wire] = result
    return np.stack([values[wire] for wire in netlist.output.wires], axis=1)


def _computed(cell: Cell, values: Values) -> IntArray | int:
    match cell:
        case Bit():
            return (values[cell.source] >> cell.place) & 1
        case AtLeast():
            return (values[cell.source] >= cell.constant).astype(np.int64)
        case Lookup():
            return np.asarray(cell.entries, dtype=np.int64)[_joined(cell.sources, values)]
        case Sum():
            terms = [(values[t.source] << t.shift) * (-1 if t.negative else 1) for t in cell.terms]
            return np.asarray(sum(terms) + cell.constant)
        case Join():
            return _joined(cell.sources, values)
        case Shift():
            return values[cell.source] >> cell.places
        case Clip():
            return np.clip(values[cell.source], cell.output.low, cell.output.high)
        case Less():
            return (values[cell.left] < values[cell.right]).astype(np.int64)
        case Mux():
            return np.where(values[cell.select] != 0, values[cell.one], values[cell.zero])
        case Register():
            return values[cell.source]


def _joined(wires: tuple[Wire, ...], values: Values) -> IntArray:
    """The wires' bits side by side, the first lowest."""
    address, start = np.zeros(1, dtype=np.int64), 0
    for wire in wires:
        address = address | ((values[wire] & ((1 << wire.bits) - 1)) << start)
        start += wire.bits
    return address
