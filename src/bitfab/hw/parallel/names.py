"""Identifiers that SystemVerilog and VHDL both take, for names that the user's network gave."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bitfab.ir.names import VERILOG, VHDL

# Names of the generated text itself: ports, the input register, what the renderers declare or use.
_OWN = """
address boolean clk_i data_i data_o data_q dut entries i ieee last_i least lut1 lut2 lut3 lut4 lut5 lut6 natural
number numeric_std positive resize rising_edge rtl shift_left shift_right std_logic std_logic_1164 std_logic_vector tb
to_integer to_signed to_unsigned unused valid_i valid_o valid_q
"""
_RESERVED = VERILOG | VHDL | frozenset(_OWN.split())
_FUNCTION = re.compile(r"(lut|at_least)\d+")
_SUFFIX = re.compile(r"_[dt]?\d+$")  # wires of a value: name_3, its delays: name_d1, a block's own: name_t7


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """For each name an identifier like it: legal in both languages, unique whatever the case, and such that names
    derived from one (`_3`, `_d1`, `_t7` behind it) are not another."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        word = re.sub(r"_+", "_", name).strip("_")
        word = word if word[:1].isalpha() else f"v_{word}".rstrip("_")
        while _clashes(word.lower(), taken):
            word += "_v"
        taken.add(word.lower())
        chosen[name] = word
    return chosen


def reserved(name: str) -> bool:
    """Whether the name means something else in either language."""
    return name.lower() in _RESERVED or _FUNCTION.fullmatch(name.lower()) is not None


def _clashes(word: str, taken: set[str]) -> bool:
    return reserved(word) or word in taken or bool(_bases(word) & taken) or any(word in _bases(t) for t in taken)


def _bases(word: str) -> set[str]:
    """What the word may be derived from: itself without its last suffix, its last two, ..."""
    found: set[str] = set()
    while (shorter := _SUFFIX.sub("", word)) != word:
        found.add(word := shorter)
    return found
