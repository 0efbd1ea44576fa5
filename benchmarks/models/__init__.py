"""The networks that the benchmarks train, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from benchmarks.models.cnv import cnv
from benchmarks.models.mlp import JETS, TFC, binary_mlp, mlp
from benchmarks.models.resnet import resnet8, resnet18_small

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "tfc": lambda: mlp(TFC),
    "jets": lambda: mlp(JETS),
    "binary mlp": binary_mlp,
    "resnet8": resnet8,
    "resnet18": resnet18_small,
    "cnv": cnv,
    "binary cnv": lambda: cnv(activation=nn.Hardtanh),
}
