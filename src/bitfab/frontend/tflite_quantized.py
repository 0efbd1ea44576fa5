"""Int8 TFLite models as integer graphs that equal TFLite's reference kernels in every bit.

The two roundings of a rescaling are two Requantize nodes; what depends on one code alone (an operand of an add, a
sigmoid) is a Table, computed here in the same arithmetic (tflite_arithmetic.py).

The optimized kernels differ from the reference kernels, and from one another, by one code now and then: the default
interpreter (XNNPACK) multiplies in float32 and rounds once. The reference kernels are the meaning here: all but the
dense layers are integer arithmetic from end to end, and those are made so (`rounded_once`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import IntArray, IntType, QParams, Rounding
from bitfab.errors import BitfabError
from bitfab.frontend import tflite_layers as layers
from bitfab.frontend.tflite_arithmetic import (
    ADD_SHIFT,
    INT8,
    Ratio,
    clip_range,
    division,
    first_rounding,
    rounded_once,
    unary_function,
)
from bitfab.frontend.tflite_file import Tensor, TfliteFile, read_tflite
from bitfab.frontend.tflite_translate import read_layers
from bitfab.ir.graph import Builder, Graph
from bitfab.ir.infer import infer
from bitfab.ir.names import plain
from bitfab.ir.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Op,
    Pads,
    Requantize,
    Reshape,
    SumPool2d,
    Table,
    Upsample,
)
from bitfab.ir.verify import verify

__all__ = ["is_quantized", "load_quantized_tflite"]

UINT8, INT32 = IntType(8, signed=False), IntType(32, signed=True)
MAX_CHANNELS = 1 << 16  # of a border of its own, whose identity weights the file does not hold


def load_quantized_tflite(path: Path | str) -> Graph:
    """The integer graph of an int8 TFLite model: images (C, H, W) in int8 (or uint8) in, logits out.

    `run` equals TFLite's reference kernels (those of BUILTIN_REF in LiteRT 2) in every bit of every tensor: a node's
    `source` is the name of the tensor, and the last node of that source holds its value (a flattened image's in
    (C, H, W) order; a border that convolutions take over has no node). A final softmax and dequantize are left off (the
    decision is the same), and so is a quantize of a float input: the graph takes its codes, whose scale is in the
    input's QParams. Convolutions, transposed ones, dense layers, add, concatenation, pad, pools (average without
    padding), mean over the pixels, nearest upsampling, reshape, ReLU, ReLU6, leaky ReLU, sigmoid, tanh and rescaling
    are supported. No torch is needed.

    Raises BitfabError for a damaged file, an operator or type that is not supported, and for sums that do not fit
    TFLite's 32-bit accumulators.
    """
    file = read_tflite(path)
    network = read_layers(file)
    try:
        return verify(_Importer(network).graph())
    except BitfabError as error:
        raise BitfabError(f"{file.path}: {error}") from error


def is_quantized(path: Path | str) -> bool:
    """Whether a TFLite model computes with integers, and so is one for `load_quantized_tflite`; else `load_tflite`."""
    file = read_tflite(path)
    return any(file.tensors[number].dtype in ("int8", "uint8") for step in file.operators for number in step.outputs)


class _Importer:
    """Grows the graph layer by layer; `values` are the graph's values by the file's tensors."""

    def __init__(self, network: layers.Network) -> None:
        self.network = network
        self.file: TfliteFile = network.file
        self.builder = Builder(f"{plain(self.file.path.stem, 'value', layers.LONGEST_NAME)}_int8")
        self.values: dict[int, str] = {}
        self.borders: dict[int, tuple[int, Pads]] = {}  # bordered tensor -> what is inside, and the border
        self.readers: dict[int, list[layers.Layer]] = {}
        for step in network.steps:
            for number in step.inputs:
                self.readers.setdefault(number, []).append(step.layer)

    def graph(self) -> Graph:
        for number in self.network.inputs:
            if self.file.tensors[number].dtype != "float32":
                self.input(number)
        for step in self.network.steps:
            try:
                _LAYERS[type(step.layer)](self, step, step.layer)
            except BitfabError as error:
                raise BitfabError(f"{step.name}: {error}") from error
        return self.builder.build(tuple(self.values[number] for number in self.network.outputs))

    def input(self, number: int) -> None:
        name, shape = layers.label(self.file, number), layers.shape_of(self.file, number)
        self.values[number] = self.builder.input(name, shape, self.type(number), self.qparams(number))

    def type(self, number: int) -> IntType:
        dtype = self.file.tensors[number].dtype
        if dtype not in ("int8", "uint8"):
            raise BitfabError(f"{layers.label(self.file, number)} is {dtype}, int8 expected; load_tflite reads float32")
        return INT8 if dtype == "int8" else UINT8

    def qparams(self, number: int) -> QParams:
        """Scale and zero point of an activation."""
        tensor, type = self.file.tensors[number], self.type(number)
        if len(tensor.scale) != 1 or not type.low <= tensor.zero_point[0] <= type.high:
            raise BitfabError(f"{layers.label(self.file, number)}: one scale and a zero point within {type} expected")
        return QParams(tensor.scale, tensor.zero_point[0])

    def quantized(self, step: layers.Step) -> tuple[QParams, QParams]:
        """The QParams of the first input and of the output; all are int8."""
        for number in (*step.inputs, step.output):
            if self.type(number) != INT8:
                raise BitfabError(f"reads or writes {self.type(number)}; only QUANTIZE may, before and after int8")
        return self.qparams(step.inputs[0]), self.qparams(step.output)

    def same_scale(self, step: layers.Step) -> QParams:
        """The QParams that all inputs and the output share; all are int8."""
        self.quantized(step)
        first, *others = [self.qparams(number) for number in (*step.inputs, step.output)]
        if any(other != first for other in others):
            raise BitfabError("its inputs and output differ in scale or zero point; export with one for all")
        return first

    def emit(self, step: layers.Step, op: Op, inputs: tuple[str, ...] | str, part: str = "") -> str:
        """A node of the step: some `part` on the way, or the value of the step's output."""
        qparams = None if part else self.qparams(step.output)
        name = f"{step.name}_{part}" if part else step.name
        made = self.builder.add(name, op, inputs, qparams, self.file.tensors[step.output].name)
        if not part:
            self.values[step.output] = made
        return made

    def sole(self, step: layers.Step) -> str:
        return self.values[step.inputs[0]]

    def last(
        self, step: layers.Step, multiplier: IntArray, shift: IntArray, rounding: Rounding, clip: str, zero: int = 0
    ) -> Requantize:
        """The last requantize of a step, to its codes."""
        after = self.qparams(step.output)
        low, high = clip_range(clip, after)
        return Requantize(multiplier, shift, INT8, low, high, zero, after.zero_point, rounding)

    def scale(self, step: layers.Step, x: str, ratios: Sequence[Ratio], clip: str, zero: int = 0) -> None:
        """The step's codes: `clip((x - zero) * ratio + zero_point)`, one ratio or one a channel, with two roundings."""
        value = self.builder.value(x)
        left = max(ratio.left for ratio in ratios)
        if max(abs(value.low - zero), abs(value.high - zero)) << left >= 1 << 31:
            raise BitfabError(f"sums of up to {value.high} times 2**{left} do not fit 32 bits: scales too unequal")
        multiplier, shift = first_rounding(ratios)
        right = np.array([ratio.right for ratio in ratios])
        if not right.any():
            self.emit(step, self.last(step, multiplier, shift, Rounding.HALF_UP, clip, zero), x)
            return
        ends = infer(Requantize(multiplier, shift, INT32, INT32.low, INT32.high, zero), [value.signature])
        wide = IntType.holding(min(ends.low, -1), ends.high)
        x = self.emit(step, Requantize(multiplier, shift, wide, wide.low, wide.high, zero), x, "product")
        self.emit(step, self.last(step, np.ones_like(right), right, Rounding.HALF_AWAY, clip), x)

    def parameters(
        self, weight: NDArray[Any], bias: NDArray[Any] | None, scales: Tensor, before: QParams
    ) -> tuple[IntArray, IntArray]:
        """Weights, and biases with the input's zero point folded in."""
        outputs = len(weight)
        if weight.dtype != np.int8 or any(scales.zero_point) or len(scales.scale) not in (1, outputs):
            raise BitfabError(
                f"weights of {weight.dtype}: int8, zero point 0 and one scale, or one an output, expected"
            )
        if bias is not None and bias.dtype != np.int32:
            raise BitfabError(f"a bias of {bias.dtype}; int32 expected")
        sums = weight.reshape(outputs, -1).sum(axis=1, dtype=np.int64)
        folded = (0 if bias is None else bias.astype(np.int64)) - before.zero_point * sums
        return np.ascontiguousarray(weight), folded

    def convolution(self, step: layers.Step, layer: layers.Convolution) -> None:
        before, after = self.quantized(step)
        source, border = self.borders.get(step.inputs[0], (step.inputs[0], (0, 0, 0, 0)))
        top, left, bottom, right = (own + more for own, more in zip(layer.padding, border, strict=True))
        weight, bias = self.parameters(layer.weight, layer.bias, layer.scales, before)
        padding, zero = (top, left, bottom, right), before.zero_point
        conv = Conv2d(weight, bias, layer.stride, padding, layer.dilation, layer.groups, zero)
        ratios = [Ratio.of(real) for real in _reals(before, layer.scales, after)]
        self.scale(step, self.emit(step, conv, self.values[source], "sums"), ratios, layer.clip)

    def transposed(self, step: layers.Step, layer: layers.Transposed) -> None:
        before, after = self.quantized(step)
        weight, bias = self.parameters(layer.weight.swapaxes(0, 1), layer.bias, layer.scales, before)
        kernels = np.ascontiguousarray(weight.swapaxes(0, 1))
        conv = ConvTranspose2d(kernels, bias, layer.stride, layer.padding, pad_value=before.zero_point)
        ratios = [Ratio.of(real) for real in _reals(before, layer.scales, after)]
        self.scale(step, self.emit(step, conv, self.sole(step), "sums"), ratios, layer.clip)

    def linear(self, step: layers.Step, layer: layers.Linear) -> None:
        before, after = self.quantized(step)
        x = self.sole(step)
        if len(self.builder.value(x).shape) == 3:
            x = self.emit(step, Reshape((layer.weight.shape[1],)), x, "flat")
        x = self.emit(step, Dense(*self.parameters(layer.weight, layer.bias, layer.scales, before)), x, "sums")
        sums = self.builder.value(x)
        largest, zero = max(abs(sums.low), abs(sums.high), 1), after.zero_point
        levels = max(INT8.high - zero, zero - INT8.low)
        reals = _reals(before, layer.scales, after)
        multiplier, shift = np.array([rounded_once(real, largest, levels) for real in reals]).T
        self.emit(step, self.last(step, multiplier, shift, Rounding.HALF_AWAY, layer.clip), x)

    def pooling(self, step: layers.Step, layer: layers.Pooling) -> None:
        low, high = clip_range(layer.clip, self.same_scale(step))
        multiplier, shift = 1, 0
        if layer.largest:
            largest = MaxPool2d(layer.kernel, layer.stride, layer.padding)
            if layer.clip == "NONE":
                self.emit(step, largest, self.sole(step))
                return
            x = self.emit(step, largest, self.sole(step), "largest")
        elif any(layer.padding):
            raise BitfabError("AVERAGE_POOL_2D with padding is not supported: its windows differ in their divisor")
        else:
            x = self.emit(step, SumPool2d(layer.kernel, layer.stride), self.sole(step), "sums")
            sums = self.builder.value(x)
            multiplier, shift = division(math.prod(layer.kernel), max(abs(sums.low), abs(sums.high)))
        constants = np.array([multiplier]), np.array([shift])
        self.emit(step, Requantize(*constants, INT8, low, high, rounding=Rounding.HALF_AWAY), x)

    def mean(self, step: layers.Step, layer: layers.Mean) -> None:
        """Sums of `q - zero_point`, times a ratio over their count."""
        before, after = self.quantized(step)
        channels, height, width = self.builder.value(self.sole(step)).shape
        x = self.emit(step, SumPool2d((height, width), (1, 1)), self.sole(step), "sums")
        if not layer.keeps:
            x = self.emit(step, Reshape((channels,)), x, "flat")
        ratio = Ratio.of(before.scale[0] / after.scale[0]).over(height * width)
        self.scale(step, x, [ratio], "NONE", before.zero_point * height * width)

    def addition(self, step: layers.Step, layer: layers.Addition) -> None:
        """Both operands to twice the larger scale over 2**20, by a table each; their sum to the output's scale."""
        _, after = self.quantized(step)
        operands = [self.qparams(number) for number in step.inputs]
        common = 2 * max(operand.scale[0] for operand in operands)
        finer = []
        for number, operand, part in zip(step.inputs, operands, ("left", "right"), strict=True):
            codes = np.arange(INT8.low, INT8.high + 1)
            table = Ratio.of(operand.scale[0] / common).times((codes - operand.zero_point) << ADD_SHIFT)
            type = IntType.holding(int(table.min()), int(table.max()))
            finer.append(self.emit(step, Table(table, INT8, type), self.values[number], part))
        x = self.emit(step, Add(), tuple(finer), "sums")
        self.scale(step, x, [Ratio.of(common / ((1 << ADD_SHIFT) * after.scale[0]))], layer.clip)

    def joining(self, step: layers.Step, layer: layers.Joining) -> None:
        self.same_scale(step)
        if layer.clip != "NONE":
            raise BitfabError(f"CONCATENATION with a fused {layer.clip} is not supported")
        self.emit(step, Concat(), tuple(self.values[number] for number in step.inputs))

    def border(self, step: layers.Step, layer: layers.Border) -> None:
        """Left to the convolutions behind it where nothing else reads it; else an identity convolution that pads."""
        zero = self.same_scale(step).zero_point
        readers = self.readers.get(step.output, [])
        if step.output not in self.network.outputs and all(isinstance(r, layers.Convolution) for r in readers):
            self.borders[step.output] = (step.inputs[0], layer.padding)
            return
        channels = self.builder.value(self.sole(step)).shape[0]
        if channels > MAX_CHANNELS:
            raise BitfabError(f"PAD of {channels} channels; at most {MAX_CHANNELS} are supported")
        weight, bias = np.ones((channels, 1, 1, 1), np.int8), np.zeros(channels, np.int64)
        conv = Conv2d(weight, bias, padding=layer.padding, groups=channels, pad_value=zero)
        x = self.emit(step, conv, self.sole(step), "bordered")
        self.emit(step, Requantize(np.array([1]), np.array([0]), INT8, INT8.low, INT8.high), x)

    def reshaping(self, step: layers.Step, layer: layers.Reshaping) -> None:
        self.same_scale(step)
        self.emit(step, Reshape(layer.shape), self.sole(step))

    def upsampling(self, step: layers.Step, layer: layers.Upsampling) -> None:
        if layer.bilinear:
            raise BitfabError("RESIZE_BILINEAR in an int8 model is not supported; load the float model and quantize it")
        self.same_scale(step)
        self.emit(step, Upsample(layer.factor), self.sole(step))

    def unary(self, step: layers.Step, layer: layers.Unary) -> None:
        """A table of the function; a quantize of the model's float input becomes the graph's input."""
        source = step.inputs[0]
        if layer.kind == "QUANTIZE" and source in self.network.inputs and self.file.tensors[source].dtype == "float32":
            self.input(step.output)
            return
        if layer.kind != "QUANTIZE":
            self.quantized(step)
        function = unary_function(layer, self.qparams(source), self.qparams(step.output))
        domain, type = self.type(source), self.type(step.output)
        table = function(np.arange(domain.low, domain.high + 1)).clip(type.low, type.high)
        self.emit(step, Table(table, domain, type), self.values[source])


def _reals(before: QParams, weight: Tensor, after: QParams) -> list[float]:
    """What the sums of each output channel, or of all, are multiplied by, in double precision as TFLite has it."""
    return [before.scale[0] * scale / after.scale[0] for scale in weight.scale]


_LAYERS: Mapping[type, Callable[[_Importer, layers.Step, Any], None]] = {
    layers.Convolution: _Importer.convolution,
    layers.Transposed: _Importer.transposed,
    layers.Linear: _Importer.linear,
    layers.Pooling: _Importer.pooling,
    layers.Mean: _Importer.mean,
    layers.Addition: _Importer.addition,
    layers.Joining: _Importer.joining,
    layers.Border: _Importer.border,
    layers.Reshaping: _Importer.reshaping,
    layers.Upsampling: _Importer.upsampling,
    layers.Unary: _Importer.unary,
}
