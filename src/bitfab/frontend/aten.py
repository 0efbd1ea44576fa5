"""The table from aten calls to the standard modules and functions of the float normal form."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

Pair = tuple[int, int]


class Unsupported(Exception):
    """This call has no normal form; the message says why where the operation's name alone does not."""


@dataclass(frozen=True)
class Function:
    """A function of the normal form: `target(*data, *trailing)`; `packed` passes the data operands as one tuple."""

    target: Callable[..., Any]
    trailing: tuple[Any, ...] = ()
    packed: bool = False
    repeat: int = 1  # how often a sole operand is passed: twice in `x + x`


Steps = Sequence[nn.Module | Function]


class Call:
    """One aten call: its arguments by their schema names, defaults included, and the shapes (batch axis included)."""

    def __init__(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.node = node
        self.arguments: dict[str, Any] = {}
        if isinstance(node.target, torch._ops.OpOverload):
            given = iter(args)
            for argument in node.target._schema.arguments:
                default = kwargs.get(argument.name, argument.default_value)
                self.arguments[argument.name] = next(given, default)
        else:
            self.arguments = {str(position): value for position, value in enumerate(args)}

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def pair(self, name: str, default: Pair | None = None) -> Pair:
        """An integer or a list of one or two, as a pair; `default` stands for an empty list."""
        value = self.arguments[name]
        values = [value] if isinstance(value, int) else list(value)
        if not values and default is not None:
            return default
        return (values[0], values[-1])

    def constant(self, name: str) -> Tensor | None:
        """A tensor argument that must not depend on the input."""
        value = self.arguments[name]
        if isinstance(value, fx.Node):
            raise Unsupported(f"its {name} is computed from the network's input")
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.node.meta["val"].shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        first = self.node.all_input_nodes[0]
        return tuple(first.meta["val"].shape)


def rebuild_call(call: Call) -> Steps:
    """The normal-form steps, applied one after the other, that compute the call; none where it is the identity."""
    builder = _BUILDERS.get(call.node.target)
    if builder is None:
        raise Unsupported(_HINTS.get(call.node.target, ""))
    return builder(call)


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone())


def _weighted(make: Callable[[], nn.Module], weight: Tensor, bias: Tensor | None) -> Steps:
    """A layer with copies of these tensors; made on the meta device, so that no random number is drawn."""
    with torch.device("meta"):
        layer = make()
    layer.weight = _parameter(weight)
    if bias is not None:
        layer.bias = _parameter(bias)
    return [layer]


def _conv2d(call: Call) -> Steps:
    weight, bias = call.constant("weight"), call.constant("bias")
    assert weight is not None
    groups = call["groups"]
    padding = call["padding"]
    if padding == "valid":
        padding = (0, 0)
    elif padding != "same":
        padding = call.pair("padding")
    kernel = (weight.shape[2], weight.shape[3])
    channels, outputs = weight.shape[1] * groups, weight.shape[0]
    stride, dilation = call.pair("stride"), call.pair("dilation")
    if len(call.input_shape) != 4:
        raise Unsupported(f"its input has {len(call.input_shape)} axes, (N, C, H, W) expected")
    return _weighted(
        lambda: nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias is not None), weight, bias
    )


def _conv_transpose2d(call: Call) -> Steps:
    weight, bias = call.constant("weight"), call.constant("bias")
    assert weight is not None
    if call.pair("dilation") != (1, 1):
        raise Unsupported("a dilated transposed convolution")
    groups = call["groups"]
    channels, outputs = weight.shape[0], weight.shape[1] * groups
    stride, padding, extra = call.pair("stride"), call.pair("padding"), call.pair("output_padding")
    kernel = (weight.shape[2], weight.shape[3])
    return _weighted(
        lambda: nn.ConvTranspose2d(channels, outputs, kernel, stride, padding, extra, groups, bias is not None),
        weight,
        bias,
    )


