"""bf_scale: exact products of two streams, word by word or by a pixel of factors, in a DSP's or in adders' way."""

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from bitfab.dtypes import IntArray, IntType
from bitfab.tools.process import ToolError
from tests.rtl.harness import RTL, Case, check, crossed, pack_words, simulate

SOURCES = [RTL / name / f"bf_{name}.sv" for name in ("scale", "multiply")]
U8, S8, U1, S2 = IntType(8, signed=False), IntType(8, signed=True), IntType(1, signed=False), IntType(2, signed=True)
S16, U12 = IntType(16, signed=True), IntType(12, signed=False)
# Types of a and b, their zeros, lanes, words a pixel, pixels that share a pixel of b, adders.
SHAPES = [
    (U8, U8, 0, 0, 1, 1, 1, False),
    (S8, U8, -128, 3, 2, 3, 1, False),
    (S16, S16, 0, 0, 1, 2, 1, False),
    (U8, U8, 7, 255, 1, 1, 4, False),
    (S8, U8, 5, 0, 2, 3, 5, False),
    (U8, S8, 0, -128, 3, 4, 1, True),
    (U12, S2, 99, -9, 1, 40, 3, True),
    (U1, U8, 0, 1, 4, 1, 2, True),
    (U1, S2, 0, 0, 2, 2, 6, True),
]
IMAGES = 3  # of `pixels` pixels a, or as many words of each stream


def bits_of(low: int, high: int) -> int:
    """Of the narrowest two's complement type, of at least 2 bits, that holds both."""
    return max(2, *((end if end >= 0 else -end - 1).bit_length() + 1 for end in (low, high)))


def values(type: IntType, shape: tuple[int, ...], rng: np.random.Generator) -> IntArray:
    """Random ones, often the ends of the range."""
    x = rng.integers(type.low, type.high, shape, endpoint=True)
    return np.where(rng.integers(0, 3, shape) == 0, rng.choice([type.low, type.high], shape), x)


def case(shape: tuple[IntType, IntType, int, int, int, int, int, bool], number: int, idle: int, stall: int) -> Case:
    a_type, b_type, a_zero, b_zero, lanes, words, pixels, adders = shape
    rng = np.random.default_rng(number)
    a = values(a_type, (IMAGES, pixels if pixels > 1 else 20, words, lanes), rng)
    b = values(b_type, (IMAGES, 1 if pixels > 1 else 20, words, lanes), rng)
    products = (a - a_zero) * (b - b_zero)
    ends = [(x - a_zero, y - b_zero) for x in (a_type.low, a_type.high) for y in (b_type.low, b_type.high)]
    out = IntType.holding(min(x * y for x, y in ends), max(x * y for x, y in ends))
    parameters = {"ABits": a_type.bits, "ASigned": int(a_type.signed), "AZero": a_zero}
    parameters |= {"BBits": b_type.bits, "BSigned": int(b_type.signed), "BZero": b_zero}
    parameters |= {f"{side}FactorBits": bits_of(*(e[i] for e in ends[::3])) for i, side in enumerate("AB")}
    parameters |= {"Lanes": lanes, "Words": words, "Pixels": pixels, "Multiplier": 2 * adders}
    parameters |= {"OutBits": out.bits, "OutSigned": int(out.signed)}
    return Case(
        f"{shape}, idle {idle}, stall {stall}, {number}",
        {"a_": pack_words(a.reshape(-1, lanes).tolist(), a_type.bits),
         "b_": pack_words(b.reshape(-1, lanes).tolist(), b_type.bits)},
        {"": pack_words(products.reshape(-1, lanes).tolist(), out.bits)},
        parameters,
        idle=idle,
        stall=stall,
        seed=number,
    )  # fmt: skip


def test_scale_is_exact(tmp_path: Path) -> None:
    paces = cycle(crossed())
    cases = [case(shape, number, *next(paces)) for number, shape in enumerate(SHAPES * 4)]
    check(simulate("bf_scale", cases, tmp_path, sources=SOURCES))


def test_scale_takes_one_word_a_cycle(tmp_path: Path) -> None:
    """No cycle is lost where the factors of the next image come: as many cycles as words, and the latency."""
    cases = [case(SHAPES[i], i, 0, 0) for i in (0, 4, 6)]
    results = simulate("bf_scale", cases, tmp_path, sources=SOURCES)
    check(results)
    assert [result.cycles for result in results.values()] == [3 * 20 + 4, 3 * 5 * 3 + 4, 3 * 3 * 40 + 6]


def test_a_wrong_expectation_is_found(tmp_path: Path) -> None:
    right = case(SHAPES[4], 0, 0, 0)
    words = right.outputs[""]
    wrong = [*words.words[:7], words.words[7] ^ 1, *words.words[8:]]
    found = simulate("bf_scale", [replace(right, outputs={"": replace(words, words=wrong)})], tmp_path, sources=SOURCES)
    assert [result.mismatches for result in found.values()] == [1]


@pytest.mark.parametrize("name", ["BFactorBits", "OutBits"])
def test_what_does_not_fit_is_an_error(name: str, tmp_path: Path) -> None:
    right = case(SHAPES[1], 0, 0, 0)
    bits = right.parameters[name] - 1
    outputs = {"": replace(right.outputs[""], bits=2 * bits)} if name == "OutBits" else right.outputs
    narrow = replace(right, parameters={**right.parameters, name: bits}, outputs=outputs)
    with pytest.raises(ToolError) as error:
        simulate("bf_scale", [narrow], tmp_path, sources=SOURCES)
    assert any("does not fit" in line for line in error.value.lines)
