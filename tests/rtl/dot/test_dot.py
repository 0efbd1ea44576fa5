"""bf_dot: exact against a plain loop nest, one word a cycle, multipliers and weight memory inferred in synthesis."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest

from bitfab.tools import verilator, yosys
from bitfab.tools.process import ToolError
from tests.rtl.harness import RTL, Case, check, crossed, pack_words, simulate

SOURCES = [RTL / block / f"bf_{block}.sv" for block in ("dot", "memory", "products", "multiply", "skid", "fifo")]
PACKED, ADDERS = 1, 2


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
    in_bipolar: int = 0
    multiplier: int = 0
    memory: int = 0

    def parameters(self) -> dict[str, int]:
        return {name.title().replace("_", ""): value for name, value in asdict(self).items()}

    def input_bounds(self) -> tuple[int, int]:
        if self.in_bipolar:
            return -1, 1
        half = 1 << (self.in_bits - 1)
        return (-half, half - 1) if self.in_signed else (0, 2 * half - 1)

    def weight_bounds(self) -> tuple[int, int]:
        half = 1 << (self.weight_bits - 1)
        return (-half, half - 1) if self.weight_bits > 1 else (-1, 1)

    def latency(self) -> int:
        """Cycles from the last term to the result, as the README says."""
        bipolar = (self.in_bipolar == 1) + (self.weight_bits == 1)
        leaves = -(-self.simd // 8) if bipolar == 2 else self.simd
        data_bits = self.in_bits + 1 - self.in_signed
        digits = data_bits if data_bits <= min(3, self.weight_bits) else self.weight_bits
        stages = max(1, -(-digits // 2) - 1) if self.multiplier == ADDERS and not bipolar else 1
        words = self.terms * self.results * self.phases_height * self.phases_width
        block_ram = self.memory == 1 or (self.memory == 0 and words >= 32)
        before = 2 + block_ram + stages + (leaves - 1).bit_length()
        return before + (2 if self.terms > before + 4 else 3)


DOTS = {
    "one multiplier": Dot(1, 1, 5, 1),
    "one term": Dot(2, 3, 1, 2),
    "accumulator of one bit": Dot(2, 2, 3, 1, acc_bits=1),
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
    weights = _draw(rng, dot.weight_bounds(), (phases, dot.results, dot.terms, dot.pe, dot.simd))
    biases = rng.integers(-1000, 1000, (phases, dot.results, dot.pe))
    bottom, top = dot.input_bounds()
    inputs = _draw(rng, dot.input_bounds(), (3, dot.out_height, dot.out_width, dot.results, dot.terms, dot.simd))
    if extreme is not None:
        weights[...] = (low, high)[extreme]
        inputs[:2] = (bottom, top)[extreme]
        inputs[2] = top
    return _vectors(name, dot, weights, biases, inputs, multiply(dot, weights, biases, inputs), idle, stall, seed)


def _draw(rng: np.random.Generator, bounds: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Numbers within bounds, both among them; -1 and 1 alone where these are the bounds."""
    return rng.choice([-1, 1], shape) if bounds == (-1, 1) else rng.integers(bounds[0], bounds[1] + 1, shape)


def _vectors(
    name: str,
    dot: Dot,
    weights: np.ndarray,
    biases: np.ndarray,
    inputs: np.ndarray,
    expected: np.ndarray,
    idle: int = 0,
    stall: int = 0,
    seed: int = 1,
) -> Case:
    """Numbers as words of bits; -1 of a bipolar side is the bit 0."""
    half = 1 << (dot.acc_bits - 1)  # of one bit, what is seen is the sum modulo 2
    assert dot.acc_bits == 1 or (-half <= expected.min() and expected.max() < half)
    data = (inputs + 1) // 2 if dot.in_bipolar else inputs
    kept = (weights + 1) // 2 if dot.weight_bits == 1 else weights
    return Case(
        name,
        {"": pack_words(data.reshape(-1, dot.simd), dot.in_bits)},
        {"": pack_words(expected, dot.acc_bits)},
        dot.parameters(),
        {
            "WeightFile": pack_words(kept.reshape(-1, dot.pe * dot.simd), dot.weight_bits),
            "BiasFile": pack_words(biases.reshape(-1, dot.pe), dot.acc_bits),
        },
        idle=idle,
        stall=stall,
        seed=seed,
    )


