"""The layers of a TFLite model, whose images are (C, H, W): what the float and the int8 import have in common.

TFLite holds images as (1, H, W, C), convolutions as (O, KH, KW, I), depthwise ones as (1, KH, KW, O), and writes
padding as a word. Here all of it is as in torch and in the integer graph, the batch axis left off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from bitfab.errors import BitfabError
from bitfab.frontend.tflite_file import Tensor, TfliteFile
from bitfab.ir.names import plain
from bitfab.ir.ops import Pads, Pair, Shape

LONGEST_NAME = 48  # of what the file calls a tensor
CLIPS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")  # activations that are fused into a layer
UNARIES = ("RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "LOGISTIC", "TANH", "HARD_SWISH", "QUANTIZE")


@dataclass(frozen=True, eq=False)
class Convolution:
    """weight (O, I / groups, KH, KW), bias (O,) or None; `scales` is the file's weight tensor, for its scales."""

    weight: NDArray[Any]
    bias: NDArray[Any] | None
    scales: Tensor
    stride: Pair
    padding: Pads
    dilation: Pair
    groups: int
    clip: str


@dataclass(frozen=True, eq=False)
class Transposed:
    """A transposed convolution: weight (I, O, KH, KW), bias (O,) or None; `padding` crops the full result.

    Bottom and right are negative where the result goes on beyond it. `scales` is the file's weight tensor.
    """

    weight: NDArray[Any]
    bias: NDArray[Any] | None
    scales: Tensor
    stride: Pair
    padding: Pads
    clip: str


@dataclass(frozen=True, eq=False)
class Linear:
    """weight (O, I), bias (O,) or None; `scales` is the file's weight tensor, for its scales."""

    weight: NDArray[Any]
    bias: NDArray[Any] | None
    scales: Tensor
    clip: str


@dataclass(frozen=True)
class Pooling:
    """The largest value or the average of each window; what lies outside the image counts in neither."""

    largest: bool
    kernel: Pair
    stride: Pair
    padding: Pads
    clip: str


@dataclass(frozen=True)
class Mean:
    """The average of each channel of an image: (C,), or (C, 1, 1) where `keeps`."""

    keeps: bool


@dataclass(frozen=True)
class Addition:
    """The sum of two inputs of one shape."""

    clip: str


@dataclass(frozen=True)
class Joining:
    """The inputs one after the other along the channels."""

    clip: str


@dataclass(frozen=True)
class Border:
    """Zeros around an image."""

    padding: Pads


@dataclass(frozen=True)
class Reshaping:
    """The same elements in the same order under another shape."""

    shape: Shape


@dataclass(frozen=True)
class Upsampling:
    """Each pixel becomes factor[0] x factor[1] pixels; `bilinear`: interpolated between the middles of the pixels."""

    factor: Pair
    bilinear: bool = False


@dataclass(frozen=True)
class Unary:
    """A function of each element, by TFLite's name (one of UNARIES)."""

    kind: str
    alpha: float = 0.0


Layer = (
    Convolution | Transposed | Linear | Pooling | Mean | Addition | Joining | Border | Reshaping | Upsampling | Unary
)


@dataclass(frozen=True, eq=False)
class Step:
    """A layer between tensors of the file, under a name that is an identifier (see `label`)."""

    name: str
    layer: Layer
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True, eq=False)
class Network:
    """The layers that the outputs need, in order; a final softmax or dequantize is left off (`left_off` names them)."""

    file: TfliteFile
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    left_off: tuple[str, ...]


def label(file: TfliteFile, number: int) -> str:
    """A tensor's name as an identifier with its number: `model/add/Relu;x` -> `model_add_Relu_25`; no two are alike,
    and none is a keyword of Verilog or VHDL."""
    first = file.tensors[number].name.split(";")[0]
    return f"{plain(first, 'value', LONGEST_NAME)}_{number}"


def shape_of(file: TfliteFile, number: int) -> Shape:
    """(C, H, W) of an image, (F,) of a vector; the batch axis, which must be 1, left off."""
    match file.tensors[number].shape:
        case (1, h, w, c) if h > 0 and w > 0 and c > 0:
            return (c, h, w)
        case (1, f) if f > 0:
            return (f,)
        case other:
            raise BitfabError(f"{label(file, number)}: shape {other}; (1, H, W, C) or (1, F) expected")
