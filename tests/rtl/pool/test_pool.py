"""bf_pool: exact against a maximum and a sum, one word a cycle."""

from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest

from bitfab.tools import verilator
from bitfab.tools.process import ToolError
from tests.rtl.harness import RTL, Case, check, crossed, pack_words, simulate

SOURCE = RTL / "pool" / "bf_pool.sv"
SHAPES = [(8, 1, 4), (5, 3, 1), (1, 4, 9), (4, 2, 6)]  # bits, lanes, terms


def parameters(bits: int, lanes: int, terms: int, signed: bool, total: bool) -> dict[str, int]:
    out_bits = bits + (terms - 1).bit_length() if total else bits
    return {"Bits": bits, "Lanes": lanes, "Terms": terms, "Signed": int(signed), "Sum": int(total), "OutBits": out_bits}


def case(name: str, values: dict[str, int], idle: int = 0, stall: int = 0, seed: int = 1) -> Case:
    """80 results; the first hold only the lowest value, the next only the highest."""
    bits = values["Bits"]
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if values["Signed"] else (0, (1 << bits) - 1)
    inputs = np.random.default_rng(seed).integers(low, high + 1, (80, values["Terms"], values["Lanes"]))
    inputs[:2], inputs[2:4] = low, high
    expected = inputs.sum(axis=1) if values["Sum"] else inputs.max(axis=1)
    stream = pack_words(inputs.reshape(-1, values["Lanes"]), bits)
    return Case(
        name, {"": stream}, {"": pack_words(expected, values["OutBits"])}, values, idle=idle, stall=stall, seed=seed
    )


def test_pool_equals_maximum_and_sum(tmp_path: Path) -> None:
    paces = cycle(crossed())
    cases: list[Case] = []
    for shape, signed, total in product(SHAPES, (False, True), (False, True)):
        idle, stall = next(paces)
        name = f"{shape}, signed {signed}, sum {total}, idle {idle}, stall {stall}"
        cases.append(case(name, parameters(*shape, signed, total), idle, stall, seed=len(cases)))
    few = np.random.default_rng(0).integers(0, 2, (40, 2, 1))  # sums narrower than the type of their terms
    streams = {"": pack_words(few.reshape(-1, 1), 8)}, {"": pack_words(few.sum(axis=1), 2)}
    cases.append(Case("narrow sums", *streams, {**parameters(8, 1, 2, True, True), "OutBits": 2}))
    cases.append(case("full speed", parameters(8, 1, 4, True, False)))
    results = simulate("bf_pool", cases, tmp_path)
    check(results)
    assert results["full speed"].cycles == 80 * 4 + 1


@pytest.mark.parametrize(("signed", "total"), list(product((False, True), repeat=2)))
@pytest.mark.parametrize("shape", SHAPES)
def test_no_lint(shape: tuple[int, int, int], signed: bool, total: bool) -> None:
    verilator.lint([SOURCE], "bf_pool", parameters(*shape, signed, total))
    if total:
        verilator.lint([SOURCE], "bf_pool", {**parameters(*shape, signed, total), "OutBits": 1})


def test_illegal_parameters_are_refused() -> None:
    with pytest.raises(ToolError) as error:
        verilator.lint([SOURCE], "bf_pool", {"Bits": 8, "OutBits": 7})
    assert any("bf_pool: OutBits must be at least Bits" in line for line in error.value.lines)
