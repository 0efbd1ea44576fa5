"""bf_interpolate: base and slope of the segment that the upper bits choose, clipped on both sides."""

import random
from pathlib import Path

from tests.rtl.harness import Case, Words, check, crossed, pack, pack_words, simulate


def test_interpolate_follows_its_lines(tmp_path: Path) -> None:
    rng = random.Random(2)
    cases: list[Case] = []
    for in_bits, place_bits, low, high, lanes in ((10, 4, 0, 255, 1), (9, 3, -128, 127, 2), (5, 4, -20, 90, 3)):
        segments = [
            (rng.randrange(-40000, 40000), rng.randrange(-128, 128)) for _ in range(1 << (in_bits - place_bits))
        ]
        parameters = {"InBits": in_bits, "PlaceBits": place_bits, "BaseBits": 17, "SlopeBits": 8, "Shift": 7}
        parameters |= {"OutBits": 8, "Low": low, "High": high, "Lanes": lanes}
        words = [(base & 0x1FFFF) | pack([slope], 8) << 17 for base, slope in segments]

        def line(x: int) -> int:
            (base, slope), place = segments[x >> place_bits], x & ((1 << place_bits) - 1)  # noqa: B023 (used at once)
            return min(max((base + slope * place) >> 7, low), high)  # noqa: B023

        xs = [[rng.randrange(1 << in_bits) for _ in range(lanes)] for _ in range(600)]
        ys = [[line(x) for x in word] for word in xs]
        for idle, stall in crossed((0, 40), (0, 40)):
            streams = ({"": pack_words(xs, in_bits)}, {"": pack_words(ys, 8)})
            name, memories = (
                f"{in_bits} {place_bits} x {lanes}, idle {idle}, stall {stall}",
                {"TableFile": Words(25, words)},
            )
            cases.append(Case(name, *streams, parameters, memories, idle=idle, stall=stall, seed=len(cases)))
    results = simulate("bf_interpolate", cases, tmp_path)
    check(results)
    assert results["10 4 x 1, idle 0, stall 0"].cycles == 600 + 4
