"""The table from aten calls to the standard modules and functions of the float normal form."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from bitfab.frontend import aten_layout as layout
from bitfab.frontend import bilinear, one_dimension
from bitfab.frontend.affine import affine
from bitfab.frontend.calls import Call, Function, Pair, Steps, Unsupported
from bitfab.frontend.top_k import from_topk


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
    return _dense(call, weight, bias)


def _matmul(call: Call) -> Steps:
    """A product with constant weights (I, O) on the right."""
    if not isinstance(call["self"], fx.Node):
        raise Unsupported("its first operand is a constant: only weights on the right")
    weight = call.arguments["mat2"] if "mat2" in call.arguments else call["other"]
    if isinstance(weight, fx.Node) or weight.ndim != 2:
        raise Unsupported("a product of two computed values")
    return _dense(call, weight.t(), None)


def _addmm(call: Call) -> Steps:
    bias, weight = call.constant("self"), call.constant("mat2")
    assert weight is not None and bias is not None
    if call["alpha"] != 1 or call["beta"] != 1:
        raise Unsupported("with factors alpha or beta")
    return _dense(call, weight.t(), bias.expand(weight.shape[1]))


def _dense(call: Call, weight: Tensor, bias: Tensor | None) -> Steps:
    """A linear layer; of sequences (N, T, F) a 1x1 convolution over images (N, F, T, 1)."""
    outputs, inputs = weight.shape
    if len(call.input_shape) == 2:
        return _weighted(lambda: nn.Linear(inputs, outputs, bias is not None), weight, bias)
    count = math.prod(call.input_shape[1:-1])
    convolution = _weighted(
        lambda: nn.Conv2d(inputs, outputs, 1, bias=bias is not None), weight[:, :, None, None], bias
    )
    return [
        Function(torch.reshape, ((-1, count, 1, inputs),)),
        Function(torch.permute, ((0, 3, 1, 2),)),
        *convolution,
        Function(torch.permute, ((0, 2, 3, 1),)),
        Function(torch.reshape, ((-1, *call.shape[1:]),)),
    ]


def _batch_norm(call: Call) -> Steps:
    mean, variance = call["running_mean"], call["running_var"]
    weight, bias = call.constant("weight"), call.constant("bias")
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(len(call.input_shape))
    if kind is None:
        raise Unsupported(f"its input has {len(call.input_shape)} axes, 2 to 4 expected")
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
        constant, factor = (b, call["alpha"]) if isinstance(a, fx.Node) else (a, 1)
        if call["alpha"] != factor:
            raise Unsupported(f"alpha={call['alpha']} of a computed value")
        return [affine(call, constant * factor, product=False)]
    shapes = {tuple(n.meta["val"].shape) for n in call.node.all_input_nodes}
    if call["alpha"] != 1 or len(shapes) != 1:
        raise Unsupported(
            f"alpha={call['alpha']}, shapes {sorted(shapes)}: both operands must have one shape and weight"
        )
    return [Function(torch.add, repeat=2 if a is b else 1)]


def _subtract(call: Call) -> Steps:
    """`x - constant` or `constant - x`; aten.rsub has them the other way round."""
    a, b = call["self"], call["other"]
    if "rsub" in str(call.node.target):
        a, b = b, a
    if call["alpha"] != 1 or (isinstance(a, fx.Node) and isinstance(b, fx.Node)):
        raise Unsupported("of two computed values: only of a constant")
    if isinstance(a, fx.Node):
        return [affine(call, -b, product=False)]
    return [affine(call, -1.0, product=True), affine(call, a, product=False)]


def _multiply(call: Call) -> Steps:
    a, b = call["self"], call["other"]
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        shapes = sorted((tuple(n.meta["val"].shape) for n in call.node.all_input_nodes), key=math.prod)
        if shapes[0] != shapes[-1] and shapes[0] != (*shapes[-1][:2], 1, 1):
            raise Unsupported(f"shapes {shapes}: of one shape, or an image by a factor for each channel")
        return [Function(torch.mul, repeat=2 if a is b else 1)]
    return [affine(call, b if isinstance(a, fx.Node) else a, product=True)]


def _divide(call: Call) -> Steps:
    divisor = call["other"]
    if not isinstance(call["self"], fx.Node) or isinstance(divisor, fx.Node):
        raise Unsupported("by a computed value: only by a constant")
    inverse = 1 / torch.as_tensor(divisor, dtype=torch.float64)
    if not bool(torch.isfinite(inverse).all()):
        raise Unsupported("by zero")
    return [affine(call, inverse, product=True)]


def _floors(call: Call, kernel: Pair, stride: Pair, padding: Pair) -> None:
    """Raise where ceil_mode adds a window that floor mode lacks."""
    for axis in range(2):
        size = (call.input_shape[2 + axis] + 2 * padding[axis] - kernel[axis]) // stride[axis] + 1
        if size != call.shape[2 + axis]:
            raise Unsupported("ceil_mode=True with windows that overhang the image: pad the image instead")


def _max_pool2d(call: Call) -> Steps:
    """Windows that overhang the image at the end (ceil_mode) see -inf there."""
    kernel, padding = call.pair("kernel_size"), call.pair("padding")
    stride = call.pair("stride", default=kernel)
    if call.pair("dilation") != (1, 1):
        raise Unsupported("dilated pooling")
    needed = [(out - 1) * s + k for out, s, k in zip(call.shape[2:], stride, kernel, strict=True)]
    held = [size + 2 * pad for size, pad in zip(call.input_shape[2:], padding, strict=True)]
    bottom, right = (max(n - h, 0) for n, h in zip(needed, held, strict=True))
    pool = nn.MaxPool2d(kernel, stride, padding)
    return [nn.ConstantPad2d((0, right, 0, bottom), -math.inf), pool] if bottom or right else [pool]


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
    if rank == 3 and axes == [2]:
        return one_dimension.mean(call)
    if rank != 4 or axes != [2, 3]:
        raise Unsupported(f"over axes {axes}: only over (2, 3), the global average of an image")
    return [nn.AdaptiveAvgPool2d(1)] if call["keepdim"] else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _upsample(call: Call) -> Steps:
    factors = tuple(after / before for before, after in zip(call.input_shape[2:], call.shape[2:], strict=True))
    if not all(factor.is_integer() for factor in factors):
        raise Unsupported(f"by {factors}: only by whole factors")
    return [nn.Upsample(scale_factor=factors, mode="nearest")]


def _argmax(call: Call) -> Steps:
    if call["dim"] is None or call["dim"] not in (1, 1 - len(call.input_shape)):
        raise Unsupported("only along the channels (dim=1)")
    return [Function(torch.argmax, (1, call["keepdim"]))]


def _hardtanh(call: Call) -> Steps:
    low, high = float(call["min_val"]), float(call["max_val"])
    return [nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)]


def _clamp(call: Call) -> Steps:
    low, high = call.arguments.get("min"), call.arguments.get("max")
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise Unsupported("with ends that are computed")
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if (low, high) == (0, math.inf):
        return [nn.ReLU()]
    return [nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)]


def _prelu(call: Call) -> Steps:
    slope = call.constant("weight")
    assert slope is not None
    if slope.numel() != 1:
        raise Unsupported("with a slope for each channel: share one, or write relu(x) - slope * relu(-x)")
    return [nn.LeakyReLU(float(slope))]


def _elu(call: Call) -> Steps:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise Unsupported("a scaled elu")
    return [nn.ELU(call["alpha"])]


def _cast(call: Call) -> Steps:
    node = call.node
    if node.meta["val"].dtype != node.all_input_nodes[0].meta["val"].dtype:
        raise Unsupported("a change of the dtype inside the network")
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
    operator.getitem: layout.item,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.addmm.default: _addmm,
    aten.add.Tensor: _add,
    aten.sub.Tensor: _subtract,
    aten.rsub.Scalar: _subtract,
    aten.mul.Tensor: _multiply,
    aten.div.Tensor: _divide,
    aten.neg.default: lambda call: [affine(call, -1.0, product=True)],
    aten.cat.default: layout.cat,
    aten.permute.default: layout.permute,
    aten.transpose.int: layout.transpose,
    aten.slice.Tensor: layout.slice_axis,
    aten.select.int: layout.select,
    aten.expand.default: layout.expand,
    aten.pixel_shuffle.default: layout.pixel_shuffle,
    aten.pixel_unshuffle.default: layout.pixel_unshuffle,
    aten.max_pool2d.default: _max_pool2d,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.mean.dim: _mean,
    aten.upsample_nearest2d.vec: _upsample,
    aten._upsample_nearest_exact2d.vec: _upsample,
    aten.upsample_bilinear2d.vec: bilinear.upsample,
    aten.pad.default: layout.pad,
    aten.constant_pad_nd.default: layout.pad,
    aten.argmax.default: _argmax,
    aten.topk.default: from_topk,
    aten.relu.default: lambda _: [nn.ReLU()],
    aten.relu6.default: lambda _: [nn.ReLU6()],
    aten.hardtanh.default: _hardtanh,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.prelu.default: _prelu,
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
    **one_dimension.BUILDERS,
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
        layout.reshape,
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
            *layout.SPLITS,
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
    "conv1d, conv2d, conv_transpose2d, linear, matmul, sum and product with constants (one number, or one per "
    "channel), batch_norm, add, product of two of one shape or by a factor for each channel, cat, split, slice, "
    "permute, reshape, pixel_shuffle, max_pool, avg_pool and adaptive_avg_pool of 1 or 2 dimensions, mean over (2, 3), "
    "nearest and bilinear upsample, zero pad, argmax, indices of topk, dropout, and functions of each value by itself, "
    "such as relu, sigmoid, silu, gelu"
)
