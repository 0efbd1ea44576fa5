"""The jets: their observables by hand and by brute force, simulated ones where the extra is installed, clear errors."""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.data import jets
from bitfab.errors import BitfabError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "jets" / "jets_20k.npz"
COLUMN = {name: index for index, name in enumerate(jets.OBSERVABLES)}


def test_a_single_particle_has_a_mass_and_nothing_else() -> None:
    found = jets.observables(np.array([700.0]), np.array([0.3]), np.array([1.0]), 0.13957)
    assert found[COLUMN["mass"]] == 0.13957 and found[COLUMN["multiplicity"]] == 1
    assert np.all(found[:14] == 0)


def test_two_particles_across_the_azimuth_seam() -> None:
    found = jets.observables(np.array([300.0, 100.0]), np.array([0.0, 0.3]), np.array([0.1, 2 * np.pi - 0.3]), 80.0)
    assert np.isclose(found[COLUMN["zlogz"]], 0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    expected = [0.1875, 0.1875 * 0.5, 0.1875 * 0.25]  # the distance is hypot(0.3, 0.4)
    assert np.allclose(found[[COLUMN["c1_b0"], COLUMN["c1_b1"], COLUMN["c1_b2"]]], expected)
    assert np.allclose(found[COLUMN["c2_b1"] : COLUMN["mass"]], 0), "no triple of particles"


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_observables_are_their_definitions(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    momentum, rapidity = rng.exponential(50, count) + 0.1, rng.normal(0, 0.3, count)
    azimuth = rng.normal(0, 0.3, count) % (2 * np.pi)
    z = momentum / momentum.sum()

    def distance(i: int, j: int) -> float:
        turn = abs(azimuth[i] - azimuth[j])
        return float(np.hypot(rapidity[i] - rapidity[j], min(turn, 2 * np.pi - turn)))

    e2, e3, least, two = ({1: 0.0, 2: 0.0} for _ in range(4))
    for i, j in itertools.combinations(range(count), 2):
        for b in e2:
            e2[b] += z[i] * z[j] * distance(i, j) ** b
    for i, j, k in itertools.combinations(range(count), 3):
        sides = sorted([distance(i, j), distance(i, k), distance(j, k)])
        for b in e3:
            weight = z[i] * z[j] * z[k]
            e3[b] += weight * np.prod(sides) ** b
            least[b] += weight * sides[0] ** b
            two[b] += weight * (sides[0] * sides[1]) ** b
    expected = {"d2_a1_b1": e3[1] / e2[1] ** 3, "d2_a1_b2": e3[1] / e2[2] ** 1.5, "multiplicity": count, "mass": 5.0}
    for b in (1, 2):
        expected |= {f"c1_b{b}": e2[b], f"c2_b{b}": e3[b] / e2[b] ** 2, f"d2_b{b}": e3[b] / e2[b] ** 3}
        expected |= {f"m2_b{b}": least[b] / e2[b], f"n2_b{b}": two[b] / e2[b] ** 2}
    found = jets.observables(momentum, rapidity, azimuth, 5.0)
    for name, value in expected.items():
        assert np.isclose(found[COLUMN[name]], value, rtol=1e-9), name


def test_simulated_jets_are_reproducible_and_physical() -> None:
    pytest.importorskip("fastjet", reason='no FastJet: pip install "bitfab[jets]"')
    pytest.importorskip("pythia8mc", reason='no Pythia 8: pip install "bitfab[jets]"')
    seen: list[int] = []
    values, labels = jets.generate(20, 5, seen.append)
    assert values.shape == (20, 16) and values.dtype == np.float32 and np.isfinite(values).all()
    assert np.array_equal(np.bincount(labels), [4] * 5) and labels.dtype == np.int64
    assert seen == list(range(1, 21))
    first, same, other = (jets.generate(1, seed)[0] for seed in (6, 6, 7))  # one class, as a Pythia takes 2 s to start
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    assert values[:, COLUMN["zlogz"]].max() <= 0 and values[:, COLUMN["c1_b0"]].max() < 0.5
    assert values[:, COLUMN["multiplicity"]].min() >= 1
    assert 60 < np.median(values[np.isin(labels, [2, 3]), COLUMN["mass"]]) < 110
    with pytest.raises(BitfabError, match=r"jets.generate: count=0, seed=5 is out of range: choose count >= 1"):
        jets.generate(0, 5)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastjet", None)
    with pytest.raises(BitfabError, match=r'^jets: Pythia 8 and FastJet, .*: pip install "bitfab\[jets\]"$'):
        jets.generate(1, 1)


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (1, -1), (1, 10**9)])
def test_arguments_out_of_range_are_named(count: int, seed: int) -> None:
    with pytest.raises(BitfabError, match=f"^jets.generate: count={count}, seed={seed} is out of range: choose"):
        jets.generate(count, seed)


GOOD: dict[str, Any] = {
    "x": np.zeros((3, 16), np.float32),
    "y": np.array([0, 4, 2], np.uint8),
    "names": np.array(jets.OBSERVABLES),
    "classes": np.array(jets.CLASSES),
}


def test_load_returns_what_was_saved(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **GOOD)
    values, labels = jets.load(tmp_path / "a.npz")
    assert np.array_equal(values, GOOD["x"]) and labels.tolist() == [0, 4, 2] and labels.dtype == np.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((3, 15), np.float32)}, r"x is float32 of shape \(3, 15\): observables are float32"),
        ({"x": np.zeros((3, 16))}, "x is float64"),
        ({"x": np.full((3, 16), np.nan, np.float32)}, "x holds a value of zlogz that is not finite"),
        ({"y": np.array([0, 5, 2])}, "y holds the label 5: there are 5 classes"),
        ({"y": np.zeros(4, np.int64)}, r"y is int64 of shape \(4,\)"),
        ({"names": np.array(jets.OBSERVABLES[::-1])}, "names are multiplicity, mass, .*: reorder the file to zlogz"),
        ({"classes": np.array(["t", "z", "w", "q", "g"])}, "classes are t, z, w, q, g: reorder the file to g, q"),
        ({"classes": np.array("g\nq")}, "classes are"),
    ],
)
def test_load_refuses_other_arrays(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **(GOOD | change))
    with pytest.raises(BitfabError, match=message) as caught:
        jets.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.skipif(not SHARED.exists(), reason="shared/data/jets is absent")
def test_the_shared_file_keeps_the_documented_relations() -> None:
    values, labels = jets.load(SHARED)
    column = {name: values[:, index].astype(float) for name, index in COLUMN.items()}
    assert len(labels) == len(values) and set(labels) == set(range(5))
    several = column["c1_b2"] > 1e-6
    ratio = (column["d2_b1"] * column["c1_b1"])[several] / np.maximum(column["c2_b1"][several], 1e-30)
    assert np.all((np.abs(ratio - 1) < 1e-3) | (ratio == 0)), "D2 = C2 / C1"
    e3 = column["d2_a1_b2"] * column["c1_b2"] ** 1.5
    assert np.allclose(e3[several], (column["d2_b1"] * column["c1_b1"] ** 3)[several], rtol=1e-3)
