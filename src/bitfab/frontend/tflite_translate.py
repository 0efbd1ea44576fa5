"""From the operators of a TFLite file to layers in bitfab's order of axes, checked against the file's shapes.

A flattened image is the one thing whose order of elements would differ: the columns of the dense layer behind it are
put into (C, H, W) order, and nothing else may read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError
from bitfab.frontend.tflite_file import Operator, Tensor, TfliteFile
from bitfab.frontend.tflite_layers import (
    CLIPS,
    UNARIES,
    Addition,
    Border,
    Convolution,
    Joining,
    Layer,
    Linear,
    Mean,
    Network,
    Pooling,
    Reshaping,
    Step,
    Transposed,
    Unary,
    Upsampling,
    label,
    shape_of,
)
from bitfab.ir.ops import Pads, Pair, Shape

__all__ = ["read_layers"]

ENDS = ("SOFTMAX", "LOG_SOFTMAX", "DEQUANTIZE")  # at the end of a network they change no decision


def read_layers(file: TfliteFile) -> Network:
    """The layers of a model; raises BitfabError for an operator that has none, and where shapes contradict."""
    reading = _Reading(file)
    try:
        outputs, left_off = _before_the_ends(file)
        steps = [reading.step(operator) for operator in _needed(file, outputs)]
        for output in outputs:
            if output in reading.flattened:
                raise BitfabError(
                    f"output {label(file, output)}: is a flattened image; end in the image or a dense layer"
                )
        return Network(file, tuple(steps), file.inputs, outputs, left_off)
    except BitfabError as error:
        raise BitfabError(f"{file.path}: {error}") from error


def _before_the_ends(file: TfliteFile) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The outputs before any final softmax and dequantize, and the kinds of what was left off."""
    producers = {operator.outputs[0]: operator for operator in file.operators}
    outputs, left_off = [], []
    for last in file.outputs:
        output = last
        while output in producers and producers[output].kind in ENDS:
            left_off.append(producers[output].kind)
            output = _data_inputs(producers[output])[0]
        outputs.append(output)
    return tuple(outputs), tuple(left_off)


def _data_inputs(operator: Operator) -> tuple[int, ...]:
    """The inputs that are no weights and no parameters."""
    first = 2 if operator.kind == "TRANSPOSE_CONV" else 0
    inputs = operator.inputs if operator.kind in ("ADD", "CONCATENATION") else operator.inputs[first : first + 1]
    if not inputs or -1 in inputs:
        raise BitfabError(f"{operator.kind}: lacks an input; the file is damaged, export it again")
    return inputs


def _needed(file: TfliteFile, outputs: Sequence[int]) -> list[Operator]:
    """The operators on which the outputs depend through data, in order."""
    wanted, needed = set(outputs), []
    for operator in reversed(file.operators):
        if operator.outputs[0] in wanted:
            needed.append(operator)
            if operator.kind in _RULES:
                wanted.update(_data_inputs(operator))
    return needed[::-1]


def _same(size: int, kernel: int, stride: int) -> Pair:
    """Pixels before and after: as many as make ceil(size / stride) windows fit, the odd one after."""
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


