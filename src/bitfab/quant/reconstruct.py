"""Block reconstruction: the layers of a block learn their rounding together, against the output of the block.

Li et al. 2021, BRECQ (2102.05426), without its weighting of errors by the loss; scales and biases learn along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from bitfab.quant.adaround import learn_layer
from bitfab.quant.encodings import Encoding
from bitfab.quant.fold import Weighted
from bitfab.quant.plan import Clipping, Plan, Unary
from bitfab.quant.recipe import AdaRound
from bitfab.quant.rounding import Affine, Rounding, learn
from bitfab.quant.simulate import Progress, Simulation, Twin, Values, parameters
from bitfab.quant.weights import LayerWeights

LAYERS = (3, 8)  # a block has as many layers with weights or more, and learns together up to so many
CROP = 32  # pixels: larger inputs of a block are cut to a random window of this side
CROPPED_VALUES = 1 << 25  # input values of all windows, at most: bounds the memory of blocks with many channels
BATCHES = (16, 256)  # windows in one iteration: as many as there are `BATCH_VALUES` of inputs, within these
BATCH_VALUES = 1 << 17
Local = nn.Conv2d | nn.ZeroPad2d | nn.MaxPool2d | nn.AvgPool2d | Clipping | Unary  # they work on images of any size

Block = tuple[fx.Node, ...]


def reconstruct(
    plan: Plan,
    weights: Mapping[str, LayerWeights],
    encodings: Mapping[str, Encoding],
    images: Tensor,
    options: AdaRound,
    progress: Progress | None = None,
) -> dict[str, LayerWeights]:
    """The weights of each block with the rounding, scales and biases that lessen the error of the block's output most.

    Each block minimizes `|f(x) - f_q(x_q)|^2`, f the float block, f_q the quantized one, x the float network's input
    and x_q that of the quantized network, learned up to there, over one window of each image (N, *shape). Within a
    block activations are not rounded. Scales of powers of two stay, and so do weights whose levels are not evenly
    spaced. Blocks of more than 8 layers that cannot be parted learn layer by layer.
    Memory: four times the images at most, the windows of one block (at most 128 MiB each in float, quantized and as
    target; a block with a dense layer keeps its whole inputs) and what training on a batch of 16 windows takes.
    """
    learned = dict(weights)
    twin = Twin(Simulation(plan), Simulation(plan, weights, encodings), images)
    generator = torch.Generator().manual_seed(options.seed)
    found = blocks(plan)
    for done, block in enumerate(found):
        nodes = [node for node in block if node in plan.weighted()]
        if len(nodes) > LAYERS[1]:
            for node in nodes:
                learned[node.name] = learn_layer(plan, node, learned[node.name], twin, len(images), options, generator)
        elif nodes:
            inputs = _windows(plan, block, twin.inputs(block[0]), len(images), generator)
            learned |= _learn_block(plan, block, learned, encodings, inputs, options, generator)
            for node in nodes:
                twin.coded.set_weights(node, learned[node.name])
        if progress:
            progress("block reconstruction", done + 1, len(found))
    return learned


def blocks(plan: Plan) -> list[Block]:
    """The nodes in order, parted where one value alone is alive, into shortest stretches of 3 layers or more.

    A residual connection is thus never cut. A layer and the activation fused with it stay together.
    """
    nodes, weighted = list(plan.layers), plan.weighted()
    position = {node: i for i, node in enumerate(nodes)}
    last = [max((position.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes]
    found: list[Block] = []
    block: list[fx.Node] = []
    for i, node in enumerate(nodes):
        if node.op == "placeholder":
            continue
        block.append(node)
        alone = [j for j in range(i + 1) if last[j] > i] == [i]
        if alone and node not in plan.fused and sum(n in weighted for n in block) >= LAYERS[0]:
            found.append(tuple(block))
            block = []
    if block and found and not any(node in weighted for node in block):
        found[-1] += tuple(block)
    elif block:
        found.append(tuple(block))
    return found


def _learn_block(
    plan: Plan,
    block: Block,
    weights: Mapping[str, LayerWeights],
    encodings: Mapping[str, Encoding],
    inputs: tuple[Tensor, Tensor],
    options: AdaRound,
    generator: torch.Generator,
) -> dict[str, LayerWeights]:
    """The block's weights by the names of their nodes; inputs (W, ...) in the float and in the quantized network."""
    real, coded = inputs
    fixed: dict[fx.Node, dict[str, Tensor]] = {}
    roundings: dict[fx.Node, Rounding] = {}
    for node in block:
        layer: Any = plan.layers[node]
        if node in plan.weighted() and not plan.recipes[node].evenly_spaced:
            fixed[node] = parameters(layer, weights[node.name])
        elif node in plan.weighted():
            step = encodings[node.name].qparams.scale[0]
            roundings[node] = Rounding(layer, weights[node.name], plan.recipes[node], step)
    if not roundings:
        return {}
    with torch.no_grad():
        targets = torch.cat([_run(plan, block, part, {}) for part in real.split(BATCHES[0])])

    def loss_of(layers: Sequence[Affine], chosen: Tensor) -> Tensor:
        held = {n: _held(plan.weighted()[n], *affine) for n, affine in zip(roundings, layers, strict=True)}
        return (_run(plan, block, coded[chosen], fixed | held) - targets[chosen]).square().mean()

    size = max(BATCHES[0], min(BATCHES[1], BATCH_VALUES // coded[0].numel(), len(coded)))
    found = learn(list(roundings.values()), loss_of, len(coded), size, options.iterations, generator)
    return {node.name: chosen for node, chosen in zip(roundings, found, strict=True)}


def _run(plan: Plan, block: Block, x: Tensor, held: Mapping[fx.Node, dict[str, Tensor]]) -> Tensor:
    """The output of the block's last node; layers in `held` use these parameters."""
    values: Values = {block[0].all_input_nodes[0]: x}
    for node in block:
        layer: Any = plan.layers[node]
        args = fx.map_arg(node.args, values.__getitem__)
        if node in held:
            values[node] = torch.func.functional_call(layer, held[node], args)
        else:
            values[node] = layer(*args, **node.kwargs)
    return values[block[-1]]


def _held(layer: Weighted, rows: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Weights (O, K) as the layer holds them, and its bias."""
    if isinstance(layer, nn.ConvTranspose2d):
        inputs, outputs, *kernel = layer.weight.shape
        grouped = rows.reshape(layer.groups, outputs, inputs // layer.groups, *kernel)
        return {"weight": grouped.swapaxes(1, 2).reshape(layer.weight.shape), "bias": bias}
    return {"weight": rows.reshape(layer.weight.shape), "bias": bias}


def _windows(
    plan: Plan,
    block: Block,
    inputs: Iterable[tuple[Tensor, Tensor]],
    images: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One window of each image's input to the block, the same one in the float and in the quantized network.

    A window is a smaller image: float block and quantized block both see it padded at its borders.
    """
    local = all(isinstance(plan.layers[node], Local) or plan.layers[node] is torch.add for node in block)
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in inputs:
        whole = pair[0].ndim != 4 or not local
        for i in range(len(pair[0])):
            cut = (lambda x: x) if whole else _window(pair[0], images, generator)
            for kept, values in zip(found, pair, strict=True):
                kept.append(cut(values[i : i + 1]).float().clone())
    real, coded = (torch.cat(kept) for kept in found)
    if real.ndim == 4:  # what CPU convolutions are fastest on
        real, coded = (x.contiguous(memory_format=torch.channels_last) for x in (real, coded))
    return real, coded


def _window(x: Tensor, images: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A random window of x (N, C, H, W)."""
    side = max(1, min(CROP, math.isqrt(CROPPED_VALUES // (images * x.shape[1]))))
    height, width = (min(side, length) for length in x.shape[2:])
    top, left = (
        int(torch.randint(length - size + 1, (), generator=generator))
        for length, size in zip(x.shape[2:], (height, width), strict=True)
    )
    return lambda values: values[:, :, top : top + height, left : left + width]
