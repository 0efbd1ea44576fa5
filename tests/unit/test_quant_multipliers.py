"""Float-safe multipliers: every sum is rounded in float32 as in integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfab.dtypes import Rounding, multiplier_and_shift, round_shift
from bitfab.quant.multipliers import add_factors, float_safe


def differing(multiplier: int, shift: int, codes: tuple[int, int, int]) -> int:
    """How many sums with results from low to high float32 rounds otherwise, the zero point added behind or before."""
    low, high, zero = codes
    ends = [(2 * end + 1) * (1 << shift) // (2 * multiplier) for end in (low - zero - 1, high - zero)]
    sums = np.arange(ends[0] - 2, ends[1] + 3)
    wanted = (round_shift(sums * multiplier, shift, Rounding.HALF_UP) + zero).clip(low, high)
    product = sums.astype(np.float32) * np.float32(multiplier * 2.0**-shift)
    made = np.rint(product) + zero, np.rint(product + np.float32(zero))
    return max(int((found.clip(low, high) != wanted).sum()) for found in made)


@given(
    ratios=st.lists(st.floats(2.0**-11, 2.0**-4), min_size=1, max_size=6),
    codes=st.sampled_from([(0, 255, 0), (-128, 127, 0), (0, 255, 77), (0, 15, 3)]),
)
def test_all_sums_round_alike(ratios: list[float], codes: tuple[int, int, int]) -> None:
    nearest = multiplier_and_shift(np.asarray(ratios), 16)
    multiplier, shift = float_safe(*nearest, 16, codes)
    np.testing.assert_allclose(multiplier * 2.0**-shift, ratios, rtol=2.0**-10)
    for m, n in zip(multiplier.tolist(), shift.tolist(), strict=True):
        assert m % 2 == 1
        assert m == 1 or differing(m, n, codes) == 0  # a power of two meets ties, which float32 sends to even


def test_the_nearest_are_often_unsafe() -> None:
    """Else there would be nothing to choose."""
    ratios = 2.0 ** np.random.default_rng(0).uniform(-10, -9, 64)
    multiplier, shift = multiplier_and_shift(ratios, 16)
    before = [differing(m, n, (0, 255, 0)) > 0 for m, n in zip(multiplier.tolist(), shift.tolist(), strict=True)]
    assert 0.4 < np.mean(before) < 0.95
    chosen = float_safe(multiplier, shift, 16, (0, 255, 0))
    assert not any(differing(m, n, (0, 255, 0)) for m, n in zip(*(part.tolist() for part in chosen), strict=True))
    kept = (chosen[0] == multiplier) & (chosen[1] == shift)
    np.testing.assert_array_equal(kept, ~np.asarray(before))  # what is safe already stays


@pytest.mark.parametrize(("ratio", "bits", "codes"), [(2.0**-9, 16, (0, 255, 0)), (0.003, 16, (0, 65535, 0)),
                                                     (0.003, 8, (0, 255, 0)), (3.0, 16, (0, 255, 0))])  # fmt: skip
def test_what_stays_as_it_is(ratio: float, bits: int, codes: tuple[int, int, int]) -> None:
    """Powers of two, codes too many for float32, multipliers too short to choose among, factors that only grow."""
    wanted = multiplier_and_shift(np.asarray([ratio]), bits)
    assert [part.tolist() for part in float_safe(*wanted, bits, codes)] == [part.tolist() for part in wanted]


@given(
    ratios=st.tuples(st.floats(0.01, 4), st.floats(0.01, 4)),
    zeros=st.tuples(st.integers(0, 255), st.integers(0, 255)),
    codes=st.sampled_from([(0, 255, 0), (0, 255, 131), (-128, 127, -3), (0, 15, 4)]),
)
def test_additions_have_no_ties(
    ratios: tuple[float, float], zeros: tuple[int, int], codes: tuple[int, int, int]
) -> None:
    """Every sum of two codes, in float32, to even, upwards, and about any zero point: the same result."""
    operands = [np.arange(256) - zero for zero in zeros]
    guard, factors = add_factors(ratios, operands, 16, codes)
    whole = [int(factor) for factor in factors if factor is not None]
    np.testing.assert_allclose(np.asarray(whole) / 2**guard, ratios, atol=5.5 / 2**guard)
    sums = whole[0] * operands[0][:, None] + whole[1] * operands[1]
    reals = [np.float32(factor) * x.astype(np.float32) for factor, x in zip(whole, operands, strict=True)]
    real = (reals[0][:, None] + reals[1]) / np.float32(2**guard)
    np.testing.assert_array_equal(real * 2**guard, sums)
    low, high, zero = codes
    up = (round_shift(sums, guard, Rounding.HALF_UP) + zero).clip(low, high)
    np.testing.assert_array_equal(up, (np.rint(real) + zero).clip(low, high))
    np.testing.assert_array_equal(up, np.rint(real + np.float32(zero)).clip(low, high))


@pytest.mark.parametrize(("ratios", "size", "bits"), [((0.5, 40.0), 256, 16), ((0.5, 0.5), 1 << 16, 16),
                                                      ((0.5, 0.5), 256, 8)])  # fmt: skip
def test_additions_that_must_round(ratios: tuple[float, float], size: int, bits: int) -> None:
    """Scales too unequal, codes too many, or multipliers too short."""
    assert add_factors(ratios, [np.arange(size)] * 2, bits, (0, 255, 0)) == (8, [None, None])
