"""Names of values are identifiers of SystemVerilog, unique without regard to case."""

import pytest

from bitfab.quant.names import Names, identifier


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("encoder.0.conv", "encoder_0_conv"),
        ("0", "layer_0"),
        ("input", "input_value"),
        ("Wire", "Wire_value"),
        ("_private.é", "private"),
        ("", "layer"),
    ],
)
def test_identifiers(path: str, expected: str) -> None:
    assert identifier(path) == expected


def test_names_differ_in_more_than_case() -> None:
    names = Names()
    assert [names.take(path) for path in ("a.b", "A_B", "a_b_2", "c")] == ["a_b", "A_B_2", "a_b_2_2", "c"]
