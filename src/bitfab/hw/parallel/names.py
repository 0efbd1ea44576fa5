"""Identifiers that SystemVerilog and VHDL both take, for names that the user's network gave."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Reserved words of SystemVerilog (IEEE 1800-2017, annex B) and VHDL-2008 (IEEE 1076-2008, section 15.10) that are plain
# lower-case words; VHDL ignores case.
_WORDS = """
abs access after alias all always always_comb always_ff always_latch and architecture array assert assign assume
assume_guarantee attribute automatic before begin bind bins binsof bit block body break buf buffer bufif0 bufif1 bus
byte case casex casez cell chandle checker class clocking cmos component config configuration const constant
constraint context continue cover covergroup coverpoint cross deassign default defparam design disable disconnect dist
do downto edge else elsif end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup
endinterface endmodule endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask entity
enum event exit expect export extends extern fairness file final first_match for force foreach forever fork forkjoin
function generate generic genvar global group guarded highz0 highz1 if iff ifnone ignore_bins illegal_bins implements
implies import impure in incdir include inertial initial inout input inside instance int integer interconnect
interface intersect is join join_any join_none label large let liblist library linkage literal local localparam logic
longint loop macromodule map matches medium mod modport module nand negedge nettype new next nexttime nmos nor
noshowcancelled not notif0 notif1 null of on open or others out output package packed parameter pmos port posedge
postponed primitive priority procedure process program property protected pull0 pull1 pulldown pullup
pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase randsequence range rcmos real realtime record ref reg
register reject reject_on release rem repeat report restrict restrict_guarantee return rnmos rol ror rpmos rtran
rtranif0 rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared select sequence severity shared
shortint shortreal showcancelled signal signed sla sll small soft solve specify specparam sra srl static std string
strong strong0 strong1 struct subtype super supply0 supply1 sync_accept_on sync_reject_on table tagged task then this
throughout time timeprecision timeunit to tran tranif0 tranif1 transport tri tri0 tri1 triand trior trireg type
typedef unaffected unbounded union unique unique0 units unsigned until until_with untyped use uwire var variable
vectored virtual vmode void vprop vunit wait wait_order wand weak weak0 weak1 when while wildcard wire with within wor
work xnor xor
"""
# Names of the generated text itself: ports, the input register, what the renderers declare or use.
_OWN = """
address boolean clk_i data_i data_o data_q dut entries i ieee last_i least lut1 lut2 lut3 lut4 lut5 lut6 natural
number numeric_std positive resize rising_edge rtl shift_left shift_right std_logic std_logic_1164 std_logic_vector tb
to_integer to_signed to_unsigned unused valid_i valid_o valid_q
"""
_RESERVED = frozenset(_WORDS.split()) | frozenset(_OWN.split())
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
