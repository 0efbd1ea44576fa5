"""Two products of bytes in one multiplier: exact for every triple of operands, one DSP48 a pair in synthesis."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitfab.parts import find_part
from bitfab.tools import ghdl, verilator, yosys
from bitfab.tools.process import MissingToolError
from tests.rtl import harness, harness_vhdl
from tests.rtl.dot.test_dot import PACKED, SOURCES, Dot, _vectors, case
from tests.rtl.harness import RTL

BYTES = Dot(1, 2, 1, 1, out_height=1, acc_bits=16, multiplier=PACKED)


def test_every_pair_of_bytes_is_exact(tmp_path: Path) -> None:
    sources = [RTL / "products" / "bf_products.sv", RTL / "multiply" / "bf_multiply.sv"]
    program = verilator.build([*sources, Path(__file__).parent / "bytes_tb.sv"], "bytes_tb", tmp_path)
    for wrong in (0, 1):
        lines = verilator.run(program, tmp_path, arguments=[f"+wrong={wrong}"])
        assert f"products {2 << 24} different {8 * wrong} {8 * wrong}" in lines


@pytest.mark.parametrize("simulate", [harness.simulate, harness_vhdl.simulate], ids=["verilog", "vhdl"])
def test_bytes_in_both_languages(simulate: Callable[..., dict[str, harness.Result]], tmp_path: Path) -> None:
    """A fifth of the inputs, the extreme ones too, with every weight in both places and the pairs of extreme ones."""
    try:
        if simulate is harness_vhdl.simulate:
            ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    lower = np.arange(-128, 128)
    extremes = [(a, b) for a in (-128, -1, 0, 127) for b in (-128, -1, 0, 127)]
    weights = np.array([*zip(lower, (77 * lower) % 256 - 128, strict=True), *extremes])
    cases = []
    for signed in (0, 1):
        values = np.arange(0, 256, 5) - 128 * signed
        dot = replace(BYTES, in_signed=signed, results=len(weights), out_width=len(values), acc_bits=17)
        expected = (values[:, np.newaxis, np.newaxis] * weights).reshape(-1, 2)
        inputs = np.repeat(values, len(weights))[:, np.newaxis]
        no_bias = np.zeros(weights.shape, int)
        cases.append(_vectors(f"signed {signed}", dot, weights[:, :, np.newaxis], no_bias, inputs, expected))
    harness.check(simulate("bf_dot", cases, tmp_path, sources=SOURCES))


def test_one_dsp48_makes_two_products(tmp_path: Path) -> None:
    dot = Dot(2, 4, 4, 2, multiplier=PACKED)
    memories = case("inferred", dot).memories
    for name, memory in memories.items():
        (tmp_path / f"{name}.mem").write_text(memory.mem())
    files = {name: f'"{name}.mem"' for name in memories}
    values = ", ".join(f".{name}({value})" for name, value in {**dot.parameters(), **files}.items())
    top = tmp_path / "top.sv"
    top.write_text(f"""\
module top (
    input logic clk_i, rst_i, valid_i, ready_i, output logic ready_o, valid_o,
    input logic [15:0] data_i, output logic [95:0] data_o
);
  bf_dot #({values}) dut (
    .clk_i(clk_i), .rst_i(rst_i), .valid_i(valid_i), .ready_o(ready_o), .data_i(data_i),
    .valid_o(valid_o), .ready_i(ready_i), .data_o(data_o));
endmodule
""")
    total = yosys.synthesize([*SOURCES, top], "top", tmp_path, find_part("xczu3eg")).total
    assert total.dsp == dot.simd * dot.pe // 2, total
