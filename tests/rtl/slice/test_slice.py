"""bf_slice: numpy's own slice along one axis, also where it drops the last words or all but one."""

from itertools import cycle
from pathlib import Path

import numpy as np

from tests.rtl.harness import Case, Words, check, crossed, simulate

RUNS = 6  # of the sliced axis
# Inner words, size, start, stop, step.
SLICES = [
    (1, 4, 0, 2, 1),
    (1, 4, 2, 4, 1),
    (3, 5, 1, 4, 1),
    (2, 7, 1, 6, 2),
    (2, 7, 0, 7, 3),
    (1, 3, 1, 2, 1),
    (4, 1, 0, 1, 1),
]


def test_slice_equals_numpy(tmp_path: Path) -> None:
    rng, paces, cases = np.random.default_rng(3), cycle(crossed()), []
    for inner, size, start, stop, step in [*SLICES, *SLICES]:
        x = rng.integers(0, 256, (RUNS, size, inner))
        kept = x[:, start:stop:step]
        idle, stall = next(paces)
        parameters = {"Inner": inner, "Size": size, "Start": start, "Stop": stop, "Step": step}
        name = f"{inner} {size} {start}:{stop}:{step}, idle {idle}, stall {stall}, {len(cases)}"
        words = ({"": Words(8, array.ravel().tolist())} for array in (x, kept))
        cases.append(Case(name, *words, parameters, idle=idle, stall=stall, seed=len(cases)))
    results = simulate("bf_slice", cases, tmp_path)
    check(results)
    first = results[cases[0].name]
    assert first.cycles == 4 * (RUNS - 1) + 2 + 1  # nothing waits for the words that are dropped
