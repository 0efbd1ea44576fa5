"""Names of values are identifiers of SystemVerilog, unique without regard to case."""

import pytest

from bitfab.ir.names import VERILOG, VHDL, Names, identifier, plain


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
    assert [names.take(path) for path in ("a_b", "A_B", "a_b_2", "c")] == ["a_b", "A_B_2", "a_b_2_2", "c"]


def test_plain_names_have_a_prefix_where_they_begin_with_no_letter() -> None:
    assert [plain("/model/0::Conv_", "net", 9), plain("0", "value"), plain("é")] == ["model_0_C", "value_0", "layer"]


def test_words_of_both_languages_are_known() -> None:
    assert {"eventually", "wire", "begin"} <= VERILOG
    assert {"process", "downto"} <= VHDL and not VERILOG & VHDL
