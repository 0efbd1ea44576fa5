"""PE x SIMD folding: which are legal for a layer, and how one number spreads multipliers over a network."""

from __future__ import annotations

from collections.abc import Mapping

from bitfab.errors import BitfabError
from bitfab.hw.design import Folding
from bitfab.ir.graph import Graph, Node
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense

FOLDED = (Conv2d, ConvTranspose2d, Dense)  # operations whose multiplications fold


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
    """The foldings that make the slowest layer as fast as `parallelism` multipliers allow.

    Layers in `fixed` keep theirs; every other gets the cheapest legal folding that keeps up with the slowest one.
    Exact: all cycle counts that a layer can have are tried as the slowest one's, shortest first.
    Raises BitfabError where the budget is too small (the least is named), or a fixed folding is illegal.
    """
    layers = {node.name: node for node in graph if isinstance(node.op, FOLDED)}
    for name in fixed:
        if name not in layers:
            raise BitfabError(f"folding for {name!r}: no such layer; layers that fold are {', '.join(layers)}")
    options = {
        name: [check(node, fixed[name], input_channels[name])] if name in fixed else legal(node, input_channels[name])
        for name, node in layers.items()
    }
    paces = {name: [cycles(node, folding) for folding in options[name]] for name, node in layers.items()}
    slowest_allowed = max((min(pace) for pace in paces.values()), default=0)
    for pace in sorted({pace for column in paces.values() for pace in column if pace >= slowest_allowed}):
        chosen = {
            name: next(f for f, c in zip(options[name], paces[name], strict=True) if c <= pace) for name in layers
        }
        if sum(folding.multipliers for folding in chosen.values()) <= parallelism:
            return chosen
    least = sum(options[name][0].multipliers for name in layers)
    if layers:
        raise BitfabError(
            f"parallelism {parallelism}: the layers need at least {least} multipliers; give {least} or more"
        )
    return {}


def legal(node: Node, input_channels: int) -> list[Folding]:
    """Every legal folding, fewest multipliers first; among equals the squarest."""
    ins, outs = channels(node, input_channels)
    foldings = [Folding(pe, simd) for pe in divisors(outs) for simd in divisors(ins)]
    return sorted(foldings, key=lambda f: (f.multipliers, abs(f.pe - f.simd), f.pe))


def _listed(n: int) -> str:
    return ", ".join(map(str, divisors(n)))
