"""The indices of the largest channels, as a function of the float normal form."""

from __future__ import annotations

import torch
from torch import Tensor

from bitfab.frontend.calls import Call, Function, Steps, Unsupported


def top_k(x: Tensor, k: int) -> Tensor:
    """The indices (N, k, ...) int64 of the k largest along axis 1 of x (N, C, ...), the largest first.

    Of equal values the lower index comes first, as in the integer graph; `torch.topk` promises no order among them.
    """
    return torch.sort(x, dim=1, descending=True, stable=True).indices[:, :k]


def from_topk(call: Call) -> Steps:
    """The step for `torch.topk`; raises Unsupported where its values are read, and for axes other than the channels."""
    if any(item.args[1] == 0 and item.users for item in call.node.users):
        raise Unsupported("its values: use its indices alone")
    if not call["largest"]:
        raise Unsupported("of the smallest: negate the values before")
    if call.axis() != 1:
        raise Unsupported("only along the channels (dim=1)")
    return [Function(top_k, (call["k"],))]
