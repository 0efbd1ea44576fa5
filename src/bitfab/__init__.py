"""bitfab turns a trained neural network into a verified FPGA design."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitfab.frontend.torch import capture
    from bitfab.quant import Override, Recipe, quantize

__all__ = ["Override", "Recipe", "capture", "quantize"]

# What a user types, and the module that defines it: imported on first use, so that `import bitfab` loads no torch.
_LAZY = {
    "Override": "bitfab.quant",
    "Recipe": "bitfab.quant",
    "capture": "bitfab.frontend.torch",
    "quantize": "bitfab.quant",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'bitfab' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
