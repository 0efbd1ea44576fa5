"""The product of two activations as a layer, so that it can be seen, named and quantized like any other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MatMul(nn.Module):
    """`a @ b` for a (..., M, K) and b (..., K, N): write it so in attention, and `quantize_mixed` makes it integer."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)
