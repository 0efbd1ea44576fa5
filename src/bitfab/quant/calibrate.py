"""Calibration: the folded float network sees the data once, and observers tell each activation's range."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bitfab.errors import BitfabError
from bitfab.quant.observers import MinMax, make_observer
from bitfab.quant.plan import check_module, make_plan
from bitfab.quant.recipe import ObserverKind, Recipe
from bitfab.quant.scales import Range
from bitfab.quant.statistics import propagate

NO_DATA = "calibration: no data; give at least one batch of typical inputs"
ONE_IMAGE = "calibration: a single image tells no ranges; give at least 2 (50 to 500 are usual)"
CHUNK = 32  # images that pass the network at once: bounds the memory whatever the batches' size


def calibrate(module: fx.GraphModule, batches: Iterable[Any], recipe: Recipe) -> Mapping[str, Range]:
    """The range [low, high] of each activation that gets codes of its own, by its node's name.

    Args:
        module: a folded normal form.
        batches: see `as_batches`; consumed once, and memory does not grow with their number.
        recipe: chooses the observers.

    Raises:
        BitfabError: NaN or infinite data or activations, fewer than two images, wrong shapes or types, an activation
            that is constant over all the data, a name in the recipe that fits no layer.
    """
    plan = make_plan(module, recipe)
    watched = plan.observed()
    observers = {
        target: make_observer(plan.recipes[node].observer, recipe.percentile) for node, target in watched.items()
    }
    watcher = _Watcher(module, observers)
    images = 0
    with torch.inference_mode():
        for batch in as_batches(batches, module):
            images += len(batch)
            _show(watcher, batch)
    if images < 2:
        raise BitfabError(ONE_IMAGE if images else NO_DATA)
    for target, observer in observers.items():
        if observer.low == observer.high:
            raise BitfabError(
                f"{target.meta['source']}: its output is {observer.low:g} for all {images} calibration images, so it "
                "has no range to quantize; give more varied data, or remove the layer"
            )
    told = (
        batch_norm_ranges(module) if any(r.observer is ObserverKind.BATCH_NORM for r in plan.recipes.values()) else {}
    )
    ranges = {}
    for node, target in watched.items():
        choice = plan.recipes[node]
        range_told = told.get(target.name) if choice.observer is ObserverKind.BATCH_NORM else None
        ranges[node.name] = range_told or observers[target].limits(choice.activations)
    return ranges


def batch_norm_ranges(module: fx.GraphModule) -> Mapping[str, Range]:
    """The range of each node's output that the folded batch norms tell, by its name (see `statistics.propagate`)."""
    known = propagate(module)
    return {node.name: (float(found.low.min()), float(found.high.max())) for node, found in known.items()}


def _show(watcher: _Watcher, batch: Tensor) -> None:
    try:
        # Channels last is what CPU convolutions are fastest on, by a third or more.
        watcher.run(batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch)
    except RuntimeError as error:
        shape, reason = tuple(batch.shape[1:]), str(error).splitlines()[0]
        raise BitfabError(f"calibration: the network cannot take inputs of shape {shape} ({reason})") from error


class _Watcher(fx.Interpreter):
    """Runs the network and shows each observed node's output to its observer."""

    def __init__(self, module: fx.GraphModule, observers: Mapping[fx.Node, MinMax]) -> None:
        super().__init__(module)
        self.extra_traceback = False  # else torch adds lines of its own to our message
        self.observers = observers

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.observers:
            try:
                channels_last = result.ndim == 4 and result.is_contiguous(memory_format=torch.channels_last)
                self.observers[n].update(result.movedim(1, -1) if channels_last else result)  # as it lies in memory
            except BitfabError as error:
                raise BitfabError(f"{n.meta['source']}: {error} in calibration; check the data and weights") from error
        return result


class Batches(Iterator[Tensor]):
    """Batches as `as_batches` makes them; given to it again they stay as they are."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = iter(batches)

    def __next__(self) -> Tensor:
        return next(self._batches)


def as_batches(data: Iterable[Any], net: nn.Module) -> Batches:
    """The data as finite float batches, (N, C, H, W), (N, F), (N, C, L) or (N, T, F), on the network's device.

    The first axis of an array or tensor given as a whole counts images, whatever follows. Else the items are numpy
    arrays or torch tensors of floats: one of 4 or 2 axes has a batch axis, one of 1 axis is a vector, and one of 3 axes
    is a single image (C, H, W) where the network takes (1, C, H, W), else a batch (N, C, L) or (N, T, F). All must
    agree with the first in shape, the batch axis aside. A batch has at most 32 images. Raises BitfabError otherwise.
    """
    check_module(net)
    if isinstance(data, Batches):
        return data
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise BitfabError(f"calibration: a {type(data).__name__} given; give an iterable of arrays or tensors")
    if isinstance(data, np.ndarray | Tensor) and data.ndim > 1:
        return Batches(_batches((data[place : place + 1] for place in range(len(data))), net, whole=True))
    return Batches(_batches(data, net, whole=False))


def _batches(items: Iterable[Any], net: nn.Module, whole: bool) -> Iterator[Tensor]:
    """The items as checked batches; `whole` says that each has a batch axis."""
    held = chain(net.parameters(), net.buffers())
    sample = next((tensor for tensor in held if tensor.is_floating_point()), torch.zeros(()))
    expected: tuple[int, ...] | None = None
    single: bool | None = None
    for position, item in enumerate(items):
        batch = _checked(item, f"calibration item {position}")
        if batch.ndim == 3 and single is None:
            single = not whole and _is_image(batch.to(sample.device, sample.dtype), net)
        if batch.ndim == 1 or (batch.ndim == 3 and single):
            batch = batch.unsqueeze(0)
        shape = tuple(batch.shape[1:])
        expected = expected or shape
        if shape != expected:
            raise BitfabError(f"calibration item {position}: shape {shape}, but the first item has {expected}")
        for part in batch.split(CHUNK):
            chunk = part.to(sample.device, sample.dtype)
            if not bool(torch.isfinite(chunk).all()):
                raise BitfabError(f"calibration item {position}: holds NaN or infinite values; clean the data")
            yield chunk


def _is_image(item: Tensor, net: nn.Module) -> bool:
    """Whether an item of 3 axes is one image and no batch: the network takes it with a batch axis, or not at all."""
    return _takes(net, item.unsqueeze(0)) or not _takes(net, item)


def _takes(net: nn.Module, batch: Tensor) -> bool:
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net(batch)
    except Exception:  # the user's own network raises what it likes; a real fault shows when it is captured
        return False
    finally:
        for module, training in modes.items():
            module.training = training
    return True


def _checked(item: Any, name: str) -> Tensor:
    if isinstance(item, np.ndarray) and np.issubdtype(item.dtype, np.floating):
        item = torch.tensor(item.astype(np.float64) if item.dtype.itemsize > 8 else item)
    if not isinstance(item, Tensor):
        kind = f"an array of {item.dtype}" if isinstance(item, np.ndarray) else f"a {type(item).__name__}"
        raise BitfabError(f"{name}: {kind} given; give arrays or tensors of floats, as the network takes them")
    if not item.is_floating_point():
        raise BitfabError(f"{name}: a tensor of {item.dtype} given; give floats, as the network takes them")
    if item.ndim not in (1, 2, 3, 4) or item.numel() == 0:
        raise BitfabError(f"{name}: shape {tuple(item.shape)}; give (N, C, H, W), (C, H, W), (N, F) or (F,), not empty")
    return item.detach()
