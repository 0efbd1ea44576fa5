"""The shipped reference networks, by name, with their trained weights.

    name        network                parameters   MMAC   dataset
    qubit-447   UNet((2, 4))                  447   0.93   bitfab.data.qubit
    qubit       UNet((4, 8, 16, 16))       20,165   8.45   bitfab.data.qubit
    digits      DigitsCNN()                 2,770   0.03   bitfab.data.digits
    pulses      mlp(128, 32, 2)             4,194   0.00   bitfab.data.pulses
    jets        mlp(16, 64, 32, 32, 5)      4,389   0.00   bitfab.data.jets
    mnist       mlp(784, 32, 10)           25,450   0.03   bitfab.data.mnist

The last three are the float references of LUT networks, which are integer graphs from the start: `load_graph`.
`weights/README.md` states where the weights come from; `python -m bitfab.zoo.train` trains them again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
from torch import nn

from bitfab.errors import BitfabError
from bitfab.ir.graph import Graph
from bitfab.ir.serialize import load as load_integers
from bitfab.zoo.digits_cnn import DigitsCNN
from bitfab.zoo.mlp import mlp
from bitfab.zoo.unet import UNet

__all__ = [
    "LUT_NETWORKS",
    "METADATA_KEY",
    "NETWORKS",
    "Network",
    "graph_path",
    "load",
    "load_graph",
    "provenance",
    "weights_path",
]

METADATA_KEY: Final = "bitfab"
"""The one metadata key of a weights file; its text is JSON (safetensors writes several keys in no fixed order)."""


@dataclass(frozen=True)
class Network:
    """A reference network: how to build it untrained, its dataset, and the shape of one input, (C, H, W) or (F,)."""

    build: Callable[[], nn.Module]
    dataset: str
    input_shape: tuple[int, ...]


NETWORKS: Final = {
    "qubit-447": Network(lambda: UNet((2, 4)), "qubit", (1, 64, 64)),
    "qubit": Network(lambda: UNet((4, 8, 16, 16)), "qubit", (1, 64, 64)),
    "digits": Network(DigitsCNN, "digits", (1, 8, 8)),
    "pulses": Network(lambda: mlp(128, 32, 2), "pulses", (128,)),
    "jets": Network(lambda: mlp(16, 64, 32, 32, 5), "jets", (16,)),
    "mnist": Network(lambda: mlp(784, 32, 10), "mnist", (784,)),
}
LUT_NETWORKS: Final = ("pulses", "jets", "mnist")
"""Those with a LUT network beside them."""


def load(name: str) -> nn.Module:
    """Return the network with its shipped weights, in eval mode, on the CPU.

    Raises:
        BitfabError: no network has this name.
    """
    path = weights_path(name)
    module = NETWORKS[name].build()
    module.load_state_dict(safetensors.torch.load_file(path))
    return module.eval()


def load_graph(name: str) -> Graph:
    """The shipped LUT network of that name.

    Raises:
        BitfabError: no LUT network has this name.
    """
    return load_integers(graph_path(name))


def graph_path(name: str) -> Path:
    """The file of a shipped LUT network. Raises BitfabError if none has this name."""
    if name not in LUT_NETWORKS:
        raise BitfabError(f"zoo: no LUT network is named {name!r}; choose one of {', '.join(LUT_NETWORKS)}")
    return Path(__file__).parent / "weights" / f"{name}-luts.safetensors"


def provenance(name: str) -> dict[str, Any]:
    """How the shipped weights were trained: seeds, schedule, and the scores reached on validation and test data."""
    with safetensors.safe_open(weights_path(name), framework="numpy") as file:
        record: dict[str, Any] = json.loads(file.metadata()[METADATA_KEY])
    return record


def weights_path(name: str) -> Path:
    """The file of the shipped weights. Raises BitfabError if no network has this name."""
    if name not in NETWORKS:
        raise BitfabError(f"zoo: no network is named {name!r}; choose one of {', '.join(NETWORKS)}")
    return Path(__file__).parent / "weights" / f"{name}.safetensors"
