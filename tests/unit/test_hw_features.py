"""Features of blocks: none that a design may have is forgotten, and lone blocks are estimated as Yosys makes them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from bitfab.hw import blocks, cost, features, netlist
from bitfab.hw.memory_cost import roms
from bitfab.tools import yosys
from bitfab.tools.process import MissingToolError
from tests.rtl.harness import RTL

WIRES = {"bipolar"}  # a block without LUTs


def test_every_block_that_a_design_may_have_has_its_estimate() -> None:
    """Blocks are those of the library that the modules which instantiate any name."""
    sources = [Path(module.__file__) for module in (blocks, netlist)]
    library = {folder.name for folder in RTL.iterdir()}
    named = library & {word for source in sources for word in re.findall(r'"(\w+)"', source.read_text())}
    assert {"conv2d", "slice", "interpolate", "width", "fifo", "fork", "bipolar"} <= named
    assert {name for name in named if name not in features._BLOCKS} == set()
    coefficients = json.loads(sources[0].with_name("cost_ecp5.json").read_text())
    assert {name for name in named if not coefficients.get(name, {}).get("lut")} <= WIRES


def test_an_unknown_block_has_no_estimate() -> None:
    with pytest.raises(KeyError, match="forgotten"):
        cost.block_cost("forgotten", {"Bits": 8})


def test_readers_of_constants_share_block_rams() -> None:
    """As Yosys was seen to make them: 512 words of 8 bits in LUTs for four readers, else two readers a block RAM."""
    brams = [sum(memory.brams for memory in roms(8, 1024, readers)) for readers in (1, 2, 3, 4)]
    assert brams == [1, 1, 2, 2]
    assert [sum(memory.brams for memory in roms(8, 512, readers)) for readers in (2, 4)] == [1, 0]
    assert sum(memory.brams for memory in roms(8, 4096, 5)) == 6


@pytest.mark.parametrize(
    ("block", "parameters"),
    [
        ("slice", {"Bits": 24, "Inner": 6, "Size": 28, "Start": 3, "Stop": 25, "Step": 2}),
        ("slice", {"Bits": 64, "Inner": 32, "Size": 32, "Start": 0, "Stop": 16, "Step": 1}),
        ("slice", {"Bits": 8, "Inner": 1, "Size": 10, "Start": 5, "Stop": 10, "Step": 1}),
        (
            "interpolate",
            {"InBits": 10, "PlaceBits": 5, "BaseBits": 17, "SlopeBits": 9, "Shift": 8, "OutBits": 8}
            | {"Low": 0, "High": 255, "Lanes": 2},
        ),
        (
            "interpolate",
            {"InBits": 13, "PlaceBits": 7, "BaseBits": 22, "SlopeBits": 8, "Shift": 10, "OutBits": 12}
            | {"Low": -2048, "High": 2047, "Lanes": 1},
        ),
    ],
)
def test_a_lone_block_beside_synthesis(block: str, parameters: dict[str, int], tmp_path: Path) -> None:
    try:
        yosys.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    lanes = parameters.get("Lanes", 1)
    ins, outs = (
        lanes * parameters[name] if name in parameters else parameters["Bits"] for name in ("InBits", "OutBits")
    )
    values = [f".{name}({value})" for name, value in parameters.items()]
    if block == "interpolate":
        values.append('.TableFile("table.mem")')
        word = parameters["BaseBits"] + parameters["SlopeBits"]
        words = 1 << parameters["InBits"] - parameters["PlaceBits"]
        entries = np.random.default_rng(0).integers(0, 1 << word, words)
        (tmp_path / "table.mem").write_text("\n".join(f"{entry:x}" for entry in entries))
    (tmp_path / "top.sv").write_text(f"""\
module top (
    input logic clk_i, rst_i, valid_i, ready_i, output logic ready_o, valid_o,
    input logic [{ins - 1}:0] data_i, output logic [{outs - 1}:0] data_o
);
  bf_{block} #({", ".join(values)}) block (.*);
endmodule
""")
    real = yosys.synthesize_ecp5([RTL / block / f"bf_{block}.sv", tmp_path / "top.sv"], "top", tmp_path).total
    guess = cost.block_cost(block, parameters)
    assert (guess.dsp, guess.bram) == (real.dsp, real.bram)
    assert guess.lut == pytest.approx(real.lut, rel=0.15, abs=5), real  # a slice takes a dozen or two
