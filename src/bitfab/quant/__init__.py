"""Quantization: calibrate a float network, choose scales, lower it to the integer graph."""

from bitfab.quant.calibrate import calibrate
from bitfab.quant.fold import fold
from bitfab.quant.lower import Lowered, lower
from bitfab.quant.ptq import Quantized, float_reference, layer_sqnr, quantize, quantize_with_reference
from bitfab.quant.recipe import ObserverKind, Override, Recipe

__all__ = [
    "Lowered",
    "ObserverKind",
    "Override",
    "Quantized",
    "Recipe",
    "calibrate",
    "float_reference",
    "fold",
    "layer_sqnr",
    "lower",
    "quantize",
    "quantize_with_reference",
]
