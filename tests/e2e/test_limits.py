"""What hardware takes at the edges of its numbers, and names that meet: simulated and compared in both languages."""

from pathlib import Path

import numpy as np
import pytest

from bitfab.backend import simulate
from bitfab.dtypes import IntType, Rounding
from bitfab.hw import Language, generate
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Add, Concat, Conv2d, Requantize, Slice, SumPool2d
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError
from tests.strategies import batch

INT8, UINT8, INT16 = IntType(8, signed=True), IntType(8, signed=False), IntType(16, signed=True)


def _requantize(multipliers: list[int], shifts: list[int], type: IntType, *zeros: int) -> Requantize:
    constants = np.array(multipliers), np.array(shifts)
    return Requantize(*constants, type, type.low, type.high, *zeros, rounding=Rounding.HALF_AWAY)


def far_zeros() -> Graph:
    """Zero points outside the proven type of what is requantized, as of a sum of codes from -128 behind a ReLU."""
    builder = Builder("zeros")
    x = builder.input("x", (2, 4, 4), IntType(7, signed=False))
    pooled = builder.add("pooled", SumPool2d((4, 4), (4, 4)), x)
    ends = [builder.add(f"from_{zero}", _requantize([3], [6], INT8, zero, -128), pooled) for zero in (2048, 5000)]
    ends.append(builder.add("below", _requantize([3], [6], INT8, -2048, -128), pooled))
    return builder.build((*ends, builder.add("far", _requantize([3], [24], INT8, -(1 << 31), 9), x)))


def extremes() -> Graph:
    """The widest multiplier, the widest spread of shifts, a sum of one bit, a step far beyond its axis."""
    builder = Builder("extremes")
    x = builder.input("x", (4, 3, 2), INT8)
    none = Conv2d(np.zeros((2, 4, 1, 1), np.int8), np.array([0, 1]))
    return builder.build(
        (
            builder.add("wide", _requantize([(1 << 31) - 1], [31], INT16, 3, 5), x),
            builder.add("spread", _requantize([3, 5, 7, 1], [62, 0, 30, 1], INT8, 3, 5), x),
            builder.add("bit", none, x),
            builder.add("first", Slice(1, 1, 3, 1 << 31), x),
        )
    )


def meeting_names() -> Graph:
    """Layers named as the forks, copies, FIFOs, parts and converters of others, in one case or another."""
    builder = Builder("names")
    x = builder.input("a", (4, 3, 3), UINT8)
    scaled = builder.add("A_fork", _requantize([3], [2], UINT8), x)
    copied = builder.add("a_to_sum", _requantize([5], [3], UINT8), scaled)
    summed = builder.add("sum", Add(), (x, copied))
    joined = builder.add("a_to_sum_fifo", Concat(), (scaled, x, copied))
    part = builder.add("a_to_sum_fifo_part1", _requantize([5], [3], UINT8), joined)
    return builder.build((summed, joined, part, builder.add("a_FORK_fork", _requantize([1], [1], UINT8), part)))


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("make", [far_zeros, extremes, meeting_names])
def test_hardware_equals_the_graph(make, language: Language, tmp_path: Path) -> None:
    if language is Language.VHDL:
        try:
            ghdl.require()
        except MissingToolError as error:
            pytest.skip(str(error))
    graph = make()
    design = generate(graph, parallelism=8, language=language)
    for names in (
        [instance.name.lower() for instance in design.instances],
        [s.name.lower() for s in design.streams],
    ):
        assert len(set(names)) == len(names)
    assert simulate(design, batch(graph, seed=1), tmp_path / "design").mismatches == 0
