"""bf_concat: pixel by pixel all words of a, then all of b."""

import random
from pathlib import Path

from tests.rtl.harness import Case, Words, check, crossed, simulate

PIXELS = 40


def test_concat_alternates_per_pixel(tmp_path: Path) -> None:
    rng = random.Random(4)
    cases: list[Case] = []
    for bits, words_a, words_b in ((8, 1, 1), (16, 3, 2), (5, 1, 4)):
        a = [rng.getrandbits(bits) for _ in range(PIXELS * words_a)]
        b = [rng.getrandbits(bits) for _ in range(PIXELS * words_b)]
        both = []
        for pixel in range(PIXELS):
            both += a[pixel * words_a : (pixel + 1) * words_a] + b[pixel * words_b : (pixel + 1) * words_b]
        for idle, stall in crossed():
            cases.append(
                Case(
                    f"{words_a} + {words_b}, idle {idle}, stall {stall}",
                    {"a_": Words(bits, a), "b_": Words(bits, b)},
                    {"": Words(bits, both)},
                    {"Bits": bits, "WordsA": words_a, "WordsB": words_b},
                    idle=idle,
                    stall=stall,
                    seed=len(cases),
                )
            )
    results = simulate("bf_concat", cases, tmp_path)
    check(results)
    assert results["3 + 2, idle 0, stall 0"].cycles == 5 * PIXELS + 1
