"""Levels of logic: how many LUTs lie one behind the other on the longest path of a mapped netlist."""

import json
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from bitfab.errors import BitfabError
from bitfab.tools.yosys import Netlist

__all__ = ["levels"]

# Cells that let a signal through, with their outputs; any other (register, memory, multiplier) ends a path.
_OUTPUTS = {f"LUT{inputs}": {"O"} for inputs in range(1, 7)}
_OUTPUTS |= {"INV": {"O"}, "MUXF7": {"O"}, "MUXF8": {"O"}, "CARRY4": {"O", "CO"}}
_OUTPUTS |= {"LUT4": {"O", "Z"}, "PFUMX": {"Z"}, "L6MUX21": {"Z"}, "CCU2C": {"S0", "S1", "COUT"}}
_OUTPUTS |= {"SB_LUT4": {"O"}, "SB_CARRY": {"CO"}, "ALU": {"SUM", "COUT"}}
_OUTPUTS |= {f"LUT{inputs}": _OUTPUTS[f"LUT{inputs}"] | {"F"} for inputs in range(1, 5)}
_OUTPUTS |= {f"MUX2_LUT{inputs}": {"O"} for inputs in range(5, 9)}
# Beside the LUTs; a CCU2C and an ALU have theirs within.
_FREE = {"MUXF7", "MUXF8", "PFUMX", "L6MUX21", "CARRY4", "SB_CARRY", *(f"MUX2_LUT{inputs}" for inputs in range(5, 9))}


def levels(netlist: Netlist) -> int:
    """The LUTs on the longest path from a register or input to a register or output, of any family but Cyclone V.

    Along a carry chain only the LUT that enters it counts; cells that join LUTs to wider ones are free. Raises
    BitfabError where logic feeds itself without a register.
    """
    module = json.loads(netlist.json.read_text(encoding="utf-8"))["modules"][netlist.top]
    cells = [cell for cell in module["cells"].values() if cell["type"] in _OUTPUTS]
    outputs = [[bit for port in _ports(cell, output=True) for bit in cell["connections"][port]] for cell in cells]
    inputs = [
        [(bit, _cost(cell, port)) for port in _ports(cell) for bit in cell["connections"][port]] for cell in cells
    ]
    driven = {bit for bits in outputs for bit in bits}
    readers: defaultdict[int, list[int]] = defaultdict(list)
    waiting = []
    for index, bits in enumerate(inputs):
        needed = {bit for bit, _ in bits if bit in driven}
        waiting.append(len(needed))
        for bit in needed:
            readers[bit].append(index)
    level: dict[int, int] = {}
    ready, done = deque(index for index, count in enumerate(waiting) if count == 0), 0
    while ready:
        index = ready.popleft()
        done += 1
        depth = max((level.get(bit, 0) + cost for bit, cost in inputs[index]), default=0)
        for bit in outputs[index]:
            level[bit] = depth
            for reader in readers[bit]:
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
    if done < len(cells):
        raise BitfabError(f"{netlist.top}: a loop of logic without a register; levels are not defined: add one")
    return max(level.values(), default=0)


def _ports(cell: Mapping[str, Any], output: bool = False) -> list[str]:
    names = _OUTPUTS[cell["type"]]
    return [port for port in cell["connections"] if (port in names) == output]


def _cost(cell: Mapping[str, Any], port: str) -> int:
    return 0 if cell["type"] in _FREE or port == "CIN" else 1
