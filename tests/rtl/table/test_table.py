"""bf_table: each lane's output is the table's entry at the lane's raw bits."""

import random
from pathlib import Path

from tests.rtl.harness import Case, Words, check, crossed, pack_words, simulate


def test_table_looks_up_every_lane(tmp_path: Path) -> None:
    rng = random.Random(2)
    cases: list[Case] = []
    for in_bits, out_bits, lanes in ((8, 8, 1), (4, 9, 3), (1, 1, 2)):
        table = [rng.getrandbits(out_bits) for _ in range(1 << in_bits)]
        xs = [[rng.randrange(1 << in_bits) for _ in range(lanes)] for _ in range(200)]
        xs += [[index] * lanes for index in range(1 << in_bits)]
        ys = [[table[x] for x in word] for word in xs]
        for idle, stall in crossed():
            cases.append(
                Case(
                    f"{in_bits} to {out_bits} bits x {lanes}, idle {idle}, stall {stall}",
                    {"": pack_words(xs, in_bits)},
                    {"": pack_words(ys, out_bits)},
                    {"InBits": in_bits, "OutBits": out_bits, "Lanes": lanes},
                    {"TableFile": Words(out_bits, table)},
                    idle=idle,
                    stall=stall,
                    seed=len(cases),
                )
            )
    results = simulate("bf_table", cases, tmp_path)
    check(results)
    full_speed = results["8 to 8 bits x 1, idle 0, stall 0"]
    assert full_speed.cycles == full_speed.expected + 2
