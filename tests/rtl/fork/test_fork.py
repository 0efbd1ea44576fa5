"""bf_fork: every output takes every word exactly once; no cycle is lost when all are ready."""

import random
from pathlib import Path

from tests.rtl.harness import RTL, Case, Words, check, crossed, simulate

COUNT = 200


def test_fork_gives_each_word_once_to_each_output(tmp_path: Path) -> None:
    rng = random.Random(7)
    words = Words(8, [rng.getrandbits(8) for _ in range(COUNT)])
    outputs = {"a_": words, "b_": words, "c_": words}
    cases = [
        Case(f"idle {idle}, stall {stall}", {"": words}, outputs, {"Bits": 8}, idle=idle, stall=stall, seed=seed)
        for seed, (idle, stall) in enumerate(crossed())
    ]
    sources = [Path(__file__).parent / "bf_fork_named.sv", RTL / "fork" / "bf_fork.sv"]
    results = simulate("bf_fork_named", cases, tmp_path, sources=sources)
    check(results)
    assert results["idle 0, stall 0"].cycles == COUNT
