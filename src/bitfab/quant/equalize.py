"""Cross-layer equalization: the channels' weight ranges are evened out between neighbours, the function kept.

Nagel et al. 2019 (1906.04721), section 4; Nagel et al. 2021 (2106.08295), section 4.2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from bitfab.quant.fold import Weighted, per_input, per_output
from bitfab.quant.statistics import KEY

SWEEPS = 40  # at most, over all pairs; chains of n layers need a few times n
CONVERGED = 1e-3  # a sweep that changes no scale by more than this fraction is the last
DEAD = 1e-7  # a channel whose range is below this fraction of the layer's largest is left alone
ABSORBED_SIGMAS = 3.0  # values below mean - 3 std are left to chance (Nagel et al. 2019, section 4.1.3)

# They commute with a positive scale per channel: f(s * x) = s * f(x).
_HOMOGENEOUS = (
    nn.ReLU
    | nn.LeakyReLU
    | nn.ZeroPad2d
    | nn.MaxPool2d
    | nn.AvgPool2d
    | nn.AdaptiveAvgPool2d
    | nn.Upsample
    | nn.Flatten
)


Along = Callable[[Weighted, Tensor], Tensor]  # `per_output` or `per_input`


@dataclass(frozen=True)
class Pair:
    """Two weighted layers, the second alone reading the first through what lies `between`."""

    first: Weighted
    second: Weighted
    node: fx.Node  # of the first
    between: tuple[fx.Node, ...]


def equalize(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of a folded normal form, the same function, in which neighbours' weight ranges agree channel by channel.

    For each pair of layers joined by ReLU, LeakyReLU, pooling, padding, upsampling, flattening or nothing, whose
    channel i has the largest weights `r1` going in and `r2` coming out: `s = sqrt(r1 / r2)`, `w1 /= s`, `b1 /= s`,
    `w2 *= s`, until nothing moves. A ReLU6 does not commute with scales: its clip would have to differ from channel to
    channel, which no integer operation here does; such pairs are left as they are. (Putting ReLU in its place changes
    the function: EfficientNet-Lite0 then
    loses 30 points; see `replace_relu6`.)
    """
    module = copy.deepcopy(module)
    pairs = list(_pairs(module))
    for _ in range(SWEEPS):
        if max((_equalize_pair(pair) for pair in pairs), default=0.0) < CONVERGED:
            break
    return module


def replace_relu6(module: fx.GraphModule) -> fx.GraphModule:
    """A copy with ReLU in the place of each ReLU6, so that equalization can pass: another function, unless the network
    hardly ever reaches 6. Measure its accuracy first."""
    module = copy.deepcopy(module)
    for path, layer in list(module.named_modules()):
        if isinstance(layer, nn.ReLU6):
            module.set_submodule(path, nn.ReLU())
    return module


@torch.no_grad()
def absorb_high_bias(module: fx.GraphModule) -> fx.GraphModule:
    """A copy in which biases that keep a ReLU always open have moved to the next layer.

    `c = max(0, mean - 3 std)` of what enters the ReLU, known from batch norm: `b1 -= c`, `b2 += w2 @ c`; exact but for
    the 0.1 % of values below mean - 3 std. Only pairs joined by a ReLU alone, the second layer without zero padding:
    padding would have to become -c to stay exact. (Nagel et al. 2019, section 4.1.3.)
    """
    module = copy.deepcopy(module)
    for pair in _pairs(module):
        joined = [module.get_submodule(str(n.target)) for n in pair.between]
        known = pair.node.meta.get(KEY)
        if known is None or [type(layer) for layer in joined] != [nn.ReLU] or _pads(pair.second):
            continue
        excess = (known.mean - ABSORBED_SIGMAS * known.std).clamp(min=0)
        pair.node.meta[KEY] = known.affine(torch.ones_like(excess), -excess)
        moved = per_input(pair.second, excess) * pair.second.weight.double().cpu()
        _shift_bias(pair.first, -excess)
        _shift_bias(pair.second, _sum_per_output(pair.second, moved))
    return module


def _pairs(module: fx.GraphModule) -> Iterator[Pair]:
    for node in module.graph.nodes:
        first = _layer(module, node)
        if not isinstance(first, Weighted):
            continue
        between: list[fx.Node] = []
        reader = _sole_reader(node)
        while reader is not None and isinstance(_layer(module, reader), _HOMOGENEOUS):
            between.append(reader)
            reader = _sole_reader(reader)
        second = None if reader is None else _layer(module, reader)
        if isinstance(second, Weighted):
            yield Pair(first, second, node, tuple(between))


def _layer(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _sole_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


@torch.no_grad()
def _equalize_pair(pair: Pair) -> float:
    """Equalize one pair; the largest relative change of a scale."""
    outgoing, incoming = _ranges(pair.first, per_output), _ranges(pair.second, per_input)
    incoming = incoming.reshape(len(outgoing), -1).amax(1)  # a flattened channel is read by many inputs
    alive = (outgoing > DEAD * outgoing.max()) & (incoming > DEAD * incoming.max())
    scale = torch.where(alive, (outgoing / incoming).sqrt(), torch.ones_like(outgoing))
    _multiply(pair.first, per_output, 1 / scale)
    if pair.first.bias is not None:
        pair.first.bias.copy_(pair.first.bias / scale.to(pair.first.bias))
    _multiply(pair.second, per_input, scale.repeat_interleave(_inputs(pair.second) // len(scale)))
    known = pair.node.meta.get(KEY)
    if known is not None:
        pair.node.meta[KEY] = known.affine(1 / scale.cpu(), torch.zeros_like(scale.cpu()))
    return float((scale - 1).abs().max())


def _inputs(layer: Weighted) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _ranges(layer: Weighted, along: Along) -> Tensor:
    """The largest weight magnitude of each output channel (`per_output`) or input channel (`per_input`), float64."""
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    channels = outputs if along is per_output else _inputs(layer)
    index = along(layer, torch.arange(channels, device=layer.weight.device)).expand_as(layer.weight)
    largest = torch.zeros(channels, dtype=torch.float64, device=layer.weight.device)
    return largest.scatter_reduce(0, index.flatten(), layer.weight.double().abs().flatten(), "amax")


def _multiply(layer: Weighted, along: Along, factors: Tensor) -> None:
    layer.weight.copy_(layer.weight.double() * along(layer, factors))


def _sum_per_output(layer: Weighted, weight: Tensor) -> Tensor:
    """The sum of the weights (in the layer's own layout) of each output channel."""
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    index = per_output(layer, torch.arange(outputs)).expand_as(weight)
    return torch.zeros(outputs, dtype=weight.dtype).index_add(0, index.flatten(), weight.flatten())


def _shift_bias(layer: Weighted, shift: Tensor) -> None:
    shift = shift.to(layer.weight.device, layer.weight.dtype)
    layer.bias = nn.Parameter(shift if layer.bias is None else layer.bias + shift)


def _pads(layer: Weighted) -> bool:
    return not isinstance(layer, nn.Linear) and (
        layer.padding not in ((0, 0), "valid") or isinstance(layer, nn.ConvTranspose2d)
    )
