"""Netlists of Yosys: what cells count as on Xilinx 7, levels of logic, and the proof that two designs are equal."""

import json
from pathlib import Path

import pytest

from bitfab.errors import BitfabError
from bitfab.tools import equivalence, yosys
from bitfab.tools.levels import levels
from bitfab.tools.process import MissingToolError, ToolError
from bitfab.tools.yosys import Counts, Netlist

PARITY = """\
module parity (
    input logic clk_i,
    input logic [35:0] data_i,
    output logic parity_o
);
  logic [35:0] data_q;
  always_ff @(posedge clk_i) begin
    data_q   <= data_i;
    parity_o <= ^data_q;
  end
endmodule
"""
MIXED = """\
module mixed (
    input logic clk_i,
    input logic [15:0] a_i,
    input logic [15:0] b_i,
    input logic write_i,
    input logic [4:0] address_i,
    output logic [16:0] sum_o,
    output logic [31:0] product_o,
    output logic [15:0] count_o,
    output logic [15:0] word_o,
    output logic late_o
);
  logic [15:0] words[32];
  logic [9:0] delay_q;
  logic [16:0] sum;
  adder u_adder (.clk_i(clk_i), .a_i(a_i), .b_i(b_i), .sum_o(sum));
  always_ff @(posedge clk_i) begin
    sum_o     <= sum;
    product_o <= a_i * b_i;
    count_o   <= count_o + 1'b1;
    if (write_i) words[address_i] <= a_i;
    word_o  <= words[address_i];
    delay_q <= {delay_q[8:0], write_i};
    late_o  <= delay_q[9];
  end
endmodule
module adder (
    input logic clk_i,
    input logic [15:0] a_i,
    input logic [15:0] b_i,
    output logic [16:0] sum_o
);
  always_ff @(posedge clk_i) sum_o <= a_i + b_i;
endmodule
"""
LATCH = """\
module latch (input logic e_i, input logic d_i, output logic q_o);
  always @* if (e_i) q_o = d_i;
endmodule
"""


@pytest.fixture(autouse=True)
def _needs_yosys() -> None:
    try:
        yosys.require()
    except MissingToolError as error:
        pytest.skip(str(error))


def source(text: str, folder: Path, name: str = "design.sv") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return [folder / name]


def test_xilinx_counts_what_the_device_takes(tmp_path: Path) -> None:
    netlist = yosys.synthesize_xilinx(source(MIXED, tmp_path), "mixed", tmp_path)
    total, adder = netlist.total, netlist.instances["u_adder"]
    assert (total.dsp, total.bram) == (1, 0)
    assert total.carry >= 8  # 16 bits of an adder and of a counter, four a CARRY4
    assert adder.lut >= 16  # one for each sum bit
    assert total.lutram == 3  # two RAM32M, of four LUTs each, and a shift register
    assert total.lut >= adder.lut + 15 + 2 * 4 + 1  # 15: the counter's sum bits, which no LUT drives
    assert levels(netlist) == 1


def test_xilinx_refuses_latches(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"synthesizing latch: 1 latches inferred"):
        yosys.synthesize_xilinx(source(LATCH, tmp_path), "latch", tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".log"}


def netlist_of(cells: dict[str, tuple[str, dict[str, list[int]]]], folder: Path) -> Netlist:
    """A netlist by hand: cells by name, each a type and the bits of its ports."""
    listed = {name: {"type": type, "connections": ports} for name, (type, ports) in cells.items()}
    (folder / "hand.json").write_text(json.dumps({"modules": {"hand": {"cells": listed}}}))
    return Netlist(folder / "hand.json", "hand", Counts(), {})


