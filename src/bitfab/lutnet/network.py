"""What a LUT network is: bits of the inputs, layers of truth tables, counts of ones; and its integer graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfab.dtypes import IntArray, IntType, QParams
from bitfab.errors import BitfabError
from bitfab.ir.graph import Builder, Graph
from bitfab.ir.ops import Bits, Compare, Lut, Popcount, Threshold, TopK
from bitfab.ir.verify import verify


@dataclass(frozen=True)
class Features:
    """What the network reads: `count` integers of one type, and what they mean (one scale, or one a feature)."""

    count: int
    type: IntType
    qparams: QParams | None = None


@dataclass(frozen=True, eq=False)
class LutNetwork:
    """Operations of the integer graph, one after the other; training, genetic or by gradients, makes new ones of these.

    The encoder gives B bits, each layer's tables read the bits before them, the head counts the ones of each class.
    Without `decision` the answer is the class with the largest count, the first of the largest; with it, the level that
    a single count reaches.
    """

    features: Features
    encoder: Compare | Bits
    layers: tuple[Lut, ...]
    head: Popcount
    decision: Threshold | None = None

    @property
    def classes(self) -> int:
        """How many answers there are."""
        return len(self.head.wiring) if self.decision is None else self.decision.thresholds.shape[1] + 1

    @property
    def tables(self) -> int:
        """Truth tables in all, before anything is removed."""
        return sum(len(layer.table) for layer in self.layers)


def lower(network: LutNetwork, name: str) -> Graph:
    """The integer graph: input `x` (features,), output (1,), the index of the answer.

    Nodes: encode, layer1 to layerN, count, decide. Raises BitfabError where wirings do not fit the bits before them.
    """
    builder = Builder(name)
    features = network.features
    bits = builder.input("x", (features.count,), features.type, features.qparams)
    bits = builder.add("encode", network.encoder, bits)
    for number, layer in enumerate(network.layers, 1):
        bits = builder.add(f"layer{number}", layer, bits)
    count = builder.add("count", network.head, bits)
    answer = builder.add("decide", network.decision or TopK(1), count)
    return verify(builder.build((answer,)))


def equal_groups(bits: int, classes: int) -> Popcount:
    """A head that counts the bits in `classes` groups of equal size, in order.

    Raises BitfabError where the bits cannot be shared out evenly; the message names the nearest numbers that can.
    """
    if bits < classes or bits % classes:
        below, above = bits // classes * classes, -(-bits // classes) * classes
        fitting = " or ".join(str(number) for number in dict.fromkeys((below, above)) if number)
        raise BitfabError(f"{bits} outputs cannot be shared evenly by {classes} classes; use {fitting}")
    return Popcount(np.arange(bits).reshape(classes, -1))


def check_labels(labels: IntArray, count: int, classes: int) -> IntArray:
    """The labels as int64 (count,), found to be 0 to classes - 1, one a sample. Raises BitfabError otherwise."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise BitfabError(f"labels {labels.dtype} {labels.shape}: one integer for each of the {count} samples expected")
    if count == 0:
        raise BitfabError("no samples given; training needs some of every class")
    if labels.min() < 0 or labels.max() >= classes:
        raise BitfabError(
            f"labels {labels.min()} to {labels.max()}: 0 to {classes - 1} expected; check the labels or the classes"
        )
    return labels.astype(np.int64)