def _linear(call: Call) -> Steps:
    weight, bias = call.constant("weight"), call.constant("bias")
    assert weight is not None
    if len(call.input_shape) != 2:
        raise Unsupported(f"its input has shape {call.input_shape[1:]} per image, a vector expected: flatten before")
    return _weighted(lambda: nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def _batch_norm(call: Call) -> Steps:
    mean, variance = call["running_mean"], call["running_var"]
    weight, bias = call.constant("weight"), call.constant("bias")
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(len(call.input_shape))
    if kind is None:
        raise Unsupported(f"its input has {len(call.input_shape)} axes, 2 or 4 expected")
    with torch.device("meta"):
        layer = kind(len(mean), eps=call["eps"], momentum=call["momentum"], affine=weight is not None)
    layer.running_mean, layer.running_var = mean.detach().clone(), variance.detach().clone()
    layer.num_batches_tracked = torch.zeros((), dtype=torch.int64, device=mean.device)
    if weight is not None:
        layer.weight = _parameter(weight)
        layer.bias = _parameter(torch.zeros_like(weight) if bias is None else bias)
    return [layer]


def _add(call: Call) -> Steps:
    a, b = call["self"], call["other"]
    if not (isinstance(a, fx.Node) and isinstance(b, fx.Node)):
        raise Unsupported("one operand is a constant: put it into a layer's bias")
    shapes = {tuple(n.meta["val"].shape) for n in call.node.all_input_nodes}
    if call["alpha"] != 1 or len(shapes) != 1:
        raise Unsupported(
            f"alpha={call['alpha']}, shapes {sorted(shapes)}: both operands must have one shape and weight"
        )
    return [Function(torch.add, repeat=2 if a is b else 1)]


def _cat(call: Call) -> Steps:
    operands = call["tensors"]
    if call["dim"] not in (1, 1 - len(call.shape)):
        raise Unsupported(f"along axis {call['dim']}: only along the channels (dim=1)")
    if not all(isinstance(operand, fx.Node) for operand in operands):
        raise Unsupported("one operand is a constant")
    if len(set(operands)) != len(operands):
        raise Unsupported("one tensor occurs twice")
    return [Function(torch.cat, (1,), packed=True)]


def _floors(call: Call, kernel: Pair, stride: Pair, padding: Pair) -> None:
    """Raise where ceil_mode adds a window that floor mode lacks."""
    for axis in range(2):
        size = (call.input_shape[2 + axis] + 2 * padding[axis] - kernel[axis]) // stride[axis] + 1
        if size != call.shape[2 + axis]:
            raise Unsupported("ceil_mode=True with windows that overhang the image: pad the image instead")


def _max_pool2d(call: Call) -> Steps:
    kernel, padding = call.pair("kernel_size"), call.pair("padding")
    stride = call.pair("stride", default=kernel)
    if call.pair("dilation") != (1, 1):
        raise Unsupported("dilated pooling")
    _floors(call, kernel, stride, padding)
    return [nn.MaxPool2d(kernel, stride, padding)]


def _avg_pool2d(call: Call) -> Steps:
    kernel, padding = call.pair("kernel_size"), call.pair("padding")
    stride = call.pair("stride", default=kernel)
    if call["divisor_override"] is not None:
        raise Unsupported("divisor_override")
    if padding != (0, 0) and not call["count_include_pad"]:
        raise Unsupported("padding with count_include_pad=False: windows would differ in their divisor")
    _floors(call, kernel, stride, padding)
    return [nn.AvgPool2d(kernel, stride, padding)]


def _adaptive_avg_pool2d(call: Call) -> Steps:
    (height, width), (rows, columns) = call.input_shape[2:], call.shape[2:]
    if (rows, columns) == (1, 1):
        return [nn.AdaptiveAvgPool2d(1)]
    if height % rows or width % columns:
        raise Unsupported(f"{height}x{width} to {rows}x{columns}: windows would differ in size")
    return [nn.AvgPool2d((height // rows, width // columns))]


def _mean(call: Call) -> Steps:
    rank = len(call.input_shape)
    axes = sorted(axis % rank for axis in (call["dim"] or range(rank)))
    if rank != 4 or axes != [2, 3]:
        raise Unsupported(f"over axes {axes}: only over (2, 3), the global average of an image")
    return [nn.AdaptiveAvgPool2d(1)] if call["keepdim"] else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _upsample(call: Call) -> Steps:
    factors = tuple(after / before for before, after in zip(call.input_shape[2:], call.shape[2:], strict=True))
    if not all(factor.is_integer() for factor in factors):
        raise Unsupported(f"by {factors}: only by whole factors")
    return [nn.Upsample(scale_factor=factors, mode="nearest")]


def _pad(call: Call) -> Steps:
    pads = list(call["pad"])
    if call["mode"] != "constant" or (call["value"] or 0) != 0 or len(pads) > 4 or min(pads) < 0:
        raise Unsupported("only padding of the image with zeros, as `torch.nn.ZeroPad2d` does")
    left, right, top, bottom = pads + [0] * (4 - len(pads))
    return [nn.ZeroPad2d((left, right, top, bottom))]


def _reshape(call: Call) -> Steps:
    before, after = call.input_shape, call.shape
    if before == after:
        return []
    if len(after) < 2 or after[0] != before[0]:
        raise Unsupported(
            f"{before[1:]} to {after}: the batch axis must stay as it is, with at least one axis behind it"
        )
    return [nn.Flatten()] if len(after) == 2 else [Function(torch.reshape, ((-1, *after[1:]),))]


def _argmax(call: Call) -> Steps:
    if call["dim"] is None or call["dim"] not in (1, 1 - len(call.input_shape)):
        raise Unsupported("only along the channels (dim=1)")
    return [Function(torch.argmax, (1, call["keepdim"]))]


def _hardtanh(call: Call) -> Steps:
    low, high = float(call["min_val"]), float(call["max_val"])
    return [nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)]


def _clamp(call: Call) -> Steps:
    low, high = call["min"], call.arguments.get("max")
    if low is None:
        raise Unsupported("a clamp without a lower end")
    if high is None:
        if low != 0:
            raise Unsupported("a clamp with only a lower end that is not 0")
        return [nn.ReLU()]
    return [nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(float(low), float(high))]


def _elu(call: Call) -> Steps:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise Unsupported("a scaled elu")
    return [nn.ELU(call["alpha"])]


def _cast(call: Call) -> Steps:
    node = call.node
    if node.meta["val"].dtype != node.all_input_nodes[0].meta["val"].dtype:
        raise Unsupported("a change of the dtype inside the network")
    return []


def _first_result(call: Call) -> Steps:
    """`batch_norm` gives three results; only the first is used in eval mode."""
    if call["1"] != 0:
        raise Unsupported("a result other than the first")
    return []


def _identity(_: Call) -> Steps:
    return []


aten = torch.ops.aten
_BUILDERS: dict[Any, Callable[[Call], Steps]] = {
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d,
    aten.conv_transpose2d.input: _conv_transpose2d,
    aten.linear.default: _linear,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    operator.getitem: _first_result,
    aten.add.Tensor: _add,
    aten.cat.default: _cat,
    aten.max_pool2d.default: _max_pool2d,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.mean.dim: _mean,
    aten.upsample_nearest2d.vec: _upsample,
    aten._upsample_nearest_exact2d.vec: _upsample,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    aten.argmax.default: _argmax,
    aten.relu.default: lambda _: [nn.ReLU()],
    aten.relu6.default: lambda _: [nn.ReLU6()],
    aten.hardtanh.default: _hardtanh,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.sigmoid.default: lambda _: [nn.Sigmoid()],
    aten.tanh.default: lambda _: [nn.Tanh()],
    aten.silu.default: lambda _: [nn.SiLU()],
    aten.gelu.default: lambda call: [nn.GELU(call["approximate"])],
    aten.hardswish.default: lambda _: [nn.Hardswish()],
    aten.hardsigmoid.default: lambda _: [nn.Hardsigmoid()],
    aten.leaky_relu.default: lambda call: [nn.LeakyReLU(call["negative_slope"])],
    aten.elu.default: _elu,
    aten.selu.default: lambda _: [nn.SELU()],
    aten.softplus.default: lambda call: [nn.Softplus(call["beta"], call["threshold"])],
    aten.mish.default: lambda _: [nn.Mish()],
    **dict.fromkeys(
        (
            aten.view.default,
            aten.reshape.default,
            aten._unsafe_view.default,
            aten.flatten.using_ints,
            aten.unflatten.int,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.unsqueeze.default,
        ),
        _reshape,
    ),
    **dict.fromkeys((aten._to_copy.default, aten.to.dtype, aten.to.device, aten.to.dtype_layout), _cast),
    **dict.fromkeys(
        (
            aten.clone.default,
            aten.contiguous.default,
            aten.alias.default,
            aten.detach.default,
            aten.dropout.default,
            aten.feature_dropout.default,
        ),
        _identity,
    ),
}

_NO_SOFTMAX = "leave it off: argmax of the logits gives the same class"
_BATCH_STATISTICS = "it normalizes by each batch's own statistics: use track_running_stats=True"
_HINTS: dict[Any, str] = {
    aten.softmax.int: _NO_SOFTMAX,
    aten.log_softmax.int: _NO_SOFTMAX,
    aten._native_batch_norm_legit.default: _BATCH_STATISTICS,
    aten._native_batch_norm_legit.no_stats: _BATCH_STATISTICS,
}

SUPPORTED = (
    "conv2d, conv_transpose2d, linear, batch_norm, add, cat, max_pool2d, avg_pool2d, adaptive_avg_pool2d, mean over "
    "(2, 3), nearest upsample, zero pad, reshape, argmax, relu, relu6, hardtanh, clamp, sigmoid, tanh, silu, gelu, "
    "hardswish, hardsigmoid, leaky_relu, elu, selu, softplus, mish, dropout"
)
