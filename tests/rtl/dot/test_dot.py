"""bf_dot: exact against a plain loop nest, one word a cycle, multipliers and weight memory inferred in synthesis."""

from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from bitfab.tools import verilator, yosys
from bitfab.tools.process import ToolError
from tests.rtl.harness import RTL, Case, check, crossed, pack_words, simulate

SOURCE = RTL / "dot" / "bf_dot.sv"


@dataclass(frozen=True)
class Dot:
    """Parameters of bf_dot, named as there."""

    simd: int
    pe: int
    terms: int
    results: int
    phases_height: int = 1
    phases_width: int = 1
    phase_height: int = 0
    phase_width: int = 0
    out_height: int = 2
    out_width: int = 3
    in_bits: int = 8
    in_signed: int = 0
    weight_bits: int = 8
    acc_bits: int = 24

    def parameters(self) -> dict[str, int]:
        return {name.title().replace("_", ""): value for name, value in asdict(self).items()}

    def input_bounds(self) -> tuple[int, int]:
        half = 1 << (self.in_bits - 1)
        return (-half, half - 1) if self.in_signed else (0, 2 * half - 1)

    def weight_bounds(self) -> tuple[int, int]:
        half = 1 << (self.weight_bits - 1)
        return -half, half - 1


DOTS = {
    "one multiplier": Dot(1, 1, 5, 1),
    "one term": Dot(2, 3, 1, 2),
    "everything once": Dot(1, 1, 1, 1, acc_bits=18),
    "wide": Dot(4, 8, 9, 2),
    "signed": Dot(4, 2, 3, 3, in_signed=1, in_bits=5, weight_bits=3),
    "three lanes": Dot(3, 2, 4, 2, in_signed=1),
    "seven lanes": Dot(7, 1, 2, 1, in_bits=4, weight_bits=2, acc_bits=12),
    "one bit of input": Dot(5, 2, 3, 2, in_bits=1, weight_bits=6),
    "phases": Dot(2, 2, 3, 2, 2, 2, out_height=4, out_width=6),
    "phases, begun in the middle": Dot(2, 1, 2, 3, 2, 3, 1, 2, out_height=5, out_width=7),
    "phases of columns": Dot(1, 2, 4, 1, 1, 2, 0, 1, out_height=3, out_width=5),
    "phases of rows": Dot(1, 2, 4, 1, 3, 1, 2, 0, out_height=4, out_width=1),
}


