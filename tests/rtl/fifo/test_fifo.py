"""bf_fifo: order kept at every depth, full throughput, the promised capacity, and the peak occupancy it reports."""

import random
from pathlib import Path

from tests.rtl.harness import Case, Words, check, crossed, simulate

COUNT = 300
DEPTHS = (1, 2, 3, 32, 33, 100)


def _case(name: str, depth: int, words: Words, *, idle: int, stall: int, seed: int) -> Case:
    parameters = {"Bits": words.bits, "Depth": depth}
    return Case(name, {"": words}, {"": words}, parameters, idle=idle, stall=stall, seed=seed, probes=["peak_q"])


def test_fifo_keeps_the_order(tmp_path: Path) -> None:
    rng = random.Random(8)
    words = Words(11, [rng.getrandbits(11) for _ in range(COUNT)])
    cases: list[Case] = []
    for depth in DEPTHS:
        for idle, stall in crossed():
            cases.append(
                _case(
                    f"{depth} deep, idle {idle}, stall {stall}", depth, words, idle=idle, stall=stall, seed=len(cases)
                )
            )
    results = simulate("bf_fifo", cases, tmp_path)
    check(results)
    for depth in DEPTHS[2:]:
        full_speed = results[f"{depth} deep, idle 0, stall 0"]
        assert full_speed.cycles == COUNT + (2 if depth <= 32 else 3)
        assert full_speed.probes["peak_q"] <= 4


def test_fifo_holds_its_depth_when_nothing_is_taken(tmp_path: Path) -> None:
    """A stalled output for the whole run: the source gives all its words only where they all fit."""
    cases: list[Case] = []
    for depth in DEPTHS:
        words = Words(8, list(range(depth)))
        cases.append(_case(f"{depth} deep", depth, words, idle=0, stall=100, seed=depth))
        more = Words(8, list(range(depth + 3)))
        cases.append(_case(f"{depth} deep, 3 words more", depth, more, idle=0, stall=100, seed=depth))
    results = simulate("bf_fifo", cases, tmp_path, cycles=400)
    for depth in DEPTHS:
        fits, overfull = results[f"{depth} deep"], results[f"{depth} deep, 3 words more"]
        assert fits.drained
        assert fits.probes["peak_q"] == depth
        assert not overfull.drained
        assert overfull.probes["peak_q"] == depth + (1 if depth <= 32 else 2)
        assert fits.mismatches == overfull.mismatches == 0
