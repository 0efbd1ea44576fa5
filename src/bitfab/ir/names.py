"""Identifiers for names that a user's network gave, and the words of the hardware languages that none may be."""

from __future__ import annotations

import re

# IEEE 1800-2017, annex B.
_VERILOG = """
accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask enum event eventually expect
export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global
highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input
inside instance int integer interconnect interface intersect join join_any join_none large let liblist library local
localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""
# IEEE 1076-2008, section 15.10: what SystemVerilog does not reserve as well. VHDL ignores case.
_VHDL = """
abs access after all architecture array assume_guarantee attribute block body buffer bus component configuration
constant disconnect downto elsif entity exit fairness file generic group guarded impure in inertial is label linkage
literal loop map mod next of on open others out port postponed procedure process range record register reject rem
report restrict_guarantee rol ror select severity shared signal sla sll sra srl std subtype then to transport
unaffected unbounded units variable vmode vprop vunit when work
"""
VERILOG, VHDL = frozenset(_VERILOG.split()), frozenset(_VHDL.split())


class Names:
    """Hands out names that differ in more than case; the same sequence of requests gives the same names."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The name itself, with a number behind it where it was handed out before."""
        unique, number = name, 1
        while unique.lower() in self._taken:
            number += 1
            unique = f"{name}_{number}"
        self._taken.add(unique.lower())
        return unique


def identifier(path: str) -> str:
    """A valid identifier of SystemVerilog: `encoder.0.conv` -> `encoder_0_conv`, `input` -> `input_value`."""
    name = plain(path)
    return f"{name}_value" if name.lower() in VERILOG else name


def plain(path: str, prefix: str = "layer", most: int | None = None) -> str:
    """Letters, digits and single underscores, at most so many, the first a letter: `0` -> `layer_0`."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_")[:most].rstrip("_")
    return name if name[:1].isalpha() else f"{prefix}_{name}".rstrip("_")
