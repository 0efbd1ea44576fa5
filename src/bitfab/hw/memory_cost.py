"""The memories and multipliers that Yosys infers from a block, for ECP5: which kind, and how many cells."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

Parameters = Mapping[str, int | str]

# Yosys' costs (share/lattice/brams_16kd.txt, lutrams_trellis.txt; passes/memory/memory_libmap.cc).
BRAM_COST, LUTRAM_COST, JOIN_COST, ROM_BIT_COST = 128, 4, 0.5, 1 / 16
BRAM_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))  # bits, words
LUTRAM_BITS, LUTRAM_WORDS = 4, 16
LEAST_BLOCK_ROM = 32  # words from which bf_dot asks for block RAM


@dataclass(frozen=True)
class Memory:
    """`words` words of `bits` bits: in block RAMs, in distributed RAMs, or (both 0) in LUTs and registers."""

    bits: int
    words: int
    brams: int = 0
    lutrams: int = 0

    @property
    def joined(self) -> int:
        """Bits that multiplexers choose among distributed RAMs."""
        return self.bits * (-(-self.words // LUTRAM_WORDS) - 1) if self.lutrams else 0

    @property
    def logic(self) -> int:
        """Bits of it that are LUTs' truth tables."""
        return 0 if self.brams or self.lutrams or self.words == 1 else self.bits * self.words


@functools.cache
def ram(bits: int, words: int) -> Memory:
    """A memory that is written and read: registers, distributed RAM or block RAM, whichever Yosys finds cheaper."""
    if words <= 2:
        return Memory(bits, words)
    banks = -(-words // LUTRAM_WORDS)
    lutrams = -(-bits // LUTRAM_BITS) * banks
    cost, brams = _brams(bits, words)
    if LUTRAM_COST * lutrams + _joining(bits, banks) < cost:
        return Memory(bits, words, lutrams=lutrams)
    return Memory(bits, words, brams=brams)


@functools.cache
def rom(bits: int, words: int, block: bool | None = False) -> Memory:
    """Constants: in LUTs, unless block RAM is cheaper, or is asked for (`block` is True) or refused (None).

    Banks that a deep one needs are read at the same address, so that they share block RAMs side by side.
    """
    banked = [(-(-words // depth), width) for width, depth in BRAM_SHAPES]
    counts = [(-(-bits * banks // width), banks) for banks, width in banked]
    cost, brams = min((BRAM_COST * count + _joining(bits, banks), count) for count, banks in counts)
    chosen = block is not None and (block or bits * words * ROM_BIT_COST > cost)
    return Memory(bits, words, brams=brams if chosen else 0)


def _brams(bits: int, words: int) -> tuple[float, int]:
    """The cost and the number of the cheapest block RAMs that hold it."""
    shapes = [(-(-bits // width), -(-words // depth)) for width, depth in BRAM_SHAPES]
    return min((BRAM_COST * columns * banks + _joining(bits, banks), columns * banks) for columns, banks in shapes)


def _joining(bits: int, banks: int) -> float:
    return JOIN_COST * (bits + 1) * (banks - 1)


def memories(block: str, parameters: Parameters) -> list[Memory]:
    """The memories of a block's instance."""
    p = {name: value for name, value in parameters.items() if isinstance(value, int)}
    match block:
        case "conv2d":
            terms = p["KernelHeight"] * p["KernelWidth"] * p["Words"] // p["Groups"]
            results = p["UpHeight"] * p["UpWidth"] * p["Groups"] * p["Fold"]
            weights = (p["Pe"] * p["Simd"] * p["WeightBits"], results * terms)
            deep = weights[1] >= LEAST_BLOCK_ROM
            asked = {0: deep, 1: True, 2: None}[p.get("Memory", 0)]
            return [
                _line_buffer(p),
                rom(*weights, asked),
                rom(p["Pe"] * p["AccBits"], results),
            ]
        case "window" | "pool2d":
            return [_line_buffer(p)]
        case "fifo":
            return [ram(p["Bits"], p["Depth"])]
        case "requantize":
            return [rom(p["Lanes"] * (p["MultiplierBits"] + p["ExtraBits"]), p["Words"])]
        case "threshold":
            return [rom(p["Lanes"] * p["Levels"] * p["ThresholdBits"], p["Words"])]
        case "table":
            return [rom(p["OutBits"], 1 << p["InBits"])] * p["Lanes"]
    return []


def _line_buffer(p: Mapping[str, int]) -> Memory:
    lanes, bits = (p["Simd"], p["InBits"]) if "Simd" in p else (p["Lanes"], p["Bits"])
    return ram(lanes * bits, p["Rows"] * p["Width"] * p["Words"])


def dsps(block: str, parameters: Parameters) -> int:
    """The 18 x 18 multipliers of a block's instance."""
    p = {name: value for name, value in parameters.items() if isinstance(value, int)}
    style = p.get("Multiplier", 0)
    if block == "conv2d":
        narrow = p.get("InBipolar", 0) or p["WeightBits"] == 1
        return 0 if narrow or style == 2 else p["Pe"] * p["Simd"] // (1 + style)
    if style == 2:
        return 0
    if block != "requantize" or p["MultiplierBits"] < 2:
        return 0
    signed = p["InSigned"] or p["InputZero"] != 0
    difference = p["InBits"] + (0 if p["InSigned"] and not p["InputZero"] else 1)
    parts = -(-(p["MultiplierBits"] + 1) // 18)
    if difference <= 18:
        return p["Lanes"] * parts
    high = difference - 17 - (0 if signed else 1)  # one bit by itself takes no multiplier
    return p["Lanes"] * parts * (1 if high < 2 else 2)
