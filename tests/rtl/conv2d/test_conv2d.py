"""bf_conv2d: a padded convolution in every style of products, exact against its definition."""

from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from tests.rtl.harness import RTL, Case, check, crossed, pack_words, simulate

SOURCES = [
    RTL / block / f"bf_{block}.sv"
    for block in ("conv2d", "window", "dot", "memory", "products", "multiply", "skid", "fifo")
]
HEIGHT, WIDTH, CHANNELS, FILTERS, SIMD, PE, IMAGES, ACC_BITS = 4, 5, 4, 4, 2, 2, 2, 20


@dataclass(frozen=True)
class Style:
    """The parameters that a style of products is made of, named as those of bf_conv2d."""

    in_bits: int
    weight_bits: int
    in_signed: int = 0
    in_bipolar: int = 0
    multiplier: int = 0
    memory: int = 0
    pad: int = 0  # what lies outside the image, as a number

    def parameters(self) -> dict[str, int]:
        pad = (self.pad + 1) // 2 if self.in_bipolar else self.pad & ((1 << self.in_bits) - 1)
        names = ("in_bits", "weight_bits", "in_signed", "in_bipolar", "multiplier", "memory")
        return {name.title().replace("_", ""): getattr(self, name) for name in names} | {"PadValue": pad}


STYLES = {
    "a multiplier each": Style(5, 4, in_signed=1, pad=-3),
    "packed": Style(4, 4, multiplier=1, pad=2),
    "adders, memory in LUTs": Style(4, 6, multiplier=2, memory=2),
    "bipolar inputs, block RAM": Style(1, 4, in_bipolar=1, memory=1, pad=-1),
    "bipolar weights": Style(6, 1, in_signed=1, pad=5),
    "both bipolar, padded with -1": Style(1, 1, in_bipolar=1, pad=-1),
    "both bipolar, padded with +1": Style(1, 1, in_bipolar=1, pad=1),
}


def _drawn(rng: np.random.Generator, bits: int, signed: bool, bipolar: bool, shape: tuple[int, ...]) -> np.ndarray:
    if bipolar:
        return rng.choice([-1, 1], shape)
    low = -(1 << (bits - 1)) if signed else 0
    return rng.integers(low, low + (1 << bits), shape)


def _bits(numbers: np.ndarray, bipolar: bool) -> np.ndarray:
    return (numbers + 1) // 2 if bipolar else numbers


def _case(name: str, style: Style, idle: int, stall: int, seed: int) -> Case:
    """Kernel 3 x 3, padding 1, stride 1: filters in two folds of `PE`, channels in two words of `SIMD`."""
    rng = np.random.default_rng(seed)
    lone = style.weight_bits == 1
    shape = (IMAGES, HEIGHT, WIDTH, CHANNELS)
    x = _drawn(rng, style.in_bits, bool(style.in_signed), bool(style.in_bipolar), shape)
    w = _drawn(rng, style.weight_bits, True, lone, (FILTERS, 3, 3, CHANNELS))
    bias = rng.integers(-500, 500, FILTERS)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=style.pad)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))  # image, row, column, channel, tap
    y = np.einsum("nyxchw,fhwc->nyxf", windows, w) + bias
    words = w.reshape(FILTERS // PE, PE, 9 * CHANNELS // SIMD, SIMD).transpose(0, 2, 1, 3)
    geometry = {"Words": CHANNELS // SIMD, "Height": HEIGHT, "Width": WIDTH, "KernelHeight": 3, "KernelWidth": 3}
    geometry |= {"OriginTop": -1, "OriginLeft": -1, "OutHeight": HEIGHT, "OutWidth": WIDTH, "Rows": 4}
    return Case(
        name,
        {"": pack_words(_bits(x, bool(style.in_bipolar)).reshape(-1, SIMD), style.in_bits)},
        {"": pack_words(y.reshape(-1, PE), ACC_BITS)},
        {**style.parameters(), **geometry, "Simd": SIMD, "Pe": PE, "Fold": FILTERS // PE, "AccBits": ACC_BITS},
        {
            "WeightFile": pack_words(_bits(words, lone).reshape(-1, PE * SIMD), style.weight_bits),
            "BiasFile": pack_words(bias.reshape(-1, PE), ACC_BITS),
        },
        idle=idle,
        stall=stall,
        seed=seed,
    )


def test_conv2d_equals_its_definition(tmp_path: Path) -> None:
    paces = cycle(crossed((0, 40), (0, 40)))
    cases = [_case(name, style, *next(paces), seed=seed) for seed, (name, style) in enumerate(STYLES.items(), 1)]
    check(simulate("bf_conv2d", cases, tmp_path, sources=SOURCES))