def styles() -> Iterator[tuple[str, Dot]]:
    """Random engines of every style, with every width of 1 to 8 bits on each side that a style has."""
    rng = np.random.default_rng(7)

    def dot(simd: int = 0, pairs: int = 0, **widths: int) -> Dot:
        lanes = simd or int(rng.integers(1, 10))
        pe = 2 * int(rng.integers(1, 4)) if pairs else int(rng.integers(1, 7))
        return Dot(lanes, pe, int(rng.integers(1, 4)), int(rng.integers(1, 3)), out_height=1, out_width=2, **widths)

    narrow = [(1, 2), (1, 8), (2, 2), (2, 7), (3, 3), (3, 7), (4, 4), (5, 5), (5, 6), (6, 3), (7, 5), (8, 4)]
    for in_bits, weight_bits in [*narrow, (8, 8), (10, 8)]:
        signed = int(rng.integers(0, 2))
        widths = {"in_bits": in_bits, "in_signed": signed, "weight_bits": weight_bits}
        yield f"packed {widths}", dot(pairs=1, multiplier=PACKED, **widths)
    for in_bits in range(1, 9):
        for in_signed in (0, 1):
            weight_bits = 2 + (3 * in_bits + 2 * in_signed) % 7
            widths = {"in_bits": in_bits, "in_signed": in_signed, "weight_bits": weight_bits}
            yield f"adders {widths}", dot(multiplier=ADDERS, **widths)
        widths = {"in_bits": in_bits, "in_signed": in_bits % 2, "weight_bits": 1}
        yield f"bipolar weights {widths}", dot(**widths)
        yield f"bipolar inputs, {widths}", dot(in_bits=1, in_bipolar=1, weight_bits=1 + in_bits % 8)
    for simd in (1, 2, 7, 8, 9, 15, 16, 17, 31, 40):
        yield f"both bipolar, simd {simd}", dot(simd, in_bits=1, in_bipolar=1, weight_bits=1)


def test_styles_equal_loop_nest(tmp_path: Path) -> None:
    paces, cases = cycle(crossed((0, 50), (0, 50))), []
    for number, (name, dot) in enumerate(styles()):
        idle, stall = next(paces)
        cases.append(case(name, dot, idle, stall, seed=number, extreme=(None, None, 0, None, 1)[number % 5]))
    results = simulate("bf_dot", cases, tmp_path, sources=SOURCES)
    check(results)
    for single in cases:
        if single.idle == single.stall == 0:
            dot = Dot(**{field.name: single.parameters[field.name.title().replace("_", "")] for field in fields(Dot)})
            assert results[single.name].cycles == len(single.inputs[""].words) + dot.latency(), single.name


def test_a_reader_that_waits_long_loses_nothing(tmp_path: Path) -> None:
    """Waits longer than several results take: no more results may begin than there is room for."""
    dots = {"skid": Dot(1, 2, 20, 2), "fifo": Dot(2, 2, 1, 4)}
    check(simulate("bf_dot", [case(name, dot, 0, 98) for name, dot in dots.items()], tmp_path, sources=SOURCES))


def exhaustive(dot: Dot) -> Case:
    """Every input with every tuple of weights of the lanes p: a pixel an input, a result a tuple."""
    (low, high), (bottom, top) = dot.weight_bounds(), dot.input_bounds()
    tuples = np.array(list(product(range(low, high + 1), repeat=dot.pe)))
    values = np.arange(bottom, top + 1)
    sized = replace(dot, results=len(tuples), out_width=len(values))
    return _vectors(
        f"exhaustive {dot}",
        sized,
        tuples[:, :, np.newaxis],
        np.zeros((len(tuples), dot.pe), int),
        np.repeat(values, len(tuples))[:, np.newaxis],
        (values[:, np.newaxis, np.newaxis] * tuples).reshape(-1, dot.pe),
    )


def test_every_product_is_exact(tmp_path: Path) -> None:
    pairs = [Dot(1, 2, 1, 1, in_bits=n, weight_bits=m, multiplier=PACKED) for n, m in ((4, 4), (3, 3), (8, 2), (1, 5))]
    lone = [Dot(1, 1, 1, 1, in_bits=n, weight_bits=m, multiplier=ADDERS) for n, m in ((1, 4), (2, 6), (5, 7), (6, 5))]
    dots = [replace(dot, in_signed=signed, out_height=1) for dot in pairs + lone for signed in (0, 1)]
    check(simulate("bf_dot", [exhaustive(dot) for dot in dots], tmp_path, sources=SOURCES))


def test_dot_equals_loop_nest(tmp_path: Path) -> None:
    paces = cycle(crossed())
    cases: list[Case] = []
    for name, dot in DOTS.items():
        for kind in (None, None, 0, 1):
            idle, stall = next(paces)
            title = f"{name}, extreme {kind}, idle {idle}, stall {stall}, number {len(cases)}"
            cases.append(case(title, dot, idle, stall, seed=len(cases), extreme=kind))
    check(simulate("bf_dot", cases, tmp_path, sources=SOURCES))


