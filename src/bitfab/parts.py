"""The devices that designs are made for: their families, the tools that place on them, and what each device has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from enum import Enum

from bitfab.errors import BitfabError

Operands = tuple[int, int]
"""Bits of what one multiplier multiplies, both signed, the wider first; (0, 0) where there is none."""


@dataclass(frozen=True)
class Resources:
    """LUTs (carry and distributed RAM included), flip-flops, multipliers, block RAMs.

    A LUT has as many inputs, a multiplier and a block RAM as many bits, as the part's family says.
    """

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def times(self, share: float) -> Resources:
        """This share of each, rounded down."""
        return Resources(*(int(count * share) for count in astuple(self)))


class Placer(Enum):
    """Who places and routes: nextpnr, here and now, or a vendor's tool, for which a project script is written."""

    NEXTPNR = "nextpnr"
    VIVADO = "Vivado"
    QUARTUS = "Quartus"


@dataclass(frozen=True)
class FamilyFacts:
    """What the units of `Resources` are, and who places and routes; `caveat` is to be said with every figure.

    `multiplier` is its name, `operands` what it takes.
    """

    title: str
    lut_inputs: int
    bram_kbit: int
    multiplier: str
    operands: Operands
    placer: Placer
    caveat: str = ""


class Family(Enum):
    """Devices of one architecture, which share cells and tools."""

    # Operands: ECP5 sysDSP Usage Guide, FPGA-TN-02205 (MULT18X18D); iCE40 DSP Function Usage Guide, FPGA-TN-02007
    # (SB_MAC16); Gowin DSP User Guide, UG287 (MULT18X18); 7 Series DSP48E1 Slice, UG479; UltraScale DSP Slice, UG579;
    # Cyclone V Device Handbook, CV-5V2, chapter 3: a block is two multipliers of 18 x 18, or one of 27 x 27 that counts
    # as two here, so two products in 27 bits would win nothing.
    ECP5 = FamilyFacts("Lattice ECP5", 4, 18, "18x18", (18, 18), Placer.NEXTPNR)
    ICE40 = FamilyFacts(
        "Lattice iCE40", 4, 4, "16x16", (16, 16), Placer.NEXTPNR, "LUTs are logic cells, of a LUT, a carry, an FF"
    )
    GOWIN = FamilyFacts(
        "Gowin GW2A",
        4,
        18,
        "18x18",
        (18, 18),
        Placer.NEXTPNR,
        "nextpnr knows no delays of Gowin's multipliers and block RAMs: Fmax is that of the logic between them",
    )
    XILINX_7 = FamilyFacts(
        "AMD 7 series",
        6,
        18,
        "DSP48E1",
        (25, 18),
        Placer.VIVADO,
        "counts are Yosys'; place and route with vivado/build.tcl",
    )
    ULTRASCALE_PLUS = FamilyFacts(
        "AMD UltraScale+",
        6,
        18,
        "DSP48E2",
        (27, 18),
        Placer.VIVADO,
        "counts are Yosys'; place and route with vivado/build.tcl",
    )
    CYCLONE_V = FamilyFacts(
        "Intel Cyclone V",
        6,
        10,
        "18x18",
        (18, 18),
        Placer.QUARTUS,
        "counts are Yosys'; place and route with quartus/build.tcl",
    )

    @property
    def facts(self) -> FamilyFacts:
        return self.value


@dataclass(frozen=True)
class Part:
    """A device: its maker's name for it, the options by which nextpnr knows it, and what it has.

    `spram` are single-port RAMs of 256 kilobits without initial contents, which the iCE40 UltraPlus alone has.
    """

    name: str
    family: Family
    device: str
    available: Resources
    options: tuple[str, ...] = ()
    spram: int = 0

    @property
    def operands(self) -> Operands:
        """What each of its multipliers takes."""
        return self.family.facts.operands if self.available.dsp else (0, 0)


def _ecp5(size: str, available: Resources) -> Part:
    """Speed grade 6, the slowest; `size` as in 25k. LFE5U-25F is one die with the LFE5U-12F."""
    options = (f"--{size}", "--package", "CABGA381")
    return Part(f"ecp5-{size}", Family.ECP5, f"LFE5U-{size[:2]}F-6BG381C", available, options)


