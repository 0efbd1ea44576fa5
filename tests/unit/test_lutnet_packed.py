"""Evaluation on bit planes equals the definition, `ir.run`, whatever the network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntType
from bitfab.ir.ops import Bits, Compare, Lut, Popcount, Threshold
from bitfab.ir.run import run
from bitfab.lutnet import Features, LutNetwork, lower, packed


@st.composite
def networks(draw: st.DrawFn) -> LutNetwork:
    """Any encoder, no layers to three, fan-in 1 to 6, any head, with and without a decision."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    features = Features(draw(st.integers(1, 4)), IntType(draw(st.integers(2, 7)), draw(st.booleans())))
    bits = draw(st.integers(1, 9))
    channel = chance.integers(features.count, size=bits)
    encoder: Compare | Bits = Bits(channel, chance.integers(features.type.bits, size=bits))
    if draw(st.booleans()):
        encoder = Compare(channel, chance.integers(features.type.low, features.type.high + 1, size=bits))
    layers = []
    for width in draw(st.lists(st.integers(1, 9), max_size=3)):
        fan_in = draw(st.integers(1, 6))
        wiring = chance.integers(bits, size=(width, fan_in))
        layers.append(Lut(wiring, chance.integers(2, size=(width, 1 << fan_in))))
        bits = width
    groups = draw(st.integers(1, 4))
    head = Popcount(chance.integers(bits, size=(groups, draw(st.integers(1, 12)))))
    if draw(st.booleans()):
        return LutNetwork(features, encoder, tuple(layers), head)
    levels = np.sort(chance.integers(0, 13, size=(1, 3)))
    single = Popcount(head.wiring[:1])
    return LutNetwork(features, encoder, tuple(layers), single, Threshold(levels, IntType(2, False), 0))


@given(network=networks(), count=st.integers(1, 200), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_the_graph(network: LutNetwork, count: int, seed: int) -> None:
    type = network.features.type
    x = np.random.default_rng(seed).integers(type.low, type.high + 1, size=(count, network.features.count))
    expected = run(lower(network, "any"), x)
    assert isinstance(expected, np.ndarray)
    np.testing.assert_array_equal(packed.answers(network, x), expected[:, 0])


def test_samples_encoded_in_parts_are_in_order() -> None:
    x = np.random.default_rng(0).integers(0, 16, size=(2 * packed.ENCODED_TOGETHER + 5, 3))
    encoder = Compare(np.array([2, 0, 1]), np.array([4, 9, 1]))
    planes = packed.encoded(encoder, x)
    np.testing.assert_array_equal(packed.unpack(planes, len(x)).T, x[:, encoder.channel] >= encoder.threshold)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 64, 156, 300])
def test_counts_of_ones(count: int) -> None:
    bits = np.random.default_rng(count).integers(2, size=(130, count * 2))
    planes = packed.pack(bits).reshape(count, 2, -1)
    np.testing.assert_array_equal(packed.counts_of(planes, 130), bits.reshape(130, count, 2).sum(axis=1).T)


def test_all_ones_are_counted() -> None:
    planes = packed.pack(np.ones((70, 255)))
    assert (packed.counts_of(planes, 70) == 255).all()


@pytest.mark.parametrize("fan_in", range(1, 7))
def test_tables_as_words_and_back(fan_in: int) -> None:
    tables = np.random.default_rng(fan_in).integers(2, size=(5, 1 << fan_in))
    np.testing.assert_array_equal(packed.tables_of_words(packed.words_of_tables(tables), fan_in), tables)


@pytest.mark.parametrize("high", [2, 1 << 63])
def test_distinct_rows(high: int) -> None:
    rows = np.random.default_rng(0).integers(high, size=(50, 3), dtype=np.uint64)
    first, which = packed.distinct(rows)
    np.testing.assert_array_equal(rows[first][which], rows)
    assert len(first) == len(np.unique(rows, axis=0))


def test_rows_of_equal_keys_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def integers(self, *_: object, **__: object) -> np.ndarray:
            return np.zeros(2, dtype=np.uint64)

    monkeypatch.setattr(np.random, "default_rng", lambda _: Zeros())
    rows = np.array([[1, 2], [2, 1], [1, 2]])
    first, which = packed.distinct(rows)
    np.testing.assert_array_equal(rows[first][which], rows)


def test_more_tables_than_are_evaluated_together() -> None:
    chance = np.random.default_rng(0)
    planes = packed.pack(chance.integers(2, size=(64, 20)))
    wiring, words = chance.integers(20, size=(9000, 4)), chance.integers(1 << 16, size=9000, dtype=np.uint64)
    found = packed.lut_planes(planes, wiring, words)
    for part in (slice(0, 10), slice(8995, 9000)):
        np.testing.assert_array_equal(found[part], packed.lut_planes(planes, wiring[part], words[part]))
