"""Every kind of multiplier and of memory in whole networks: equal to `run` in both languages, counted exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfab.backend import simulate
from bitfab.dtypes import IntType
from bitfab.hw import Folding, Language, MemoryStyle, Multiplier, cost, generate, write_files
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Requantize, Reshape
from bitfab.parts import find_part
from bitfab.tools import ghdl, yosys
from bitfab.tools.process import MissingToolError

UINT4, INT5 = IntType(4, signed=False), IntType(5, signed=True)
UINT8, INT8 = IntType(8, signed=False), IntType(8, signed=True)
FOLDINGS = {
    "conv": Folding(4, 3, Multiplier.PACKED, MemoryStyle.BLOCK),
    "a": Folding(2, 1, Multiplier.LUTS),
    "up": Folding(2, 2, Multiplier.LUTS, MemoryStyle.LUTS),
    "b": Folding(1, 1, Multiplier.DSP),
    "grouped": Folding(2, 1, Multiplier.DSP, MemoryStyle.LUTS),
    "c": Folding(1, 1, Multiplier.LUTS),
    "dense": Folding(4, 2, Multiplier.LUTS),
}


def network() -> Graph:
    """Each operation that multiplies, values of 4 and 5 bits, unsigned and signed, weights of 4."""
    rng = np.random.default_rng(0)
    b = Builder("kinds")

    def scaled(name: str, value: str, type: IntType) -> str:
        channels, high = b.value(value).shape[0], b.value(value).high
        multiplier = rng.integers(2**9, 2**10, channels)
        shift = np.full(channels, 10 + max(0, high.bit_length() - 3))
        return b.add(name, Requantize(multiplier, shift, type, type.low, type.high), value)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-8, 7, shape, endpoint=True)

    x = b.input("x", (3, 5, 4), UINT4)
    y = scaled("a", b.add("conv", Conv2d(weights(4, 3, 3, 3), rng.integers(-9, 9, 4), padding=(1, 1, 1, 1)), x), INT5)
    y = scaled("b", b.add("up", ConvTranspose2d(weights(4, 2, 3, 2), rng.integers(-9, 9, 2), (2, 2)), y), UINT4)
    y = scaled("c", b.add("grouped", Conv2d(weights(8, 1, 3, 3), rng.integers(-9, 9, 8), (2, 2), groups=2), y), INT5)
    flat = b.add("flat", Reshape((int(np.prod(b.value(y).shape)),)), y)
    return b.build((b.add("dense", Dense(weights(4, b.value(flat).shape[0]), rng.integers(-9, 9, 4)), flat),))


@pytest.mark.parametrize("language", list(Language))
def test_equal_to_the_definition(language: Language, tmp_path: Path) -> None:
    try:
        if language is Language.VHDL:
            ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    design = generate(network(), folding=FOLDINGS, language=language)
    images = np.random.default_rng(1).integers(0, 15, (3, 3, 5, 4), endpoint=True)
    images[0], images[1] = 0, 15
    assert simulate(design, images, tmp_path / "net").mismatches == 0


def test_multipliers_and_block_rams_as_synthesis_makes_them(tmp_path: Path) -> None:
    try:
        yosys.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    design = generate(network(), folding=FOLDINGS)
    write_files(design.files, tmp_path / "net")
    sources = [tmp_path / "net" / path for path in design.sources]
    netlist = yosys.synthesize_ecp5(sources, design.name, tmp_path / "build")
    guess, real = cost.total(cost.estimate(design).values()), netlist.total
    assert (guess.dsp, guess.bram) == (real.dsp, real.bram)
    assert {name: netlist.instances[f"u_{name}"].dsp for name in FOLDINGS} == {
        "conv": 6,
        "a": 0,
        "up": 0,
        "b": 1,
        "grouped": 2,
        "c": 0,
        "dense": 0,
    }
    assert guess.lut == pytest.approx(real.lut, rel=0.2)


def bytes_network() -> Graph:
    """Weights and values of 8 bits, unsigned ones into the convolution, signed ones into the dense layer."""
    rng = np.random.default_rng(2)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-128, 127, shape, endpoint=True)

    b = Builder("bytes")
    y = b.add("conv", Conv2d(weights(4, 2, 3, 3), rng.integers(-99, 99, 4)), b.input("x", (2, 5, 4), UINT8))
    y = b.add("scale", Requantize(rng.integers(2**9, 2**10, 4), np.full(4, 17), INT8, -128, 127), y)
    flat = b.add("flat", Reshape((24,)), y)
    return b.build((b.add("dense", Dense(weights(6, 24), rng.integers(-99, 99, 6)), flat),))


@pytest.mark.parametrize("language", list(Language))
def test_bytes_meet_two_a_dsp48(language: Language, tmp_path: Path) -> None:
    """On 7 series: equal to the definition, with half as many DSPs as products."""
    try:
        yosys.require()
        if language is Language.VHDL:
            ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    foldings = {"conv": Folding(4, 2), "dense": Folding(2, 4)}
    design = generate(bytes_network(), "xc7a35t", folding=foldings, language=language)
    images = np.random.default_rng(3).integers(0, 255, (3, 2, 5, 4), endpoint=True)
    images[0], images[1] = 0, 255
    assert simulate(design, images, tmp_path / "net").mismatches == 0
    if language is Language.VERILOG:
        sources = [tmp_path / "net" / path for path in design.sources]
        netlist = yosys.synthesize(sources, design.name, tmp_path / "build", find_part("xc7a35t"))
        assert {name: netlist.instances[f"u_{name}"].dsp for name in foldings} == {"conv": 4, "dense": 4}
