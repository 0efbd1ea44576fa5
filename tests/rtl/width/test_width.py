"""bf_width: the same lanes in the same order in wider or narrower words, one narrow word per cycle."""

import random
from pathlib import Path

from tests.rtl.harness import Case, check, crossed, pack_words, simulate

LANES = 480


def test_width_keeps_the_order_of_the_lanes(tmp_path: Path) -> None:
    rng = random.Random(6)
    cases: list[Case] = []
    for bits, in_lanes, out_lanes in ((8, 1, 4), (8, 4, 1), (5, 2, 6), (5, 6, 2), (3, 4, 4), (8, 1, 2), (8, 2, 1)):
        lanes = [rng.getrandbits(bits) for _ in range(LANES)]
        given, expected = (
            pack_words([lanes[first : first + count] for first in range(0, LANES, count)], bits)
            for count in (in_lanes, out_lanes)
        )
        for idle, stall in crossed():
            cases.append(
                Case(
                    f"{in_lanes} to {out_lanes}, idle {idle}, stall {stall}",
                    {"": given},
                    {"": expected},
                    {"Bits": bits, "InLanes": in_lanes, "OutLanes": out_lanes},
                    idle=idle,
                    stall=stall,
                    seed=len(cases),
                )
            )
    results = simulate("bf_width", cases, tmp_path)
    check(results)
    for in_lanes, out_lanes, latency in ((1, 4, 1), (4, 1, 1), (4, 4, 0), (1, 2, 1), (2, 1, 1)):
        cycles = results[f"{in_lanes} to {out_lanes}, idle 0, stall 0"].cycles
        assert cycles == LANES // min(in_lanes, out_lanes) + latency
