"""bf_argmax: the first of the largest, also among equals and at the ends of the range."""

import random
from pathlib import Path

from tests.rtl.harness import Case, Words, check, crossed, simulate

PIXELS = 120


def test_argmax_takes_the_first_of_the_largest(tmp_path: Path) -> None:
    rng = random.Random(5)
    cases: list[Case] = []
    for bits, signed, classes, index_bits in ((8, True, 10, 4), (8, False, 2, 1), (3, True, 5, 8), (20, True, 1, 1)):
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        near = [low, low + 1, high - 1, high]
        pixels = []
        for index in range(PIXELS):
            wide = index % 2 == 0
            pixels.append([rng.randint(low, high) if wide else rng.choice(near) for _ in range(classes)])
        for idle, stall in crossed():
            cases.append(
                Case(
                    f"{classes} classes, idle {idle}, stall {stall}",
                    {"": Words(bits, [x for pixel in pixels for x in pixel])},
                    {"": Words(index_bits, [pixel.index(max(pixel)) for pixel in pixels])},
                    {"Bits": bits, "Signed": int(signed), "Words": classes, "IndexBits": index_bits},
                    idle=idle,
                    stall=stall,
                    seed=len(cases),
                )
            )
    results = simulate("bf_argmax", cases, tmp_path)
    check(results)
    assert results["10 classes, idle 0, stall 0"].cycles == 10 * PIXELS + 1