def multiply(dot: Dot, weights: np.ndarray, biases: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Inputs (N, OutHeight, OutWidth, Results, Terms, Simd) -> (words, Pe): the loop nest as it is specified."""
    out = []
    for image in inputs:
        for oy in range(dot.out_height):
            for ox in range(dot.out_width):
                row = (dot.phase_height + oy) % dot.phases_height
                column = (dot.phase_width + ox) % dot.phases_width
                phase = row * dot.phases_width + column
                for r in range(dot.results):
                    acc = list(biases[phase, r])
                    for t in range(dot.terms):
                        for p in range(dot.pe):
                            for s in range(dot.simd):
                                acc[p] += weights[phase, r, t, p, s] * image[oy, ox, r, t, s]
                    out.append(acc)
    return np.array(out)


def case(name: str, dot: Dot, idle: int = 0, stall: int = 0, seed: int = 1, extreme: int | None = None) -> Case:
    """Random vectors; `extreme` 0 or 1 sets every weight to its lowest or highest value and every input likewise."""
    rng = np.random.default_rng(seed)
    phases = dot.phases_height * dot.phases_width
    low, high = dot.weight_bounds()
    weights = rng.integers(low, high + 1, (phases, dot.results, dot.terms, dot.pe, dot.simd))
    biases = rng.integers(-1000, 1000, (phases, dot.results, dot.pe))
    bottom, top = dot.input_bounds()
    inputs = rng.integers(bottom, top + 1, (3, dot.out_height, dot.out_width, dot.results, dot.terms, dot.simd))
    if extreme is not None:
        weights[...] = (low, high)[extreme]
        inputs[:2] = (bottom, top)[extreme]
        inputs[2] = top
    expected = multiply(dot, weights, biases, inputs)
    assert -(1 << (dot.acc_bits - 1)) <= expected.min() and expected.max() < 1 << (dot.acc_bits - 1)
    return Case(
        name,
        {"": pack_words(inputs.reshape(-1, dot.simd), dot.in_bits)},
        {"": pack_words(expected, dot.acc_bits)},
        dot.parameters(),
        {
            "WeightFile": pack_words(weights.reshape(-1, dot.pe * dot.simd), dot.weight_bits),
            "BiasFile": pack_words(biases.reshape(-1, dot.pe), dot.acc_bits),
        },
        idle=idle,
        stall=stall,
        seed=seed,
    )


def test_dot_equals_loop_nest(tmp_path: Path) -> None:
    paces = cycle(crossed())
    cases: list[Case] = []
    for name, dot in DOTS.items():
        for kind in (None, None, 0, 1):
            idle, stall = next(paces)
            title = f"{name}, extreme {kind}, idle {idle}, stall {stall}, number {len(cases)}"
            cases.append(case(title, dot, idle, stall, seed=len(cases), extreme=kind))
    check(simulate("bf_dot", cases, tmp_path))


def test_dot_takes_one_word_a_cycle(tmp_path: Path) -> None:
    names = ["one multiplier", "wide", "seven lanes", "phases"]
    cases = {name: case(name, DOTS[name]) for name in names}
    results = simulate("bf_dot", list(cases.values()), tmp_path)
    check(results)
    for name, single in cases.items():
        latency = 4 + (DOTS[name].simd - 1).bit_length()
        assert results[name].cycles == len(single.inputs[""].words) + latency, name


@pytest.mark.parametrize("name", DOTS)
def test_no_lint(name: str) -> None:
    files = {"WeightFile": "weights.mem", "BiasFile": "biases.mem"}
    verilator.lint([SOURCE], "bf_dot", {**DOTS[name].parameters(), **files})


@pytest.mark.parametrize(
    ("dot", "files", "message"),
    [
        (Dot(1, 1, 1, 1), {"WeightFile": "weights.mem"}, "WeightFile and BiasFile must name files"),
        (Dot(1, 1, 1, 1, phases_width=2, phase_width=2), {}, "PhaseHeight, PhaseWidth must be less than"),
        (Dot(1, 1, 1, 1, weight_bits=1), {}, "WeightBits must be at least 2"),
    ],
)
def test_illegal_parameters_are_refused(dot: Dot, files: dict[str, int | str], message: str) -> None:
    files = files or {"WeightFile": "weights.mem", "BiasFile": "biases.mem"}
    with pytest.raises(ToolError) as error:
        verilator.lint([SOURCE], "bf_dot", {**dot.parameters(), **files})
    assert any(f"bf_dot: {message}" in line for line in error.value.lines)


def test_multipliers_and_weight_memory_are_inferred(tmp_path: Path) -> None:
    dot = Dot(simd=4, pe=8, terms=18, results=2, acc_bits=22)
    vectors = case("inferred", dot)
    for name, memory in vectors.memories.items():
        (tmp_path / f"{name}.mem").write_text(memory.mem())
    files = {name: f'"{name}.mem"' for name in vectors.memories}
    values = ", ".join(f".{name}({value})" for name, value in {**dot.parameters(), **files}.items())
    top = tmp_path / "top.sv"
    top.write_text(f"""\
module top (
    input logic clk_i, rst_i, valid_i, ready_i, output logic ready_o, valid_o,
    input logic [31:0] data_i, output logic [175:0] data_o
);
  bf_dot #({values}) dut (
    .clk_i(clk_i), .rst_i(rst_i), .valid_i(valid_i), .ready_o(ready_o), .data_i(data_i),
    .valid_o(valid_o), .ready_i(ready_i), .data_o(data_o));
endmodule
""")
    total = yosys.synthesize_ecp5([SOURCE, top], "top", tmp_path).total
    assert total.dsp == dot.simd * dot.pe
    assert total.bram == 8  # 256 bits of weights, 36 a block RAM
    assert total.lut < 1000
