"""QONNX's rounding modes are those of the decimal arithmetic that they are named after."""

import decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfab.frontend.onnx_quantized.quantizers import ROUNDINGS

DECIMAL = {
    "ROUND": decimal.ROUND_HALF_EVEN,
    "HALF_EVEN": decimal.ROUND_HALF_EVEN,
    "CEIL": decimal.ROUND_CEILING,
    "FLOOR": decimal.ROUND_FLOOR,
    "UP": decimal.ROUND_UP,
    "DOWN": decimal.ROUND_DOWN,
    "HALF_UP": decimal.ROUND_HALF_UP,
    "HALF_DOWN": decimal.ROUND_HALF_DOWN,
}


@pytest.mark.parametrize("mode", ROUNDINGS)
@given(eighths=st.integers(-80, 80))
def test_rounding(mode: str, eighths: int) -> None:
    wanted = decimal.Decimal(eighths) / 8
    assert ROUNDINGS[mode](np.array([eighths / 8]))[0] == int(wanted.to_integral_value(DECIMAL[mode]))
