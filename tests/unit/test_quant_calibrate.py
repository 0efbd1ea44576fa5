"""Calibration takes any iterable once, in constant memory, and says clearly what is wrong with it."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant import Recipe, calibrate, quantize
from bitfab.quant.calibrate import CHUNK, as_batches
from bitfab.quant.observers import MinMax, MovingAverage, Mse, Percentile


@pytest.fixture(scope="module")
def net() -> fx.GraphModule:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 1)), torch.zeros(1, 1, 6, 6))


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1, 6, 6)).astype(np.float32)


def test_all_forms_of_the_same_data_give_the_same_ranges(net: fx.GraphModule) -> None:
    data = _images(70)
    forms: list[Any] = [
        data,
        data.astype(np.float64),
        list(data),
        (image for image in data),
        torch.from_numpy(data).split(9),
        [data],
        np.asfortranarray(data)[None],
    ]
    ranges = [calibrate(net, form if form is not forms[-1] else list(form), Recipe()) for form in forms]
    for other in ranges[1:]:
        assert list(other) == list(ranges[0])
        for name, limits in other.items():  # convolutions of other batch sizes round otherwise
            assert limits == pytest.approx(ranges[0][name], rel=1e-5)


def test_vectors_have_their_own_rule(net: fx.GraphModule) -> None:
    assert [tuple(b.shape) for b in as_batches([np.zeros(5, np.float32), torch.zeros(3, 5)], net)] == [(1, 5), (3, 5)]


def test_large_batches_pass_in_chunks(net: fx.GraphModule) -> None:
    sizes = [len(batch) for batch in as_batches([_images(3 * CHUNK + 1)], net)]
    assert sizes == [CHUNK, CHUNK, CHUNK, 1]


def test_a_generator_is_read_once_and_never_held(net: fx.GraphModule) -> None:
    served = 0

    def batches() -> Iterator[np.ndarray]:
        nonlocal served
        for _ in range(20):
            served += 1
            yield _images(8)

    assert quantize(net, batches(), Recipe()).nodes
    assert served == 20


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse", "entropy"])
def test_memory_does_not_grow_with_the_data(net: fx.GraphModule, observer: Any) -> None:
    seen: list[weakref.ref[Tensor]] = []
    most = 0

    def batches() -> Iterator[Tensor]:
        nonlocal most
        for _ in range(30):
            batch = torch.randn(4, 1, 6, 6)
            seen.append(weakref.ref(batch))
            most = max(most, sum(reference() is not None for reference in seen))
            yield batch

    calibrate(net, batches(), Recipe(observer=observer))
    assert len(seen) == 30 and most <= 3


def test_observers_hold_nothing_of_the_data() -> None:
    for observer in (MinMax(), MovingAverage(), Percentile(99.9), Mse()):
        sizes = []
        for _ in range(3):
            observer.update(torch.randn(1000))
            sizes.append(len(pickle.dumps(vars(observer))))
        assert max(sizes) - min(sizes) < 64


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], "no data"),
        ([np.zeros((1, 1, 4, 4), np.float32)], "a single image"),
        (iter(()), "no data"),
        (5, "a int given; give an iterable"),
        ("images.npz", "a str given; give an iterable"),
        ([_images(2), _images(2)[:, :, :5]], r"item 1: shape \(1, 5, 6\), but the first item has \(1, 6, 6\)"),
        ([np.zeros((2, 1, 6, 6), np.uint8)], "item 0: an array of uint8 given"),
        ([torch.zeros(2, 1, 6, 6, dtype=torch.int64)], "item 0: a tensor of torch.int64 given"),
        ([(_images(2), 1)], "item 0: a tuple given"),
        ([np.zeros((0, 1, 6, 6), np.float32)], "item 0: shape .* not empty"),
        ([np.zeros((1, 1, 1, 6, 6), np.float32)], "item 0: shape"),
        ([_images(1), np.full((1, 1, 6, 6), np.nan)], "item 1: holds NaN or infinite"),
        ([np.zeros((4, 1, 6, 6), np.float32)], "input: its output is 0 for all 4 calibration images"),
        ([np.ones((4, 3, 6, 6), np.float32)], "cannot capture|expected input"),
    ],
)
def test_bad_data_is_one_clear_line(data: Any, expected: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(BitfabError, match=expected) as caught:
        quantize(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), data)
    assert "\n" not in str(caught.value)


def test_sick_weights_and_activations_are_named() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        net[0].bias[0] = float("nan")
    with pytest.raises(BitfabError, match=r"^0\.bias: holds NaN"):
        quantize(net, _images(4))
    with torch.no_grad():
        net[0].bias.fill_(-100)
    with pytest.raises(BitfabError, match=r"^1: its output is 0 for all 4 calibration images"):
        quantize(net, _images(4))
    with torch.no_grad():
        net[0].bias.fill_(1e38)
        net[2].weight.fill_(1e38)
    with pytest.raises(BitfabError, match=r"^2: NaN or infinite values in calibration[^\n]*$"):
        quantize(net, _images(4))


def test_a_normal_form_on_data_of_another_shape(net: fx.GraphModule) -> None:
    with pytest.raises(BitfabError, match=r"cannot take inputs of shape \(3, 6, 6\) \(Given groups=1[^\n]*$"):
        quantize(net, [np.zeros((4, 3, 6, 6), np.float32)])


def test_unknown_layer_in_the_recipe(net: fx.GraphModule) -> None:
    with pytest.raises(BitfabError, match=r"no layer matches 'conv9'; its layers are input, 0, 1, 2"):
        quantize(net, _images(4), Recipe(exclude=("conv9",)))


class Tokens(nn.Module):
    """A network over (N, T, F)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, tokens, features = x.shape
        return self.head(x.reshape(images, tokens * features))


@pytest.mark.parametrize(
    ("net", "shape"),
    [(Tokens(), (4, 5)), (nn.Sequential(nn.Conv1d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2)), (4, 5))],
    ids=["tokens", "signals"],
)
def test_batches_of_three_axes(net: nn.Module, shape: tuple[int, ...]) -> None:
    """(N, T, F) and (N, C, L), as one array or in batches, are as many inputs; a list of (C, H, W) is single images."""
    data = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    for given_as in (data, torch.from_numpy(data), [data[:4], data[4:]]):
        batches = list(as_batches(given_as, net))
        np.testing.assert_array_equal(torch.cat(batches).numpy(), data)
    graphs = [quantize(net, given_as) for given_as in (data, [data[:4], data[4:]])]
    assert graphs[0].inputs[0].shape == shape
    assert graphs[0].inputs[0].qparams == graphs[1].inputs[0].qparams
    images = _images(3)
    single = list(as_batches(list(images), nn.Conv2d(1, 2, 3)))
    assert [tuple(batch.shape) for batch in single] == [(1, 1, 6, 6)] * 3
    again = as_batches(data, net)
    assert as_batches(again, net) is again