class _Reading:
    """Turns operators into layers one after the other; `flattened` are vectors in (H, W, C) order, with these sizes."""

    def __init__(self, file: TfliteFile) -> None:
        self.file = file
        self.flattened: dict[int, tuple[int, int, int]] = {}
        self.halves = {
            operator.outputs[0]: operator.inputs[0]
            for operator in file.operators
            if operator.kind == "DEQUANTIZE" and operator.inputs
        }

    def step(self, operator: Operator) -> Step:
        """The operator as a layer, its output's shape found to be what the file says."""
        output, kind = operator.outputs[0], operator.kind
        name = label(self.file, output)
        if kind not in _RULES:
            raise BitfabError(f"{name}: {kind} is not supported; supported are {', '.join(sorted(_RULES))}")
        inputs = _data_inputs(operator)
        if any(self.file.tensors[i].data is not None for i in inputs):
            raise BitfabError(f"{name}: {kind} of a constant is not supported; fold it into a layer's weights")
        try:
            if kind not in ("RESHAPE", "SQUEEZE", "FULLY_CONNECTED", *UNARIES):
                self.in_order(inputs)
            layer, shape = _RULES[kind](self, operator)
        except BitfabError as error:
            raise BitfabError(f"{name}: {error}") from error
        if shape != shape_of(self.file, output):
            raise BitfabError(f"{name}: the file says {shape_of(self.file, output)}, its layer gives {shape}")
        return Step(name, layer, inputs, output)

    def in_order(self, inputs: Sequence[int]) -> None:
        if any(i in self.flattened for i in inputs):
            raise BitfabError("reads a flattened image; only a dense layer can")

    def shape(self, number: int) -> Shape:
        return shape_of(self.file, number)

    def image(self, operator: Operator) -> tuple[int, int, int]:
        shape = self.shape(_data_inputs(operator)[0])
        if len(shape) != 3:
            raise BitfabError(f"{operator.kind} of shape {shape}; an image expected")
        return shape[0], shape[1], shape[2]

    def constant(self, operator: Operator, position: int, rank: int) -> Tensor:
        """A constant input; a float16 one that an operator widens comes as float32."""
        number = operator.inputs[position] if position < len(operator.inputs) else -1
        tensor = self.file.tensors[self.halves.get(number, number)] if number >= 0 else None
        if tensor is not None and tensor.data is not None and tensor.dtype == "float16":
            tensor = replace(tensor, dtype="float32", data=tensor.data.astype(np.float32))
        if tensor is None or tensor.data is None or tensor.data.ndim != rank or not tensor.data.size:
            what = f"input {position} of {operator.kind}"
            raise BitfabError(f"{what} must be a constant of {rank} axes; export the model with its weights")
        return tensor

    def integers(self, operator: Operator, position: int, rank: int) -> NDArray[Any]:
        """A constant input of integers."""
        data = self.constant(operator, position, rank).data
        if data is None or data.dtype.kind != "i":
            raise BitfabError(f"input {position} of {operator.kind} must be integers; the file is damaged")
        return data

    def bias(self, operator: Operator, outputs: int, position: int = 2) -> NDArray[Any] | None:
        if len(operator.inputs) <= position or operator.inputs[position] == -1:
            return None
        data = self.constant(operator, position, 1).data
        if data is None or data.shape != (outputs,):
            raise BitfabError(f"a bias for {outputs} outputs expected")
        return data

    def window(self, operator: Operator, kernel: Pair, dilation: Pair = (1, 1)) -> tuple[Pair, Pads, Pair]:
        """Stride, padding and size of the output."""
        _, *sizes = self.image(operator)
        stride = (int(operator.options["stride_h"]), int(operator.options["stride_w"]))
        if min(*stride, *dilation, *kernel) < 1:
            raise BitfabError(f"kernel {kernel}, stride {stride}, dilation {dilation}: must be positive")
        reach = [step * (taps - 1) + 1 for taps, step in zip(kernel, dilation, strict=True)]
        pads = [(0, 0), (0, 0)]
        if operator.options["padding"] == "SAME":
            pads = [_same(*axis) for axis in zip(sizes, reach, stride, strict=True)]
        fitting = zip(sizes, pads, reach, stride, strict=True)
        rows, columns = ((size + sum(pad) - taps) // step + 1 for size, pad, taps, step in fitting)
        return stride, (pads[0][0], pads[1][0], pads[0][1], pads[1][1]), (rows, columns)

    def convolution(self, operator: Operator) -> tuple[Layer, Shape]:
        tensor = self.constant(operator, 1, 4)
        assert tensor.data is not None
        channels, depthwise = self.image(operator)[0], operator.kind == "DEPTHWISE_CONV_2D"
        weight = tensor.data.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        outputs, per_group, *kernel = weight.shape
        groups = channels // per_group
        if groups * per_group != channels or outputs % groups or (depthwise and per_group != 1):
            raise BitfabError(f"weight of shape {tensor.data.shape} does not fit {channels} channels")
        dilation = (int(operator.options["dilation_h_factor"]), int(operator.options["dilation_w_factor"]))
        stride, padding, size = self.window(operator, (kernel[0], kernel[1]), dilation)
        bias = self.bias(operator, outputs)
        layer = Convolution(weight, bias, tensor, stride, padding, dilation, groups, _clip(operator))
        return layer, (outputs, *size)

    def transposed(self, operator: Operator) -> tuple[Layer, Shape]:
        """The convolution whose input would be this one's output tells the padding; the file tells the size."""
        tensor, (channels, *sizes) = self.constant(operator, 1, 4), self.image(operator)
        assert tensor.data is not None
        weight = tensor.data.transpose(3, 0, 1, 2)
        ins, outputs, *kernel = weight.shape
        if ins != channels:
            raise BitfabError(f"weight of shape {tensor.data.shape} does not fit {channels} channels")
        after = self.shape(operator.outputs[0])
        stride = (int(operator.options["stride_h"]), int(operator.options["stride_w"]))
        if len(after) != 3 or min(stride) < 1:
            raise BitfabError(
                f"TRANSPOSE_CONV of stride {stride} to shape {after}: an image and positive strides expected"
            )
        same = operator.options["padding"] == "SAME"
        top, left = (_same(*axis)[0] if same else 0 for axis in zip(after[1:], kernel, stride, strict=True))
        full = [(size - 1) * step + taps for size, step, taps in zip(sizes, stride, kernel, strict=True)]
        padding = (top, left, full[0] - after[1] - top, full[1] - after[2] - left)
        reach = zip(padding[2:], stride, kernel, strict=True)
        if not all(-step < crop < taps for crop, step, taps in reach):
            raise BitfabError(
                f"TRANSPOSE_CONV from {sizes} to {after[1:]}: not what stride {stride} and kernel {kernel} give"
            )
        layer = Transposed(weight, self.bias(operator, outputs, 3), tensor, stride, padding, _clip(operator))
        return layer, (outputs, after[1], after[2])

    def linear(self, operator: Operator) -> tuple[Layer, Shape]:
        tensor, source = self.constant(operator, 1, 2), operator.inputs[0]
        assert tensor.data is not None
        weight, shape = tensor.data, self.shape(source)
        outputs, columns = weight.shape
        if columns != math.prod(shape) or operator.options["weights_format"] != 0:
            raise BitfabError(f"weight of shape {weight.shape} does not fit an input of shape {shape}")
        order = self.flattened.get(source) or ((*shape[1:], shape[0]) if len(shape) == 3 else None)
        if order is not None:
            weight = weight.reshape(outputs, *order).transpose(0, 3, 1, 2).reshape(outputs, columns)
        return Linear(weight, self.bias(operator, outputs), tensor, _clip(operator)), (outputs,)

    def pooling(self, operator: Operator) -> tuple[Layer, Shape]:
        kernel = (int(operator.options["filter_height"]), int(operator.options["filter_width"]))
        stride, padding, size = self.window(operator, kernel)
        layer = Pooling(operator.kind == "MAX_POOL_2D", kernel, stride, padding, _clip(operator))
        return layer, (self.image(operator)[0], *size)

    def mean(self, operator: Operator) -> tuple[Layer, Shape]:
        axes = self.integers(operator, 1, 1)
        channels, keeps = self.image(operator)[0], bool(operator.options["keep_dims"])
        if sorted(int(axis) % 4 for axis in axes) != [1, 2]:
            raise BitfabError(f"MEAN over axes {axes.tolist()}; only over (1, 2), the pixels of an image")
        return Mean(keeps), (channels, 1, 1) if keeps else (channels,)

    def addition(self, operator: Operator) -> tuple[Layer, Shape]:
        shapes = [self.shape(i) for i in operator.inputs]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise BitfabError(f"ADD of shapes {', '.join(map(str, shapes))}; two of one shape expected")
        return Addition(_clip(operator)), shapes[0]

    def joining(self, operator: Operator) -> tuple[Layer, Shape]:
        shapes, rank = [self.shape(i) for i in operator.inputs], len(self.file.tensors[operator.inputs[0]].shape)
        if operator.options["axis"] not in (-1, rank - 1) or len({shape[1:] for shape in shapes}) != 1:
            raise BitfabError("CONCATENATION: only along the channels of inputs that are otherwise of one shape")
        return Joining(_clip(operator)), (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def border(self, operator: Operator) -> tuple[Layer, Shape]:
        pads = self.integers(operator, 1, 2)
        channels, height, width = self.image(operator)
        if pads.shape != (4, 2) or pads.min() < 0 or pads[[0, 3]].any():
            raise BitfabError("PAD: only around an image, not across batch or channels")
        (top, bottom), (left, right) = ((int(before), int(after)) for before, after in pads[1:3])
        return Border((top, left, bottom, right)), (channels, height + top + bottom, width + left + right)

    def reshaping(self, operator: Operator) -> tuple[Layer, Shape]:
        source, output = operator.inputs[0], operator.outputs[0]
        before, after = self.shape(source), self.shape(output)
        if math.prod(before) != math.prod(after):
            raise BitfabError(f"RESHAPE of {before} to {after} changes the number of elements")
        order = self.flattened.get(source) or (None if _plain(before) else (before[1], before[2], before[0]))
        if order is not None and len(after) == 1:
            self.flattened[output] = order
        elif before != after and (order is not None or not _plain(after)):
            raise BitfabError(
                f"RESHAPE of {before} to {after} would reorder its elements; only flattening is supported"
            )
        return Reshaping(after), after

    def upsampling(self, operator: Operator) -> tuple[Layer, Shape]:
        channels, *before = self.image(operator)
        after = self.shape(operator.outputs[0])[1:]
        if len(after) != 2 or any(new % old for old, new in zip(before, after, strict=True)):
            raise BitfabError(f"{operator.kind} from {before} to {after}; only by whole factors")
        if operator.options["align_corners"]:
            raise BitfabError(f"{operator.kind} with align_corners is not supported")
        bilinear = operator.kind == "RESIZE_BILINEAR"
        if bilinear and not operator.options["half_pixel_centers"]:
            raise BitfabError("RESIZE_BILINEAR without half_pixel_centers is not supported; export it with them")
        return Upsampling((after[0] // before[0], after[1] // before[1]), bilinear), (channels, *after)

    def unary(self, operator: Operator) -> tuple[Layer, Shape]:
        source = operator.inputs[0]
        if source in self.flattened:
            self.flattened[operator.outputs[0]] = self.flattened[source]
        return Unary(operator.kind, float(operator.options.get("alpha", 0.0))), self.shape(source)


def _plain(shape: Shape) -> bool:
    """Whether (H, W, C) and (C, H, W) are the same order of elements."""
    return len(shape) == 1 or shape[0] == 1 or shape[1] * shape[2] == 1


def _clip(operator: Operator) -> str:
    clip = str(operator.options["fused_activation_function"])
    if clip not in CLIPS:
        raise BitfabError(f"{operator.kind} with a fused {clip} is not supported; fused are {', '.join(CLIPS)}")
    return clip


_RULES: Mapping[str, Callable[[_Reading, Operator], tuple[Layer, Shape]]] = {
    "CONV_2D": _Reading.convolution,
    "DEPTHWISE_CONV_2D": _Reading.convolution,
    "TRANSPOSE_CONV": _Reading.transposed,
    "FULLY_CONNECTED": _Reading.linear,
    "AVERAGE_POOL_2D": _Reading.pooling,
    "MAX_POOL_2D": _Reading.pooling,
    "MEAN": _Reading.mean,
    "ADD": _Reading.addition,
    "CONCATENATION": _Reading.joining,
    "PAD": _Reading.border,
    "RESHAPE": _Reading.reshaping,
    "SQUEEZE": _Reading.reshaping,
    "RESIZE_BILINEAR": _Reading.upsampling,
    "RESIZE_NEAREST_NEIGHBOR": _Reading.upsampling,
    **dict.fromkeys(UNARIES, _Reading.unary),
}
