"""PE x SIMD folding: which are legal for a layer, and how one number spreads multipliers over a network."""

from __future__ import annotations

from collections.abc import Mapping

from bitfab.errors import BitfabError
from bitfab.hw.design import Folding
from bitfab.ir.graph import Graph, Node
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense


def divisors(n: int) -> tuple[int, ...]:
    return tuple(d for d in range(1, n + 1) if n % d == 0)


def channels(node: Node, input_channels: int) -> tuple[int, int]:
    """(inputs, outputs) a group over which SIMD and PE may fold; a dense layer behind a flatten folds over channels."""
    match node.op:
        case Conv2d(weight=weight, groups=groups):
            return weight.shape[1], weight.shape[0] // groups
        case ConvTranspose2d(weight=weight, groups=groups):
            return weight.shape[0] // groups, weight.shape[1]
        case Dense(weight=weight):
            return input_channels, weight.shape[0]
    raise AssertionError(node.op)


def check(node: Node, folding: Folding, input_channels: int) -> Folding:
    """The folding itself if it is legal: SIMD divides the inputs and PE the outputs of a group.

    Raises BitfabError that names the legal ones.
    """
    ins, outs = channels(node, input_channels)
    if ins % folding.simd or outs % folding.pe:
        raise BitfabError(
            f"{node.name}: folding PE {folding.pe} x SIMD {folding.simd} is illegal; "
            f"PE may be {_listed(outs)}, SIMD may be {_listed(ins)}"
        )
    return folding


def cycles(node: Node, folding: Folding) -> int:
    """Cycles the layer multiplies for one image: products computed over products a cycle.

    A transposed convolution whose kernel is no multiple of its stride computes some products with zero.
    """
    op, output = node.op, node.output.shape
    pixels = output[1] * output[2] if len(output) == 3 else 1
    match op:
        case Conv2d(weight=weight):
            products = weight.size
        case ConvTranspose2d(weight=weight, stride=stride):
            taps = -(-weight.shape[2] // stride[0]) * -(-weight.shape[3] // stride[1])
            products = weight.shape[0] * weight.shape[1] * taps
        case Dense(weight=weight):
            products = weight.size
        case _:
            raise AssertionError(op)
    return pixels * int(products) // folding.multipliers


def choose(
    graph: Graph, input_channels: Mapping[str, int], parallelism: int, fixed: Mapping[str, Folding]
) -> dict[str, Folding]:
    """A folding for each multiplying layer so that all of them use at most `parallelism` multipliers.

    Greedy: the slowest layer grows to its next larger legal folding until it cannot or the budget is spent; layers
    in `fixed` keep what they are given. Wide SIMD is preferred to PE, since it needs fewer accumulators.
    Raises BitfabError where `parallelism` is below one multiplier a layer, or a fixed folding is illegal.
    """
    layers = {node.name: node for node in graph if isinstance(node.op, Conv2d | ConvTranspose2d | Dense)}
    for name in fixed:
        if name not in layers:
            raise BitfabError(f"folding for {name!r}: no such layer; layers that fold are {', '.join(layers)}")
    if parallelism < len(layers):
        raise BitfabError(
            f"parallelism {parallelism}: at least {len(layers)}, one multiplier for each layer, is needed"
        )
    chosen = {name: Folding(1, 1) for name in layers}
    chosen |= {name: check(layers[name], folding, input_channels[name]) for name, folding in fixed.items()}
    while True:
        slowest = max(layers, key=lambda name: cycles(layers[name], chosen[name]))
        if slowest in fixed:
            return chosen
        larger = _next(layers[slowest], chosen[slowest], input_channels[slowest])
        used = sum(folding.multipliers for folding in chosen.values())
        if larger is None or used + larger.multipliers - chosen[slowest].multipliers > parallelism:
            return chosen
        chosen[slowest] = larger


def _next(node: Node, folding: Folding, input_channels: int) -> Folding | None:
    """The legal folding with the fewest multipliers above the present number."""
    ins, outs = channels(node, input_channels)
    legal = [Folding(pe, simd) for pe in divisors(outs) for simd in divisors(ins)]
    larger = [f for f in legal if f.multipliers > folding.multipliers]
    return min(larger, key=lambda f: (f.multipliers, abs(f.pe - f.simd), f.pe), default=None)


def _listed(n: int) -> str:
    return ", ".join(map(str, divisors(n)))
