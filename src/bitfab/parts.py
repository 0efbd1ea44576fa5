"""The devices that designs are placed on, and what each has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

from bitfab.errors import BitfabError


@dataclass(frozen=True)
class Resources:
    """Four-input LUTs (carry and distributed RAM included), flip-flops, 18x18 multipliers, 18-kbit block RAMs."""

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def times(self, share: float) -> Resources:
        """This share of each, rounded down."""
        return Resources(*(int(count * share) for count in astuple(self)))


@dataclass(frozen=True)
class Part:
    """An ECP5 device: the option that selects it, its package (speed grade 6, the slowest) and what it has."""

    name: str
    option: str
    package: str
    available: Resources


# ECP5 and ECP5-5G Family Data Sheet, FPGA-DS-02012, table 1.1: 24k, 44k, 84k LUTs; the exact numbers are nextpnr's.
PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part("ecp5-25k", "--25k", "CABGA381", Resources(lut=24288, ff=24288, dsp=28, bram=56)),
        Part("ecp5-45k", "--45k", "CABGA381", Resources(lut=43848, ff=43848, dsp=72, bram=108)),
        Part("ecp5-85k", "--85k", "CABGA381", Resources(lut=83640, ff=83640, dsp=156, bram=208)),
    )
}


def find_part(name: str) -> Part:
    """The part of that name; BitfabError lists the names there are."""
    if name not in PARTS:
        raise BitfabError(f"{name}: unknown part: choose one of {', '.join(PARTS)}")
    return PARTS[name]
