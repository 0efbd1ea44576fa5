"""Quantized ONNX files (QDQ, QCDQ, QOperator, QONNX) straight to the integer graph."""

from bitfab.frontend.onnx_quantized.load import is_quantized, load_quantized_onnx

__all__ = ["is_quantized", "load_quantized_onnx"]
