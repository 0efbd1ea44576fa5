"""bitfab turns a trained neural network into a verified FPGA design."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitfab.errors import BitfabError

if TYPE_CHECKING:
    from bitfab.export import export_onnx, export_tables
    from bitfab.flow import as_integers, build, demo
    from bitfab.frontend.one_dimension import Rows
    from bitfab.frontend.onnx import load_onnx
    from bitfab.frontend.onnx_quantized import load_quantized_onnx
    from bitfab.frontend.tflite import load_tflite
    from bitfab.frontend.tflite_quantized import load_quantized_tflite
    from bitfab.frontend.torch import capture
    from bitfab.hw import Folding, MemoryStyle, Multiplier, Target, generate
    from bitfab.hw.cost import estimate
    from bitfab.hw.fit import fit
    from bitfab.hw.loading import load_writes
    from bitfab.ir.run import run, trace
    from bitfab.ir.run_fast import run_fast
    from bitfab.ir.serialize import load, save
    from bitfab.lutnet.fit import LutRecipe, train_luts
    from bitfab.quant import (
        AdaRound,
        Override,
        Recipe,
        StepRule,
        debug,
        freeze_batch_norm,
        lower,
        prepare,
        quantize,
        quantize_dynamic,
        quantize_weight_only,
        quantize_without_data,
        train,
    )
    from bitfab.quant.mixed import quantize_mixed
    from bitfab.quant.mixed_precision import choose_bits

__all__ = [
    "AdaRound",
    "BitfabError",
    "Folding",
    "LutRecipe",
    "MemoryStyle",
    "Multiplier",
    "Override",
    "Recipe",
    "Rows",
    "StepRule",
    "Target",
    "as_integers",
    "build",
    "capture",
    "choose_bits",
    "debug",
    "demo",
    "estimate",
    "export_onnx",
    "export_tables",
    "fit",
    "freeze_batch_norm",
    "generate",
    "load",
    "load_onnx",
    "load_quantized_onnx",
    "load_quantized_tflite",
    "load_tflite",
    "load_writes",
    "lower",
    "prepare",
    "quantize",
    "quantize_dynamic",
    "quantize_mixed",
    "quantize_weight_only",
    "quantize_without_data",
    "run",
    "run_fast",
    "save",
    "trace",
    "train",
    "train_luts",
]

# What a user types, and the module that defines it: imported on first use, so that `import bitfab` loads no torch.
_LAZY = {
    "AdaRound": "bitfab.quant",
    "Folding": "bitfab.hw",
    "LutRecipe": "bitfab.lutnet.fit",
    "MemoryStyle": "bitfab.hw",
    "Multiplier": "bitfab.hw",
    "Override": "bitfab.quant",
    "Recipe": "bitfab.quant",
    "Rows": "bitfab.frontend.one_dimension",
    "StepRule": "bitfab.quant",
    "Target": "bitfab.hw",
    "as_integers": "bitfab.flow",
    "build": "bitfab.flow",
    "capture": "bitfab.frontend.torch",
    "choose_bits": "bitfab.quant.mixed_precision",
    "debug": "bitfab.quant",
    "demo": "bitfab.flow",
    "estimate": "bitfab.hw.cost",
    "export_onnx": "bitfab.export",
    "export_tables": "bitfab.export",
    "fit": "bitfab.hw.fit",
    "freeze_batch_norm": "bitfab.quant",
    "generate": "bitfab.hw",
    "load": "bitfab.ir.serialize",
    "load_onnx": "bitfab.frontend.onnx",
    "load_quantized_onnx": "bitfab.frontend.onnx_quantized",
    "load_quantized_tflite": "bitfab.frontend.tflite_quantized",
    "load_tflite": "bitfab.frontend.tflite",
    "load_writes": "bitfab.hw.loading",
    "lower": "bitfab.quant",
    "prepare": "bitfab.quant",
    "quantize": "bitfab.quant",
    "quantize_dynamic": "bitfab.quant",
    "quantize_mixed": "bitfab.quant.mixed",
    "quantize_weight_only": "bitfab.quant",
    "quantize_without_data": "bitfab.quant",
    "run": "bitfab.ir.run",
    "run_fast": "bitfab.ir.run_fast",
    "save": "bitfab.ir.serialize",
    "trace": "bitfab.ir.run",
    "train": "bitfab.quant",
    "train_luts": "bitfab.lutnet.fit",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'bitfab' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
