"""Rules for the quantizers of the four formats: QDQ and QCDQ, QOperator (ONNX's and onnxruntime's), and QONNX."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntType
from bitfab.frontend.onnx_quantized import pointwise, shapes, sums, windows
from bitfab.frontend.onnx_quantized.meaning import Const, Tensor, reals
from bitfab.frontend.onnx_quantized.pointwise import Rule
from bitfab.frontend.onnx_quantized.quantizers import IR_ROUNDINGS, ROUNDINGS, Grid, Ladder, bipolar, coded
from bitfab.frontend.onnx_quantized.step import Known, Step

Array = npt.NDArray[Any]

MAX_CODE_BITS = 16

SQUASHING = frozenset({"Softmax", "LogSoftmax", "QLinearSoftmax"})
"""Operators that are left out at the model's end, as they keep the order of values; and those that may follow them:"""
PASSING = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity"})
_ONNX_TYPES = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}


def _scales(step: Step, index: int) -> Array:
    """A scale: positive and finite."""
    scale = step.const(index).array
    if scale.size == 0 or not np.issubdtype(scale.dtype, np.floating) or not (np.isfinite(scale) & (scale > 0)).all():
        step.refuse(f"input {index} is no scale", "scales must be positive, finite floats")
    return scale


def _zeros(step: Step, index: int) -> Array:
    """A zero point as whole numbers in float64, 0 where it is left out."""
    array = step.array(index)
    zero = np.zeros(()) if array is None else np.asarray(array, dtype=np.float64)
    if zero.size == 0 or (zero != np.rint(zero)).any() or np.abs(zero).max() > 1 << MAX_CODE_BITS:
        step.refuse(f"input {index} is no zero point", "zero points must be whole numbers within the codes' type")
    return zero


def _along(step: Step, parameter: Array, rank: int, axis: int = 1) -> Array:
    """A parameter of one number, or of one for each entry of an axis, shaped to broadcast to an array of that rank."""
    if parameter.size == 1:
        return parameter.reshape((1,) * rank)
    if parameter.ndim != 1 or step.get("block_size", 0):
        step.refuse("quantizes in blocks", "quantize per tensor or per channel")
    if not -rank <= axis < rank:
        step.refuse(f"axis {axis} of {rank}", "name an axis that the tensor has")
    return parameter.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _one_zero(step: Step, zero: Array) -> int:
    if (zero != zero.reshape(-1)[0]).any():
        step.refuse("its zero point differs from channel to channel", "quantize activations with one zero point")
    return int(zero.reshape(-1)[0])


def _code_type(step: Step, zero: Array | None, output_dtype: int) -> IntType:
    """The integer type that the zero point or `output_dtype` names, unsigned 8 bits by default."""
    name = str(zero.dtype) if zero is not None else _ONNX_TYPES.get(output_dtype, "uint8" if not output_dtype else "")
    found = re.fullmatch(r"(u?)int(\d+)", name)
    if not found or int(found[2]) > MAX_CODE_BITS:
        step.refuse(f"codes of type {name or output_dtype}", "use integers of 2 to 16 bits")
    return IntType(int(found[2]), not found[1])


def _grid(step: Step, x: Tensor, scale: int, zero: int) -> Grid:
    """The quantizer of QuantizeLinear and of every QLinear operator: input numbers of its scale and zero point."""
    rank, axis = len(x.shape) + 1, int(step.get("axis", 1))
    type = _code_type(step, step.array(zero), int(step.get("output_dtype", 0)))
    zeros = _one_zero(step, _zeros(step, zero))
    values = step.per_channel(_along(step, _scales(step, scale), rank, axis), x.shape)
    if not type.low <= zeros <= type.high:
        step.refuse(f"zero point {zeros} is no {type}", "check the model")
    return Grid(values, zeros, type, type.low, type.high)


def _coded(step: Step, x: Tensor, scale: int, zero: int) -> Tensor:
    """The codes of a tensor, as the plain integers that ONNX takes them for."""
    grid = _grid(step, x, scale, zero)
    return replace(step.emitter.quantize(x, grid, step.name), scale=reals(1), offset=reals(0))


def _quantize_linear(step: Step) -> Known:
    x = step.given(0)
    if isinstance(x, Tensor):
        return _coded(step, step.tensor(0), 1, 2)
    array = step.const(0).array
    type = _code_type(step, step.array(2), int(step.get("output_dtype", 0)))
    grid = Grid(reals(1), 0, type, type.low, type.high)
    axis = int(step.get("axis", 1))
    scale, zero = (_along(step, part, array.ndim, axis) for part in (_scales(step, 1), _zeros(step, 2)))
    return Const(coded(array, scale, zero, grid))


