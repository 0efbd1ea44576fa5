"""The FP32 engine that benchmarks compare with: equal to numpy in every bit, one product a cycle, no lint warning."""

import numpy as np

from benchmarks.baselines import fp32
from bitfab.tools import verilator


def test_products_sums_and_dot_products_equal_numpy() -> None:
    proof = fp32.verify(pairs=20_000)
    assert proof.compared == 2 * (2 * 20_000 + fp32.IMAGES * fp32.RESULTS * 8)
    assert proof.wrong == 0
    assert proof.cycles < 1.001


def test_the_definition_of_a_product_is_that_of_numpy_above_the_smallest_normal_number() -> None:
    a, b = fp32.numbers(50_000, np.random.default_rng(1)).T
    with np.errstate(over="ignore", under="ignore"):
        expected = a * b
    normal = np.abs(expected) > fp32.SMALLEST
    assert normal.mean() > 0.4
    assert np.array_equal(fp32.multiplied(a, b)[normal].view(np.uint32), expected[normal].view(np.uint32))
    assert not np.any(fp32.multiplied(a, b)[~normal & (expected != fp32.SMALLEST) & (expected != -fp32.SMALLEST)])


def test_every_warning_of_verilator() -> None:
    sizes = {"WeightFile": "weights.mem", "Terms": fp32.TERMS, "Results": fp32.RESULTS}
    verilator.lint(fp32.UNITS, "fp32_mac", sizes)
