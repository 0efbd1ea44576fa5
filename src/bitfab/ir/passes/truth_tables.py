"""Arithmetic of truth tables (N, 2**K) that the passes on single bits share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntArray
from bitfab.ir.graph import Graph
from bitfab.ir.ops import Lut, Popcount

Mask = npt.NDArray[np.bool_]


def places_read(table: IntArray) -> Mask:
    """Bool (N, K): whether the table's output depends on its place k at all."""
    count, entries = table.shape
    halves = [table.reshape(count, -1, 2, 1 << k) for k in range(entries.bit_length() - 1)]
    return np.stack([(half[:, :, 0] != half[:, :, 1]).any(axis=(1, 2)) for half in halves], axis=1)


def own_addresses(op: Lut) -> IntArray:
    """Every address of every table, int64 (N, 2**K), to be changed and handed to `readdressed`."""
    return np.tile(np.arange(op.table.shape[1], dtype=np.int64), (len(op.table), 1))


def readdressed(table: IntArray, address: IntArray) -> IntArray:
    """Tables that hold at entry a what the given ones hold at address[n, a]."""
    return np.take_along_axis(table, address, axis=1)


def sorted_places(op: Lut) -> tuple[Lut, IntArray]:
    """Equal functions as equal rows: the places a table reads come first, by wire; and the addresses it had before.

    A place that a table does not read is wired to the first bit it does read, that of a constant table to a bit that
    the layer reads anyway; K is the largest number of places that any table of the layer reads, at least 1.
    """
    read = places_read(op.table)
    count = read.sum(axis=1)
    fan_in = max(1, int(count.max()))
    order = np.argsort(np.where(read, op.wiring, np.iinfo(np.int64).max), axis=1, kind="stable")[:, :fan_in]
    entries = np.arange(1 << fan_in)
    address = np.zeros((len(order), len(entries)), dtype=np.int64)
    for place in range(fan_in):
        address |= (entries >> place & 1) << order[:, place, None]
    wiring = np.take_along_axis(op.wiring, order, axis=1)
    wiring[count == 0, 0] = op.wiring[read].min(initial=op.wiring.max()) if read.any() else 0
    wiring = np.where(np.arange(fan_in) < count[:, None], wiring, wiring[:, :1])
    return Lut(wiring, readdressed(op.table, address)), address


def read_as_bits_alone(graph: Graph, name: str) -> bool:
    """Whether single bits of the value may be renumbered: no output, and nothing but tables and counts reads it."""
    return name not in graph.outputs and all(isinstance(user.op, Lut | Popcount) for user in graph.users[name])


def rewired(op: Lut | Popcount, bits: IntArray) -> Lut | Popcount:
    """The operation reading bit bits[i] wherever it read bit i."""
    return replace(op, wiring=bits[op.wiring])
