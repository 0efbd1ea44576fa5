"""What the cells of a mapped netlist take of a device, for each family that Yosys maps to."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bitfab.parts import Family

__all__ = ["COUNT", "Cells", "Counts", "gowin_multipliers"]

Cells = Mapping[str, Mapping[str, Any]]
"""Cells of Yosys' JSON by name: `type`, and `connections`, the bits of each port."""


@dataclass(frozen=True)
class Counts:
    """Cells of a mapped netlist.

    `lut` counts the LUTs that the cells take in the device. ECP5, LUTs of four inputs: one for a LUT4, two for a carry
    cell (CCU2C), six for a distributed RAM (TRELLIS_DPR16X4: four hold the bits, two carry the write port). Xilinx,
    LUTs of six inputs: one for any LUT1 to LUT6 or inverter, one for each sum bit of a CARRY4 that no LUT drives (the
    device reaches it only through one), one for a shift register and those that a distributed RAM is made of. iCE40:
    one for a LUT4; a carry lies beside the LUT that adds. Gowin: one for a LUT1 to LUT4 or a bit of an adder (ALU),
    eight for a distributed RAM (RAM16SDP4: a whole block of them, as nextpnr packs). Cyclone V, halves of an ALM: one
    for an ALUT of any kind or an inverter, two for a distributed RAM (MISTRAL_MLAB). `carry` and `lutram` count these
    cells by themselves, `mux` those that join LUTs (MUXF7, MUXF8; PFUMX, L6MUX21; MUX2_LUT5 to MUX2_LUT8). `bram` is in
    the block RAMs of the family (`FamilyFacts.bram_kbit`), `dsp` in its multipliers, two of 9 x 9 as one of 18 x 18.
    """

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0
    carry: int = 0
    lutram: int = 0
    mux: int = 0
    spram: int = 0


def _types(cells: Cells) -> Counter[str]:
    return Counter(cell["type"] for cell in cells.values())


def _starting(types: Counter[str], prefix: str) -> int:
    return sum(count for name, count in types.items() if name.startswith(prefix))


def _ecp5(cells: Cells) -> Counts:
    types = _types(cells)
    carry, lutram = types["CCU2C"], types["TRELLIS_DPR16X4"]
    return Counts(
        lut=types["LUT4"] + 2 * carry + 6 * lutram,
        ff=types["TRELLIS_FF"],
        dsp=types["MULT18X18D"],
        bram=types["DP16KD"],
        carry=carry,
        lutram=lutram,
        mux=types["PFUMX"] + types["L6MUX21"],
    )


def _ice40(cells: Cells) -> Counts:
    types = _types(cells)
    return Counts(
        lut=types["SB_LUT4"],
        ff=_starting(types, "SB_DFF"),
        dsp=types["SB_MAC16"],
        bram=_starting(types, "SB_RAM40_4K"),
        carry=types["SB_CARRY"],
        spram=types["SB_SPRAM256KA"],
    )


_GOWIN_RAMS = ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B", "pROM", "pROMX9")


def _gowin(cells: Cells) -> Counts:
    types = _types(cells)
    luts, carry = sum(types[f"LUT{inputs}"] for inputs in range(1, 5)), types["ALU"]
    lutram = _starting(types, "RAM16S")
    return Counts(
        lut=luts + carry + 8 * lutram,
        ff=_starting(types, "DFF"),
        dsp=gowin_multipliers(types),
        bram=sum(types[name] for name in _GOWIN_RAMS),
        carry=carry,
        lutram=lutram,
        mux=_starting(types, "MUX2_LUT"),
    )


def gowin_multipliers(cells: Mapping[str, int]) -> int:
    """Multipliers of 18 x 18 that the DSP cells of a GW2A take (UG287: a macro holds two, or four of 9 x 9)."""
    small = cells.get("MULT9X9", 0)
    return cells.get("MULT18X18", 0) + -(-small // 2) + 4 * cells.get("MULT36X36", 0)


# UG474 (7 Series FPGAs CLB), tables 2-3 and 2-4; UG574 (UltraScale CLB), table 3-1: LUTs of each distributed RAM and
# shift register.
_LUTRAM = {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8, "RAM32M": 4, "RAM64M": 4}
_LUTRAM |= {"RAM32M16": 8, "RAM64M8": 8}
_LUTRAM |= {"RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1}
_XILINX_LUTS = {"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV"}


def _xilinx(cells: Cells) -> Counts:
    types = _types(cells)
    luts = sum(types[name] for name in _XILINX_LUTS)
    outputs = {bit for cell in cells.values() if cell["type"] in _XILINX_LUTS for bit in cell["connections"]["O"]}
    chains = [cell["connections"]["S"] for cell in cells.values() if cell["type"] == "CARRY4"]
    through = sum(1 for bits in chains for bit in bits if isinstance(bit, int) and bit not in outputs)
    return Counts(
        lut=luts + through + sum(types[name] * count for name, count in _LUTRAM.items()),
        ff=sum(types[name] for name in ("FDRE", "FDSE", "FDCE", "FDPE")),
        dsp=types["DSP48E1"] + types["DSP48E2"],
        bram=types["RAMB18E1"] + types["RAMB18E2"] + 2 * (types["RAMB36E1"] + types["RAMB36E2"]),
        carry=types["CARRY4"],
        lutram=sum(types[name] for name in _LUTRAM),
        mux=types["MUXF7"] + types["MUXF8"],
    )


def _cyclone_v(cells: Cells) -> Counts:
    types = _types(cells)
    carry, lutram = types["MISTRAL_ALUT_ARITH"], types["MISTRAL_MLAB"]
    small = types["MISTRAL_MUL9X9"]
    return Counts(
        lut=_starting(types, "MISTRAL_ALUT") + types["MISTRAL_NOT"] + 2 * lutram,
        ff=types["MISTRAL_FF"],
        dsp=types["MISTRAL_MUL18X18"] + -(-small // 2) + 2 * types["MISTRAL_MUL27X27"],
        bram=types["MISTRAL_M10K"],
        carry=carry,
        lutram=lutram,
    )


COUNT: Mapping[Family, Callable[[Cells], Counts]] = {
    Family.ECP5: _ecp5,
    Family.ICE40: _ice40,
    Family.GOWIN: _gowin,
    Family.XILINX_7: _xilinx,
    Family.ULTRASCALE_PLUS: _xilinx,
    Family.CYCLONE_V: _cyclone_v,
}
"""How the cells of each family count."""
