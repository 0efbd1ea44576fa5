"""The table network: modes and thresholds mean what they say, and a genetic search finds networks that work."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.ir import run
from bitfab.lutnet.encode import Spacing
from bitfab.lutnet.genetic import Settings, State, advance, begin
from bitfab.lutnet.network import Features
from bitfab.lutnet.search_space import joined, take
from bitfab.lutnet.table_network import Mode, TableNetwork, input_levels, lower
from bitfab.lutnet.table_space import TableSpace, table_space

PIXELS = Features(64, IntType(5, signed=False))


def answers(network: TableNetwork, x: IntArray) -> IntArray:
    """The definition, sample by sample, as the paper says it."""
    top = network.levels.shape[1]
    tables = {
        Mode.BLOCK: lambda a: 0,
        Mode.PASS: lambda a: a,
        Mode.DOUBLE: lambda a: 2 * a,
        Mode.INVERT: lambda a: top - a,
    }
    result = []
    for sample in x:
        sums = list(sample)
        for thresholds, modes in zip((network.levels, *network.thresholds), network.modes, strict=True):
            activations = [sum(s >= t for t in row) for s, row in zip(sums, thresholds, strict=True)]
            sums = [sum(tables[Mode(m)](a) for m, a in zip(row, activations, strict=True)) for row in modes]
        result.append(sums.index(max(sums)))
    return np.array(result)


def digits(count: int) -> tuple[IntArray, IntArray]:
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn carries the digits")
    pixels, labels = sklearn.load_digits(n_class=4, return_X_y=True)
    return pixels[:count].astype(np.int64), labels[:count].astype(np.int64)


def searched(space: TableSpace, generations: int, seed: int = 0) -> State:
    chosen = Settings(population=24, children=24, generations=generations, seed=seed)
    state = begin(space, chosen, space.evaluate)
    for _ in range(generations):
        state = advance(space, state, chosen, space.evaluate)
    return state


@given(
    hidden=st.lists(st.integers(1, 5), max_size=2),
    bits=st.integers(1, 3),
    fan_in=st.integers(1, 6),
    spacing=st.sampled_from(Spacing),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_search_graph_and_paper_agree(hidden: list[int], bits: int, fan_in: int, spacing: Spacing, seed: int) -> None:
    chance = np.random.default_rng(seed)
    features = Features(5, IntType(6, signed=True))
    x, labels = chance.integers(-32, 32, (40, 5)), chance.integers(0, 3, 40)
    space = table_space(features, (x, labels), tuple(hidden), 3, fan_in=fan_in, bits=bits, spacing=spacing)
    genes = space.mutate(space.random(3, chance), 5, chance)
    genes = joined([genes, space.crossover(genes, take(genes, slice(None, None, -1)), chance)])
    for layer in range(len(space.widths)):
        assert np.count_nonzero(genes[f"modes{layer}"], axis=2).max() <= fan_in
        genes[f"modes{layer}"][:, 0] = Mode.BLOCK
        genes[f"modes{layer}"][:, 0, 0] = Mode.INVERT  # so that no layer is wholly blocked
    errors = space.errors(genes)
    for index in range(6):
        network = space.to_network(take(genes, slice(index, index + 1)))
        found = run(lower(network, "net"), x)[:, 0]
        np.testing.assert_array_equal(found, answers(network, x))
        assert (found != labels).mean() == errors[index]


def test_values_do_not_depend_on_the_company() -> None:
    chance = np.random.default_rng(0)
    space = table_space(PIXELS, (chance.integers(0, 32, (300, 64)), chance.integers(0, 4, 300)), (16, 8), 4)
    genes = space.random(12, chance)
    alone = np.concatenate([space.evaluate(take(genes, slice(i, i + 1))) for i in range(12)])
    np.testing.assert_array_equal(space.evaluate(genes), alone)


def test_terms_count_connections_that_reach_the_answer() -> None:
    space = table_space(Features(3, IntType(2, signed=False)), (np.eye(3, dtype=int), np.array([0, 1, 1])), (2,), 2)
    modes = [np.array([[[1, 2, 3], [1, 0, 0]]], np.uint8), np.array([[[3, 0], [1, 0]]], np.uint8)]
    assert space.terms({"modes0": modes[0], "modes1": modes[1]}).tolist() == [5]


def test_a_search_reads_digits_and_repeats_itself() -> None:
    x, labels = digits(500)
    held_out = (x[350:], labels[350:])
    space = replace(
        table_space(PIXELS, (x[:350], labels[:350]), (12,), 4, validation=held_out, fan_in=8), objectives=("loss",)
    )
    state, again = searched(space, 100), searched(space, 100)
    np.testing.assert_array_equal(state.values, again.values)
    np.testing.assert_array_equal(state.genes["modes0"], again.genes["modes0"])
    best = space.to_network(take(state.genes, slice(0, 1)))
    right = (run(lower(best, "digits"), held_out[0])[:, 0] == held_out[1]).mean()
    assert right > 0.75  # by chance 0.25


def test_uniform_levels_are_the_upper_bits_of_a_full_range() -> None:
    x = np.arange(128).reshape(-1, 1)
    assert input_levels(x, 2, Spacing.UNIFORM).tolist() == [[32, 64, 96]]
    assert input_levels(x, 2).tolist() == [[32, 64, 96]]
    assert input_levels(x - 64, 2, Spacing.UNIFORM).tolist() == [[-32, 0, 32]]


def test_bad_input_is_one_clear_error() -> None:
    x, labels = np.zeros((4, 3), dtype=int), np.array([0, 1, 0, 1])
    three = Features(3, IntType(4, signed=False))
    with pytest.raises(BitfabError, match="2 classes"):
        table_space(three, (x, labels), (4,), 1)
    with pytest.raises(BitfabError, match="labels 0 to 7"):
        table_space(three, (x, labels * 7), (4,), 2)
    with pytest.raises(BitfabError, match="integers"):
        table_space(three, (x[:, :2], labels), (4,), 2)
    with pytest.raises(BitfabError, match="fan-in 0"):
        table_space(three, (x, labels), (4,), 2, fan_in=0)
    with pytest.raises(BitfabError, match="use fan_in <= 1365"):
        table_space(Features(3000, three.type), (np.zeros((4, 3000), dtype=int), labels), (), 2)
    with pytest.raises(BitfabError, match="1 to 4 bits"):
        input_levels(x, 5)


def test_networks_that_do_not_fit_are_refused() -> None:
    levels, modes = np.array([[1, 2, 3]] * 2), (np.ones((3, 2), int), np.ones((2, 3), int))
    network = TableNetwork(Features(2, IntType(4, signed=False)), levels, modes, (np.array([[1, 2, 3]] * 3),))
    assert network.connections == 12
    lower(network, "fits")
    with pytest.raises(BitfabError, match="layer 2: modes"):
        lower(replace(network, modes=(modes[0], modes[0])), "net")
    with pytest.raises(BitfabError, match="layer 1: thresholds"):
        lower(replace(network, thresholds=(levels,)), "net")
    with pytest.raises(BitfabError, match="levels"):
        lower(replace(network, levels=levels[:, :2]), "net")
    with pytest.raises(BitfabError, match="2 layers with 0"):
        lower(replace(network, thresholds=()), "net")
