"""The VHDL of parallel designs: every kind of cell against the integers, a testbench that can fail, clean analysis."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitfab.dtypes import IntArray, IntType
from bitfab.hw.memories import mem_file
from bitfab.hw.parallel import vhdl
from bitfab.hw.parallel.arithmetic import Cells
from bitfab.hw.parallel.cells import (
    AtLeast,
    Bit,
    Block,
    Bundle,
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
    Term,
    Wire,
)
from bitfab.hw.parallel.evaluate import evaluate
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError, ToolError

INT4 = IntType(4, signed=True)
A, B, C = Wire("x_0", -8, 7), Wire("x_1", -8, 7), Wire("x_2", -8, 7)


@pytest.fixture(autouse=True)
def _needs_ghdl() -> None:
    try:
        ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))


def netlist(cells: Sequence[Cell], type: IntType = INT4, stages: int = 1) -> Netlist:
    """Cells that read x_0, x_1, x_2; each output of theirs that no cell reads is copied to one number of the result."""
    read = {source for cell in cells for source in cell.sources}
    ends = [cell.output for cell in cells if cell.output not in read]
    copies = [Sum(Wire(f"y_{i}", end.low, end.high), (Term(end),)) for i, end in enumerate(ends)]
    inputs = Bundle("x", tuple(Wire(f"x_{i}", type.low, type.high) for i in range(3)))
    value = Bundle("y", tuple(copy.output for copy in copies))
    block = Block("y", "y", "cells of a test", (inputs,), (*cells, *copies), value, stages - 1)
    return Netlist("cells", inputs, type, (block,), value, IntType(20, signed=True), stages)


def simulate(design: Netlist, x: IntArray, y: IntArray, folder: Path, idle: int = 0) -> list[str]:
    texts = vhdl.render(design) | vhdl.testbench(design, len(x))
    texts["sim/input.mem"] = mem_file(x.reshape(-1, 1) if design.serial else x, design.input_type.bits)
    texts["sim/output.mem"] = mem_file(y, design.output_type.bits)
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    sources = [folder / path for path in texts if path.endswith(".vhd")]
    return ghdl.run_testbench(sources, "tb", folder / "sim", {"Idle": idle}, log=folder / "ghdl.log")


def every(type: IntType) -> IntArray:
    return np.array(list(itertools.product(range(type.low, type.high + 1), repeat=3)))


def arithmetic() -> list[Cell]:
    """Sums, differences, shifts and bounds, of both signs and to single bits."""
    wide, flag, other = Wire("t_0", -79, 77), Wire("t_1", 0, 1), Wire("t_2", 0, 1)
    low, negative = Wire("t_3", 0, 15), Wire("t_4", -1, 0)
    return [
        Sum(wide, (Term(A, 3), Term(B, 1, negative=True)), 0),
        AtLeast(flag, A, -3),
        AtLeast(other, wide, 5),
        Sum(low, (Term(A),), 8),
        Sum(negative, (Term(flag, 0, negative=True),), 0),
        Sum(Wire("t_5", -70, 88), (Term(A, 3, negative=True), Term(flag)), 24 - 8),
        Sum(Wire("t_6", 0, 2), (Term(flag), Term(other)), 0),
        Sum(Wire("t_7", 0, 1), (Term(other, 0, negative=True),), 1),
        Sum(Wire("t_8", -9, 9), (), -9),
        Shift(Wire("t_9", -20, 19), wide, 2),
        Shift(Wire("t_10", 0, 1), low, 3),
        Clip(Wire("t_11", 0, 15), wide),
        Clip(Wire("t_12", -4, 3), wide),
        Clip(Wire("t_13", 0, 1), B),
        Join(Wire("t_14", 0, 7), (flag, other, flag)),
        Bit(Wire("t_15", 0, 1), wide, 7),
        Sum(Wire("t_16", -1, 0), (Term(negative),), 0),
    ]


def choices() -> list[Cell]:
    """Comparisons of mixed kinds, choices, and tables of bits and of numbers."""
    flag, unsigned, signed = Wire("t_0", 0, 1), Wire("t_1", 0, 15), Wire("t_2", -7, 9)
    rng = np.random.default_rng(0)
    bits = tuple(Wire("v", 0, 1, i) for i in range(3))
    return [
        Less(flag, A, B),
        Sum(unsigned, (Term(C),), 8),
        Sum(signed, (Term(A),), 1),
        *(Bit(bit, C, i) for i, bit in enumerate(bits)),
        Less(Wire("t_3", 0, 1), unsigned, signed),
        Less(Wire("t_4", 0, 1), signed, unsigned),
        Less(Wire("t_5", 0, 1), flag, signed),
        Less(Wire("t_6", 0, 1), flag, bits[0]),
        Mux(Wire("t_7", -7, 15), flag, unsigned, signed),
        Mux(Wire("t_8", 0, 1), bits[1], flag, bits[2]),
        Lookup(Wire("t_9", 0, 1), (flag,), (1, 0)),
        Lookup(Wire("t_10", 0, 1), bits[:2], (1, 0, 0, 1)),
        Lookup(Wire("t_11", 0, 1), (A, bits[0], flag), tuple(rng.integers(0, 2, 64).tolist())),
        Lookup(Wire("t_12", -300, 300), (A, B), tuple(rng.integers(-300, 301, 256).tolist())),
        Lookup(Wire("t_13", 0, 3), bits, (0, 1, 1, 2, 1, 2, 2, 3)),
    ]


def registers() -> list[Cell]:
    """A vector of which one part is there a cycle before the other, and delays of numbers."""
    early, late = Wire("t_0", 0, 1), tuple(Wire("v", 0, 1, i) for i in range(2))
    delayed = [Wire(f"x_{i}_d1", -8, 7) for i in range(2)]
    return [
        AtLeast(early, A, 2),
        Register(delayed[0], A),
        Register(delayed[1], B),
        Register(late[0], early),
        Less(late[1], *delayed),
        Lookup(Wire("t_1", 0, 1), late, (0, 1, 1, 0)),
    ]


def products() -> list[Cell]:
    """Of two signed numbers, of one with itself, with one that is never negative, and with a single bit."""
    cells = Cells("t")
    for other in (B, A, cells.total([(C, 1)], 8), cells.at_least(C, 2), cells.total([(cells.at_least(C, 2), 1)], -1)):
        cells.product(A, other)
    return cells.cells


CELLS = {"arithmetic": (arithmetic, 1), "choices": (choices, 1), "registers": (registers, 2), "products": (products, 1)}


@pytest.mark.parametrize("kind", CELLS)
def test_every_cell_equals_its_definition(kind: str, tmp_path: Path) -> None:
    make, stages = CELLS[kind]
    design = netlist(make(), stages=stages)
    x = every(design.input_type)
    assert "PASS 4096 frames, 0 mismatches" in simulate(design, x, evaluate(design, x), tmp_path)


def test_numbers_beyond_the_integers_of_vhdl(tmp_path: Path) -> None:
    x = [Wire(f"x_{i}", 0, 2**32 - 1) for i in range(3)]
    total = Wire("t_1", 2**33, 2**33 + 2**32 + 2**35)
    cells = [
        AtLeast(Wire("t_0", 0, 1), x[0], 3_000_000_000),
        Sum(total, (Term(x[0]), Term(x[1], 3)), 2**33),
        AtLeast(Wire("t_2", 0, 1), total, 2**34),
    ]
    design = netlist(cells, IntType(32, signed=False))
    design = replace(design, output_type=IntType(32, signed=False))
    value = replace(design.output, wires=tuple(wire for wire in design.output.wires if wire.bits <= 32))
    kept = replace(design.blocks[0], cells=design.blocks[0].cells, value=value)
    kept = replace(kept, cells=tuple(cell for cell in kept.cells if cell.output.bits <= 32 or cell.output == total))
    design = replace(design, blocks=(kept,), output=value)
    edges = [0, 1, 2**31 - 1, 2**31, 2_999_999_999, 3_000_000_000, 2**32 - 1]
    frames = np.array(list(itertools.product(edges, edges, [0])))
    assert f"PASS {len(frames)} frames, 0 mismatches" in simulate(design, frames, evaluate(design, frames), tmp_path)


@pytest.mark.parametrize("serial", [False, True])
def test_pauses_change_nothing_and_latency_is_as_stated(serial: bool, tmp_path: Path) -> None:
    design = replace(netlist(registers(), stages=2), serial=serial)
    x = every(design.input_type)[::16]
    lines = simulate(design, x, evaluate(design, x), tmp_path, idle=60)
    assert f"PASS {len(x)} frames, 0 mismatches" in lines
    times = [
        list(map(int, line.replace(" in", "").replace(" out", "").split()[2:])) for line in lines if "IMAGE" in line
    ]
    assert [out - last + 1 for _, last, out, _ in times] == [design.latency] * 4


def test_a_corrupted_expectation_fails(tmp_path: Path) -> None:
    design = netlist(choices())
    x = every(design.input_type)[:300]
    y = evaluate(design, x)
    y[77, 1] ^= 1
    with pytest.raises(ToolError, match=r"MISMATCH output frame 77: expected \w+, got \w+(?s:.*)STREAM output"):
        simulate(design, x, y, tmp_path)


def test_a_wrong_latency_fails(tmp_path: Path) -> None:
    design = netlist(choices())
    x = every(design.input_type)[:300]
    texts = vhdl.testbench(replace(design, stages=2), len(x))
    assert texts["sim/tb.vhd"] != vhdl.testbench(design, len(x))["sim/tb.vhd"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ToolError, match=r"PROTOCOL .*wrong cycle"):
        patch.setattr(vhdl, "testbench", lambda *_: texts)
        simulate(design, x, evaluate(design, x), tmp_path)


def test_same_netlist_same_bytes() -> None:
    assert vhdl.render(netlist(choices())) == vhdl.render(netlist(choices()))


def test_a_neuron_is_one_readable_line() -> None:
    bits = tuple(Wire("encode", 0, 1, i) for i in range(4))
    cell = Lookup(Wire("layer1", 0, 1, 0), bits[:3], (0, 1, 1, 0, 1, 0, 0, 1))
    block = Block("layer1", "layer1", "", (Bundle("encode", bits),), (cell,), Bundle("layer1", (cell.output,)))
    design = Netlist("n", block.inputs[0], IntType(1, signed=False), (block,), block.value, IntType(1, signed=False))
    text = vhdl.render(design)["rtl/n_layer1.vhd"]
    assert 'layer1(0) <= lut(x"96", (encode(2), encode(1), encode(0)));' in text
