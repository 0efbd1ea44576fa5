"""The SiPM frames: shapes and ranges, reproducible draws, the documented physics, and clear errors for bad files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfab.data import pulses
from bitfab.errors import BitfabError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "pulses" / "sipm_2000.npz"


@pytest.fixture(scope="module")
def generated() -> tuple[np.ndarray, np.ndarray]:
    return pulses.generate(4000, pulses.SPLIT_SEEDS["test"])


def test_generate_returns_balanced_frames_of_seven_bits(generated: tuple[np.ndarray, np.ndarray]) -> None:
    frames, labels = generated
    assert frames.shape == (4000, pulses.SAMPLES) and frames.dtype == np.uint8
    assert frames.min() == pulses.BASELINE and frames.max() == pulses.LEVELS - 1
    assert labels.shape == (4000,) and labels.dtype == np.int64
    assert set(labels) == {0, 1} and labels.sum() == 2000
    assert 0.4 < labels[::2].mean() < 0.6, "the classes must not alternate"


def test_a_shorter_set_is_a_prefix_of_a_longer_one(generated: tuple[np.ndarray, np.ndarray]) -> None:
    frames, labels = pulses.generate(2500, pulses.SPLIT_SEEDS["test"])
    assert np.array_equal(frames, generated[0][:2500]) and np.array_equal(labels, generated[1][:2500])
    assert not np.array_equal(frames, pulses.generate(2500, pulses.SPLIT_SEEDS["train"])[0])


def test_global_random_state_plays_no_part() -> None:
    np.random.seed(1)
    first = pulses.generate(10, 7)[0]
    state = np.random.get_state()[1].copy()
    assert np.array_equal(first, pulses.generate(10, 7)[0])
    assert np.array_equal(state, np.random.get_state()[1])


def test_lone_pulses_rise_at_once_and_decay_exponentially(generated: tuple[np.ndarray, np.ndarray]) -> None:
    frames, labels = generated
    light = frames[labels == 0].astype(float) - pulses.BASELINE
    assert np.all(light[:, :2] == 0), "nothing before the start"
    mean = light.mean(axis=0)
    assert 5 <= mean.argmax() <= 8, "r in 2.37..6.1 and d in 2.4..19.35 peak 2.4 to 10.4 samples after sample 1"
    assert np.all(np.diff(mean[8:]) <= 0)
    bright = light[light.max(axis=1) > 60]
    decay = -30 / np.log(bright[:, 50] / np.maximum(bright[:, 20], 1) + 1e-9)
    assert np.quantile(decay, 0.1) > 6 and np.quantile(decay, 0.95) < 20
    peaks = light.max(axis=1)
    assert np.allclose(np.quantile(peaks, [0.1, 0.5, 0.9]), [12, 53, 94], atol=4), "uniform in 2..105"


def test_two_pulses_lie_five_to_thirty_samples_apart() -> None:
    # With pulses that all rise and fall at once, a frame's upward steps are the pulses' starts.
    frames, labels = pulses.generate(4000, 1)
    rises = np.diff(frames[labels == 1].astype(int), 2) >= 4  # a kink upwards: a start, one sample before the rise
    last = np.array([np.flatnonzero(row).max(initial=0) + 1 for row in rises])
    offset = last[last > 1] - 1
    assert len(offset) > 800
    assert offset.min() >= pulses.OFFSETS[0] and offset.max() <= pulses.OFFSETS[1]
    assert np.bincount(offset, minlength=31)[5:31].min() > 0, "every offset occurs"
    lone = np.diff(frames[labels == 0].astype(int), 2)[:, 2:]
    assert lone.max() < 4, "a lone pulse has no second start"


def test_noise_has_the_asked_for_deviation() -> None:
    quiet, noisy = pulses.generate(500, 2)[0], pulses.generate(500, 2, noise=2.0)[0]
    tail = noisy[:, 120:].astype(float)
    assert np.all(quiet[:, 120:] <= pulses.BASELINE + 1)
    assert abs(tail.std() - 2.0) < 0.1 and abs(tail.mean() - (pulses.BASELINE - 0.5)) < 0.15


@pytest.mark.parametrize(
    "arguments", [(0, 1), (5, -1), (5, 1, -1.0), (5, 1, float("nan"))], ids=["count", "seed", "noise", "nan"]
)
def test_arguments_out_of_range_are_named(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(BitfabError, match=r"^pulses.generate: count=.* is out of range: choose [^\n]*$"):
        pulses.generate(*arguments)


def test_load_returns_what_was_saved(tmp_path: Path) -> None:
    frames, labels = pulses.generate(6, 1)
    np.savez_compressed(tmp_path / "a.npz", x=frames, y=labels.astype(np.uint8))
    loaded = pulses.load(tmp_path / "a.npz")
    assert np.array_equal(loaded[0], frames) and np.array_equal(loaded[1], labels)
    assert loaded[1].dtype == np.int64


FRAMES, LABELS = np.zeros((4, 128), np.uint8), np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": FRAMES}, "holds no array y"),
        ({"x": FRAMES[:, :64], "y": LABELS}, r"x is uint8 of shape \(4, 64\): frames are uint8 of shape \(N, 128\)"),
        ({"x": FRAMES.astype(float), "y": LABELS}, "x is float64"),
        ({"x": FRAMES[:0], "y": LABELS[:0]}, "N >= 1"),
        ({"x": FRAMES + np.uint8(128), "y": LABELS}, "x holds 128: samples have 7 bits"),
        ({"x": FRAMES, "y": LABELS[:3]}, r"y is int64 of shape \(3,\)"),
        ({"x": FRAMES, "y": LABELS.astype(float)}, "y is float64"),
        ({"x": FRAMES, "y": LABELS + 2}, "y holds the label 2: there are 2 classes"),
        ({"x": FRAMES, "y": LABELS - 1}, "y holds the label -1"),
        ({"x": np.array([{}], object), "y": LABELS}, "holds Python objects"),
    ],
)
def test_load_refuses_other_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(BitfabError, match=message) as caught:
        pulses.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04 cut"])
def test_load_refuses_what_is_no_npz_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BitfabError, match="no such file" if content is None else "unreadable"):
        pulses.load(path)


@pytest.mark.skipif(not SHARED.exists(), reason="shared/data/pulses is absent")
def test_generated_frames_look_like_those_of_the_independent_simulation(
    generated: tuple[np.ndarray, np.ndarray],
) -> None:
    frames, labels = pulses.load(SHARED)
    for label in (0, 1):
        theirs, ours = frames[labels == label], generated[0][generated[1] == label]
        assert np.abs(theirs.mean(axis=0) - ours.mean(axis=0)).max() < 6
        grid = [0.05, 0.25, 0.5, 0.75, 0.95]
        assert np.abs(np.quantile(theirs.max(axis=1), grid) - np.quantile(ours.max(axis=1), grid)).max() <= 8
