"""Quantization: calibrate a float network, choose scales, lower it to the integer graph."""

from bitfab.quant.analysis import Diagnosis, LayerSensitivity, Trial, debug, sensitivity
from bitfab.quant.calibrate import batch_norm_ranges, calibrate
from bitfab.quant.equalize import absorb_high_bias, equalize, replace_relu6
from bitfab.quant.fold import fold
from bitfab.quant.lower import Choices, Lowered, lower
from bitfab.quant.ptq import Quantized, choose, float_reference, layer_sqnr, quantize, quantize_with_reference
from bitfab.quant.recipe import AdaRound, BiasCorrection, ObserverKind, Override, Recipe

__all__ = [
    "AdaRound",
    "BiasCorrection",
    "Choices",
    "Diagnosis",
    "LayerSensitivity",
    "Lowered",
    "ObserverKind",
    "Override",
    "Quantized",
    "Recipe",
    "Trial",
    "absorb_high_bias",
    "batch_norm_ranges",
    "calibrate",
    "choose",
    "debug",
    "equalize",
    "float_reference",
    "fold",
    "layer_sqnr",
    "lower",
    "quantize",
    "quantize_with_reference",
    "replace_relu6",
    "sensitivity",
]
