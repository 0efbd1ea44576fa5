"""The memories and multipliers that Yosys infers from a block, for ECP5: which kind, and how many cells."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from bitfab.hw.folding import signed_bits

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


@functools.cache
def roms(bits: int, words: int, readers: int) -> list[Memory]:
    """Constants that several read, each at its own address: all copies in block RAMs, or all in LUTs.

    Two readers share a block RAM but for one of 36 bits, which takes both its ports for a word. Yosys weighs all copies
    in block RAM against the bits of one.
    """
    costs = []
    for width, depth in BRAM_SHAPES:
        banks = -(-words // depth)
        brams = -(-bits * banks // width) * (readers if width == BRAM_SHAPES[0][0] else -(-readers // 2))
        costs.append((BRAM_COST * brams + readers * _joining(bits, banks), brams))
    cost, brams = min(costs)
    if bits * words * ROM_BIT_COST > cost:
        return [Memory(readers * bits, words, brams=brams)]
    return [Memory(bits, words)] * readers


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
            asked = None if p.get("Memory", 0) == 2 else weights_in_block_ram(p, weights[1])
            return [
                _line_buffer(p),
                _constants(p, *weights, asked),
                _constants(p, p["Pe"] * p["AccBits"], results),
            ]
        case "window" | "pool2d":
            return [_line_buffer(p)]
        case "fifo":
            return [ram(p["Bits"], p["Depth"])]
        case "scale":
            return [ram(p["Lanes"] * p["BBits"], p["Words"])] if p["Pixels"] > 1 else []
        case "requantize":
            return [_constants(p, p["Lanes"] * (p["MultiplierBits"] + p["ExtraBits"]), p["Words"])]
        case "threshold":
            return [_constants(p, p["Lanes"] * p["Levels"] * p["ThresholdBits"], p["Words"])]
        case "table":
            return roms(p["OutBits"], 1 << p["InBits"], p["Lanes"])
        case "interpolate":
            segments = 1 << (p["InBits"] - p["PlaceBits"])
            return roms(p["BaseBits"] + p["SlopeBits"], segments, p["Lanes"])
    return []


def _constants(p: Mapping[str, int], bits: int, words: int, block: bool | None = False) -> Memory:
    """A `rom`, or where it can be loaded a `ram` that may ask for block RAM (`block` is True) or refuse it (None)."""
    if not p.get("Loadable"):
        return rom(bits, words, block)
    if block:
        return Memory(bits, words, brams=_brams(bits, words)[1])
    if block is None and words > 1:
        return Memory(bits, words, lutrams=-(-bits // LUTRAM_BITS) * -(-words // LUTRAM_WORDS))
    return ram(bits, words)


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
    if block == "interpolate":
        return p["Lanes"] * _parts(p["SlopeBits"]) * _parts(p["PlaceBits"] + 1)
    if block == "scale":
        return p["Lanes"] * _parts(p["AFactorBits"]) * _parts(p["BFactorBits"])
    if block != "requantize" or p["MultiplierBits"] < 2 or (p["InBits"] == 1 and p["InputZero"] in (0, 1)):
        return 0  # a factor of one bit takes no multiplier
    signed = p["InSigned"] or p["InputZero"] != 0
    difference = difference_bits(p)
    parts = -(-(p["MultiplierBits"] + 1) // 18)
    if difference <= 18:
        return p["Lanes"] * parts
    high = difference - 17 - (0 if signed else 1)  # one bit by itself takes no multiplier
    return p["Lanes"] * parts * (1 if high < 2 else 2)


def difference_bits(p: Mapping[str, int]) -> int:
    """What bf_requantize multiplies: any value of its input's type less InputZero, with a sign."""
    half = 1 << (p["InBits"] - 1)
    low, high = (-half, half - 1) if p["InSigned"] else (0, 2 * half - 1)
    return signed_bits(low - p["InputZero"], high - p["InputZero"])


def _parts(bits: int) -> int:
    """The multipliers that a factor is cut into: its highest part has 18 bits, each other one 17."""
    return max(1, -(-(bits - 1) // 17))


def packed_registers(block: str, parameters: Parameters) -> int:
    """Bits of registers that lie inside multipliers: operands and products of a layer."""
    if block != "conv2d" or not dsps(block, parameters):
        return 0
    p = {name: value for name, value in parameters.items() if isinstance(value, int)}
    lanes, product = p["Pe"] * p["Simd"], p["InBits"] + p["WeightBits"]
    weights = lanes // 2 * (product + p["WeightBits"] + 1) if p.get("Multiplier", 0) == 1 else lanes * p["WeightBits"]
    return weights + p["Simd"] * p["InBits"] + lanes * product


def weights_in_block_ram(p: Mapping[str, int], words: int) -> bool:
    """Whether bf_dot has a register behind its memory of weights."""
    return p.get("Memory", 0) == 1 or (p.get("Memory", 0) == 0 and words >= LEAST_BLOCK_ROM)