def _dequantized(step: Step, x: Known, scale: int, zero: int, axis: int) -> Known:
    """`scale * (x - zero)` of codes."""
    scales, zeros = _scales(step, scale), _zeros(step, zero)
    if isinstance(x, Const):
        rank = x.array.ndim
        step_of = np.broadcast_to(_along(step, scales.astype(np.float64), rank, axis), x.array.shape)
        return Const((x.array.astype(np.float64) - _along(step, zeros, rank, axis)) * step_of, step_of)
    rank = len(x.shape) + 1
    a = step.per_channel(_along(step, scales, rank, axis), x.shape)
    b = step.per_channel(_along(step, zeros, rank, axis), x.shape)
    return x.affine(a, -a * b)


def _dequantize_linear(step: Step) -> Known:
    x = step.tensor(0) if isinstance(step.given(0), Tensor) else step.const(0)
    return _dequantized(step, x, 1, 2, int(step.get("axis", 1)))


def _real(step: Step, index: int, axis: int = 1) -> Known:
    """Inputs index to index + 2, codes and their scale and zero point, as reals."""
    x = step.tensor(index) if isinstance(step.given(index), Tensor) else step.const(index)
    return _dequantized(step, x, index + 1, index + 2, axis)


def _real_tensor(step: Step, index: int) -> Tensor:
    x = _real(step, index)
    return x if isinstance(x, Tensor) else step.tensor(index)


def _real_const(step: Step, index: int, axis: int) -> Const:
    x = _real(step, index, axis)
    return x if isinstance(x, Const) else step.const(index)


def _integer_bias(step: Step, index: int) -> Array | None:
    """The 32-bit bias of a QLinear layer, inputs 1 and 4 being its scales, as reals."""
    bias = step.array(index)
    if bias is None:
        return None
    row_scale = _scales(step, 4).astype(np.float64).reshape(-1)
    return np.asarray(bias, np.float64).reshape(-1) * row_scale * float(_scales(step, 1).reshape(-1)[0])


def _qlinear_conv(step: Step) -> Known:
    made = sums.convolution(step, _real_tensor(step, 0), _real_const(step, 3, 0), _integer_bias(step, 8))
    return _coded(step, made, 6, 7)


def _qlinear_matmul(step: Step) -> Known:
    weights = sums.transposed(_real_const(step, 3, 1))
    return _coded(step, sums.dense(step, _real_tensor(step, 0), weights, None), 6, 7)


def _qgemm(step: Step) -> Known:
    """onnxruntime's QGemm: `alpha * x @ w + c`, c of 32 bits at the scale alpha * s_x * s_w."""
    if step.get("transA", 0):
        step.refuse("transposes its input", "export it without transA")
    weights = _real_const(step, 3, 0 if step.get("transB", 0) else 1)
    weights = weights if step.get("transB", 0) else sums.transposed(weights)
    made = sums.dense(step, _real_tensor(step, 0), weights, _integer_bias(step, 6))
    made = made.affine(reals(float(step.get("alpha", 1.0))), reals(0))
    return made if step.given(7) is None else _coded(step, made, 7, 8)


def _shifted(step: Step, index: int, zero: int) -> Known:
    """Integers less their zero point: an operand of ConvInteger and MatMulInteger."""
    zeros = _zeros(step, zero)
    if isinstance(step.given(index), Tensor):
        return step.tensor(index).affine(reals(1), reals(-float(_one_zero(step, zeros))))
    array = np.asarray(step.const(index).array, dtype=np.float64)
    axis = 0 if step.node.op_type == "ConvInteger" else array.ndim - 1
    return Const(array - _along(step, zeros, array.ndim, axis), np.ones(array.shape))


def _conv_integer(step: Step) -> Known:
    x, weights = _shifted(step, 0, 2), _shifted(step, 1, 3)
    if not isinstance(x, Tensor) or not isinstance(weights, Const):
        step.refuse("weights that the model computes", "only constant weights are supported")
    return sums.convolution(step, x, weights, None)


def _matmul_integer(step: Step) -> Known:
    x, weights = _shifted(step, 0, 2), _shifted(step, 1, 3)
    if not isinstance(x, Tensor) or not isinstance(weights, Const):
        step.refuse("weights that the model computes", "only constant weights are supported")
    return sums.dense(step, x, sums.transposed(weights), None)