def test_dot_takes_one_word_a_cycle(tmp_path: Path) -> None:
    names = ["one multiplier", "wide", "seven lanes", "phases"]
    cases = {name: case(name, DOTS[name]) for name in names}
    results = simulate("bf_dot", list(cases.values()), tmp_path, sources=SOURCES)
    check(results)
    for name, single in cases.items():
        assert results[name].cycles == len(single.inputs[""].words) + DOTS[name].latency(), name


@pytest.mark.parametrize("name", DOTS)
def test_no_lint(name: str) -> None:
    files = {"WeightFile": "weights.mem", "BiasFile": "biases.mem"}
    verilator.lint(SOURCES, "bf_dot", {**DOTS[name].parameters(), **files})


@pytest.mark.parametrize(("name", "dot"), list(styles())[::4])
def test_styles_have_no_lint(name: str, dot: Dot) -> None:
    files = {"WeightFile": "weights.mem", "BiasFile": "biases.mem"}
    verilator.lint(SOURCES, "bf_dot", {**dot.parameters(), **files})


@pytest.mark.parametrize(
    ("dot", "files", "message"),
    [
        (Dot(1, 1, 1, 1), {"WeightFile": "weights.mem"}, "WeightFile and BiasFile must name files"),
        (Dot(1, 1, 1, 1, phases_width=2, phase_width=2), {}, "PhaseHeight, PhaseWidth must be less than"),
        (Dot(1, 1, 1, 1, weight_bits=0), {}, "WeightBits must be at least 1"),
        (Dot(1, 1, 1, 1, memory=3), {}, "WeightBits must be at least 1, Memory 0 to 2"),
        (Dot(1, 1, 1, 1, in_bits=2, in_bipolar=1), {}, "InBits must be 1 where InBipolar is 1"),
        (Dot(1, 1, 1, 1, multiplier=3), {}, "Multiplier must be 0 to 2"),
        (Dot(1, 3, 1, 1, in_bits=4, weight_bits=4, multiplier=PACKED), {}, "Pe must be even"),
        (
            Dot(1, 2, 1, 1, in_bits=9, weight_bits=9, multiplier=PACKED),
            {},
            "InBits + 2 * WeightBits must be at most 26",
        ),
    ],
)
def test_illegal_parameters_are_refused(dot: Dot, files: dict[str, int | str], message: str) -> None:
    files = files or {"WeightFile": "weights.mem", "BiasFile": "biases.mem"}
    with pytest.raises(ToolError) as error:
        verilator.lint(SOURCES, "bf_dot", {**dot.parameters(), **files})
    assert any(f": {message}" in line for line in error.value.lines)


@pytest.mark.parametrize(
    ("dot", "dsp", "bram", "lut"),
    [
        (Dot(simd=4, pe=8, terms=18, results=2, acc_bits=22), 32, 8, 1000),  # 256 bits of weights, 36 a block RAM
        (Dot(2, 4, 8, 4, in_bits=4, weight_bits=4, acc_bits=13, multiplier=PACKED), 4, 1, 310),
        (Dot(2, 4, 8, 4, in_bits=4, weight_bits=4, acc_bits=13, multiplier=ADDERS), 0, 1, 450),
        (Dot(8, 4, 8, 4, in_bits=1, in_bipolar=1, weight_bits=1, acc_bits=13), 0, 1, 320),
        (Dot(2, 4, 4, 2, in_bits=4, weight_bits=4, acc_bits=13, memory=1), 8, 1, 270),
        (Dot(2, 4, 8, 4, in_bits=4, weight_bits=4, acc_bits=13, memory=2), 8, 0, 400),
    ],
    ids=["a DSP each", "packed", "adders", "both bipolar", "block RAM", "memory in LUTs"],
)
def test_synthesis_infers_what_is_meant(dot: Dot, dsp: int, bram: int, lut: int, tmp_path: Path) -> None:
    vectors = case("inferred", dot)
    for name, memory in vectors.memories.items():
        (tmp_path / f"{name}.mem").write_text(memory.mem())
    files = {name: f'"{name}.mem"' for name in vectors.memories}
    values = ", ".join(f".{name}({value})" for name, value in {**dot.parameters(), **files}.items())
    top = tmp_path / "top.sv"
    top.write_text(f"""\
module top (
    input logic clk_i, rst_i, valid_i, ready_i, output logic ready_o, valid_o,
    input logic [{dot.simd * dot.in_bits - 1}:0] data_i, output logic [{dot.pe * dot.acc_bits - 1}:0] data_o
);
  bf_dot #({values}) dut (
    .clk_i(clk_i), .rst_i(rst_i), .valid_i(valid_i), .ready_o(ready_o), .data_i(data_i),
    .valid_o(valid_o), .ready_i(ready_i), .data_o(data_o));
endmodule
""")
    total = yosys.synthesize_ecp5([*SOURCES, top], "top", tmp_path).total
    assert (total.dsp, total.bram) == (dsp, bram)
    assert total.lut < lut, total
