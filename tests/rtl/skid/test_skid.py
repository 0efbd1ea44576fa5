"""bf_skid: every word once and in order, at full throughput, with one cycle of latency."""

import random
from pathlib import Path

from tests.rtl.harness import Case, Words, check, crossed, simulate


def test_skid_passes_every_word_in_order(tmp_path: Path) -> None:
    rng = random.Random(1)
    cases: list[Case] = []
    for bits in (1, 13):
        words = Words(bits, [rng.getrandbits(bits) for _ in range(200)])
        for idle, stall in crossed():
            name = f"{bits} bits, idle {idle}, stall {stall}"
            cases.append(Case(name, {"": words}, {"": words}, {"Bits": bits}, idle=idle, stall=stall, seed=len(cases)))
    results = simulate("bf_skid", cases, tmp_path)
    check(results)
    assert results["13 bits, idle 0, stall 0"].cycles == 201
