"""Per-channel scales moved from activations into the weights around them, the network's function unchanged."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.quant.mixed import Inputs, call

SMALLEST = 1e-5  # a channel below this fraction of the largest is left alone
TOLERANCE = 1e-3  # by which the function may change, relative to its largest value: float rounding


Layer = nn.LayerNorm | nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Move:
    """Scales that go round an activation: the outputs of one layer are divided by them, and others make up for it.

    All are names of layers. What `divided` puts out has, in the same order, the channels that all of `inputs` read, or
    those that meet the channels of `outputs` in a product (queries and keys).
    """

    divided: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def move_scales(
    net: nn.Module, calibration: Iterable[Inputs], moves: Iterable[Move], strength: float = 0.5
) -> nn.Module:
    """A copy of the same function, in which the channels of activations are more alike, and quantize better per tensor.

    For channel j of an activation with largest magnitude a_j that meets weights (or queries) with b_j:
    `s_j = a_j**strength / b_j**(1 - strength)`, normalised to a geometric mean of 1; the activation's producer is
    divided by s, its readers' input weights are multiplied by it (SmoothQuant, Xiao et al. 2023, 2211.10438, equation
    4). The producer is a LayerNorm, Linear or convolution (its outputs), with nothing between but what leaves scales of
    channels alone: ReLU, reshaping, or attention's weighted sum of values.

    Args:
        net: any module in eval mode; left as it is.
        calibration: inputs, as `quantize_mixed` takes them.
        moves: which activations; done in this order, with what the float network shows.
        strength: 0 to 1; 1 moves all differences into the weights.

    Raises:
        BitfabError: no calibration; a name that fits no such layer; or the function changed: something between two
            layers does not let scales pass.
    """
    items, moves = list(calibration), list(moves)
    if not items:
        raise BitfabError("move_scales: no calibration inputs; give a few that are typical, at least one")
    moved = copy.deepcopy(net)
    layers = {name: _layer(moved, name) for move in moves for name in (move.divided, *move.inputs, *move.outputs)}
    with torch.no_grad():
        before = _flat(call(moved, items[0]))
        seen = _largest(moved, items, layers)
        for move in moves:
            if {move.divided, *move.inputs, *move.outputs} <= set(seen):  # else calibration does not reach it
                _move(move, layers, seen, strength)
        after = _flat(call(moved, items[0]))
    error = float((after - before).abs().max() / before.abs().max().clamp(min=torch.finfo(before.dtype).tiny))
    if not error <= TOLERANCE:
        raise BitfabError(
            f"move_scales: the function changed by {error:.2g} of its largest value: scales cannot pass here"
        )
    return moved


@dataclass
class _Seen:
    """The largest magnitude of each channel that a layer reads, and of each that it puts out."""

    inputs: Tensor
    outputs: Tensor


def _largest(module: nn.Module, items: list[Inputs], layers: Mapping[str, Layer]) -> dict[str, _Seen]:
    seen: dict[str, _Seen] = {}
    with ExitStack() as stack:
        for name, layer in layers.items():

            def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                found = _Seen(_channels(layer, inputs[0]), _channels(layer, output))
                old = seen.get(name, found)
                seen[name] = _Seen(torch.maximum(found.inputs, old.inputs), torch.maximum(found.outputs, old.outputs))

            stack.callback(layer.register_forward_hook(hook).remove)
        for item in items:
            call(module, item)
    return seen


def _channels(layer: nn.Module, x: Tensor) -> Tensor:
    axis = 1 if isinstance(layer, nn.Conv2d) and x.ndim == 4 else 0 if isinstance(layer, nn.Conv2d) else -1
    return x.abs().movedim(axis, -1).flatten(0, -2).amax(0).double()


def _move(move: Move, layers: Mapping[str, Layer], seen: dict[str, _Seen], strength: float) -> None:
    read = [seen[name].inputs for name in move.inputs]
    activation = torch.stack(read or [seen[move.divided].outputs]).amax(0)
    weights = [layers[name].weight.detach().double().abs().transpose(0, 1).flatten(1).amax(1) for name in move.inputs]
    others = torch.stack(weights + [seen[name].outputs for name in move.outputs]).amax(0)
    alive = (activation > SMALLEST * activation.max()) & (others > SMALLEST * others.max())
    ratio = activation.clamp(min=1e-30) ** strength / others.clamp(min=1e-30) ** (1 - strength)
    logs = torch.where(alive, ratio.log(), 0)
    scales = torch.where(alive, (logs - logs.sum() / alive.sum().clamp(min=1)).exp(), 1)
    _scale_outputs(layers[move.divided], 1 / scales)
    for name in move.inputs:
        weight = layers[name].weight
        weight.copy_(weight.double() * scales.reshape(-1, *(1,) * (weight.ndim - 2)))
    for name in move.outputs:
        _scale_outputs(layers[name], scales)


def _scale_outputs(layer: Layer, factors: Tensor) -> None:
    for tensor in (layer.weight, layer.bias):
        if isinstance(tensor, Tensor):
            tensor.copy_(tensor.double() * factors.reshape(-1, *(1,) * (tensor.ndim - 1)))


def _layer(module: nn.Module, name: str) -> Layer:
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        raise BitfabError(f"move_scales: no layer is named '{name}'; see named_modules()") from None
    if not isinstance(layer, Layer) or layer.weight is None or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
        raise BitfabError(f"{name}: a {type(layer).__name__} takes no scales; give a LayerNorm, Linear or Conv2d")
    return layer


def _flat(result: object) -> Tensor:
    """All numbers of what a network put out."""
    if isinstance(result, Tensor):
        return result.flatten().double()
    parts = result.values() if isinstance(result, Mapping) else result
    assert isinstance(parts, Iterable)
    return torch.cat([_flat(part) for part in parts])
