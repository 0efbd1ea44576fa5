"""Layers over signals (N, C, L) as layers over images of one row (N, C, 1, L), with no reshape left between them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from bitfab.frontend.calls import Call, Function, Steps, Unsupported
from bitfab.frontend.pointwise import Pointwise

Size = tuple[int, ...]
ELEMENTWISE = (
    *(nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.SELU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.Hardswish),
    *(nn.Hardsigmoid, nn.Softplus, nn.Mish, Pointwise),
)


class Rows(nn.Module):
    """A network over signals (N, C, L) that takes them as images of one row, (N, C, 1, L), as bitfab takes its data."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x.squeeze(2))


def as_images(module: fx.GraphModule, example: Tensor) -> fx.GraphModule:
    """The normal form with every reshape (N, C, 1, L) -> (N, C, L) moved behind what reads it, as far as possible.

    Layers over signals are built between two such reshapes; then those of neighbours meet and both go. Changed in
    place; `example` is a batch of the network's input.
    """
    if not any(node.target is torch.reshape and _is_row(node.args[1]) for node in module.graph.nodes):
        return module
    with torch.no_grad():
        ShapeProp(module).propagate(example[:1])
    nodes = [node for node in module.graph.nodes if node.op != "output"]
    shapes = {node: tuple(node.meta["tensor_meta"].shape) for node in nodes}
    for node in module.graph.nodes:
        if _drops(node, shapes):
            for reader in list(node.users):
                _swap(module, node, reader, shapes)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return module


def _is_row(shape: Any) -> bool:
    return isinstance(shape, tuple) and len(shape) == 4 and shape[2] == 1


def _drops(node: fx.Node, shapes: dict[fx.Node, Size]) -> bool:
    """Whether the node makes a signal of an image of one row."""
    if node.target is not torch.reshape:
        return False
    source = node.all_input_nodes[0]
    return _is_row(shapes[source]) and shapes[node] == (*shapes[source][:2], shapes[source][3])


def _swap(module: fx.GraphModule, node: fx.Node, reader: fx.Node, shapes: dict[fx.Node, Size]) -> None:
    """Let what reads the signal read the image itself, and make the signal of its result; or leave it as it is."""
    image = node.all_input_nodes[0]
    layer = module.get_submodule(str(reader.target)) if reader.op == "call_module" else None
    if reader.target is torch.reshape or isinstance(layer, nn.Flatten):
        if shapes[reader] == shapes[image]:
            reader.replace_all_uses_with(image)
        else:
            reader.replace_input_with(node, image)
        return
    joins = reader.target is torch.add or (reader.target is torch.cat and reader.args[1] == 1)
    if joins and not all(_drops(operand, shapes) for operand in reader.all_input_nodes):
        return
    if isinstance(layer, nn.BatchNorm1d):
        module.set_submodule(str(reader.target), _over_images(layer))
    elif reader.target is operator.getitem:
        reader.args = (reader.args[0], _with_row(reader.args[1]))
    elif not joins and not isinstance(layer, ELEMENTWISE):
        return
    for operand in reader.all_input_nodes:
        reader.replace_input_with(operand, operand.all_input_nodes[0])
    before = shapes[reader]
    shapes[reader] = (*before[:2], 1, *before[2:])
    with module.graph.inserting_after(reader):
        signal = module.graph.call_function(torch.reshape, (reader, (-1, *before[1:])))
    reader.replace_all_uses_with(signal, delete_user_cb=lambda user: user is not signal)
    shapes[signal], signal.meta["source"] = before, f"{reader.meta['source']}_reshape"


def _with_row(index: Any) -> tuple[slice, ...]:
    """The index of a slice of a signal's last axis for an image of one row; that of its channels stays."""
    return (*index[:2], slice(None), *index[2:]) if len(index) > 2 else index


def _over_images(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    """The same batch norm for images."""
    with torch.device("meta"):
        made = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine)
    made.load_state_dict(norm.state_dict(), assign=True)
    return made.train(norm.training)


def _between(call: Call, layer: nn.Module) -> Steps:
    """The layer over images between the reshapes from signals and back."""
    if len(call.input_shape) != 3:
        raise Unsupported(f"its input has {len(call.input_shape)} axes, (N, C, L) expected")
    _, channels, length = call.input_shape
    back = (-1, *call.shape[1:])
    return [Function(torch.reshape, ((-1, channels, 1, length),)), layer, Function(torch.reshape, (back,))]


def _conv1d(call: Call) -> Steps:
    weight, bias, padding = call.constant("weight"), call.constant("bias"), call["padding"]
    assert weight is not None
    if padding == "valid":
        padding = 0
    elif padding != "same":
        padding = (0, _one(call, "padding"))
    outputs, per_group, kernel = weight.shape
    sizes = ((1, kernel), (1, _one(call, "stride")), padding, (1, _one(call, "dilation")), call["groups"])
    with torch.device("meta"):
        layer = nn.Conv2d(per_group * call["groups"], outputs, *sizes, bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone().unsqueeze(2))
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return _between(call, layer)


def _max_pool1d(call: Call) -> Steps:
    kernel, stride, padding = _pool(call)
    if _one(call, "dilation") != 1:
        raise Unsupported("dilated pooling")
    return _between(call, nn.MaxPool2d((1, kernel), (1, stride), (0, padding)))


def _avg_pool1d(call: Call) -> Steps:
    kernel, stride, padding = _pool(call)
    if padding and not call["count_include_pad"]:
        raise Unsupported("padding with count_include_pad=False: windows would differ in their divisor")
    return _between(call, nn.AvgPool2d((1, kernel), (1, stride), (0, padding)))


def _pool(call: Call) -> tuple[int, int, int]:
    """Kernel, stride and padding; raises where ceil_mode adds a window that overhangs the signal."""
    kernel, padding = _one(call, "kernel_size"), _one(call, "padding")
    stride = _one(call, "stride", kernel)
    if (call.input_shape[-1] + 2 * padding - kernel) // stride + 1 != call.shape[-1]:
        raise Unsupported("ceil_mode=True with windows that overhang the signal: pad the signal instead")
    return kernel, stride, padding


def _adaptive_avg_pool1d(call: Call) -> Steps:
    size, parts = call.input_shape[-1], call.shape[-1]
    if size % parts:
        raise Unsupported(f"{size} to {parts}: windows would differ in size")
    return _between(call, nn.AdaptiveAvgPool2d(1) if parts == 1 else nn.AvgPool2d((1, size // parts)))


def mean(call: Call) -> Steps:
    """The mean of a signal over its length."""
    return _between(call, nn.AdaptiveAvgPool2d(1))


def _one(call: Call, name: str, default: int | None = None) -> int:
    value = call[name]
    values = [value] if isinstance(value, int) else list(value)
    return int(values[0]) if values or default is None else default


aten = torch.ops.aten
BUILDERS: dict[Any, Callable[[Call], Steps]] = {
    aten.conv1d.default: _conv1d,
    aten.conv1d.padding: _conv1d,
    aten.max_pool1d.default: _max_pool1d,
    aten.avg_pool1d.default: _avg_pool1d,
    aten.adaptive_avg_pool1d.default: _adaptive_avg_pool1d,
}
