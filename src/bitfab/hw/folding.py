"""PE x SIMD folding: which are legal for a layer, and how one number spreads multipliers over a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.hw.design import Folding, Multiplier
from bitfab.ir.graph import Graph, Node, Value
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Multiply, Requantize
from bitfab.parts import Family, Operands

FOLDED = (Conv2d, ConvTranspose2d, Dense)  # operations whose multiplications fold
LANED = (Requantize, Multiply)  # operations with a multiplication a lane
NARROW = 8  # a product of operands with so many bits, multiplied, is a few LUTs: cheaper than a share of a DSP
OPERANDS = Family.ECP5.facts.operands  # of a DSP, where no part is named


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
    graph: Graph,
    input_channels: Mapping[str, int],
    parallelism: int,
    fixed: Mapping[str, Folding],
    operands: Operands = OPERANDS,
) -> dict[str, Folding]:
    """The foldings that make the slowest layer as fast as `parallelism` multipliers allow.

    What is in `fixed`, requantizers and products among it, keeps its own; every other layer gets the cheapest legal
    folding that keeps up with the slowest one. Where all layers are fixed, the budget does not matter.
    `operands`: what a DSP takes.
    Exact: all cycle counts that a layer can have are tried as the slowest one's, shortest first.
    Raises BitfabError where the budget is too small (the least is named), or a fixed folding is illegal.
    """
    layers = {node.name: node for node in graph if isinstance(node.op, FOLDED)}
    laned = {node.name for node in graph if isinstance(node.op, LANED)}
    for name in fixed:
        if name not in layers and name not in laned:
            foldable = ", ".join((*layers, *sorted(laned))) or "none"
            raise BitfabError(f"folding for {name!r}: no such layer; layers that fold are {foldable}")
    kept = {name: folding for name, folding in fixed.items() if name in laned}
    if layers.keys() <= fixed.keys():  # nothing to spread
        return {name: check(node, fixed[name], input_channels[name]) for name, node in layers.items()} | kept
    options = {
        name: [check(node, fixed[name], input_channels[name])]
        if name in fixed
        else _preferred(node, graph.values[node.inputs[0]].type, input_channels[name], operands)
        for name, node in layers.items()
    }
    paces = {name: [cycles(node, folding) for folding in options[name]] for name, node in layers.items()}
    slowest_allowed = max((min(pace) for pace in paces.values()), default=0)
    for pace in sorted({pace for column in paces.values() for pace in column if pace >= slowest_allowed}):
        chosen = {
            name: next(f for f, c in zip(options[name], paces[name], strict=True) if c <= pace) for name in layers
        }
        if sum(folding.multipliers for folding in chosen.values()) <= parallelism:
            return chosen | kept
    least = sum(options[name][0].multipliers for name in layers)
    if layers:
        raise BitfabError(
            f"parallelism {parallelism}: the layers need at least {least} multipliers; give {least} or more"
        )
    return kept


def legal(node: Node, input_channels: int) -> list[Folding]:
    """Every legal folding, fewest multipliers first; among equals the squarest."""
    ins, outs = channels(node, input_channels)
    foldings = [Folding(pe, simd) for pe in divisors(outs) for simd in divisors(ins)]
    return sorted(foldings, key=lambda f: (f.multipliers, abs(f.pe - f.simd), f.pe))


def _preferred(node: Node, x: IntType, input_channels: int, operands: Operands) -> list[Folding]:
    """The legal foldings; where two products share a DSP, of as many multipliers those of an even PE first."""
    packed = styled(node, x, Folding(2, 1), operands).multiplier is Multiplier.PACKED
    return sorted(legal(node, input_channels), key=lambda f: (f.multipliers, packed and f.pe % 2))


def weight_bits(node: Node) -> int:
    """Bits of a weight in hardware: of the narrowest two's complement type, at least 2; 1 where all are -1 or +1.

    A transposed convolution whose kernel is no multiple of its stride multiplies with zeros too.
    """
    assert isinstance(node.op, FOLDED)
    if node.op not in _weight_bits:
        _weight_bits[node.op] = _count_weight_bits(node.op)
    return _weight_bits[node.op]


_weight_bits: WeakKeyDictionary[Conv2d | ConvTranspose2d | Dense, int] = WeakKeyDictionary()  # asked a hundred times


def _count_weight_bits(op: Conv2d | ConvTranspose2d | Dense) -> int:
    whole = not isinstance(op, ConvTranspose2d) or all(
        size % stride == 0 for size, stride in zip(op.weight.shape[2:], op.stride, strict=True)
    )
    if whole and bool((np.abs(op.weight) == 1).all()):
        return 1
    return signed_bits(int(op.weight.min()), int(op.weight.max()))


def signed_bits(low: int, high: int) -> int:
    """Bits of the narrowest two's complement type that holds both, at least 2."""
    return max(2, (-low - 1).bit_length() + 1 if low < 0 else 1, high.bit_length() + 1)


