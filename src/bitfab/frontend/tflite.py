"""Float TFLite models as torch modules, from which `capture` makes the float normal form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.frontend import tflite_layers as layers
from bitfab.frontend.tflite_file import TfliteFile, read_tflite
from bitfab.frontend.tflite_translate import read_layers
from bitfab.ir.ops import Pads

__all__ = ["TfliteModule", "load_tflite"]


def load_tflite(path: Path | str) -> nn.Module:
    """A float TFLite model as a torch module in eval mode, with one submodule an operator, named after its output.

    It takes images as (N, C, H, W) where TFLite takes (N, H, W, C), any N, and returns what the model returns in that
    order of axes. A softmax at the end is left off: the largest logit is the largest probability, so the decision is
    the same (`left_off` of the module names what was). Padding is TFLite's: SAME puts the odd pixel after the image.

    Raises BitfabError for a damaged file, an operator that is not supported, and a quantized model, which
    `load_quantized_tflite` reads.
    """
    network = read_layers(read_tflite(path))
    try:
        return TfliteModule(network).eval()
    except BitfabError as error:
        raise BitfabError(f"{path}: {error}") from error


class TfliteModule(nn.Module):
    """Runs the layers of a network in order; a submodule takes and returns tensors."""

    def __init__(self, network: layers.Network) -> None:
        super().__init__()
        self.left_off = network.left_off
        self._inputs, self._outputs = network.inputs, network.outputs
        self._steps = [(step.name, step.inputs, step.output) for step in network.steps]
        for number in (*network.inputs, *(step.output for step in network.steps)):
            _require_float(network.file, number)
        never_negative = _never_negative(network)
        for step in network.steps:
            self.add_module(step.name, _module(step.layer, step.inputs[0] in never_negative))

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        """The output, or a tuple where there are more; as many inputs as the model has."""
        if 1 + len(others) != len(self._inputs):
            raise BitfabError(f"{1 + len(others)} inputs given, {len(self._inputs)} expected")
        values = dict(zip(self._inputs, (x, *others), strict=True))
        for name, sources, output in self._steps:
            values[output] = self.get_submodule(name)(*(values[source] for source in sources))
        outputs = tuple(values[number] for number in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs


class Add(nn.Module):
    """The sum of two tensors."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.add(a, b)


