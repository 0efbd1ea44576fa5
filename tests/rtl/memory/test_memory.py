"""bf_memory: what was loaded last is read, of the right memory alone; block RAM stays block RAM."""

from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from bitfab.tools import verilator, yosys
from bitfab.tools.process import ToolError
from tests.rtl.harness import RTL, Case, Words, check, crossed, simulate

BLOCK = RTL / "memory" / "bf_memory.sv"
SOURCES = [Path(__file__).parent / "bf_memory_pair.sv", BLOCK]
COMMANDS = 300


@dataclass(frozen=True)
class Pair:
    """The first memory of bf_memory_pair and its bus; the second has two words of five bits above it."""

    bits: int
    depth: int
    address_bits: int
    load_bits: int
    load_address_bits: int
    base: int

    def parameters(self) -> dict[str, int]:
        names = ("Bits", "Depth", "AddressBits", "LoadBits", "LoadAddressBits", "LoadBase")
        own = (self.bits, self.depth, self.address_bits, self.load_bits, self.load_address_bits, self.base)
        return dict(zip(names, own, strict=True))


PAIRS = [
    Pair(8, 5, 3, 8, 5, 8),
    Pair(5, 1, 1, 7, 2, 0),
    Pair(70, 16, 4, 80, 6, 32),
    Pair(1, 33, 6, 5, 9, 256),
]


def case(name: str, pair: Pair, idle: int, stall: int, seed: int) -> Case:
    """Reads and loads by chance, loads of addresses that no memory has among them."""
    rng = np.random.default_rng(seed)
    first, second = (
        [int.from_bytes(rng.bytes(16), "little") % (1 << bits) for _ in range(depth)]
        for bits, depth in ((pair.bits, pair.depth), (5, 2))
    )
    above = pair.base + (1 << pair.address_bits)
    owned = {**{pair.base + i: (first, i) for i in range(pair.depth)}, **{above + i: (second, i) for i in range(2)}}
    held = range(pair.base, above)
    strays = [a for a in range(1 << pair.load_address_bits) if a not in owned and a not in held]
    memories = {"FirstFile": Words(pair.bits, list(first)), "SecondFile": Words(5, list(second))}
    commands, expected = [], []
    for _ in range(COMMANDS):
        address = int(rng.integers(pair.depth))
        target, data = 0, int.from_bytes(rng.bytes(16), "little") % (1 << pair.load_bits)
        load = bool(rng.integers(2))
        if load:
            target = int(rng.choice(strays if strays and rng.integers(8) == 0 else list(owned)))
            if target in owned:
                memory, place = owned[target]
                memory[place] = data % (1 << (pair.bits if memory is first else 5))
        else:
            expected.append(second[address % 2] << pair.bits | first[address])
        word = int(load) << pair.load_address_bits | target
        commands.append((word << pair.load_bits | data) << pair.address_bits | address)
    width = 1 + pair.load_address_bits + pair.load_bits + pair.address_bits
    return Case(
        name,
        {"": Words(width, commands)},
        {"": Words(pair.bits + 5, expected)},
        pair.parameters(),
        memories,
        idle=idle,
        stall=stall,
        seed=seed,
    )


def test_memory_reads_what_was_loaded_last(tmp_path: Path) -> None:
    paces, cases = cycle(crossed()), []
    for pair in [*PAIRS, *PAIRS]:
        idle, stall = next(paces)
        cases.append(case(f"{pair}, {len(cases)}", pair, idle, stall, len(cases)))
    check(simulate("bf_memory_pair", cases, tmp_path, sources=SOURCES))


@pytest.mark.parametrize("pair", PAIRS)
def test_no_lint(pair: Pair) -> None:
    verilator.lint([BLOCK], "bf_memory", {**pair.parameters(), "MemoryFile": "words.mem"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"MemoryFile": ""}, "MemoryFile must name a file"),
        ({"Depth": 9}, "Depth must be at most"),
        ({"LoadBits": 7}, "LoadBits and LoadAddressBits must be enough"),
        ({"LoadBase": 4}, "LoadBase a multiple of"),
    ],
)
def test_illegal_parameters_are_refused(wrong: dict[str, int | str], message: str) -> None:
    with pytest.raises(ToolError) as error:
        verilator.lint([BLOCK], "bf_memory", {**PAIRS[0].parameters(), "MemoryFile": "words.mem", **wrong})
    assert any(message in line for line in error.value.lines)


@pytest.mark.parametrize(("depth", "style", "bram"), [(40, 1, 2), (144, 0, 2), (40, 2, 0)])
def test_synthesis_infers_the_memory(depth: int, style: int, bram: int, tmp_path: Path) -> None:
    """64 bits in two block RAMs of 36 or in LUT RAM, and beside it only what tells that an address is its own."""
    (tmp_path / "words.mem").write_text("".join(f"{i * 0x123456789ABCDEF % (1 << 64):016x}\n" for i in range(depth)))
    top = tmp_path / "top.sv"
    top.write_text(f"""\
module top (input logic clk_i, enable_i, load_i, input logic [7:0] address_i, output logic [63:0] data_o,
            input logic [9:0] load_address_i, input logic [63:0] load_data_i);
  bf_memory #(.Bits(64), .Depth({depth}), .AddressBits(8), .Style({style}), .LoadBits(64), .LoadAddressBits(10),
      .LoadBase(512), .MemoryFile("words.mem")) u_memory (.*);
endmodule
""")
    total = yosys.synthesize_ecp5([BLOCK, top], "top", tmp_path).total
    assert (total.bram, total.lutram > 0) == (bram, bram == 0)
    assert not bram or (total.lut <= 4 and total.ff == 0), total
