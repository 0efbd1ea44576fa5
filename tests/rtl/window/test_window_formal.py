"""Proof by induction that bf_window's addressing is its header's loop nest, for every image and pace; mutants fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rtl.harness import RTL

Parameters = dict[str, int]
SOURCE, PROPERTIES = RTL / "window" / "bf_window.sv", RTL / "window" / "formal" / "bf_window_formal.svh"
TOP = """\
module top (input logic clk_i, rst_i, valid_i, ready_i, input logic data_i, output logic ready_o, valid_o, data_o);
  bf_window #(.Bits(1), {parameters}) block (.clk_i, .rst_i, .valid_i, .ready_o, .data_i, .valid_o, .ready_i, .data_o);
endmodule
"""
# Induction from one step to the next is enough: the assertions imply each other. A mutant must break one of them within
# some steps from reset, which the base case alone shows.
PROVE = "-tempinduct -maxsteps 1"
REFUTE = "-tempinduct-baseonly -maxsteps 16"
SCRIPT = """\
import sys
from pyosys import libyosys
design = libyosys.Design()
passes = ["read_verilog -sv -formal -DSYNTHESIS bf_window.sv top.sv", "prep -flatten -top top", "async2sync"]
passes += ["chformal -lower", "memory_map", "opt -full", "setundef -undriven -anyseq"]
for command in passes:
    libyosys.run_pass("tee -q -o yosys.log " + command, design)
libyosys.run_pass("tee -q -o sat.log sat -prove-asserts -set-assumes " + sys.argv[1], design)
"""
VALID: Parameters = {"Height": 3, "Width": 2, "KernelHeight": 2, "KernelWidth": 2, "OutHeight": 2, "Rows": 2}
SAME: Parameters = {"Height": 3, "Width": 3, "KernelHeight": 3, "KernelWidth": 3, "OutHeight": 3, "OutWidth": 3}
SAME |= {"OriginTop": -1, "OriginLeft": -1, "PadValue": 1, "Rows": 4}
TRANSPOSED: Parameters = {"Height": 2, "Width": 2, "KernelHeight": 2, "KernelWidth": 2, "UpHeight": 2, "UpWidth": 2}
TRANSPOSED |= {"PhaseHeight": 1, "PhaseWidth": 1, "OriginTop": -1, "OriginLeft": -1, "OutHeight": 4, "OutWidth": 4}
TALL: Parameters = {"Height": 2, "KernelHeight": 2, "OutHeight": 3, "OriginTop": -1, "PadValue": 1, "Rows": 3}
GEOMETRIES: dict[str, Parameters] = {
    "valid": VALID,
    "same": SAME,
    "groups and fold": {**VALID, "Words": 2, "Groups": 2, "Fold": 2},
    "stride 2, a row and a column over": {"Height": 4, "Width": 2, "StrideHeight": 2, "StrideWidth": 2, "OutHeight": 2}
    | {"Rows": 2},
    "dilated": {**VALID, "Height": 4, "Width": 4, "OutWidth": 2, "DilationHeight": 2, "DilationWidth": 2, "Rows": 4},
    "transposed": {**TRANSPOSED, "Rows": 2},
    "kernel larger than the image": {**SAME, "Height": 2, "Width": 2, "KernelHeight": 4, "OutHeight": 1, "OutWidth": 2},
    "one column": TALL,
    "dense": {"Words": 5, "Fold": 2},
}
MUTANTS: list[tuple[Parameters, tuple[str, str]]] = [
    (VALID, ("held_q < HeldBits'(Rows)", "held_q <= HeldBits'(Rows)")),  # a row is overwritten while it is needed
    (VALID, ("tap_position_q < PositionBits'(write_position_q)", "1'b1")),  # a word is read before it is written
    (VALID, ("localparam int StepKernel = 1 -", "localparam int StepKernel = 2 -")),  # a wrong column
    (
        {"Height": 2, "OutHeight": 2, "Rows": 4},
        ("modulo(NextImage, Rows)", "0"),
    ),  # the next image is looked for where this one began
    ({**TALL, "Rows": 4}, ("row < TopBits'(Height)", "row <= TopBits'(Height)")),  # padding is read from the buffer
    ({**TALL, "Rows": 4}, ("first_q <= end_image", "first_q <= 1'b0")),  # the padding of an image that never comes
]


def induction(parameters: Parameters, change: tuple[str, str] | None, how: str, folder: Path) -> str:
    """What Yosys says of the block with its properties inside, one text in it replaced where `change` asks."""
    text = SOURCE.read_text()
    if change is not None:
        assert text.count(change[0]) == 1, f"{change[0]} is not there once"
        text = text.replace(*change)
    (folder / "bf_window.sv").write_text(text.replace("endmodule", PROPERTIES.read_text() + "endmodule"))
    values = ", ".join(f".{name}({value})" for name, value in parameters.items())
    (folder / "top.sv").write_text(TOP.format(parameters=values))
    command = [sys.executable, "-c", SCRIPT, how]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return (folder / "sat.log").read_text()


@pytest.mark.parametrize("parameters", GEOMETRIES.values(), ids=GEOMETRIES)
def test_addressing_is_proved(parameters: Parameters, tmp_path: Path) -> None:
    said = induction(parameters, None, PROVE, tmp_path)
    assert "Induction step proven: SUCCESS!" in said, said[-2000:]


@pytest.mark.parametrize(("parameters", "change"), MUTANTS)
def test_a_mutant_fails(parameters: Parameters, change: tuple[str, str], tmp_path: Path) -> None:
    said = induction(parameters, change, REFUTE, tmp_path)
    assert "model found for base case: FAIL!" in said, said[-2000:]
