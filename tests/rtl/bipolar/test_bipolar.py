"""bf_bipolar: 0 becomes -1, 1 becomes +1, in two's complement of two bits; it neither delays nor drops a word."""

import random
from pathlib import Path

from tests.rtl.harness import Case, check, crossed, pack_words, simulate


def test_bipolar_widens_every_lane(tmp_path: Path) -> None:
    rng = random.Random(5)
    cases = []
    for lanes in (1, 3):
        bits = [[rng.randrange(2) for _ in range(lanes)] for _ in range(200)]
        signed = [[2 * bit - 1 for bit in word] for word in bits]
        for idle, stall in crossed():
            name = f"{lanes} lanes, idle {idle}, stall {stall}"
            streams = {"": pack_words(bits, 1)}, {"": pack_words(signed, 2)}
            cases.append(Case(name, *streams, {"Lanes": lanes}, idle=idle, stall=stall, seed=lanes))
    results = simulate("bf_bipolar", cases, tmp_path)
    check(results)
    full_speed = results["1 lanes, idle 0, stall 0"]
    assert full_speed.cycles == full_speed.expected
