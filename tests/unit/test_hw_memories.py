"""Packing of ROM words and stream words: nothing lost, lanes where the RTL looks for them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitfab.dtypes import IntType
from bitfab.hw import Folding
from bitfab.hw.blocks import parameters
from bitfab.hw.memories import mem_file, scale_fields, scales, table, thresholds, to_stream, weights
from bitfab.hw.plan import plan
from bitfab.ir import Builder, Value
from bitfab.ir.ops import Dense, Requantize, Table, Threshold


@st.composite
def _words(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    widths = draw(st.lists(st.integers(1, 32), min_size=1, max_size=6))
    rows = draw(
        st.lists(st.tuples(*(st.integers(-(1 << (w - 1)), (1 << w) - 1) for w in widths)), min_size=1, max_size=8)
    )
    return np.array(rows, dtype=np.int64), widths


@given(_words())
def test_lane_l_stands_above_lanes_0_to_l(case: tuple[np.ndarray, list[int]]) -> None:
    rows, widths = case
    lines = mem_file(rows, widths).split()
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert len(line) == -(-sum(widths) // 4)
        word = int(line, 16)
        for lane, width in zip(row, widths, strict=True):
            assert word & ((1 << width) - 1) == int(lane) % (1 << width)
            word >>= width
        assert word == 0


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.data())
def test_streams_go_by_rows_pixels_channels(
    batch: int, half: int, height: int, width: int, data: st.DataObject
) -> None:
    channels = 2 * half
    lanes = data.draw(st.sampled_from([d for d in range(1, channels + 1) if channels % d == 0]))
    values = np.arange(batch * channels * height * width).reshape(batch, channels, height, width)
    words = to_stream(values, (channels, height, width), lanes, IntType(8, signed=False))
    index = 0
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                for c in range(0, channels, lanes):
                    assert words[index].tolist() == values[n, c : c + lanes, y, x].tolist()
                    index += 1
    assert index == len(words)


def test_bipolar_values_travel_as_one_bit() -> None:
    signs = np.array([[1, -1, -1, 1]], dtype=np.int8)
    assert to_stream(signs, (4, 1, 1), 2, IntType(1, signed=True)).tolist() == [[1, 0], [0, 1]]


def test_thresholds_end_where_the_input_does() -> None:
    x = Value("x", (1,), IntType(8, signed=True), -20, 30)
    op = Threshold(np.array([[-(1 << 31), -20, 0, 31, 1 << 31]]), IntType(3, signed=False), 0)
    assert thresholds(op, x).tolist() == [[-20, -20, 0, 31, 31]]


def test_scales_hold_multiplier_below_extra_shift() -> None:
    op = Requantize(np.array([5, 9, 12, 3]), np.array([10, 12, 10, 13]), IntType(8, signed=False), 0, 255)
    assert scale_fields(op) == (4, 10, 2)
    words = [int(line, 16) for line in scales(op, lanes=2).split()]
    assert words == [5 | 0 << 4 | (9 | 2 << 4) << 6, 12 | 0 << 4 | (3 | 3 << 4) << 6]


def test_one_scale_serves_every_lane() -> None:
    op = Requantize(np.array([5]), np.array([10]), IntType(8, signed=False), 0, 255)
    assert scales(op, lanes=3).split() == [f"{5 | 5 << 3 | 5 << 6:03x}"]


def test_tables_are_indexed_by_raw_bits() -> None:
    signed = IntType(3, signed=True)
    op = Table(np.arange(-4, 4) * 2, signed, IntType(8, signed=True))
    words = [int(line, 16) for line in table(op).split()]
    for code in range(signed.low, signed.high + 1):
        assert words[code & 7] == (2 * code) & 0xFF


def test_bipolar_weights_are_bits() -> None:
    weight = np.array([[1, -1, -1, 1], [-1, -1, 1, 1]])
    builder = Builder("signs")
    x = builder.input("x", (4,), IntType(3, signed=False))
    graph = builder.build((builder.add("dense", Dense(weight, np.array([5, -6])), x),))
    engines, _ = plan(graph, 2, {"dense": Folding(2, 2)})
    words, biases = weights(engines["dense"])
    assert words.tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]  # word t, weight (p, s) at p * 2 + s
    assert biases.tolist() == [[5, -6]]
    assert parameters(engines["dense"])["WeightBits"] == 1
