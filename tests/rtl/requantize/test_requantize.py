"""bf_requantize equals the definition for every rounding, on random values and on every kind of edge."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bitfab.dtypes import Rounding, round_shift
from tests.rtl.harness import RTL, Case, Words, check, crossed, pack, pack_words, simulate

SOURCES = [RTL / block / f"bf_{block}.sv" for block in ("requantize", "multiply")]
ROUNDINGS = [Rounding.HALF_UP, Rounding.HALF_EVEN, Rounding.HALF_AWAY, Rounding.FLOOR]  # in the order of the parameter


def rounded(value: int, shift: int, rounding: Rounding) -> int:
    """value / 2**shift to an integer, by comparing twice the remainder with the divisor."""
    divisor = 1 << shift
    floor, remainder = divmod(value, divisor)
    tie, above = 2 * remainder == divisor, 2 * remainder > divisor
    if rounding is Rounding.FLOOR:
        return floor
    if tie:
        return (
            floor
            + {
                Rounding.HALF_UP: 1,
                Rounding.HALF_EVEN: floor % 2,
                Rounding.HALF_AWAY: int(value > 0),
            }[rounding]
        )
    return floor + int(above)


@dataclass(frozen=True)
class Setting:
    """The parameters of one case; `m` and `extra` are drawn per channel, `words` x `lanes` channels."""

    in_bits: int = 20
    in_signed: bool = True
    out_bits: int = 8
    lanes: int = 1
    words: int = 1
    input_zero: int = 0
    output_zero: int = 0
    low: int = -128
    high: int = 127
    multiplier_bits: int = 16
    min_shift: int = 20
    extra_bits: int = 0
    multiplier: int = 0
    pixels: int = 200

    @property
    def low_high(self) -> tuple[int, int]:
        """The range of the input type."""
        if self.in_signed:
            return -(1 << (self.in_bits - 1)), (1 << (self.in_bits - 1)) - 1
        return 0, (1 << self.in_bits) - 1

    def scales(self, rng: random.Random) -> list[tuple[int, int]]:
        """(m, extra shift) of every channel, both ends of the range of m among them."""
        drawn = []
        for channel in range(self.words * self.lanes):
            top = (1 << self.multiplier_bits) - 1
            m = 1 if self.multiplier_bits == 0 else [top, rng.randint(1, top), rng.randint(top // 2, top)][channel % 3]
            drawn.append((m, rng.randrange(1 << self.extra_bits)))
        return drawn

    def inputs(self, scales: list[tuple[int, int]], rng: random.Random) -> list[int]:
        """Random values of the whole range, values near a tie that does not clip, and both ends."""
        smallest, largest = self.low_high
        values = []
        for index in range(self.pixels * len(scales)):
            m, extra = scales[index % len(scales)]
            target = rng.randint(self.low - 2, self.high + 2) - self.output_zero
            near = (((2 * target + 1) << (self.min_shift + extra)) // (2 * m)) + self.input_zero
            choice = [rng.randint(smallest, largest), near, near + 1, rng.choice([smallest, largest, 0, -1])]
            values.append(min(largest, max(smallest, choice[rng.randrange(4)])))
        return values

    def output(self, x: int, scale: tuple[int, int], rounding: Rounding) -> int:
        m, extra = scale
        y = rounded((x - self.input_zero) * m, self.min_shift + extra, rounding) + self.output_zero
        return min(self.high, max(self.low, y))


SETTINGS = {
    "per channel": Setting(lanes=2, words=3, extra_bits=3, min_shift=18),
    "32-bit accumulator, unsigned output": Setting(
        in_bits=32, low=0, high=255, output_zero=3, min_shift=30, extra_bits=4
    ),
    "32-bit accumulator, shift of 46": Setting(in_bits=32, min_shift=46, output_zero=-5),
    "shift beyond the product": Setting(in_bits=8, multiplier_bits=4, min_shift=14, extra_bits=2),
    "zero points, ReLU6": Setting(in_bits=8, input_zero=-7, output_zero=-128, low=-100, high=99, min_shift=15, words=2),
    "unsigned input": Setting(
        in_bits=8, in_signed=False, input_zero=131, output_zero=17, low=0, high=255, min_shift=16
    ),
    "zero point above the input": Setting(in_bits=11, in_signed=False, input_zero=2500, min_shift=20),
    "zero point below the input": Setting(
        in_bits=11, in_signed=False, input_zero=-2048, output_zero=-128, min_shift=20
    ),
    "zero point far above a signed input": Setting(in_bits=8, input_zero=30000, output_zero=99, min_shift=23, lanes=2),
    "zero point far below a signed input": Setting(in_bits=8, input_zero=-(1 << 31), min_shift=40, multiplier_bits=17),
    "zero point far below a wide input": Setting(in_bits=32, in_signed=False, input_zero=-(1 << 31), min_shift=40),
    "zero point in the middle": Setting(in_bits=8, in_signed=False, input_zero=128, min_shift=16),
    "zero point of one bit": Setting(in_bits=1, in_signed=False, input_zero=1, multiplier_bits=7, min_shift=1),
    "n = 0 with a multiplier": Setting(in_bits=8, multiplier_bits=3, min_shift=0, out_bits=12, low=-1000, high=1001),
    "n from 0": Setting(in_bits=12, multiplier_bits=5, min_shift=0, extra_bits=3, lanes=3, words=2),
    "n from 0 to 63": Setting(in_bits=16, min_shift=0, extra_bits=6, multiplier_bits=8, words=16, pixels=12),
    "n = 30": Setting(in_bits=32, multiplier_bits=16, min_shift=30, out_bits=16, low=-32768, high=32767),
    "m absent, n = 0": Setting(in_bits=10, multiplier_bits=0, min_shift=0),
    "m absent": Setting(in_bits=16, multiplier_bits=0, min_shift=5),
    "m absent, shift per channel": Setting(in_bits=16, multiplier_bits=0, min_shift=2, extra_bits=4, words=4),
    "wide output": Setting(in_bits=32, multiplier_bits=0, min_shift=1, out_bits=32, low=-(1 << 31), high=(1 << 31) - 1),
    "31-bit multipliers, as TFLite has them": Setting(
        in_bits=28, multiplier_bits=31, min_shift=29, extra_bits=2, out_bits=32, low=-(1 << 31), high=(1 << 31) - 1
    ),
    "adders, per channel": Setting(lanes=2, words=3, extra_bits=3, min_shift=18, multiplier=2),
    "adders, 32-bit accumulator": Setting(in_bits=32, min_shift=46, output_zero=-5, multiplier=2),
    "adders, 31-bit multipliers": Setting(in_bits=12, multiplier_bits=31, min_shift=30, multiplier=2),
    "adders, multipliers of 1 bit": Setting(in_bits=6, multiplier_bits=1, min_shift=0, extra_bits=1, multiplier=2),
    "adders, input of 1 bit": Setting(in_bits=1, in_signed=False, multiplier_bits=7, min_shift=1, multiplier=2),
    "adders, zero point above the input": Setting(in_bits=8, input_zero=1000, min_shift=18, multiplier=2),
    "adders, zero point of one bit": Setting(
        in_bits=1, in_signed=False, input_zero=1, multiplier_bits=7, min_shift=1, multiplier=2
    ),
    "adders, m absent": Setting(in_bits=16, multiplier_bits=0, min_shift=5, multiplier=2),
    "output of 2 bits": Setting(in_bits=12, multiplier_bits=8, min_shift=16, out_bits=2, low=-2, high=1),
}


def _case(name: str, setting: Setting, rounding: Rounding, *, idle: int, stall: int, seed: int) -> Case:
    rng = random.Random(seed)
    scales = setting.scales(rng)
    xs = setting.inputs(scales, rng)
    ys = [setting.output(x, scales[index % len(scales)], rounding) for index, x in enumerate(xs)]
    lanes = setting.lanes
    memories = {}
    scale_bits = setting.multiplier_bits + setting.extra_bits
    if scale_bits:
        kept = 0 if setting.multiplier_bits == 0 else (1 << setting.multiplier_bits) - 1
        lane = [(m & kept) | extra << setting.multiplier_bits for m, extra in scales]
        words = [pack(lane[first : first + lanes], scale_bits) for first in range(0, len(lane), lanes)]
        memories["ScaleFile"] = Words(lanes * scale_bits, words)
    return Case(
        name,
        {"": pack_words(np.reshape(xs, (-1, lanes)).tolist(), setting.in_bits)},
        {"": pack_words(np.reshape(ys, (-1, lanes)).tolist(), setting.out_bits)},
        {
            "InBits": setting.in_bits,
            "InSigned": int(setting.in_signed),
            "OutBits": setting.out_bits,
            "Lanes": lanes,
            "Words": setting.words,
            "InputZero": setting.input_zero,
            "OutputZero": setting.output_zero,
            "Low": setting.low,
            "High": setting.high,
            "MultiplierBits": setting.multiplier_bits,
            "MinShift": setting.min_shift,
            "ExtraBits": setting.extra_bits,
            "Rounding": ROUNDINGS.index(rounding),
            "Multiplier": setting.multiplier,
        },
        memories,
        idle=idle,
        stall=stall,
        seed=seed,
    )


def test_requantize_equals_its_definition(tmp_path: Path) -> None:
    cases: list[Case] = []
    for name, setting in SETTINGS.items():
        for rounding in ROUNDINGS:
            idle, stall = crossed()[len(cases) % 9]
            cases.append(_case(f"{name}, {rounding}", setting, rounding, idle=idle, stall=stall, seed=len(cases)))
    for idle, stall in crossed():
        setting = SETTINGS["per channel"]
        cases.append(
            _case(
                f"idle {idle}, stall {stall}", setting, Rounding.HALF_UP, idle=idle, stall=stall, seed=100 + len(cases)
            )
        )
    setting = SETTINGS["adders, per channel"]
    cases.append(_case("adders at full speed", setting, Rounding.HALF_UP, idle=0, stall=0, seed=99))
    results = simulate("bf_requantize", cases, tmp_path, sources=SOURCES)
    check(results)
    full_speed = results["idle 0, stall 0"]
    assert full_speed.cycles == full_speed.expected + 6
    adders = results["adders at full speed"]
    assert adders.cycles == adders.expected + 5 + 1 + 8  # nine rows for 17 bits of m


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_reference_agrees_with_the_definition_of_rounding(rounding: Rounding) -> None:
    values = [*range(-70, 71), (1 << 47) + 1, -(1 << 47) - 1, 3 << 29, -(3 << 29)]
    for shift in (0, 1, 2, 5, 30):
        expected = round_shift(np.asarray(values, dtype=np.int64), shift, rounding)
        assert [rounded(value, shift, rounding) for value in values] == expected.tolist()