def _packed(x: IntType, bits: int) -> Operands:
    """What a DSP must take for two weights of so many bits that meet the same `x`.

    Two weights side by side, the lower one's product in x.bits + bits bits, and one for the sum of the extremes: 25
    bits for 8 x 8. As Fu et al. (Xilinx WP486, 2017), who add up seven pairs in DSPs before they part them, and so need
    all of their 27 bits; here each pair is parted at once (rtl/products).
    """
    return x.bits + 2 * bits + 1, x.bits + (not x.signed)


def styles(node: Node, x: IntType, pe: int, operands: Operands = OPERANDS) -> tuple[Multiplier, ...]:
    """The multipliers that a layer which reads `x` may have: LUTs alone where a side is bipolar.

    Packed ones where an even number of outputs meets DSPs that are wide enough.
    """
    bits = weight_bits(node)
    if x.bipolar or bits == 1:
        return (Multiplier.LUTS,)
    (factor, value), (wider, narrower) = _packed(x, bits), operands
    packed = factor <= wider and value <= narrower and pe % 2 == 0
    return (Multiplier.DSP, *([Multiplier.PACKED] if packed else []), Multiplier.LUTS)


def styled(node: Node, x: IntType, folding: Folding, operands: Operands = OPERANDS) -> Folding:
    """The folding with its multiplier chosen, if it was open, for a layer that reads `x`, and such DSPs.

    LUTs where the part has no DSPs or the product is NARROW, two a DSP where that is possible, else a DSP each.
    A bipolar side takes no multiplier at all, whatever was asked for.
    Raises BitfabError where products cannot be packed.
    """
    legal = styles(node, x, folding.pe, operands)
    if folding.multiplier is Multiplier.PACKED and len(legal) == 2:
        (factor, value), (wider, narrower) = _packed(x, weight_bits(node)), operands
        raise BitfabError(
            f"{node.name}: two products a DSP need an even PE, and {factor}x{value} bits for two weights and an input; "
            f"PE is {folding.pe}, a DSP of this part takes {wider}x{narrower}: choose dsp or luts"
        )
    if len(legal) == 1 or operands == (0, 0) or x.bits * weight_bits(node) <= NARROW:
        chosen = Multiplier.LUTS
    else:
        chosen = Multiplier.PACKED if Multiplier.PACKED in legal else Multiplier.DSP
    return replace(folding, multiplier=chosen if len(legal) == 1 else folding.multiplier or chosen)


def factor_bits(op: Multiply, values: Sequence[Value]) -> tuple[int, int]:
    """Bits of a product's factors less their zero points: of the narrowest two's complement types, at least 2."""
    a, b = values
    first = signed_bits(a.low - op.first_zero, a.high - op.first_zero)
    return first, signed_bits(b.low - op.second_zero, b.high - op.second_zero)


def laned(
    node: Node, values: Sequence[Value], folding: Folding, channels: int, operands: Operands = OPERANDS
) -> Folding:
    """The folding of a requantizer or a product with its multiplier chosen, if it was open: `pe` lanes, which must
    divide the channels; DSPs or LUTs, these for NARROW products and factors of two bits."""
    if channels % folding.pe or folding.simd != 1 or folding.multiplier is Multiplier.PACKED:
        what = "requantizer" if isinstance(node.op, Requantize) else "product"
        raise BitfabError(
            f"{node.name}: folding {folding} is illegal; a {what} has SIMD 1, PE {_listed(channels)}, "
            "multiplier dsp or luts"
        )
    narrow = False
    if isinstance(node.op, Multiply):
        a, b = factor_bits(node.op, values)
        narrow = a * b <= NARROW or min(a, b) == 2
    chosen = Multiplier.LUTS if operands == (0, 0) or narrow else Multiplier.DSP
    return replace(folding, multiplier=folding.multiplier or chosen)


def _listed(n: int) -> str:
    return ", ".join(map(str, divisors(n)))
