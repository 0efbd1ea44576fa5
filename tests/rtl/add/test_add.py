"""bf_add: exact sums for every mixture of signs and widths, the ends of the ranges included."""

import random
from pathlib import Path

from tests.rtl.harness import Case, check, crossed, pack_words, simulate


def _ends(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _values(bits: int, signed: bool, lanes: int, rng: random.Random) -> list[list[int]]:
    low, high = _ends(bits, signed)
    return [[rng.choice([low, high, rng.randint(low, high)]) for _ in range(lanes)] for _ in range(150)]


def test_add_is_exact(tmp_path: Path) -> None:
    rng = random.Random(3)
    cases: list[Case] = []
    shapes = [
        (8, True, 8, True, 1, 9),
        (8, False, 8, False, 2, 9),
        (8, True, 8, False, 3, 10),
        (5, False, 12, True, 1, 13),
        (12, True, 3, True, 2, 16),
    ]
    for a_bits, a_signed, b_bits, b_signed, lanes, out_bits in shapes:
        a, b = _values(a_bits, a_signed, lanes, rng), _values(b_bits, b_signed, lanes, rng)
        sums = [[x + y for x, y in zip(*pair, strict=True)] for pair in zip(a, b, strict=True)]
        parameters = {"ABits": a_bits, "ASigned": int(a_signed), "BBits": b_bits, "BSigned": int(b_signed)}
        for idle, stall in crossed():
            cases.append(
                Case(
                    f"{a_bits} {a_signed} + {b_bits} {b_signed} x {lanes}, idle {idle}, stall {stall}",
                    {"a_": pack_words(a, a_bits), "b_": pack_words(b, b_bits)},
                    {"": pack_words(sums, out_bits)},
                    {**parameters, "Lanes": lanes, "OutBits": out_bits},
                    idle=idle,
                    stall=stall,
                    seed=len(cases),
                )
            )
    pairs = [(-1, 1), (0, 1), (1, 1)] * 20  # of signed types, but the sums are never negative
    streams = {"a_": pack_words([[a] for a, _ in pairs], 2), "b_": pack_words([[b] for _, b in pairs], 2)}
    sums = pack_words([[a + b] for a, b in pairs], 2)
    cases.append(Case("unsigned", streams, {"": sums}, {"ABits": 2, "BBits": 2, "OutBits": 2, "OutSigned": 0}))
    results = simulate("bf_add", cases, tmp_path)
    check(results)
    assert results["8 True + 8 True x 1, idle 0, stall 0"].cycles == 151
