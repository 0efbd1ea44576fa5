"""From samples and labels to the graph of a LUT network, by all three ways; and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitfab.data import pulses
from bitfab.errors import BitfabError
from bitfab.ir import run
from bitfab.ir.ops import Bits, Compare, Lut
from bitfab.lutnet.fit import LutRecipe, Method, answers, train_luts

READ = tuple(range(2, 90))
SMALL = LutRecipe((40,), levels=7, epochs=4, generations=20, read=READ)


@pytest.fixture(scope="module")
def frames() -> tuple[np.ndarray, np.ndarray]:
    return pulses.generate(3000, pulses.SPLIT_SEEDS["train"])


@pytest.mark.parametrize("method", Method)
def test_every_way_of_training_learns(method: Method, frames: tuple[np.ndarray, np.ndarray]) -> None:
    told: list[tuple[str, int, int]] = []
    graph = train_luts(*frames, replace(SMALL, method=method), "net", lambda *step: told.append(step))
    test, truth = pulses.generate(1000, pulses.SPLIT_SEEDS["test"])
    found = answers(graph, test)
    np.testing.assert_array_equal(found, run(graph, test)[:, 0])
    assert (found == truth).mean() > (0.6 if method is Method.GENETIC else 0.8)
    tables = sum(len(node.op.table) for node in graph if isinstance(node.op, Lut))
    assert tables <= 40 and graph.name == "net" and told
    assert set(np.unique(graph.nodes[0].op.channel)) <= set(READ)


def test_searching_around_a_trained_network_makes_fewer_errors(frames: tuple[np.ndarray, np.ndarray]) -> None:
    """On the samples it is trained on; the search starts from what the same training by gradients gave."""
    recipe = replace(SMALL, validation=0.0, generations=60)
    gradient, both = (train_luts(*frames, replace(recipe, method=m)) for m in (Method.GRADIENT, Method.BOTH))
    errors = [float((answers(graph, frames[0]) != frames[1]).mean()) for graph in (gradient, both)]
    assert errors[1] < errors[0]


def test_unseen_entries_make_it_smaller_and_change_nothing_seen(frames: tuple[np.ndarray, np.ndarray]) -> None:
    whole, freed = (train_luts(*frames, replace(SMALL, unseen=unseen)) for unseen in (0, 1))
    np.testing.assert_array_equal(answers(whole, frames[0]), answers(freed, frames[0]))
    bits = [len(graph.nodes[0].op.channel) for graph in (whole, freed)]
    assert bits[1] < bits[0]


def test_bits_as_they_are_need_no_comparison(frames: tuple[np.ndarray, np.ndarray]) -> None:
    graph = train_luts(*frames, replace(SMALL, levels=0, epochs=1))
    assert isinstance(graph.nodes[0].op, Bits) and not any(isinstance(node.op, Compare) for node in graph)


def test_real_features_become_integers_with_a_scale_each() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3)) * [1.0, 100.0, 0.01]
    labels = (x[:, 1] > 0).astype(np.int64)
    graph = train_luts(x, labels, LutRecipe((16,), 3, levels=7, bits=6, epochs=8))
    value = graph.inputs[0]
    assert value.type.bits == 6 and value.qparams is not None and len(value.qparams.scale) == 3
    assert (answers(graph, x) == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"read": (0, 5)}, "feature 0: constant over 3000 samples"),
        ({"read": (2, 128)}, r"feature 128: the samples have features 0 to 127"),
        ({"tables": (7,)}, "cannot be shared evenly by 2 classes; use 6 or 8"),
        ({"method": Method.GENETIC, "tables": (1,)}, "1 LUTs hold no network of 2 classes .* at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str, frames: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(BitfabError, match=message):
        train_luts(*frames, replace(SMALL, **change))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3000, int), "all are of one class"),
        (np.repeat([0, 2], 1500), "class 1 has no sample"),
        (np.repeat([-1, 1], 1500), "labels -1 to 1"),
        (np.zeros(2999, int), "one integer for each of the 3000 samples"),
        (np.zeros(3000), "one integer for each of the 3000 samples"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: np.ndarray, message: str, frames: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(BitfabError, match=message):
        train_luts(frames[0], labels, SMALL)


@pytest.mark.parametrize("change", [{"method": "magic"}, {"tables": ()}, {"epochs": 0}, {"validation": 1.0}])
def test_a_recipe_that_makes_no_sense_is_refused(change: dict) -> None:
    with pytest.raises(BitfabError, match="recipe: "):
        LutRecipe(**change)


def test_a_search_goes_on_from_its_checkpoint(tmp_path: Path, frames: tuple[np.ndarray, np.ndarray]) -> None:
    recipe = replace(SMALL, method=Method.GENETIC)
    first = train_luts(*frames, recipe, checkpoint=tmp_path / "search")
    steps: list[str] = []
    again = train_luts(*frames, recipe, progress=lambda step, *_: steps.append(step), checkpoint=tmp_path / "search")
    assert not steps  # it was at its end
    np.testing.assert_array_equal(answers(first, frames[0]), answers(again, frames[0]))
