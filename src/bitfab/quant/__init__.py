"""Quantization: calibrate a float network, choose scales, lower it to the integer graph."""

from bitfab.frontend.matmul import MatMul
from bitfab.quant.analysis import Diagnosis, LayerSensitivity, Trial, debug, sensitivity
from bitfab.quant.calibrate import batch_norm_ranges, calibrate
from bitfab.quant.data_free import DATA_FREE, quantize_without_data
from bitfab.quant.dynamic import quantize_dynamic, quantize_weight_only
from bitfab.quant.equalize import absorb_high_bias, equalize, replace_relu6
from bitfab.quant.float_formats import BF16, FP8_E4M3, FP8_E5M2, FP16, FloatFormat, float_bytes, reduce_floats
from bitfab.quant.fold import fold
from bitfab.quant.lower import Choices, Lowered, lower_choices
from bitfab.quant.lower_trained import lower, trained_choices
from bitfab.quant.mixed import Mixed, quantize_mixed, stored_bytes
from bitfab.quant.move_scales import Move, move_scales
from bitfab.quant.prepare import StepRule, prepare
from bitfab.quant.ptq import Quantized, choose, float_reference, layer_sqnr, quantize, quantize_with_reference
from bitfab.quant.recipe import AdaRound, BiasCorrection, ObserverKind, Override, Recipe, WeightLevels
from bitfab.quant.train import distillation, freeze_batch_norm, reestimate_batch_norm, train
from bitfab.quant.weights import weight_bytes

__all__ = [
    "BF16",
    "DATA_FREE",
    "FP8_E4M3",
    "FP8_E5M2",
    "FP16",
    "AdaRound",
    "BiasCorrection",
    "Choices",
    "Diagnosis",
    "FloatFormat",
    "LayerSensitivity",
    "Lowered",
    "MatMul",
    "Mixed",
    "Move",
    "ObserverKind",
    "Override",
    "Quantized",
    "Recipe",
    "StepRule",
    "Trial",
    "WeightLevels",
    "absorb_high_bias",
    "batch_norm_ranges",
    "calibrate",
    "choose",
    "debug",
    "distillation",
    "equalize",
    "float_bytes",
    "float_reference",
    "fold",
    "freeze_batch_norm",
    "layer_sqnr",
    "lower",
    "lower_choices",
    "move_scales",
    "prepare",
    "quantize",
    "quantize_dynamic",
    "quantize_mixed",
    "quantize_weight_only",
    "quantize_with_reference",
    "quantize_without_data",
    "reduce_floats",
    "reestimate_batch_norm",
    "replace_relu6",
    "sensitivity",
    "stored_bytes",
    "train",
    "trained_choices",
    "weight_bytes",
]
