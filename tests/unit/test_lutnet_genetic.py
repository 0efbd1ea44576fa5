"""Genetic search: hard limits, Pareto order, elitism, one result however often it is interrupted or shared out."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitfab.errors import BitfabError
from bitfab.ir.ops import Compare, Lut, Popcount
from bitfab.ir.run import run
from bitfab.lutnet import LutNetwork, equal_groups, genetic, lower, pareto, thermometer
from bitfab.lutnet.checkpoint import Settings
from bitfab.lutnet.fitness import loss, margins
from bitfab.lutnet.genetic import Front
from bitfab.lutnet.lut_space import Limits, around, looks_at, lut_space
from bitfab.lutnet.packed import answers, words_of_tables
from bitfab.lutnet.search_space import joined, size, take
from tests.genetic_worker import FEATURES, SETTINGS, data, same, space

WORKER = Path(__file__).parent.parent / "genetic_worker.py"


def wrong(network: LutNetwork, seed: int) -> float:
    """The share of samples that the integer graph answers wrongly."""
    x, labels = data(seed=seed)
    found = run(lower(network, "found"), x)
    assert isinstance(found, np.ndarray)
    return float((found[:, 0] != labels).mean())


@given(values=arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 4)))
def test_ranks_are_fronts_by_definition(values: np.ndarray) -> None:
    rank = pareto.ranks(values)
    _, firsts = np.unique(values, axis=0, return_index=True)
    for a in firsts:
        better = [b for b in firsts if (values[b] <= values[a]).all() and (values[b] < values[a]).any()]
        assert rank[a] == max((rank[b] + 1 for b in better), default=0)
    copies = np.setdiff1d(np.arange(len(values)), firsts)
    assert rank[copies].min(initial=99) > rank[firsts].max()


@given(values=arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 3)), elements=st.integers(0, 4)))
def test_order_has_the_fronts_in_order_and_copies_last(values: np.ndarray) -> None:
    order = pareto.order(values)
    assert sorted(order) == list(range(len(values)))
    assert (np.diff(pareto.ranks(values)[order]) >= 0).all()


def test_crowding_keeps_the_ends_and_the_lonely() -> None:
    values = np.array([[0.0, 10.0], [1.0, 9.0], [2.0, 8.0], [6.0, 3.0], [10.0, 0.0]])
    distance = pareto.crowding(values, pareto.ranks(values))
    assert np.isinf(distance[[0, 4]]).all()
    assert distance[3] > distance[2] > distance[1]


@given(counts=arrays(np.int16, (1, 3, 9), elements=st.integers(0, 3)))
def test_margins_are_not_negative_where_the_first_of_the_largest_is_right(counts: np.ndarray) -> None:
    labels = np.repeat([0, 1, 2], 3)
    margin = margins(counts, (0, 3, 6, 9))
    np.testing.assert_array_equal(margin[0] >= 0, counts[0].argmax(axis=0) == labels)


def test_loss_falls_with_the_margin() -> None:
    values = [loss(np.array([[margin]]), 9, 2.0)[0] for margin in range(-9, 10)]
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_is_counted_is_what_the_graph_answers(depth: int) -> None:
    family = space(depth=depth)
    genes = family.random(5, np.random.default_rng(1))
    networks = [family.to_network(take(genes, slice(i, i + 1))) for i in range(5)]
    np.testing.assert_allclose(family.errors(genes), [wrong(network, seed=1) for network in networks])
    trained = dataclasses.replace(family, exact=True).evaluate(genes)[:, 0]
    np.testing.assert_allclose(trained, [wrong(network, seed=0) for network in networks], atol=1e-3)


def test_values_do_not_depend_on_who_is_evaluated_together() -> None:
    genes = space().random(9, np.random.default_rng(0))
    parts = [space().evaluate(take(genes, which)) for which in (slice(0, 1), slice(1, 7), slice(7, 9))]
    np.testing.assert_array_equal(np.concatenate(parts), space().evaluate(genes))


@pytest.mark.parametrize("depth", [1, 2])
def test_torch_gives_the_same_values(depth: int) -> None:
    genes = space(depth=depth).random(9, np.random.default_rng(0))
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        family = dataclasses.replace(space(depth=depth), device=device)
        np.testing.assert_array_equal(family.evaluate(genes), space(depth=depth).evaluate(genes))
        np.testing.assert_array_equal(family.errors(genes), space(depth=depth).errors(genes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there() -> None:
    family = dataclasses.replace(space(), device="cuda")
    with pytest.raises(BitfabError, match="no GPU here"):
        genetic.search(family, SETTINGS)


def test_no_change_leaves_the_limits() -> None:
    family, chance = space(), np.random.default_rng(0)
    genes = family.random(20, chance)
    for _ in range(20):
        genes = family.mutate(family.crossover(genes, take(genes, chance.permutation(20)), chance), 8.0, chance)
    luts, depth = family.hardware(genes)
    assert luts.max() <= 48
    assert depth.max() <= 2
    assert size(genes) == 20
    for layer, before in ((0, len(family.encoder.channel)), (1, family.widths[0])):
        wiring, table = genes[f"wiring{layer}"], genes[f"table{layer}"]
        assert wiring.min() >= 0
        assert wiring.max() < before
        assert table.max() < 1 << 16


def test_crossover_takes_tables_whole_and_all_from_the_parents() -> None:
    family, chance = space(), np.random.default_rng(0)
    one, other = family.random(30, chance), family.random(30, chance)
    child = family.crossover(one, other, chance)
    ours, theirs = ((child["table0"] == parent["table0"]) for parent in (one, other))
    assert (ours | theirs).all()
    assert ours.any()
    assert theirs.any()
    np.testing.assert_array_equal(child["wiring0"][ours & ~theirs], one["wiring0"][ours & ~theirs])


def test_wires_and_constants_are_no_hardware() -> None:
    family = dataclasses.replace(space(), widths=(3, 3))
    both, first, never = (words_of_tables(np.array([t])) for t in ([0, 0, 0, 1] * 4, [0, 1] * 8, [0] * 16))
    genes = {
        "wiring0": np.zeros((1, 3, 4), dtype=np.int32),
        "table0": np.concatenate([both, both, never])[None],
        "wiring1": np.array([[[0, 1, 2, 2], [0, 1, 2, 2], [2, 2, 2, 2]]], dtype=np.int32),
        "table1": np.concatenate([first, never, both])[None],
    }
    luts, depth = family.hardware(genes)  # count <- wire <- table 0; table 1 is read by a wire's other input alone
    assert (luts[0], depth[0]) == (2, 1)  # table 0, and the last one, which only a constant feeds
    genes["table1"] = np.concatenate([first, never, never])[None]
    luts, depth = family.hardware(genes)
    assert (luts[0], depth[0]) == (1, 1)
    np.testing.assert_array_equal(looks_at(both, 4), [[True, True, False, False]])


def test_search_learns_and_its_front_is_a_front() -> None:
    told: list[float] = []
    settings = dataclasses.replace(SETTINGS, generations=150)
    front = genetic.search(space(depth=1), settings, progress=lambda _, best: told.append(best.values[0, 0]), every=10)
    assert wrong(front.network(0), seed=0) < 0.3
    assert told == sorted(told, reverse=True)
    assert (pareto.ranks(front.values) == 0).all()
    assert len(front) > 2
    errors = front.errors()
    assert errors[front.best()] == errors.min()
    assert wrong(front.network(front.best()), seed=1) == pytest.approx(errors.min())


def test_one_seed_one_front() -> None:
    short = dataclasses.replace(SETTINGS, generations=5)
    first = genetic.search(space(), short)
    assert same(first, genetic.search(space(), short))
    assert not same(first, genetic.search(space(), dataclasses.replace(short, seed=8)))


def test_processes_change_nothing() -> None:
    short = dataclasses.replace(SETTINGS, generations=5)
    assert same(genetic.search(space(), short), genetic.search(space(), short, workers=2))


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    file = tmp_path / "search.safetensors"
    environment = {**os.environ, "PYTHONPATH": str(WORKER.parent.parent)}
    process = subprocess.Popen([sys.executable, WORKER, file], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 9:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    told: list[int] = []
    resumed = genetic.search(
        space(), SETTINGS, checkpoint=file, progress=lambda generation, _: told.append(generation), every=1
    )
    assert 9 < told[0] < SETTINGS.generations
    assert same(resumed, genetic.search(space(), SETTINGS))
    assert same(resumed, genetic.search(space(), SETTINGS, checkpoint=file))  # ended: read, and nothing to do


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    file, short = tmp_path / "search.safetensors", dataclasses.replace(SETTINGS, generations=2)
    genetic.search(space(), short, checkpoint=file)
    with pytest.raises(BitfabError, match="other seed; repeat"):
        genetic.search(space(), dataclasses.replace(short, seed=1), checkpoint=file)
    with pytest.raises(BitfabError, match="another space or other data"):
        genetic.search(space(seed=5), short, checkpoint=file)
    with pytest.raises(BitfabError, match="another space or other data"):
        genetic.search(space(depth=1), short, checkpoint=file)
    whole = file.read_bytes()
    for damaged in (b"", whole[:50], whole[: len(whole) // 2], b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(BitfabError, match="damaged"):
            genetic.search(space(), short, checkpoint=file)


def test_patience_ends_the_search() -> None:
    generations: list[int] = []
    settings = dataclasses.replace(SETTINGS, generations=3000, patience=3, population=2, children=1)
    genetic.search(space(), settings, progress=lambda generation, _: generations.append(generation), every=3000)
    assert generations[-1] < 3000


def test_refinement_starts_from_the_network_and_betters_it() -> None:
    coarse = genetic.search(space(), SETTINGS).network(0)
    family, start = around(coarse, data())
    assert family.evaluate(start)[0, 0] == pytest.approx(wrong(coarse, seed=0), abs=1e-3)
    settings = Settings(population=16, children=32, generations=60, strength=(1, 1))
    front = genetic.search(family, settings, start=start)
    assert wrong(front.network(0), seed=0) < wrong(coarse, seed=0)
    assert front.values[:, 1].max() <= coarse.tables


def test_refinement_takes_any_head_and_mixed_fan_in() -> None:
    chance = np.random.default_rng(0)
    layers = (
        Lut(chance.integers(9, size=(5, 2)), chance.integers(2, size=(5, 4))),
        Lut(chance.integers(5, size=(4, 3)), chance.integers(2, size=(4, 8))),
    )
    encoder = Compare(chance.integers(6, size=9), chance.integers(1, 31, size=9))
    network = LutNetwork(FEATURES, encoder, layers, Popcount(np.array([[3, 0], [1, 1], [2, 3]])))
    family, start = around(network, data())
    assert family.errors(start)[0] == pytest.approx(wrong(network, seed=0))
    with pytest.raises(BitfabError, match="use `around`"):
        space().genes_of(network)
    with pytest.raises(BitfabError, match="without layers"):
        around(dataclasses.replace(network, layers=()), data())


def test_refinement_leaves_out_tables_that_none_reads() -> None:
    x, _ = data()
    rng, encoder = np.random.default_rng(5), thermometer(x, 7)
    first = Lut(rng.integers(0, len(encoder.channel), (9, 4)), rng.integers(0, 2, (9, 16)))
    second = Lut(np.array([[1, 4], [4, 7], [1, 1]]), rng.integers(0, 2, (3, 4)))
    network = LutNetwork(FEATURES, encoder, (first, second), equal_groups(3, 3))
    space, start = around(network, data())
    assert space.widths == (3, 3)
    np.testing.assert_array_equal(answers(space.to_network(start), x), answers(network, x))


def test_limits_that_hold_no_network_name_the_smallest_that_would() -> None:
    with pytest.raises(BitfabError, match="needs at least 15"):
        Limits(14, depth=3).widths(5)
    assert Limits(15, depth=3).widths(5) == (5, 5, 5)
    assert Limits(17, depth=2).widths(5) == (8, 5)
    for impossible in (Limits(9, depth=0), Limits(9, fan_in=7), Limits(9, fan_in=0)):
        with pytest.raises(BitfabError, match="fan-in 1 to 6"):
            impossible.widths(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y + 1), "labels 1 to 3: 0 to 2 expected"),
        (lambda x, y: (x, y[:-1]), "one integer for each of the 300 samples"),
        (lambda x, y: (x / 2, y), "integers"),
        (lambda x, y: (x[:, :4], y), r"\(samples, 6\) expected"),
        (lambda x, y: (x[:0], y[:0]), "no samples"),
    ],
)
def test_bad_samples_are_refused(change: Any, message: str) -> None:
    x, labels = data()
    with pytest.raises(BitfabError, match=message):
        lut_space(FEATURES, thermometer(x, 3), change(x, labels), Limits(12), 3)


@pytest.mark.parametrize("wrong", [{"population": 0}, {"seed": -1}, {"strength": (0.5, 1)}, {"crossover": 1.5}])
def test_bad_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BitfabError, match="expected"):
        Settings(**wrong)


def test_a_worker_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(generation: int, _: Front[Any]) -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    with pytest.raises(BitfabError, match="a worker process died"):
        genetic.search(space(), SETTINGS, workers=2, progress=die, every=1)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"every": 0}])
def test_bad_arguments_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BitfabError, match="at least 1 expected"):
        genetic.search(space(), SETTINGS, **wrong)


def test_unknown_objectives_are_refused() -> None:
    for objectives in ((), ("loss", "area")):
        with pytest.raises(BitfabError, match="some of loss, luts, depth expected"):
            lut_space(FEATURES, thermometer(data()[0], 3), data(), Limits(12), 3, objectives=objectives)


def test_individuals_are_joined_in_order() -> None:
    genes = space().random(4, np.random.default_rng(0))
    again = joined([take(genes, slice(0, 1)), take(genes, slice(1, 4))])
    assert all(np.array_equal(again[name], genes[name]) for name in genes)
