"""Torch kernels of single bits: comparisons, bits of integers, truth tables and counts of ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bitfab.ir.graph import Value
from bitfab.ir.kernels.carrier import Kernel, carrier
from bitfab.ir.ops import Bits, Compare, Lut, Popcount


def compare(op: Compare, inputs: Sequence[Value], output: Value) -> Kernel:
    (x,) = inputs
    source = carrier(x)
    dtype = source.dtype if source.dtype.is_floating_point else torch.int16
    reached = np.clip(op.threshold.astype(np.int64), x.low, x.high + 1) - source.offset
    channel, threshold = torch.from_numpy(op.channel.astype(np.int64)), torch.from_numpy(reached).to(dtype)
    return lambda t: t[:, channel].to(dtype).ge(threshold).to(torch.uint8)


def bits(op: Bits, inputs: Sequence[Value], output: Value) -> Kernel:
    source = carrier(inputs[0])
    channel, place = (torch.from_numpy(indices.astype(np.int64)) for indices in (op.channel, op.place))
    return lambda t: (t[:, channel].to(torch.int64).add_(source.offset) >> place).bitwise_and_(1).to(torch.uint8)


def lut(op: Lut, inputs: Sequence[Value], output: Value) -> Kernel:
    """The address of every table in one buffer, one input after the other, then a single gather."""
    wiring = torch.from_numpy(op.wiring.astype(np.int64).T.copy())
    table = torch.from_numpy(op.table.astype(np.uint8).reshape(-1))
    first = torch.arange(len(op.table)) * op.table.shape[1]

    def kernel(t: Tensor) -> Tensor:
        address = first.expand(len(t), -1).clone()
        for place, column in enumerate(wiring):
            address.add_(t[:, column], alpha=1 << place)
        return torch.take(table, address)

    return kernel


def popcount(op: Popcount, inputs: Sequence[Value], output: Value) -> Kernel:
    """A matrix product with how often each bit is counted: float32 is exact, counts stay below 2**24."""
    counts = np.zeros((len(op.wiring), inputs[0].shape[0]), np.float32)
    for row, members in zip(counts, op.wiring, strict=True):
        np.add.at(row, members, 1)
    matrix, target = torch.from_numpy(counts.T.copy()), carrier(output)
    return lambda t: target.store(t.to(torch.float32) @ matrix)