def test_levels_count_the_luts_of_the_longest_path(tmp_path: Path) -> None:
    xilinx = {
        "first": ("LUT2", {"I0": [2], "I1": [3], "O": [10]}),
        "second": ("LUT1", {"I0": [10], "O": [11]}),
        "joined": ("MUXF7", {"I0": [11], "I1": [2], "S": [3], "O": [12]}),
        "chain": ("CARRY4", {"S": [12, 2, 3, 2], "DI": [2, 2, 2, 2], "CI": [2], "O": [13, 14, 15, 16], "CO": [17]}),
        "last": ("LUT3", {"I0": [16], "I1": [2], "I2": [30], "O": [18]}),
        "register": ("FDRE", {"D": [18], "Q": [30]}),
        "beside": ("INV", {"I": [30], "O": [31]}),
    }
    assert levels(netlist_of(xilinx, tmp_path)) == 3
    ecp5 = {
        "low": ("CCU2C", {"A0": [2], "B1": [3], "CIN": [4], "S0": [10], "COUT": [11]}),
        "high": ("CCU2C", {"A0": [2], "CIN": [11], "S1": [12], "COUT": [13]}),
        "after": ("LUT4", {"A": [12], "B": [2], "Z": [14]}),
        "register": ("TRELLIS_FF", {"DI": [14], "Q": [2]}),
    }
    assert levels(netlist_of(ecp5, tmp_path)) == 2
    ice40 = {
        "low": ("SB_CARRY", {"I0": [2], "I1": [3], "CI": [4], "CO": [10]}),
        "high": ("SB_CARRY", {"I0": [2], "I1": [3], "CI": [10], "CO": [11]}),
        "sum": ("SB_LUT4", {"I1": [2], "I3": [11], "O": [12]}),
        "after": ("SB_LUT4", {"I0": [12], "O": [13]}),
        "register": ("SB_DFF", {"D": [13], "Q": [2]}),
    }
    assert levels(netlist_of(ice40, tmp_path)) == 2
    gowin = {
        "low": ("ALU", {"I0": [2], "I1": [3], "CIN": [4], "SUM": [10], "COUT": [11]}),
        "high": ("ALU", {"I0": [2], "I1": [3], "CIN": [11], "SUM": [12]}),
        "one": ("LUT2", {"I0": [12], "I1": [2], "F": [13]}),
        "joined": ("MUX2_LUT5", {"I0": [13], "I1": [2], "S0": [3], "O": [14]}),
        "register": ("DFF", {"D": [14], "Q": [2]}),
    }
    assert levels(netlist_of(gowin, tmp_path)) == 2
    assert levels(netlist_of({"register": ("FDRE", {"D": [2], "Q": [3]})}, tmp_path)) == 0


def test_levels_of_a_loop_are_an_error(tmp_path: Path) -> None:
    cells = {"a": ("LUT1", {"I0": [3], "O": [4]}), "b": ("LUT1", {"I0": [4], "O": [3]})}
    with pytest.raises(BitfabError, match=r"^hand: a loop of logic without a register"):
        levels(netlist_of(cells, tmp_path))


def test_equal_designs_are_proved_equal_and_unequal_ones_are_not(tmp_path: Path) -> None:
    other = PARITY.replace("^data_q", "(^data_q[35:18]) != (^data_q[17:0])")
    first, second = source(PARITY, tmp_path / "a"), source(other, tmp_path / "b")
    equivalence.prove_equal(first, second, "parity", tmp_path / "proof")
    assert {path.name for path in (tmp_path / "proof").iterdir()} == {"prove_parity.log"}
    wrong = source(other.replace("[17:0]", "[17:1]"), tmp_path / "c")
    with pytest.raises(
        BitfabError, match=r"^parity: the two designs differ, first at parity_o_gold: see \S+parity\.log$"
    ):
        equivalence.prove_equal(first, wrong, "parity", tmp_path / "proof")


def test_proof_needs_sources_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(BitfabError, match=r"no\.sv: no such RTL file"):
        equivalence.prove_equal([tmp_path / "no.sv"], [tmp_path / "no.sv"], "no", tmp_path)
