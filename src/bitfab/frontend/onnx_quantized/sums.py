"""Rules for convolutions and dense layers: exact sums of products that wait for their bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntArray
from bitfab.frontend.onnx_quantized.meaning import NO_PADS, Const, Reals, Sums, Tensor, reals
from bitfab.frontend.onnx_quantized.pointwise import Rule
from bitfab.frontend.onnx_quantized.step import Known, Step
from bitfab.frontend.onnx_quantized.windows import check_image, padding_of, pair, zero_code
from bitfab.ir import ops as ir
from bitfab.ir.infer import window_outputs

MAX_WEIGHT = 1 << 31


def convolution(step: Step, x: Tensor, weights: Const, bias: npt.NDArray[Any] | None) -> Tensor:
    """Conv of a quantized input and quantized weights (O, I / groups, KH, KW); the bias is of reals."""
    codes, row_scale = quantized_weights(step, weights, 4)
    t, pads, groups = step.settled(replace(x, pads=NO_PADS)), x.pads, int(step.get("group", 1))
    check_image(step, t)
    if groups < 1 or t.shape[0] != codes.shape[1] * groups or len(codes) % groups:
        step.refuse(f"weights {codes.shape} in {groups} groups for {t.shape[0]} channels", "check the model")
    kernel, strides, dilation = codes.shape[2:], pair(step, "strides"), pair(step, "dilations")
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    own = padding_of(step, t.shape, span, strides)
    padding = _sum(own, pads)
    t = _one_scale(step, t, groups)
    op = ir.Conv2d(
        codes, np.zeros(len(codes), np.int64), strides, padding, dilation, groups, zero_code(step, t, padding)
    )
    height, width = (window_outputs(t.shape[i + 1], span[i], strides[i], padding[i], padding[i + 2]) for i in range(2))
    per_group = np.repeat(np.arange(groups), len(codes) // groups)
    taps = codes.reshape(*codes.shape[:2], -1).sum(axis=2)
    channel = per_group[:, None] * codes.shape[1] + np.arange(codes.shape[1])
    offset = (taps * np.broadcast_to(t.offset, t.shape[0])[channel]).sum(axis=1)
    scale = np.broadcast_to(t.scale, t.shape[0])[channel[:, 0]]
    return _summed(step, op, t, (len(codes), height, width), row_scale, scale, offset, bias)


def transposed_convolution(step: Step, x: Tensor, weights: Const, bias: npt.NDArray[Any] | None) -> Tensor:
    """ConvTranspose of a quantized input and quantized weights (I, O / groups, KH, KW)."""
    groups = int(step.get("group", 1))
    rows = np.moveaxis(weights.array, 1, 0) if weights.array.ndim == 4 else weights.array
    step_rows = None if weights.step is None else np.moveaxis(weights.step, 1, 0)
    if groups != 1:
        step.refuse("a transposed convolution in groups", "use one group")
    moved, row_scale = quantized_weights(step, Const(rows, step_rows), 4)
    t = _one_scale(step, step.settled(x), 1)
    check_image(step, t)
    codes, strides = np.moveaxis(moved, 0, 1), pair(step, "strides")
    if pair(step, "dilations") != (1, 1) or step.get("output_shape") or step.get("auto_pad", "NOTSET") != "NOTSET":
        step.refuse("dilations, output_shape or auto_pad", "export explicit pads, dilations of 1 and no output_shape")
    more = tuple(step.get("output_padding", (0, 0)))
    top, left, bottom, right = step.get("pads", NO_PADS)
    padding = (top, left, bottom - more[0], right - more[1])
    op = ir.ConvTranspose2d(
        codes, np.zeros(codes.shape[1], np.int64), strides, padding, 1, zero_code(step, t, (1, 1, 1, 1))
    )
    size = [(t.shape[i + 1] - 1) * strides[i] + codes.shape[i + 2] - padding[i] - padding[i + 2] for i in range(2)]
    offset = codes.sum(axis=(0, 2, 3)) * t.offset[0]
    return _summed(step, op, t, (codes.shape[1], size[0], size[1]), row_scale, t.scale, offset, bias)


def dense(step: Step, x: Tensor, weights: Const, bias: npt.NDArray[Any] | None) -> Tensor:
    """MatMul or Gemm of a quantized vector and quantized weights, here (O, I)."""
    codes, row_scale = quantized_weights(step, weights, 2)
    t = step.settled(x)
    if t.shape != (codes.shape[1],):
        step.refuse(
            f"weights {codes.T.shape} for an input of shape {t.shape}", "only vectors are multiplied; flatten it"
        )
    if (t.scale != t.scale[0]).any():
        step.refuse("its input has a scale for each value", "quantize it per tensor")
    offset = (codes * np.broadcast_to(t.offset, t.shape[0])).sum(axis=1)
    op = ir.Dense(codes, np.zeros(len(codes), np.int64))
    return _summed(step, op, t, (len(codes),), row_scale, t.scale[:1], offset, bias)


def quantized_weights(step: Step, weights: Const, rank: int) -> tuple[IntArray, Reals]:
    """Weights as integers, output channels first, and each output channel's scale."""
    array = weights.array
    if array.ndim != rank or array.size == 0:
        step.refuse(f"weights of shape {array.shape}", f"{rank} axes are supported; reshape the layer")
    if weights.step is None and (not np.isfinite(array).all() or (array != np.rint(array)).any()):
        step.refuse("its weights are not quantized", "quantize them in the file, or import it as a float model")
    steps = np.ones(array.shape) if weights.step is None else weights.step
    rows = np.asarray(steps, dtype=np.float64).reshape(len(array), -1)
    if (rows != rows[:, :1]).any():
        step.refuse("its weights' scale differs within an output channel", "quantize per tensor or output channel")
    codes = np.rint(np.asarray(array, dtype=np.float64) / steps)
    if np.abs(codes).max() >= MAX_WEIGHT:
        step.refuse("its weights are beyond 32 bits", "quantize them to at most 16 bits")
    return codes.astype(np.int64), rows[:, 0]


