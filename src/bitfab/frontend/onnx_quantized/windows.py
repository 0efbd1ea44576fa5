"""Rules for what moves a window over an image: pooling, padding, repeating pixels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bitfab.dtypes import QParams
from bitfab.frontend.onnx_quantized.meaning import NO_PADS, Tensor
from bitfab.frontend.onnx_quantized.pointwise import Rule
from bitfab.frontend.onnx_quantized.step import Known, Step
from bitfab.ir import ops as ir


def check_image(step: Step, t: Tensor) -> None:
    if len(t.shape) != 3:
        step.refuse(f"its input has shape {t.shape}", "only images (C, H, W) are supported")


def pair(step: Step, attribute: str, default: int = 1) -> ir.Pair:
    values = step.get(attribute, (default, default))
    if len(values) != 2 or min(values) < 1:
        step.refuse(f"{attribute} {list(values)}", "two positive numbers are supported: images have two axes")
    return int(values[0]), int(values[1])


def padding_of(step: Step, shape: ir.Shape, span: list[int], strides: ir.Pair) -> ir.Pads:
    """The padding of a window, written out where the file says SAME."""
    mode = step.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = step.get("pads", NO_PADS) if mode == "NOTSET" else NO_PADS
        if len(pads) != 4 or min(pads) < 0:
            step.refuse(f"pads {list(pads)}", "four numbers that are not negative are supported")
        return int(pads[0]), int(pads[1]), int(pads[2]), int(pads[3])
    ends = []
    for size, reach, stride in zip(shape[1:], span, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
        ends.append((total // 2, total - total // 2) if mode == "SAME_UPPER" else (total - total // 2, total // 2))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def zero_code(step: Step, t: Tensor, padding: ir.Pads) -> int:
    """The code of the real 0 that surrounds the image; 0 where nothing does."""
    if not any(padding):
        return 0
    zero = -t.offset / t.scale
    code, value = int(np.rint(zero[0])), step.emitter.known(t)
    if np.abs(zero - code).max() > 1e-6 or not value.type.low <= code <= value.type.high or value.type.bipolar:
        step.refuse("pads with 0, for which its input has no code", "use no padding, or a quantizer that has a 0")
    return code


def average(step: Step, x: Tensor, whole: bool) -> Tensor:
    """An average pool, over the `whole` image or the node's windows: an exact sum, the division is in the scale."""
    t = step.settled(x)
    check_image(step, t)
    if whole:
        kernel, strides, padding = (t.shape[1], t.shape[2]), (t.shape[1], t.shape[2]), NO_PADS
    else:
        kernel, strides, padding = _pool_window(step, t)
    if any(padding) and not step.get("count_include_pad", 0):
        step.refuse("averages without its padding", "use count_include_pad, or no padding")
    count = kernel[0] * kernel[1]
    op = ir.SumPool2d(kernel, strides, padding, zero_code(step, t, padding))
    codes = QParams(tuple(float(s) / count for s in t.scale))
    value = step.emitter.add(step.name, "pool", op, t.held, codes)
    return Tensor(value, step.emitter.builder.value(value).shape, t.scale / count, t.offset)


def _max_pool(step: Step) -> Known:
    x = step.emitter.integers(step.tensor(0))
    check_image(step, x)
    if not x.rising:
        step.refuse("the largest of values that fall with their codes", "put a quantizer before it")
    kernel, strides, padding = _pool_window(step, x)
    return step.emitter.moved(x, ir.MaxPool2d(kernel, strides, padding), step.name, "pool")


def _pool_window(step: Step, x: Tensor) -> tuple[ir.Pair, ir.Pair, ir.Pads]:
    if step.get("ceil_mode", 0) or pair(step, "dilations") != (1, 1) or step.get("storage_order", 0):
        step.refuse("ceil_mode, dilations or storage_order", "export it with the defaults of these")
    kernel, strides = pair(step, "kernel_shape"), pair(step, "strides")
    return kernel, strides, padding_of(step, x.shape, list(kernel), strides)


def _pad_node(step: Step) -> Known:
    """Zeros around an image, which the convolution that follows takes over."""
    x = step.tensor(0)
    check_image(step, x)
    pads, value = step.integers_of(1) or tuple(step.get("pads", ())), step.array(2)
    inner = value is not None and value.size and float(value.reshape(-1)[0]) != 0
    axes = step.integers_of(3)
    if step.get("mode", "constant") != "constant" or inner or len(pads) != 8 or axes is not None or min(pads) < 0:
        step.refuse("pads with something else than zeros around an image", "only that is supported")
    if pads[0] or pads[1] or pads[4] or pads[5]:
        step.refuse("pads the batch or the channels", "only images are padded")
    return replace(x, pads=(pads[2], pads[3], pads[6], pads[7]))


def _upsample(step: Step) -> Known:
    """Nearest neighbour by whole factors, with the coordinates for which it repeats pixels."""
    x = step.emitter.integers(step.tensor(0))
    check_image(step, x)
    index = 1 if step.node.op_type == "Upsample" else 2
    scales, sizes = step.array(index), step.integers_of(3)
    if sizes:
        factors = [new / old for new, old in zip(sizes, (step.batch, *x.shape), strict=True)]
    else:
        factors = [float(s) for s in (scales.reshape(-1) if scales is not None else step.get("scales", ()))]
    whole = len(factors) == 4 and factors[:2] == [1, 1] and all(f == int(f) >= 1 for f in factors)
    modes = (step.get("coordinate_transformation_mode", "asymmetric"), step.get("nearest_mode", "floor"))
    fits = modes in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "floor"))
    if not whole or not fits or step.get("mode", "nearest") != "nearest":
        step.refuse("resizes otherwise than by repeating pixels", "use mode nearest, asymmetric, floor, whole factors")
    return step.emitter.moved(x, ir.Upsample((int(factors[2]), int(factors[3]))), step.name, "upsample")


RULES: dict[str, Rule] = {
    "MaxPool": _max_pool,
    "AveragePool": lambda step: average(step, step.tensor(0), whole=False),
    "GlobalAveragePool": lambda step: average(step, step.tensor(0), whole=True),
    "Pad": _pad_node,
    "Resize": _upsample,
    "Upsample": _upsample,
}
