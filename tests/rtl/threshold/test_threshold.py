"""bf_threshold counts the thresholds that are reached: all types, shared or not, at and beside each of them."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.rtl.harness import Case, Words, check, crossed, pack, pack_words, simulate


@dataclass(frozen=True)
class Setting:
    """The parameters of one case, `words` x `lanes` channels; thresholds go a little beyond the input's range."""

    in_bits: int = 12
    in_signed: bool = True
    out_bits: int = 2
    low: int = 0
    levels: int = 3
    lanes: int = 1
    words: int = 1
    threshold_bits: int = 13
    pixels: int = 150

    @property
    def ends(self) -> tuple[int, int]:
        """The range of the input type."""
        if self.in_signed:
            return -(1 << (self.in_bits - 1)), (1 << (self.in_bits - 1)) - 1
        return 0, (1 << self.in_bits) - 1

    def thresholds(self, rng: random.Random) -> list[list[int]]:
        """Those of each channel, ascending, neighbours sometimes equal; within what threshold_bits hold."""
        smallest, largest = self.ends
        most = (1 << (self.threshold_bits - 1)) - 1
        low, high = max(smallest - 1, -most - 1), min(largest + 1, most)
        rows = [[rng.randint(low, high) for _ in range(self.levels)] for _ in range(self.words * self.lanes)]
        rows[0][:2] = [low, high][: self.levels]
        return [sorted(rng.choice(row) if rng.random() < 0.1 else value for value in row) for row in rows]

    def inputs(self, thresholds: list[list[int]], rng: random.Random) -> list[int]:
        """Values at, below and above a threshold, and any others."""
        smallest, largest = self.ends
        values = []
        for index in range(self.pixels * len(thresholds)):
            near = rng.choice(thresholds[index % len(thresholds)]) + rng.randint(-1, 1)
            values.append(rng.choice([near, near, rng.randint(smallest, largest), smallest, largest]))
        return [min(largest, max(smallest, value)) for value in values]


SETTINGS = {
    "2 bits a channel": Setting(lanes=2, words=3),
    "bipolar": Setting(in_bits=14, out_bits=1, levels=1, lanes=4, words=2, threshold_bits=15),
    "4 bits": Setting(in_bits=20, out_bits=4, levels=15, words=5, threshold_bits=21),
    "4 bits signed": Setting(in_bits=9, out_bits=4, low=-8, levels=15, lanes=3, threshold_bits=10),
    "signed, some levels": Setting(out_bits=3, low=-3, levels=5, words=2),
    "unsigned input": Setting(in_bits=8, in_signed=False, levels=3, words=2, threshold_bits=10),
    "thresholds narrower than the input": Setting(in_bits=24, threshold_bits=4, levels=7, out_bits=3, words=3),
    "widest": Setting(in_bits=32, threshold_bits=33, out_bits=8, low=100, levels=9),
    "one bit to one bit": Setting(in_bits=1, in_signed=False, out_bits=1, levels=1, threshold_bits=3),
}


def _case(name: str, setting: Setting, *, idle: int, stall: int, seed: int) -> Case:
    rng = random.Random(seed)
    rows = setting.thresholds(rng)
    xs = setting.inputs(rows, rng)
    ys = [setting.low + sum(x >= threshold for threshold in rows[i % len(rows)]) for i, x in enumerate(xs)]
    bits, lanes = setting.threshold_bits, setting.lanes
    packed = [pack(word, bits) for word in np.reshape(rows, (setting.words, -1)).tolist()]
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
            "Levels": setting.levels,
            "Low": setting.low,
            "ThresholdBits": bits,
        },
        {"ThresholdFile": Words(lanes * setting.levels * bits, packed)},
        idle=idle,
        stall=stall,
        seed=seed,
    )


def test_threshold_counts_what_is_reached(tmp_path: Path) -> None:
    cases = [
        _case(f"{name}, idle {idle}, stall {stall}", setting, idle=idle, stall=stall, seed=seed)
        for seed, (name, setting) in enumerate(SETTINGS.items())
        for idle, stall in (crossed() if name == "2 bits a channel" else [crossed()[seed]])
    ]
    results = simulate("bf_threshold", cases, tmp_path)
    check(results)
    full_speed = results["2 bits a channel, idle 0, stall 0"]
    assert full_speed.cycles == full_speed.expected + 4


def test_a_wrong_expectation_is_found(tmp_path: Path) -> None:
    case = _case("wrong", SETTINGS["bipolar"], idle=0, stall=0, seed=1)
    case.outputs[""].words[7] ^= 1
    result = simulate("bf_threshold", [case], tmp_path)["wrong"]
    assert result.mismatches == 1
    with pytest.raises(AssertionError):
        check({"wrong": result})