class Concat(nn.Module):
    """The inputs one after the other along the channels."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=1)


class GlobalMean(nn.Module):
    """The mean of each channel, (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Reshape(nn.Module):
    """The elements of each image under another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)


_CLIPS: Mapping[str, Callable[[], nn.Module]] = {
    "RELU": nn.ReLU,
    "RELU6": nn.ReLU6,
    "RELU_N1_TO_1": lambda: nn.Hardtanh(-1.0, 1.0),
}
_UNARIES: Mapping[str, Callable[[layers.Unary], nn.Module]] = {
    "RELU": lambda _: nn.ReLU(),
    "RELU6": lambda _: nn.ReLU6(),
    "RELU_N1_TO_1": lambda _: nn.Hardtanh(-1.0, 1.0),
    "LEAKY_RELU": lambda unary: nn.LeakyReLU(unary.alpha),
    "LOGISTIC": lambda _: nn.Sigmoid(),
    "TANH": lambda _: nn.Tanh(),
    "HARD_SWISH": lambda _: nn.Hardswish(),
}


def _require_float(file: TfliteFile, number: int) -> None:
    tensor = file.tensors[number]
    if tensor.dtype != "float32":
        name = layers.label(file, number)
        raise BitfabError(f"{name} is {tensor.dtype}: quantized already; load_quantized_tflite reads such models")


def _never_negative(network: layers.Network) -> set[int]:
    """Tensors that a ReLU made: padding them with 0 for a max pool is padding with what never wins."""
    clipped = {"RELU", "RELU6"}
    return {
        step.output
        for step in network.steps
        if getattr(step.layer, "clip", None) in clipped or getattr(step.layer, "kind", None) in clipped
    }


def _module(layer: layers.Layer, never_negative: bool) -> nn.Module:
    """A layer as a module of standard ones."""
    parts: dict[str, nn.Module] = {}
    match layer:
        case layers.Convolution():
            padding = _padded(parts, layer.padding, 0.0)
            parts["conv"] = _conv(layer, padding)
        case layers.Transposed():
            parts["conv"] = _transposed(layer)
        case layers.Linear():
            parts["linear"] = _linear(layer)
        case layers.Pooling(largest=True):
            padding = _padded(parts, layer.padding, 0.0 if never_negative else -torch.inf)
            parts["pool"] = nn.MaxPool2d(layer.kernel, layer.stride, padding)
        case layers.Pooling():
            parts["pool"] = _average(layer)
        case layers.Mean(keeps):
            parts["mean"] = nn.AdaptiveAvgPool2d(1) if keeps else GlobalMean()
        case layers.Addition():
            parts["add"] = Add()
        case layers.Joining():
            parts["concat"] = Concat()
        case layers.Border((top, left, bottom, right)):
            parts["pad"] = nn.ZeroPad2d((left, right, top, bottom))
        case layers.Reshaping(shape):
            parts["reshape"] = nn.Flatten() if len(shape) == 1 else Reshape(shape)
        case layers.Upsampling((rows, columns), bilinear):
            mode = "bilinear" if bilinear else "nearest"
            parts["upsample"] = nn.Upsample(scale_factor=(float(rows), float(columns)), mode=mode)
        case layers.Unary(kind):
            if kind not in _UNARIES:
                raise BitfabError(f"{kind} in a float model is not supported")
            parts["act"] = _UNARIES[kind](layer)
    clip = getattr(layer, "clip", "NONE")
    if clip != "NONE":
        parts["act"] = _CLIPS[clip]()
    return next(iter(parts.values())) if len(parts) == 1 else _Parts(OrderedDict(parts))


class _Parts(nn.Sequential):
    """Modules one after the other, of which the first may take several tensors."""

    def forward(self, *inputs: Tensor) -> Tensor:
        first, *others = self
        x = first(*inputs)
        for module in others:
            x = module(x)
        return x


def _padded(parts: dict[str, nn.Module], padding: Pads, value: float) -> tuple[int, int]:
    """The padding that a layer can do itself, the same on both sides; any other becomes a module of its own."""
    top, left, bottom, right = padding
    if (top, left) == (bottom, right):
        return top, left
    sides = (left, right, top, bottom)
    parts["pad"] = nn.ConstantPad2d(sides, value) if value else nn.ZeroPad2d(sides)
    return 0, 0


def _conv(layer: layers.Convolution, padding: tuple[int, int]) -> nn.Module:
    outputs, per_group, *kernel = layer.weight.shape
    with torch.device("meta"):  # no random numbers are drawn
        conv = nn.Conv2d(
            per_group * layer.groups,
            outputs,
            (kernel[0], kernel[1]),
            layer.stride,
            padding,
            layer.dilation,
            layer.groups,
            bias=layer.bias is not None,
        )
    return _filled(conv, layer.weight, layer.bias)


def _transposed(layer: layers.Transposed) -> nn.Module:
    """torch crops as much before the image as behind it, or less behind it: zeros before the kernel make it so."""
    inputs, outputs, height, width = layer.weight.shape
    top, left, bottom, right = layer.padding
    above, beside = max(bottom - top, 0), max(right - left, 0)
    weight = np.pad(layer.weight, ((0, 0), (0, 0), (above, 0), (beside, 0)))
    padding = (top + above, left + beside)
    extra = (padding[0] - bottom, padding[1] - right)
    kernel = (height + above, width + beside)
    with torch.device("meta"):
        conv = nn.ConvTranspose2d(inputs, outputs, kernel, layer.stride, padding, extra, bias=layer.bias is not None)
    return _filled(conv, weight, layer.bias)


def _linear(layer: layers.Linear) -> nn.Module:
    outputs, inputs = layer.weight.shape
    with torch.device("meta"):
        linear = nn.Linear(inputs, outputs, bias=layer.bias is not None)
    return _filled(linear, layer.weight, layer.bias)


def _filled(module: nn.Module, weight: NDArray[Any], bias: NDArray[Any] | None) -> nn.Module:
    """The module with copies of these parameters."""
    for name, data in (("weight", weight), ("bias", bias)):
        if data is not None:
            if data.dtype != np.float32:
                raise BitfabError(f"its {name} is {data.dtype}; models with float32 weights are supported")
            setattr(module, name, nn.Parameter(torch.from_numpy(np.array(data, dtype=np.float32, order="C"))))
    return module


def _average(layer: layers.Pooling) -> nn.Module:
    top, left, bottom, right = layer.padding
    if (top, left) != (bottom, right):
        raise BitfabError(f"AVERAGE_POOL_2D padded by {layer.padding}; only the same on both sides is supported")
    return nn.AvgPool2d(layer.kernel, layer.stride, (top, left), count_include_pad=not any(layer.padding))
