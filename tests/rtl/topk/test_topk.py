"""bf_topk: the indices of the largest, best first, also among equals and at the ends of the range."""

import random
from pathlib import Path

import pytest

from tests.rtl.harness import Case, Words, check, crossed, simulate

PIXELS = 60
# Bits, Signed, Words, K, IndexBits: K = 1, some, all but one, all; one class; an index wider than it need be.
SIZES = [(8, 1, 10, 1, 4), (3, 1, 10, 3, 4), (8, 0, 6, 5, 3), (1, 0, 5, 2, 8), (2, 1, 3, 3, 2), (20, 1, 1, 1, 1)]


def test_topk_takes_the_largest_in_order(tmp_path: Path) -> None:
    rng = random.Random(5)
    cases: list[Case] = []
    for bits, signed, classes, k, index_bits in SIZES:
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        ends = [low, min(low + 1, high), max(high - 1, low), high]
        pixels = []
        for index in range(PIXELS):
            wide = index % 2 == 0
            pixels.append([rng.randint(low, high) if wide else rng.choice(ends) for _ in range(classes)])
        best = [sorted(range(classes), key=lambda i: (-pixel[i], i))[:k] for pixel in pixels]
        for idle, stall in crossed():
            cases.append(
                Case(
                    f"{k} of {classes}, idle {idle}, stall {stall}",
                    {"": Words(bits, [x for pixel in pixels for x in pixel])},
                    {"": Words(index_bits, [i for indices in best for i in indices])},
                    {"Bits": bits, "Signed": signed, "Words": classes, "K": k, "IndexBits": index_bits},
                    idle=idle,
                    stall=stall,
                    seed=len(cases),
                )
            )
    results = simulate("bf_topk", cases, tmp_path)
    check(results)
    for _, _, classes, k, _ in SIZES:  # one word a cycle, even where as many indices leave as words come
        assert results[f"{k} of {classes}, idle 0, stall 0"].cycles == classes * PIXELS + k


def test_a_wrong_index_is_found(tmp_path: Path) -> None:
    """Two equal values: the upper index first is wrong."""
    parameters = {"Bits": 4, "Signed": 0, "Words": 4, "K": 2, "IndexBits": 2}
    case = Case("ties", {"": Words(4, [1, 7, 7, 3])}, {"": Words(2, [2, 1])}, parameters)
    with pytest.raises(AssertionError, match="ties"):
        check(simulate("bf_topk", [case], tmp_path))
