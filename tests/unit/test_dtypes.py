"""Integer types, rounding, multiplier and shift: against Python's exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfab.dtypes import (
    IntType,
    QParams,
    QuantSpec,
    Rounding,
    dequantize,
    multiplier_and_shift,
    quantize,
    round_shift,
    storage,
)
from bitfab.errors import BitfabError


def rounded(x: Fraction, rounding: Rounding) -> int:
    match rounding:
        case Rounding.HALF_UP:
            return math.floor(x + Fraction(1, 2))
        case Rounding.HALF_EVEN:
            return round(x)
        case Rounding.HALF_AWAY:
            return math.floor(abs(x) + Fraction(1, 2)) * (1 if x >= 0 else -1)
        case Rounding.FLOOR:
            return math.floor(x)


@pytest.mark.parametrize("rounding", list(Rounding))
@given(
    x=st.one_of(st.integers(-40, 40), st.integers(-(1 << 48), 1 << 48)),
    shift=st.integers(0, 50),
    tie=st.booleans(),
)
def test_round_shift(rounding: Rounding, x: int, shift: int, tie: bool) -> None:
    if tie and shift:
        x = (2 * (x >> shift) + 1) << (shift - 1)  # exactly half-way
    assert int(round_shift(np.array(x), shift, rounding)) == rounded(Fraction(x, 1 << shift), rounding)


@pytest.mark.parametrize("rounding", list(Rounding))
def test_round_shift_broadcasts(rounding: Rounding) -> None:
    x, shift = np.arange(-20, 20).reshape(1, 40), np.arange(4).reshape(4, 1)
    expected = [[rounded(Fraction(int(a), 1 << n), rounding) for a in x[0]] for n in range(4)]
    np.testing.assert_array_equal(round_shift(x, shift, rounding), expected)


@given(ratio=st.floats(2.0**-20, 2.0**7), bits=st.integers(2, 16))
def test_multiplier_and_shift_is_the_nearest(ratio: float, bits: int) -> None:
    """No m' / 2**n' with m' < 2**bits is nearer, whichever n' is taken."""
    try:
        (multiplier,), (shift,) = multiplier_and_shift(np.array([ratio]), bits)
    except BitfabError:
        assert ratio > 2.0**bits - 1  # only what does not fit is refused
        return
    assert 0 < multiplier < 1 << bits
    assert 0 <= shift <= 62
    exact, error = Fraction(ratio), abs(Fraction(int(multiplier), 1 << int(shift)) - Fraction(ratio))
    for other in range(40):
        near = exact * (1 << other)
        for candidate in (math.floor(near), math.ceil(near)):
            if 0 < candidate < 1 << bits:
                assert error <= abs(Fraction(candidate, 1 << other) - exact)


@given(exponent=st.integers(-40, 0))
def test_a_power_of_two_is_only_a_shift(exponent: int) -> None:
    (multiplier,), (shift,) = multiplier_and_shift(np.array([2.0**exponent]), 16)
    assert (multiplier, shift) == (1, -exponent)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf, 70000.0])
def test_impossible_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(BitfabError, match="ratio"):
        multiplier_and_shift(np.array([ratio]), 16)


@given(low=st.integers(-(1 << 31), (1 << 31) - 1), span=st.integers(0, 1 << 31))
def test_the_type_that_holds_a_range_is_the_narrowest(low: int, span: int) -> None:
    high = min(low + span, (1 << 31) - 1)
    type = IntType.holding(low, high)
    assert type.low <= low
    assert high <= type.high
    assert type.signed == (low < 0)
    assert not type.bipolar
    if type.bits > 1 + type.signed:
        narrower = IntType(type.bits - 1, type.signed)
        assert low < narrower.low or high > narrower.high


@given(bits=st.integers(1, 32), signed=st.booleans())
def test_storage_holds_the_type(bits: int, signed: bool) -> None:
    type = IntType(bits, signed)
    limits = np.iinfo(storage(type))
    assert limits.min <= type.low <= type.high <= limits.max
    assert limits.bits == 8 or limits.bits // 2 < bits
    assert type.high - type.low + 1 == 1 << bits or type.bipolar


def test_one_signed_bit_is_bipolar() -> None:
    type = IntType(1, signed=True)
    assert (type.low, type.high, type.bipolar) == (-1, 1, True)
    assert not any(IntType(bits, signed).bipolar for bits, signed in ((1, False), (2, True), (2, False)))
    assert IntType.holding(-1, 0) == IntType.holding(-1, 1) == IntType(2, signed=True)  # which hold 0 as well


@given(x=st.lists(st.floats(-4, 4), min_size=1, max_size=8), scale=st.floats(0.01, 10))
def test_bipolar_codes_are_signs(x: list[float], scale: float) -> None:
    codes = quantize(np.array([[*x, -0.0, 0.0]]), QParams((scale,)), IntType(1, signed=True))
    np.testing.assert_array_equal(codes, [[*(1 if value >= 0 else -1 for value in x), 1, 1]])
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(dequantize(codes, QParams((scale,))), codes * scale)


def test_quantize_rounds_half_to_even_and_saturates() -> None:
    x = np.array([[-10.0, -0.75, -0.25, 0.25, 0.75, 1.25, 10.0]])
    codes = quantize(x, QParams((0.5,), 3), IntType(3, signed=False))
    np.testing.assert_array_equal(codes, [[0, 1, 3, 3, 5, 5, 7]])
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(dequantize(codes, QParams((0.5,), 3)), [[-1.5, -1, 0, 0, 1, 1, 2]])


def test_a_scale_for_each_channel() -> None:
    x = np.ones((2, 3, 4, 5)) * np.array([1.0, 2.0, 4.0])[:, None, None]
    codes = quantize(x, QParams((1.0, 2.0, 4.0)), IntType(8, signed=True))
    assert (codes == 1).all()
    np.testing.assert_array_equal(dequantize(codes, QParams((1.0, 2.0, 4.0))), x)


def test_impossible_types_and_scales_are_refused() -> None:
    for bits in (0, 33):
        with pytest.raises(BitfabError, match="bits"):
            IntType(bits, signed=True)
    for scale in ((), (0.0,), (-1.0,), (math.nan,), (1.0, math.inf)):
        with pytest.raises(BitfabError, match="scale"):
            QParams(scale)
    with pytest.raises(BitfabError, match="symmetric"):
        QuantSpec(signed=False)
    for bits in (0, 17):
        with pytest.raises(BitfabError, match="1 to 16"):
            QuantSpec(bits=bits)
