"""Random LUT networks for tests."""

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.ir.graph import Graph
from bitfab.ir.ops import Bits, Compare, Lut, Popcount
from bitfab.lutnet.network import Features, LutNetwork, lower

INT5 = IntType(5, signed=True)


def lut_network(
    features: int = 6,
    type: IntType = INT5,
    bits: int = 24,
    layers: tuple[int, ...] = (20, 12),
    classes: int = 3,
    fan_in: int = 4,
    seed: int = 0,
    thermometer: bool = True,
    name: str = "lutnet",
) -> Graph:
    """Random wiring and tables: `bits` from the encoder, layers of so many tables, counted for `classes`."""
    random = np.random.default_rng(seed)
    channel = random.integers(0, features, bits)
    thresholds, places = random.integers(type.low + 1, type.high + 1, bits), random.integers(0, type.bits, bits)
    encoder = Compare(channel, thresholds) if thermometer else Bits(channel, places)
    tables, width = [], bits
    for size in layers:
        wiring = np.stack([random.choice(width, fan_in, replace=False) for _ in range(size)])
        tables.append(Lut(wiring, random.integers(0, 2, (size, 1 << fan_in))))
        width = size
    head = Popcount(random.permutation(width)[: width // classes * classes].reshape(classes, -1))
    return lower(LutNetwork(Features(features, type), encoder, tuple(tables), head), name)


def frames(graph: Graph, count: int, seed: int = 0) -> IntArray:
    """Random integers for the graph's input, (count, *shape)."""
    value = graph.inputs[0]
    return np.random.default_rng(seed).integers(value.low, value.high + 1, (count, *value.shape))
