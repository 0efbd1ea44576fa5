"""Register packing: the packed netlist of a whole design does in every cycle what its RTL does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bitfab.dtypes import IntType
from bitfab.hw import Folding, MemoryStyle, Multiplier, generate
from bitfab.hw.design import Design, write_files
from bitfab.hw.ports import input_ports, output_ports
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Conv2d, Requantize, Threshold
from bitfab.tools import verilator, yosys
from bitfab.tools.process import MissingToolError
from bitfab.tools.yosys import Netlist
from tests.rtl.packing.ecp5_cells import MODELS

BYTE, NIBBLE, BIPOLAR = IntType(8, signed=False), IntType(4, signed=False), IntType(1, signed=True)
FOLDINGS = {
    "eight": Folding(2, 4, Multiplier.DSP, MemoryStyle.BLOCK),
    "scaled": Folding(2, 1, Multiplier.DSP),
    "four": Folding(4, 2, Multiplier.PACKED, MemoryStyle.BLOCK),
    "one": Folding(4, 8, memory=MemoryStyle.BLOCK),
}
CYCLES = 16000

# Yosys' own models of LUTs, carries and flip-flops become logic; multipliers and block RAMs stay.
WRITE = """\
read_json netlist.json
rename {name} design_netlist
read_verilog -overwrite +/ecp5/cells_sim.v
hierarchy -top design_netlist
proc
flatten -wb
opt_clean
write_verilog -noattr netlist.v
"""
LOCKSTEP = """\
module tb;
  logic clk = 1'b0, rst = 1'b1;
  logic [{input}-1:0] data;
  logic valid, ready;
  logic [1:0] taken, given, last;
  logic [{output}-1:0] word[2];
  int unsigned words = 0, wrong = 0;

  design_rtl u_rtl (.clk_i(clk), .rst_i(rst), .s_axis_tdata(data), .s_axis_tvalid(valid), .s_axis_tready(taken[0]),
      .s_axis_tlast(1'b0), .m_axis_tdata(word[0]), .m_axis_tvalid(given[0]), .m_axis_tready(ready),
      .m_axis_tlast(last[0]));
  design_netlist u_netlist (.clk_i(clk), .rst_i(rst), .s_axis_tdata(data), .s_axis_tvalid(valid),
      .s_axis_tready(taken[1]), .s_axis_tlast(1'b0), .m_axis_tdata(word[1]), .m_axis_tvalid(given[1]),
      .m_axis_tready(ready), .m_axis_tlast(last[1]));

  always #1 clk = !clk;

  always @(posedge clk) begin
    rst <= $time < 20;
    valid <= $urandom_range(9) < 8;
    ready <= $urandom_range(39) == 0;  // every register has to wait
    if (!valid || taken[0] || rst) data <= {{$urandom, $urandom, $urandom}};
    if (!rst && $time > 40) begin
      if (given[0] && ready) words <= words + 1;
      if (taken[0] != taken[1] || given[0] != given[1] || (given[0] && (word[0] != word[1] || last[0] != last[1])))
        wrong <= wrong + 1;
    end
    if ($time > 2 * {cycles}) begin
      $display("words %0d wrong %0d", words, wrong);
      $finish;
    end
  end
endmodule
"""


def network() -> Graph:
    """Products of 8 bits in multipliers, of 4 bits two in each, of one bit in none; weights and rows in block RAM."""
    rng = np.random.default_rng(3)
    b = Builder("packing")

    def scaled(name: str, value: str, type: IntType) -> str:
        shift = np.full(b.value(value).shape[0], 8 + b.value(value).high.bit_length() - type.bits)
        return b.add(name, Requantize(rng.integers(150, 255, len(shift)), shift, type, 0, type.high), value)

    x = b.input("x", (4, 30, 8), BYTE)
    y = b.add("eight", Conv2d(rng.integers(-128, 128, (8, 4, 3, 3)), rng.integers(-99, 99, 8)), x)
    y = scaled("scaled", y, NIBBLE)
    y = b.add("four", Conv2d(rng.integers(-8, 8, (8, 8, 3, 3)), rng.integers(-9, 9, 8)), y)
    y = b.add("signs", Threshold(rng.integers(-40, 40, (8, 1)), BIPOLAR, -1), y)
    ones = Conv2d(rng.choice([-1, 1], (16, 8, 3, 3)), np.zeros(16, int), padding=(1, 1, 1, 1), pad_value=-1)
    return b.build((b.add("one", ones, y),))


@pytest.fixture(scope="module")
def design() -> Design:
    return generate(network(), "ecp5-45k", folding=FOLDINGS, style="stream")


@pytest.fixture(scope="module")
def folder(design: Design, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The design's files."""
    found = tmp_path_factory.mktemp("packing") / "design"
    write_files(design.files, found)
    return found


@pytest.fixture(scope="module")
def netlist(design: Design, folder: Path) -> Netlist:
    """The design synthesized, its registers packed."""
    try:
        yosys.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    return yosys.synthesize_ecp5([folder / path for path in design.sources], design.name, folder / "build")


def test_registers_are_packed(netlist: Netlist) -> None:
    cells = json.loads(netlist.json.read_text())["modules"][netlist.top]["cells"].values()
    multipliers = [cell["parameters"] for cell in cells if cell["type"] == "MULT18X18D"]
    inside = Counter(("REG_INPUTA_CLK" in options, "REG_OUTPUT_CLK" in options) for options in multipliers)
    # those of the layers never wait, the scaling ones do
    assert inside == {(True, True): 8 + 4, (False, False): 4}
    memories = [cell["parameters"] for cell in cells if cell["type"] == "DP16KD"]
    assert sum("OUTREG" in (options["REGMODE_A"], options["REGMODE_B"]) for options in memories) >= 2


def test_equal_to_the_rtl_in_every_cycle(design: Design, folder: Path, netlist: Netlist, tmp_path: Path) -> None:
    assert lockstep(design, folder, netlist.json, tmp_path) == 0


def lockstep(design: Design, folder: Path, netlist: Path, scratch: Path) -> int:
    """Cycles in which the netlist's handshakes or words differ from the RTL's, given the same inputs and pauses."""
    module = json.loads(netlist.read_text())["modules"][design.name]
    (scratch / "netlist.json").write_text(json.dumps({"modules": {design.name: module}}))
    script = WRITE.format(name=design.name)
    yosys.run_script(script, scratch, scratch / "write.log", "writing the netlist", 60)
    path = design.sources[-1]
    top = (folder / path).read_text().replace(f"module {design.name} ", "module design_rtl ")
    files = {"rtl.sv": top, "models.sv": MODELS}
    files["tb.sv"] = LOCKSTEP.format(
        input=input_ports(design)[0].bits, output=output_ports(design)[0].bits, cycles=CYCLES
    )
    for name, text in files.items():
        (scratch / name).write_text(text)
    blocks = [folder / path for path in design.sources[:-1]]
    sources = [*blocks, *(scratch / name for name in ("rtl.sv", "netlist.v", "models.sv", "tb.sv"))]
    simulator = verilator.build(sources, "tb", scratch, optimize=False)
    line = next(line for line in verilator.run(simulator, folder / "rtl") if line.startswith("words"))
    words, wrong = int(line.split()[1]), int(line.split()[3])
    assert words > 100
    return wrong