def _qlinear_add(step: Step) -> Known:
    a, b = _real(step, 0), _real(step, 3)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        made = step.emitter.total(a, b, step.name) if a.shape == b.shape else None
        if made is None:
            step.refuse("adds tensors of different shapes", "only constants are broadcast")
        return _coded(step, made, 6, 7)
    x, constant = (a, b) if isinstance(a, Tensor) else (b, a)
    if not isinstance(x, Tensor) or not isinstance(constant, Const):
        step.refuse("adds constants", "fold them before the export")
    return _coded(step, x.affine(reals(1), step.per_channel(constant.array, x.shape)), 6, 7)


def _qlinear_mul(step: Step) -> Known:
    a, b = _real(step, 0), _real(step, 3)
    x, constant = (a, b) if isinstance(a, Tensor) else (b, a)
    if not isinstance(x, Tensor) or not isinstance(constant, Const):
        step.refuse("multiplies two tensors", "only a constant can be a factor")
    return _coded(step, x.affine(step.per_channel(constant.array, x.shape), reals(0)), 6, 7)


def _qlinear_concat(step: Step) -> Known:
    """onnxruntime's: the output's scale and zero point, then codes, scale and zero point of each input."""
    parts = tuple(_real_tensor(step, i) for i in range(2, len(step.inputs), 3))
    if step.get("axis") != 1:
        step.refuse(f"joins along axis {step.get('axis')}", "only channels, axis 1, are joined")
    return _coded(step, shapes.joined(step, parts), 0, 1)


def _qlinear_pool(whole: bool) -> Rule:
    def rule(step: Step) -> Known:
        if step.get("channels_last", 0):
            step.refuse("channels come last", "export it with channels first")
        return _coded(step, windows.average(step, _real_tensor(step, 0), whole), 3, 4)

    return rule


def _qlinear_function(operator: str) -> Rule:
    def rule(step: Step) -> Known:
        return _coded(step, pointwise.function(step, _real_tensor(step, 0), operator), 3, 4)

    return rule


def passed(step: Step) -> Known:
    """The input of a node that is left out at the model's end, as reals."""
    return _real_tensor(step, 0) if step.node.op_type.startswith("QLinear") else step.tensor(0)


def _refused(reason: str, remedy: str) -> Rule:
    def rule(step: Step) -> Known:
        step.refuse(reason, remedy)

    return rule


def _quant_grid(step: Step, bits: Array, zero: int, scale: Array) -> Grid:
    """The codes of QONNX's Quant: signed or not, `narrow` without the lowest (signed) or the highest (unsigned)."""
    signed, narrow = bool(step.get("signed", 1)), bool(step.get("narrow", 1))
    width, rounding = _bits(step, bits), str(step.get("rounding_mode", "ROUND")).upper()
    if rounding not in ROUNDINGS:
        step.refuse(f"rounding mode {rounding}", f"known are {', '.join(sorted(ROUNDINGS))}")
    low = -(1 << (width - 1)) + narrow if signed else 0
    high = (1 << (width - 1)) - 1 if signed else (1 << width) - 1 - narrow
    if high <= low:
        step.refuse(f"{width} bits leave one code", "use more bits, or no narrow range")
    return Grid(scale.astype(np.float64), zero, IntType(width, signed), low, high, rounding, zero_first=True)


def _bits(step: Step, bits: Array) -> int:
    width = float(np.asarray(bits, dtype=np.float64).reshape(-1)[0]) if bits.size else 0.0
    if (bits != width).any() or width != int(width) or not 1 <= width <= MAX_CODE_BITS:
        step.refuse(f"codes of {width:g} bits", f"use 1 to {MAX_CODE_BITS} bits, as many for the whole tensor")
    return int(width)


def _quant(step: Step) -> Known:
    """QONNX's Quant: `(clip(round(x / scale + zero)) - zero) * scale`; one signed bit is the sign."""
    scale, zeros, bits = _scales(step, 1), _zeros(step, 2), step.const(3).array
    zero, x = _one_zero(step, zeros), step.given(0)
    if _bits(step, bits) == 1 and step.get("signed", 1):
        if zero:
            step.refuse("a sign with a zero point", "use zero point 0")
        return _bipolar(step)
    plain = _quant_grid(step, bits, zero, reals(1))
    if isinstance(x, Const):
        codes = coded(x.array, scale, zero, plain).astype(np.float64)
        return _stepped(step, codes - zero, scale)
    t = step.tensor(0, padded=plain.low <= zero <= plain.high)  # then the zeros around stay zeros
    grid = replace(plain, scale=step.per_channel(scale, t.shape))
    made = step.emitter.quantize(t, grid, step.name)
    return replace(made, pads=t.pads)