# ECP5 and ECP5-5G Family Data Sheet, FPGA-DS-02012, table 1.1: 24k, 44k, 84k LUTs; the exact numbers are nextpnr's.
_ECP5 = (
    _ecp5("25k", Resources(lut=24288, ff=24288, dsp=28, bram=56)),
    _ecp5("45k", Resources(lut=43848, ff=43848, dsp=72, bram=108)),
    _ecp5("85k", Resources(lut=83640, ff=83640, dsp=156, bram=208)),
)
# iCE40 UltraPlus Family Data Sheet, FPGA-DS-02008, table 2.1; iCE40 LP/HX Family Data Sheet, FPGA-DS-02029, table 1.1.
_ICE40 = (
    Part(
        "ice40-up5k",
        Family.ICE40,
        "iCE40UP5K-SG48",
        Resources(lut=5280, ff=5280, dsp=8, bram=30),
        ("--up5k", "--package", "sg48"),
        spram=4,
    ),
    Part(
        "ice40-hx8k",
        Family.ICE40,
        "iCE40HX8K-CT256",
        Resources(lut=7680, ff=7680, dsp=0, bram=32),
        ("--hx8k", "--package", "ct256"),
    ),
)
# GW2A Series Data Sheet, DS102, table 1-1; GW2AR Series Data Sheet, DS226, table 1-1.
_GW2A_18 = Resources(lut=20736, ff=15552, dsp=48, bram=46)
_GOWIN = tuple(
    Part(name, Family.GOWIN, device, _GW2A_18, ("--device", device, "--vopt", "family=GW2A-18C"))
    for name, device in (("gw2a-18c", "GW2A-LV18PG256C8/I7"), ("gw2ar-18c", "GW2AR-LV18QN88C8/I7"))
)
# 7 Series Overview, DS180, table 4, and Zynq-7000 Overview, DS190, table 1; four 6-input LUTs and eight
# flip-flops a slice; their 36-kbit block RAMs are two of 18 here.
_XILINX_7 = (
    Part("xc7a35t", Family.XILINX_7, "xc7a35tcsg324-1", Resources(lut=20800, ff=41600, dsp=90, bram=100)),
    Part("xc7a100t", Family.XILINX_7, "xc7a100tcsg324-1", Resources(lut=63400, ff=126800, dsp=240, bram=270)),
    Part("xc7z020", Family.XILINX_7, "xc7z020clg400-1", Resources(lut=53200, ff=106400, dsp=220, bram=280)),
)
# UltraScale Architecture and Product Overview, DS890, tables for Kintex UltraScale+; Zynq UltraScale+ MPSoC, DS891,
# table 1.
_ULTRASCALE_PLUS = (
    Part("xcku5p", Family.ULTRASCALE_PLUS, "xcku5p-ffvb676-1-e", Resources(lut=216960, ff=433920, dsp=1824, bram=960)),
    Part("xczu3eg", Family.ULTRASCALE_PLUS, "xczu3eg-sbva484-1-e", Resources(lut=70560, ff=141120, dsp=360, bram=432)),
)
# Cyclone V Device Overview, CV-51001, table 3: 18,480 ALMs of two combinational functions and four registers each.
_CYCLONE_V = (Part("5ceba4", Family.CYCLONE_V, "5CEBA4F23C7", Resources(lut=36960, ff=73920, dsp=132, bram=308)),)

PARTS: Mapping[str, Part] = {
    part.name: part for part in (*_ECP5, *_ICE40, *_GOWIN, *_XILINX_7, *_ULTRASCALE_PLUS, *_CYCLONE_V)
}


def find_part(name: str) -> Part:
    """The part of that name; BitfabError lists the names there are."""
    if name not in PARTS:
        raise BitfabError(f"{name}: unknown part: choose one of {', '.join(PARTS)}")
    return PARTS[name]


def table() -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """All parts as text for people: the headings, and a row for each part in the order of `PARTS`."""
    headings = ("part", "device", "LUT", "FF", "DSP", "BRAM", "SPRAM", "place and route")
    rows: list[tuple[str, ...]] = []
    for part in PARTS.values():
        facts, has = part.family.facts, part.available
        rows.append(
            (
                part.name,
                f"{facts.title} {part.device}",
                f"{has.lut:,} of {facts.lut_inputs} inputs",
                f"{has.ff:,}",
                f"{has.dsp:,} {facts.multiplier}" if has.dsp else "0",
                f"{has.bram:,} of {facts.bram_kbit} kbit",
                f"{part.spram} of 256 kbit" if part.spram else "0",
                "nextpnr" if facts.placer is Placer.NEXTPNR else f"{facts.placer.value}, by a project script",
            )
        )
    return headings, rows
