"""The stream blocks as the tools see them: no lint, illegal parameters refused, memories and multipliers inferred."""

from pathlib import Path

import pytest

from bitfab.hw.render_verilog import library
from bitfab.tools import verilator, yosys
from bitfab.tools.process import ToolError
from tests.rtl.harness import RTL

Parameters = dict[str, int | str]

SCALED: Parameters = {"InBits": 21, "Words": 32, "MinShift": 20, "ScaleFile": "rom.mem"}
LEVELS: Parameters = {"InBits": 20, "ThresholdBits": 20, "ThresholdFile": "rom.mem"}
LEGAL: list[tuple[str, Parameters]] = [
    ("skid", {"Bits": 1}),
    ("fifo", {"Bits": 1, "Depth": 1}),
    ("fifo", {"Depth": 32}),
    ("fifo", {"Depth": 33}),
    ("fork", {"Count": 1}),
    ("fork", {"Bits": 1, "Count": 5}),
    ("width", {"Bits": 1, "OutLanes": 2}),
    ("width", {"Bits": 3, "InLanes": 6, "OutLanes": 2}),
    ("width", {"InLanes": 2, "OutLanes": 2}),
    ("concat", {"WordsA": 1, "WordsB": 7}),
    ("slice", {"Size": 1}),
    ("slice", {"Inner": 3, "Size": 8, "Start": 1, "Stop": 8, "Step": 3}),
    ("add", {"ASigned": 0, "BSigned": 0}),
    ("add", {"OutSigned": 0, "OutBits": 3}),
    ("add", {"ABits": 1, "BBits": 12, "BSigned": 0, "OutBits": 20, "Lanes": 3}),
    ("scale", {}),
    (
        "scale",
        {"Words": 5, "Pixels": 9, "Lanes": 2, "AZero": -3, "ASigned": 1, "BZero": 255, "OutBits": 17, "OutSigned": 1},
    ),
    ("scale", {"Words": 1, "Pixels": 2, "ABits": 1, "AFactorBits": 2, "BBits": 32, "BFactorBits": 33, "OutBits": 32}),
    ("scale", {"Pixels": 3, "Words": 3, "Multiplier": 2}),
    ("scale", {"ABits": 1, "BBits": 1, "AFactorBits": 2, "BFactorBits": 3, "OutBits": 1, "Multiplier": 2}),
    ("topk", {"Words": 1}),
    ("topk", {"Words": 5, "K": 5, "IndexBits": 3}),
    ("topk", {"Bits": 1, "Signed": 0, "Words": 5, "K": 2, "IndexBits": 9}),
    ("table", {"TableFile": "rom.mem"}),
    ("table", {"InBits": 1, "OutBits": 1, "Lanes": 4, "TableFile": "rom.mem"}),
    ("interpolate", {"TableFile": "rom.mem"}),
    (
        "interpolate",
        {"InBits": 5, "PlaceBits": 1, "OutBits": 20, "Low": -9, "High": 9, "Lanes": 2, "TableFile": "r.mem"},
    ),
    ("bipolar", {"Lanes": 3}),
    ("threshold", LEVELS),
    ("threshold", {**LEVELS, "InSigned": 0, "OutBits": 4, "Levels": 15, "Lanes": 2, "Words": 3}),
    ("threshold", {**LEVELS, "OutBits": 1, "Levels": 1, "Words": 2, "ThresholdBits": 3}),
    ("threshold", {**LEVELS, "InBits": 1, "InSigned": 0, "OutBits": 4, "Low": -8, "Lanes": 3}),
    ("requantize", SCALED),
    ("requantize", {**SCALED, "InBits": 8, "InSigned": 0, "InputZero": 255, "ExtraBits": 5, "MinShift": 46}),
    ("requantize", {**SCALED, "InBits": 32, "Lanes": 3, "Words": 1, "Rounding": 2, "ExtraBits": 1}),
    ("requantize", {**SCALED, "InBits": 11, "InSigned": 0, "InputZero": -2048, "ExtraBits": 6}),
    ("requantize", {**SCALED, "InBits": 8, "InputZero": 5000, "Multiplier": 2}),
    ("requantize", {**SCALED, "Multiplier": 2}),
    ("requantize", {**SCALED, "Multiplier": 2, "InBits": 1, "InSigned": 0, "Words": 1, "ExtraBits": 2, "Lanes": 2}),
    ("requantize", {"MultiplierBits": 0}),
    ("requantize", {"MultiplierBits": 0, "InBits": 1, "InSigned": 0, "OutBits": 1, "Low": 0, "High": 1}),
    ("requantize", {"MultiplierBits": 0, "ExtraBits": 2, "Rounding": 1, "ScaleFile": "rom.mem"}),
]
ILLEGAL: list[tuple[str, Parameters, str]] = [
    ("fifo", {"Depth": 0}, "Depth must be at least 1"),
    ("fork", {"Count": 0}, "Count must be at least 1"),
    ("width", {"InLanes": 2, "OutLanes": 3}, "one lane count must divide the other"),
    ("concat", {"WordsB": 0}, "WordsA and WordsB must be at least 1"),
    ("slice", {"Start": 1}, "the slice must lie within Size"),
    ("scale", {"BFactorBits": 1}, "AFactorBits and BFactorBits must be 2 to 33"),
    ("scale", {"Pixels": 0}, "Lanes, Words and Pixels must be at least 1"),
    ("scale", {"Multiplier": 1}, "Multiplier must be 0 or 2"),
    ("topk", {"Words": 5, "IndexBits": 2}, "IndexBits cannot hold the last index"),
    ("topk", {"K": 3}, "K must be 1 to Words"),
    ("table", {}, "TableFile must name a file"),
    ("interpolate", {"PlaceBits": 10}, "InBits must be up to 16, PlaceBits 1 to InBits - 1"),
    ("threshold", {}, "ThresholdFile must name a file"),
    ("threshold", {**LEVELS, "Levels": 16}, "Levels must be 1 to 15"),
    ("bipolar", {"Lanes": 0}, "Lanes must be at least 1"),
    ("requantize", {}, "ScaleFile must name a file"),
    ("requantize", {**SCALED, "Rounding": 4}, "Rounding must be 0 to 3"),
    ("requantize", {**SCALED, "Multiplier": 1}, "Multiplier must be 0 or 2"),
    ("requantize", {**SCALED, "Low": 5, "High": 4}, "Low must not exceed High"),
    ("requantize", {**SCALED, "ExtraBits": 7}, "MultiplierBits must be 0 to 31, ExtraBits 0 to 6"),
]
# Bits of the data ports, and how many DSPs, block RAMs and LUT RAMs (of 16 x 4 bits) synthesis takes.
INFERRED: list[tuple[str, Parameters, tuple[int, int], tuple[int, int, int]]] = [
    ("fifo", {"Bits": 8, "Depth": 4096}, (8, 8), (0, 2, 0)),
    ("fifo", {"Bits": 8, "Depth": 32}, (8, 8), (0, 0, 4)),
    ("requantize", SCALED, (21, 8), (2, 0, 0)),
    ("requantize", {**SCALED, "InBits": 18}, (18, 8), (1, 0, 0)),
    ("requantize", {**SCALED, "InBits": 17, "InSigned": 0, "InputZero": 1 << 17}, (17, 8), (1, 0, 0)),
    ("requantize", {**SCALED, "InBits": 16, "InputZero": 1 << 20}, (16, 8), (2, 0, 0)),
    ("requantize", {**SCALED, "InBits": 12, "MultiplierBits": 6, "Multiplier": 2}, (12, 8), (0, 0, 0)),
    ("requantize", {"MultiplierBits": 0, "MinShift": 3}, (16, 8), (0, 0, 0)),
    ("threshold", {**LEVELS, "Levels": 1, "OutBits": 1, "Words": 32}, (20, 1), (0, 0, 0)),
]


