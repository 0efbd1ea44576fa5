"""AdaRound: each weight learns whether to round up or down, layer by layer.

Nagel et al. 2020 (2004.10568), with the asymmetric objective of its section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bitfab.quant.encodings import Encoding
from bitfab.quant.fold import Weighted
from bitfab.quant.plan import Plan
from bitfab.quant.recipe import AdaRound
from bitfab.quant.rounding import Affine, Rounding, learn
from bitfab.quant.simulate import Progress, Simulation, Twin
from bitfab.quant.weights import LayerWeights, layer_padding, two

SAMPLES = 4096  # output positions of a layer that it learns from, at most
SAMPLED_VALUES = 1 << 24  # input values in them, at most: bounds the memory of wide layers
BATCHES = (32, 256)  # positions in one iteration: as many as there are `BATCH_VALUES` of inputs, within these
BATCH_VALUES = 1 << 18


@dataclass(frozen=True)
class Samples:
    """Some output positions of one layer: what it reads there in the quantized network, what it gives in the float one.

    inputs (S, groups, I / groups * taps), targets (S, O), the bias included, before the activation.
    """

    inputs: Tensor
    targets: Tensor


def adaround(
    plan: Plan,
    weights: Mapping[str, LayerWeights],
    encodings: Mapping[str, Encoding],
    images: Tensor,
    options: AdaRound,
    progress: Progress | None = None,
) -> dict[str, LayerWeights]:
    """The weights with codes `floor(w / s)` or that plus one, whichever lessens the error of the layer's output most.

    Each layer minimizes `|f(w x) - f(w_q x_q)|^2`, f its activation, x the float network's input and x_q that of the
    quantized network, learned up to there, over sampled positions of the images (N, *shape). Scales and biases stay,
    and so do weights whose levels are not evenly spaced.
    Memory: four times the images at most, and the samples of one layer (at most 64 MiB of inputs).
    """
    learned = dict(weights)
    twin = Twin(Simulation(plan), Simulation(plan, weights, encodings), images)
    generator = torch.Generator().manual_seed(options.seed)
    layers = plan.weighted()
    for done, node in enumerate(layers):
        learned[node.name] = learn_layer(plan, node, learned[node.name], twin, len(images), options, generator)
        if progress:
            progress("adaround", done + 1, len(layers))
    return learned


def learn_layer(
    plan: Plan,
    node: fx.Node,
    weights: LayerWeights,
    twin: Twin,
    images: int,
    options: AdaRound,
    generator: torch.Generator,
) -> LayerWeights:
    """One layer's weights, learned by itself; the twin's quantized network has them from now on."""
    if not plan.recipes[node].evenly_spaced:
        return weights
    layer = plan.weighted()[node]
    samples = _sample(layer, twin.inputs(node), images, generator)
    size = min(max(BATCHES[0], min(BATCHES[1], BATCH_VALUES // samples.inputs[0].numel())), len(samples.targets))
    rounding = Rounding(layer, weights, plan.recipes[node])
    loss_of = _loss(samples, _activation(plan, node))
    (learned,) = learn([rounding], loss_of, len(samples.targets), size, options.iterations, generator)
    twin.coded.set_weights(node, learned)
    return learned


def _loss(samples: Samples, activation: Callable[[Tensor], Tensor]) -> Callable[[Sequence[Affine], Tensor], Tensor]:
    """The mean squared error of the layer's output at the samples chosen."""
    groups, targets = samples.inputs.shape[1], activation(samples.targets)

    def loss_of(layers: Sequence[Affine], chosen: Tensor) -> Tensor:
        ((weight, bias),) = layers
        x, weight = samples.inputs[chosen], weight.reshape(groups, -1, weight.shape[1])
        if weight.shape[1] == 1:  # depthwise: a product of matrices for each channel would be slow
            outputs = (x * weight[:, 0]).sum(2) + bias
        else:
            outputs = torch.einsum("sgk,gok->sgo", x, weight).flatten(1) + bias
        return (activation(outputs) - targets[chosen]).square().mean()

    return loss_of


def _activation(plan: Plan, node: fx.Node) -> Callable[[Tensor], Tensor]:
    fused = plan.fused.get(node)
    layer = plan.layers[fused] if fused is not None else nn.Identity()
    assert isinstance(layer, nn.Module)
    return layer


def _sample(
    layer: Weighted, inputs: Iterable[tuple[Tensor, Tensor]], images: int, generator: torch.Generator
) -> Samples:
    """As many random positions of each image as of any other."""
    found: list[tuple[Tensor, Tensor]] = []
    for real, coded in inputs:
        with torch.inference_mode():
            targets = layer(real).float()
            if isinstance(layer, nn.Linear):
                found.append((coded.float()[:, None], targets))
                continue
            count, area = len(real), targets.shape[2] * targets.shape[3]
            groups, taps = layer.groups, layer.weight[0, 0].numel()
            width = coded.shape[1] * taps
            each = max(1, min(area, SAMPLES // images, SAMPLED_VALUES // width // images))
            places = torch.stack([torch.randperm(area, generator=generator)[:each] for _ in range(count)])
            patches = _patches(layer, coded.float(), places, targets.shape[3])
            picked = targets.flatten(2).gather(2, places[:, None].expand(-1, targets.shape[1], -1))
            found.append((patches.reshape(count * each, groups, -1), picked.movedim(1, 2).flatten(0, 1)))
    return Samples(torch.cat([i.clone() for i, _ in found]), torch.cat([t.clone() for _, t in found]))


def _patches(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, places: Tensor, width: int) -> Tensor:
    """What the output positions (N, P), numbered row by row, read of x (N, C, H, W): (N, P, C, taps)."""
    kernel, dilation, stride = two(layer.kernel_size), two(layer.dilation), two(layer.stride)
    taps = [(i * dilation[0], j * dilation[1]) for i in range(kernel[0]) for j in range(kernel[1])]
    if isinstance(layer, nn.ConvTranspose2d):  # a convolution of stride 1, kernel turned round, over spread pixels
        spread = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)))
        spread[:, :, :: stride[0], :: stride[1]] = x
        (top, left), (more_h, more_w) = two(layer.padding), two(layer.output_padding)
        around = (kernel[0] - 1, kernel[1] - 1)
        x = F.pad(spread, (around[1] - left, around[1] - left + more_w, around[0] - top, around[0] - top + more_h))
        taps, stride = taps[::-1], (1, 1)
    else:
        top, left, bottom, right = layer_padding(layer)
        x = F.pad(x, (left, right, top, bottom))
    rows, columns = places // width * stride[0], places % width * stride[1]
    image = torch.arange(len(x))[:, None]
    return torch.stack([x[image, :, rows + i, columns + j] for i, j in taps], dim=-1)