def transposed(weights: Const) -> Const:
    """A matrix of weights (I, O) as (O, I)."""
    return Const(weights.array.T, None if weights.step is None else weights.step.T)


def _summed(
    step: Step,
    op: ir.Conv2d | ir.ConvTranspose2d | ir.Dense,
    t: Tensor,
    shape: ir.Shape,
    row_scale: Reals,
    scale: Reals,
    offset: Reals,
    bias: npt.NDArray[Any] | None,
) -> Tensor:
    """The tensor of a layer's sums: `row_scale * (scale * sums + offset) + bias`."""
    if bias is not None and bias.size not in (1, shape[0]):
        step.refuse(f"a bias of {bias.size} values for {shape[0]} outputs", "check the model")
    if min(shape) < 1:
        step.refuse("its kernel is larger than the image", "use larger images")
    total = row_scale * offset + (0.0 if bias is None else np.asarray(bias, dtype=np.float64).reshape(-1))
    if not np.isfinite(total).all():
        step.refuse("its bias is not finite", "check the model's parameters")
    sums = Sums(op, t.held, step.name)
    return Tensor(sums, shape, np.broadcast_to(row_scale * scale, shape[0]), np.broadcast_to(total, shape[0]))


def _sum(a: ir.Pads, b: ir.Pads) -> ir.Pads:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


def _one_scale(step: Step, t: Tensor, groups: int) -> Tensor:
    """The tensor itself, where each output of a layer in groups sees inputs of one scale."""
    if groups != t.shape[0] and (t.scale != t.scale[0]).any():
        step.refuse("its input has a scale for each channel", "quantize it per tensor")
    return t


def _conv(step: Step) -> Known:
    return convolution(step, step.tensor(0, padded=True), step.const(1), step.array(2))


def _conv_transpose(step: Step) -> Known:
    return transposed_convolution(step, step.tensor(0), step.const(1), step.array(2))


def _matmul(step: Step) -> Known:
    weights = step.const(1)
    return dense(step, step.tensor(0), transposed(weights), None)


def _gemm(step: Step) -> Known:
    """`alpha * x @ w + beta * c`, w transposed or not."""
    if step.get("transA", 0):
        step.refuse("transposes its input", "export it without transA")
    alpha, beta = float(step.get("alpha", 1.0)), float(step.get("beta", 1.0))
    weights = step.const(1) if step.get("transB", 0) else transposed(step.const(1))
    made = dense(step, step.tensor(0), weights, None)
    if alpha != 1:
        made = made.affine(reals(alpha), reals(0))
    bias = step.array(2)
    return made if bias is None else made.affine(reals(1), step.per_channel(np.asarray(bias * beta), made.shape))


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
}