@pytest.mark.parametrize(("block", "parameters"), LEGAL)
def test_no_lint(block: str, parameters: Parameters) -> None:
    verilator.lint(_sources(block), f"bf_{block}", parameters)


@pytest.mark.parametrize(("block", "parameters", "message"), ILLEGAL)
def test_illegal_parameters_are_refused(block: str, parameters: Parameters, message: str) -> None:
    with pytest.raises(ToolError) as error:
        verilator.lint(_sources(block), f"bf_{block}", parameters)
    assert any(f"bf_{block}: {message}" in line for line in error.value.lines)


@pytest.mark.parametrize(("block", "parameters", "bits", "cells"), INFERRED)
def test_synthesis_infers_what_is_meant(
    block: str, parameters: Parameters, bits: tuple[int, int], cells: tuple[int, int, int], tmp_path: Path
) -> None:
    (tmp_path / "rom.mem").write_text("".join(f"{index * 1999 % 65536:04x}\n" for index in range(32)))
    top = tmp_path / "top.sv"
    top.write_text(_top(f"bf_{block}", parameters, bits))
    total = yosys.synthesize_ecp5([*_sources(block), top], "top", tmp_path).total
    assert (total.dsp, total.bram, total.lutram) == cells


def _sources(block: str) -> list[Path]:
    """The block behind nothing, what it instantiates after it."""
    others = (name.removeprefix("bf_").removesuffix(".sv") for name in library([block]))
    return [RTL / name / f"bf_{name}.sv" for name in sorted(others, key=lambda name: name != block)]


def _top(module: str, parameters: Parameters, bits: tuple[int, int]) -> str:
    """A module without parameters that holds the block with these."""
    values = {name: value if isinstance(value, int) else f'"{value}"' for name, value in parameters.items()}
    return f"""\
module top (
    input  logic clk_i, rst_i,
    input  logic valid_i, input logic [{bits[0] - 1}:0] data_i, output logic ready_o,
    output logic valid_o, output logic [{bits[1] - 1}:0] data_o, input logic ready_i
);
  {module} #({", ".join(f".{name}({value})" for name, value in values.items())}) block (
    .clk_i(clk_i), .rst_i(rst_i), .valid_i(valid_i), .ready_o(ready_o), .data_i(data_i),
    .valid_o(valid_o), .ready_i(ready_i), .data_o(data_o));
endmodule
"""
