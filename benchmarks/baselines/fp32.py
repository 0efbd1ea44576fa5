"""The FP32 baseline: a pipelined multiply-accumulate engine, verified against numpy and placed on an ECP5."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfab.parts import Resources
from bitfab.tools import nextpnr, verilator, yosys

HERE = Path(__file__).parent
UNITS = [HERE / f"fp32_{name}.sv" for name in ("multiply", "add", "mac")]
TERMS, RESULTS = 16, 4  # 16 * 4 * 8 weights: one block RAM of 512 words
IMAGES = 64  # times that the engine goes through all its weights in simulation
PAUSES = ("+idle=30", "+stall=30")
SMALLEST = np.float32(2.0**-126)  # what is less is a zero

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Verified:
    """How many numbers were compared with numpy's, how many differed, and the engine's cycles a multiplication."""

    compared: int
    wrong: int
    cycles: float


@dataclass(frozen=True)
class Baseline:
    """The engine on the part: one multiplication and one addition a cycle."""

    used: Resources
    fmax_mhz: float

    @property
    def gops(self) -> float:
        return 2 * self.fmax_mhz / 1000


def flushed(x: Floats) -> Floats:
    """Subnormals as zeros of their sign."""
    return np.where(np.abs(x) < SMALLEST, np.copysign(np.float32(0), x), x)


def multiplied(a: Floats, b: Floats) -> Floats:
    """The definition of fp32_multiply: below 2^-126 before rounding is zero (float64 holds a product exactly)."""
    exact = a.astype(np.float64) * b.astype(np.float64)
    tiny = np.abs(exact) < float(SMALLEST)
    with np.errstate(over="ignore"):
        return np.where(tiny, np.copysign(0.0, exact), exact).astype(np.float32)


def added(a: Floats, b: Floats) -> Floats:
    """The definition of fp32_add."""
    with np.errstate(over="ignore"):
        return flushed(a + b)


def numbers(count: int, rng: np.random.Generator) -> Floats:
    """Pairs (count, 2): of all exponents, near ones, nearly opposite, of a network's sizes, zeros, few bits set."""
    bits = rng.integers(0, 2**32, (count, 2), dtype=np.uint64).astype(np.uint32)
    exponents = (bits >> 23) & 255
    kind = rng.integers(0, 6, count)
    near = np.clip(exponents[:, 0].astype(int) + rng.integers(-30, 31, count), 0, 254)
    exponents[:, 1] = np.where(np.isin(kind, (1, 2)), near, exponents[:, 1])
    exponents = np.where((kind == 3)[:, None], rng.integers(117, 132, (count, 2)), exponents)
    exponents = np.where((kind == 4)[:, None], rng.choice([0, 1, 2, 63, 64, 190, 191, 253, 254], (count, 2)), exponents)
    bits = (bits & 0x807FFFFF) | (np.minimum(exponents, 254).astype(np.uint32) << 23)
    opposite = (bits[:, 0] ^ 0x80000000) + rng.integers(-3, 4, count).astype(np.uint32)
    bits[:, 1] = np.where(kind == 2, opposite, bits[:, 1])
    bits[:, 1] &= np.where((kind == 5) & (rng.random(count) < 0.5), 0xFFFFF000, 0xFFFFFFFF).astype(np.uint32)
    found = flushed(bits.view(np.float32))
    return np.where(np.isfinite(found), found, np.float32(1))


def verify(pairs: int = 200_000, seed: int = 0) -> Verified:
    """Simulate the units on random pairs, and the engine on random dot products without and with pauses."""
    rng = np.random.default_rng(seed)
    operands = numbers(pairs, rng)
    weights = rng.standard_normal((RESULTS, TERMS, 8)).astype(np.float32)
    x = rng.standard_normal((IMAGES, RESULTS, TERMS)).astype(np.float32)
    dots = np.zeros((IMAGES, RESULTS, 8), np.float32)
    for term in range(TERMS):
        dots = added(dots, multiplied(weights[:, term], x[:, :, term, None]))
    files = {
        "products": multiplied(operands[:, 0], operands[:, 1]),
        "sums": added(operands[:, 0], operands[:, 1]),
        "weights": weights,
        "inputs": x,
        "outputs": dots,
    }
    sizes = {"Pairs": pairs, "Terms": TERMS, "Results": RESULTS, "Inputs": x.size, "Outputs": dots.size}
    library = Path(str(resources.files("bitfab.rtl") / "sim"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, values in files.items():
            (folder / f"{file}.mem").write_text(_words(values))
        a, b = (_words(column).split() for column in operands.T)
        (folder / "pairs.mem").write_text("".join(f"{i}{j}\n" for i, j in zip(a, b, strict=True)))
        program = verilator.build(
            [*UNITS, HERE / "fp32_tb.sv", *library.glob("*.sv")], "fp32_tb", folder / "obj", sizes
        )
        text = ["\n".join(verilator.run(program, folder, arguments=pauses)) for pauses in ((), PAUSES)]
    wrong = [int(count) for run in text for count in re.findall(r"(?:products|sums|dots) (\d+)", run)]
    assert len(wrong) == 6, text
    busy = int(re.findall(r"CYCLES (\d+)", text[0])[0])
    return Verified(2 * (2 * pairs + dots.size), sum(wrong), busy / (x.size * 8))


def _words(values: Floats) -> str:
    return "".join(f"{word:08x}\n" for word in np.ascontiguousarray(values).view(np.uint32).ravel().tolist())


def place(part: str = "ecp5-85k", target_mhz: float = 150.0) -> Baseline:
    """Synthesize, place and route the engine with random weights."""
    weights = np.random.default_rng(0).standard_normal(TERMS * RESULTS * 8).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weights.mem").write_text(_words(weights))
        top = folder / "fp32.sv"
        top.write_text(_TOP)
        netlist = yosys.synthesize_ecp5([*UNITS, top], "fp32", folder)
        placed = nextpnr.place_and_route(netlist.json, part, folder, target_mhz=target_mhz)
    counts = netlist.total
    return Baseline(Resources(counts.lut, counts.ff, counts.dsp, counts.bram), placed.fmax_mhz)


_TOP = f"""\
module fp32 (
    input logic clk_i, rst_i, valid_i, ready_i,
    output logic ready_o, valid_o,
    input logic [31:0] data_i,
    output logic [31:0] data_o
);
  fp32_mac #(.Terms({TERMS}), .Results({RESULTS}), .WeightFile("weights.mem")) engine (.*);
endmodule
"""