def _stepped(step: Step, codes: Array, scale: Array) -> Const:
    """A quantized constant of which the scale is known."""
    try:
        step_of = np.broadcast_to(scale.astype(np.float64), codes.shape)
    except ValueError:
        step.refuse(f"a scale of shape {scale.shape} does not fit {codes.shape}", "check the model")
    return Const(codes * step_of, step_of)


def _bipolar(step: Step) -> Known:
    """QONNX's BipolarQuant: `scale` where x >= 0, else `-scale`."""
    scale, x = _scales(step, 1), step.given(0)
    if isinstance(x, Const):
        return _stepped(step, np.where(x.array >= 0, 1.0, -1.0), scale)
    t = step.tensor(0)
    return step.emitter.quantize(t, bipolar(step.per_channel(scale, t.shape)), step.name)


def _trunc(step: Step) -> Known:
    """QONNX's Trunc: drops low bits of codes; version 2 (six inputs) clips and names the scale of the result."""
    newer, x = len(step.inputs) > 5, step.tensor(0)
    scale = step.per_channel(_scales(step, 1), x.shape)
    if _one_zero(step, _zeros(step, 2)):
        step.refuse("truncates around a zero point", "use zero point 0")
    bits, t = step.const(5 if newer else 4).array, step.settled(x)
    if newer:
        result = step.per_channel(_scales(step, 4), x.shape)
        coarse = scale * 2.0 ** np.rint(np.log2(result / scale))
    else:
        result, coarse = scale, scale * 2.0 ** (_bits(step, step.const(3).array) - _bits(step, bits))
    rounding = str(step.get("rounding_mode", "FLOOR")).upper()
    if rounding not in IR_ROUNDINGS:
        step.refuse(f"rounding mode {rounding}", f"supported are {', '.join(sorted(IR_ROUNDINGS))}")
    signed = bool(step.get("signed", 1)) if newer else step.emitter.known(t).low < 0
    type, narrow = IntType(_bits(step, bits), signed), newer and bool(step.get("narrow", 0))
    low, high = type.low + (narrow and signed), type.high - (narrow and not signed)
    made = step.emitter.quantize(t, Grid(coarse, 0, type, low, high, rounding), step.name)
    return replace(made, scale=result)


def _multi_threshold(step: Step) -> Known:
    """FINN's MultiThreshold: `out_scale * #{i : x >= thresholds[c, i]} + out_bias`."""
    x, thresholds = step.tensor(0), np.asarray(step.const(1).array, dtype=np.float64)
    scale, bias = float(step.get("out_scale", 1.0)), float(step.get("out_bias", 0.0))
    fits = thresholds.ndim == 2 and len(thresholds) in (1, x.shape[0]) and 0 < thresholds.shape[1] <= 1 << 8
    if not fits or not (np.diff(thresholds, axis=1) >= 0).all() or not scale > 0:
        step.refuse(f"thresholds of shape {thresholds.shape}", "each row must ascend, one row a channel, out_scale > 0")
    if step.get("data_layout", "") == "NHWC" and len(x.shape) > 1:
        step.refuse("channels come last", "export it with channels first")
    whole = (bias / scale).is_integer() and abs(bias / scale) < 1 << MAX_CODE_BITS
    low = int(bias / scale) if whole else 0
    ladder = Ladder(
        thresholds, IntType.holding(low, low + thresholds.shape[1]), low, reals(scale), reals(0.0 if whole else bias)
    )
    return step.emitter.quantize(x, ladder, step.name)


_AT_RUN_TIME = _refused("chooses its scale at run time", "quantize the model statically, with calibration data")

RULES: dict[str, Rule] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QGemm": _qgemm,
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
    "QLinearAdd": _qlinear_add,
    "QLinearMul": _qlinear_mul,
    "QLinearConcat": _qlinear_concat,
    "QLinearGlobalAveragePool": _qlinear_pool(whole=True),
    "QLinearAveragePool": _qlinear_pool(whole=False),
    "QLinearLeakyRelu": _qlinear_function("LeakyRelu"),
    "QLinearSigmoid": _qlinear_function("Sigmoid"),
    "QLinearSoftmax": pointwise.RULES["Softmax"],
    "Quant": _quant,
    "IntQuant": _quant,
    "BipolarQuant": _bipolar,
    "Trunc": _trunc,
    "MultiThreshold": _multi_threshold,
    "DynamicQuantizeLinear": _AT_RUN_TIME,
    "DynamicQuantizeMatMul": _AT_RUN_TIME,
    "FloatQuant": _refused("quantizes to floats", "use Quant"),
}
