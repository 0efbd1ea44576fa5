"""The evaluation of LUT networks by torch, for a GPU: errors and loss of many individuals, equal to those of numpy."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from bitfab.dtypes import FloatArray
from bitfab.errors import BitfabError
from bitfab.lutnet import fitness
from bitfab.lutnet.fitness import Samples
from bitfab.lutnet.packed import tables_of_words, unpack
from bitfab.lutnet.search_space import Genes, size, take

if TYPE_CHECKING:
    from bitfab.lutnet.lut_space import LutSpace

HELD_BITS = 1 << 28  # outputs of one layer held at a time, a byte each


def measured(space: LutSpace, genes: Genes, samples: Samples) -> tuple[FloatArray, FloatArray]:
    """The share of errors and the loss on these samples, (individuals,) each, on `space.device`.

    Raises BitfabError for a GPU that is not there.
    """
    device = torch.device(space.device or "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BitfabError(f"device {space.device}: torch sees no GPU here; leave the device out")
    bits = torch.from_numpy(unpack(samples.planes, samples.count)).to(device)
    reach = 2 * (space.widths[-1] // space.classes) + 1
    values = torch.from_numpy(fitness.loss_table(reach, space.softness)).to(device)
    together = max(1, HELD_BITS // (max(space.widths) * samples.count))
    errors, losses = [], []
    for start in range(0, size(genes), together):
        margin = _margins(_counts(space, take(genes, slice(start, start + together)), bits), samples.bounds)
        errors.append((margin < 0).sum(dim=1))
        losses.append(values[margin + reach].sum(dim=1))
    error, loss = (torch.cat(parts).cpu().numpy() for parts in (errors, losses))
    return error / samples.count, loss / (fitness.LOSS_ONE * samples.count)


def _counts(space: LutSpace, genes: Genes, bits: torch.Tensor) -> torch.Tensor:
    """How many ones each class has, (individuals, classes, samples), for bits (C, samples)."""
    count, samples = size(genes), bits.shape[1]
    x = bits[None].expand(count, -1, -1)
    for layer, width in enumerate(space.widths):
        wiring = torch.from_numpy(genes[f"wiring{layer}"].astype(np.int64)).to(bits.device)
        entries = tables_of_words(genes[f"table{layer}"], space.fan_in).astype(np.uint8)
        rows = torch.arange(count, device=bits.device)[:, None]
        address = torch.zeros((count, width, samples), dtype=torch.int64, device=bits.device)
        for place in range(space.fan_in):
            address += x[rows, wiring[:, :, place]].long() << place
        x = torch.from_numpy(entries).to(bits.device).gather(2, address)
    return x.reshape(count, space.classes, -1, samples).sum(dim=2, dtype=torch.int64)


def _margins(counts: torch.Tensor, bounds: tuple[int, ...]) -> torch.Tensor:
    """`fitness.margins` of counts (individuals, classes, samples)."""
    parts = []
    for label, (start, stop) in enumerate(itertools.pairwise(bounds)):
        doubled = 2 * counts[:, :, start:stop]
        others = [doubled[:, other] + int(other < label) for other in range(counts.shape[1]) if other != label]
        parts.append(doubled[:, label] - torch.stack(others).amax(dim=0))
    return torch.cat(parts, dim=1)
