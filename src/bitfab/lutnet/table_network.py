"""The table network: 2-bit weights block, pass, double or invert small unsigned activations; and its integer graph.

After "Quantization Effects of Artificial Neural Networks for Embedded Edge-Computing Applications" (HCL4BNN): no
multiplication anywhere, a weight is a table of two bits to three.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.ir.graph import Builder, Graph
from bitfab.ir.ops import Dense, Threshold, TopK
from bitfab.ir.verify import verify
from bitfab.lutnet.encode import Spacing
from bitfab.lutnet.network import Features

WEIGHTS = np.array([0, 1, 2, -1])  # what each mode multiplies by


class Mode(enum.IntEnum):
    """What a connection makes of an activation x, 0 to m."""

    BLOCK = 0  # 0
    PASS = 1  # x
    DOUBLE = 2  # 2 x
    INVERT = 3  # m - x


@dataclass(frozen=True, eq=False)
class TableNetwork:
    """Features become activations of b bits, 0 to m = 2**b - 1; each layer sums what its modes make of them.

    An activation is how many of m ascending thresholds its feature, or its neuron's sum, reaches. `levels` are the
    features' thresholds (features, m); `modes` one array (O, I) of `Mode` a layer; `thresholds` one array (O, m) for
    each layer but the last, whose neuron of the largest sum, the first of the largest, is the answer.
    """

    features: Features
    levels: IntArray
    modes: tuple[IntArray, ...]
    thresholds: tuple[IntArray, ...]

    @property
    def activation(self) -> IntType:
        """The type of an activation."""
        return IntType(int(self.levels.shape[1]).bit_length(), signed=False)

    @property
    def classes(self) -> int:
        """How many answers there are."""
        return len(self.modes[-1])

    @property
    def connections(self) -> int:
        """Connections that are not blocked."""
        return sum(int(np.count_nonzero(modes)) for modes in self.modes)


def input_levels(x: IntArray, bits: int = 2, spacing: Spacing = Spacing.QUANTILE) -> IntArray:
    """Thresholds (features, 2**bits - 1) that make integers x (samples, features) activations of `bits` bits.

    By quantiles each activation is equally frequent in x, as far as its values allow. Uniform ones cut the range seen
    of all features, widened to a power of two, into equal parts: of a converter that is used fully, these are its
    upper bits and cost no logic. Raises BitfabError for bits that are not 1 to 4 and for no samples.
    """
    x = np.asarray(x).astype(np.int64)
    if not 1 <= bits <= 4 or x.ndim != 2 or not x.size:
        raise BitfabError(f"{bits} bits, data of shape {x.shape}: 1 to 4 bits and (samples, features) expected")
    parts = np.arange(1, 1 << bits)
    if spacing is Spacing.QUANTILE:
        return np.quantile(x, parts / (1 << bits), axis=0, method="higher").T.astype(np.int64)
    type = IntType.holding(int(x.min()), int(x.max()))
    step = max(1, (type.high - type.low + 1) >> bits)
    return np.tile(type.low + step * parts, (x.shape[1], 1))


def lower(network: TableNetwork, name: str) -> Graph:
    """The integer graph: input `x` (features,), output (1,), the index of the answer.

    Nodes: encode, then sum1, activate1 to sumN, and decide. A connection that inverts is a weight of -1 with m in the
    bias. Raises BitfabError where the arrays do not fit each other.
    """
    check(network)
    builder, features, type = Builder(name), network.features, network.activation
    value = builder.input("x", (features.count,), features.type, features.qparams)
    value = builder.add("encode", Threshold(network.levels, type, 0), value)
    for number, modes in enumerate(network.modes, 1):
        value = builder.add(f"sum{number}", dense(modes, type.high), value)
        if number < len(network.modes):
            value = builder.add(f"activate{number}", Threshold(network.thresholds[number - 1], type, 0), value)
    answer = builder.add("decide", TopK(1), value)
    return verify(builder.build((answer,)))


def dense(modes: IntArray, highest: int) -> Dense:
    """One layer of modes (O, I) over activations 0 to `highest`."""
    return Dense(WEIGHTS[modes], highest * (modes == Mode.INVERT).sum(axis=1))


def check(network: TableNetwork) -> None:
    """Raises BitfabError, naming the layer, where shapes, modes or thresholds do not fit."""
    count, levels = network.levels.shape
    if count != network.features.count or levels + 1 != 1 << network.activation.bits:
        raise BitfabError(
            f"levels {network.levels.shape}: ({network.features.count}, 2**bits - 1) expected, one row a feature"
        )
    if not network.modes or len(network.thresholds) != len(network.modes) - 1:
        raise BitfabError(
            f"{len(network.modes)} layers with {len(network.thresholds)} arrays of thresholds:"
            " one for each layer but the last expected"
        )
    inputs = (count, *(len(modes) for modes in network.modes))
    for number, (modes, before) in enumerate(zip(network.modes, inputs, strict=False), 1):
        if modes.ndim != 2 or modes.shape[1] != before or modes.min() < 0 or modes.max() > Mode.INVERT:
            raise BitfabError(f"layer {number}: modes {modes.shape}, (neurons, {before}) of 0 to 3 expected")
    for number, (modes, thresholds) in enumerate(zip(network.modes, network.thresholds, strict=False), 1):
        if thresholds.shape != (len(modes), levels):
            raise BitfabError(f"layer {number}: thresholds {thresholds.shape}, {(len(modes), levels)} expected")
