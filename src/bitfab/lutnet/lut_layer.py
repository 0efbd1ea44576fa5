"""A layer of truth tables that gradients can train: hard bits forward, finite differences and soft choices backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfab.ir.ops import Lut

SOFTNESS = 0.1  # temperature of the softmax over the bits that an input may be wired to


class LutLayer(nn.Module):
    """N truth tables over K bits each: (C, batch) to (N, batch), both of 0 and 1 as float32.

    An entry is 1 where its parameter is positive. The C bits are dealt at random to the K input positions. With
    `learned` wiring each input has a score for every bit of its position and takes that of the largest; without, it
    keeps one at random. (A choice among all bits took twice the time and was no better: jets, 250 tables, 68.0 % over
    two seeds against 68.8 %.) `harden` gives exactly what `forward` computes.
    """

    choices: Tensor
    weights: Tensor

    def __init__(self, bits: int, tables: int, fan_in: int, learned: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.fan_in = fan_in
        self.entries = nn.Parameter(2 * torch.rand(tables, 2**fan_in, generator=generator) - 1)
        size = -(-bits // fan_in) if learned else tables
        self.register_buffer("choices", _dealt(bits, fan_in * size, generator).view(fan_in, size))
        self.scores = nn.Parameter(torch.rand(fan_in, tables, size, generator=generator)) if learned else None
        self.register_buffer("weights", _difference_weights(fan_in), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The tables' bits for the bits x."""
        pins = x[self.choices] if self.scores is None else _Choose.apply(x, self.scores, self.choices)
        return _LookUp.apply(self.entries, pins, self.weights)

    @torch.no_grad()
    def confine(self) -> None:
        """Keep the entries within -1 and 1, so that none moves too far away to change its sign again."""
        self.entries.clamp_(-1, 1)

    def harden(self) -> Lut:
        """The operation of the integer graph."""
        wires = self.choices if self.scores is None else _wires(self.scores, self.choices)
        return Lut(wires.T.numpy().astype(np.int64), (self.entries > 0).numpy().astype(np.int64))


class _LookUp(torch.autograd.Function):
    """Entries (N, 2**K) at the addresses that the bits (K, N, batch) spell, as 0 and 1: (N, batch)."""

    @staticmethod
    def forward(ctx: Any, entries: Tensor, bits: Tensor, weights: Tensor) -> Tensor:
        address = torch.zeros(bits.shape[1:])
        for place, bit in enumerate(bits):
            address.add_(bit, alpha=2**place)
        address = address.long()
        ctx.save_for_backward(entries, address, weights)
        return (entries.gather(1, address) > 0).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient,) = gradients
        entries, address, weights = ctx.saved_tensors
        of_entries = torch.zeros_like(entries).scatter_add_(1, address, gradient)
        slopes = entries @ weights  # what each input does at each address, all at once
        of_bits = torch.stack([slope.gather(1, address) * gradient for slope in slopes])
        return of_entries, of_bits, None


class _Choose(torch.autograd.Function):
    """Bits (K, N, batch): those of x (C, batch) among the choices (K, M) that have the largest scores (K, N, M).

    Backward as if a softmax had mixed the choices; to x as it was chosen.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scores: Tensor, choices: Tensor) -> Tensor:
        wires = _wires(scores, choices)
        ctx.save_for_backward(x, scores, choices, wires)
        return x[wires]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (gradient,) = gradients
        x, scores, choices, wires = ctx.saved_tensors
        share = torch.softmax(scores / SOFTNESS, 2)
        wanted = gradient @ (2 * x - 1)[choices].transpose(1, 2)
        of_scores = share * (wanted - (share * wanted).sum(2, keepdim=True))
        if not ctx.needs_input_grad[0]:
            return None, of_scores, None
        return torch.zeros_like(x).index_add_(0, wires.flatten(), gradient.flatten(0, 1)), of_scores, None


def _wires(scores: Tensor, choices: Tensor) -> Tensor:
    """The bit that each input takes, (K, N)."""
    return choices.gather(1, scores.argmax(2))


def _difference_weights(fan_in: int) -> Tensor:
    """(K, 2**K, 2**K) weights [k, entry, address]: how much each entry counts in the slope of input k at an address.

    Extended finite differences (Bacellar et al. 2024, 2410.11112, section 3): an entry where input k is 1 counts
    positively, one where it is 0 negatively, each divided by 1 + the number of other inputs in which it differs.
    """
    codes = np.arange(2**fan_in)
    ones = codes[:, None] >> np.arange(fan_in) & 1
    differing = (ones[:, None] != ones).sum(2)
    others = [differing - (ones[:, None, k] != ones[:, k]) for k in range(fan_in)]
    weights = [(2 * ones[:, k, None] - 1) / (1 + distance) for k, distance in enumerate(others)]
    return torch.from_numpy(np.stack(weights).astype(np.float32))


def _dealt(bits: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the bits at random, each equally often as far as the numbers allow."""
    hands = [torch.randperm(bits, generator=generator) for _ in range(-(-count // bits))]
    return torch.cat(hands)[:count]
