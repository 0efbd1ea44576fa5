"""The float network computed with what its weights' and activations' codes mean: all of them, some, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from bitfab.quant.encodings import Encoding
from bitfab.quant.fold import Weighted
from bitfab.quant.plan import Plan
from bitfab.quant.weights import LayerWeights, input_first

Progress = Callable[[str, int, int], None]  # step, layers done, layers in all
Values = dict[fx.Node, Tensor]

CHUNK = 32  # images computed at once
SMALL = 1 << 16  # values per image that may always be kept, however small the network's input is


class Simulation:
    """A folded normal form, node by node: layers named in `weights` use these, nodes in `encodings` are rounded.

    With both complete it computes, up to float rounding, what the integer graph does, the rounding of multipliers and
    of the operands of additions aside; with both empty it is the float network. For studying and choosing only: what
    the integer graph computes is defined by `bitfab.ir.run`.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, LayerWeights] | None = None,
        encodings: Mapping[str, Encoding] | None = None,
    ) -> None:
        self.plan = plan
        self.nodes = list(plan.layers)
        self._output = next(node for node in self.nodes[0].graph.nodes if node.op == "output")
        self._last = {source: node for node in [*self.nodes, self._output] for source in node.all_input_nodes}
        encodings = encodings or {}
        self._rounded = {y: encodings[node.name] for node, y in plan.observed().items() if node.name in encodings}
        self._parameters: dict[fx.Node, dict[str, Tensor]] = {}
        by_name = {node.name: node for node in self.nodes}
        for name, chosen in (weights or {}).items():
            self.set_weights(by_name[name], chosen)

    def set_weights(self, node: fx.Node, weights: LayerWeights) -> None:
        """Let a layer use these weights from now on."""
        layer: Any = self.plan.layers[node]
        self._parameters[node] = parameters(layer, weights)

    def compute(self, node: fx.Node, values: Values, inputs: Tensor) -> None:
        """Add the node's output to `values`; what nothing else reads is dropped from there."""
        args = fx.map_arg(node.args, values.__getitem__)
        layer: Any = self.plan.layers[node]
        if node.op == "placeholder":
            result = inputs
        elif node in self._parameters:
            result = torch.func.functional_call(layer, self._parameters[node], args)
        else:
            result = layer(*args, **node.kwargs)
        if node in self._rounded:
            result = _rounded(result, self._rounded[node])
        values[node] = result
        for source in node.all_input_nodes:
            if self._last[source] is node:
                del values[source]

    def __call__(self, x: Tensor) -> Tensor:
        """The network's (first) output for a batch."""
        values: Values = {}
        with torch.inference_mode():
            for node in self.nodes:
                self.compute(node, values, x)
        return values[self._output.all_input_nodes[0]]


def _rounded(x: Tensor, encoding: Encoding) -> Tensor:
    """The real values that the activation's codes mean."""
    scale, type = encoding.qparams.scale[0], encoding.type
    if not type.bipolar:
        return torch.fake_quantize_per_tensor_affine(x, scale, encoding.qparams.zero_point, type.low, type.high)
    shift = torch.tensor(encoding.shift or (0.0,), dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - 2))
    return torch.where(x >= shift, scale, -scale).to(x.dtype)


def parameters(layer: Weighted, weights: LayerWeights) -> dict[str, Tensor]:
    """Weight and bias as the layer holds them."""
    values = weights.values
    if isinstance(layer, nn.ConvTranspose2d):
        values = input_first(values, layer)
    like = layer.weight
    bias = torch.from_numpy(weights.bias).to(like.device, like.dtype)
    return {"weight": torch.from_numpy(values).to(like.device, like.dtype), "bias": bias}


class Twin:
    """A network beside its quantized self, on the same images: what enters a layer in either, layer after layer.

    Values are kept at the last layer asked for only where they are no more than twice the images themselves (or
    `SMALL`), and are computed from there on; so memory is bounded by four times that of the images and one chunk, and
    few layers are computed more than once or twice.
    """

    def __init__(self, real: Simulation, coded: Simulation, images: Tensor) -> None:
        self.real, self.coded = real, coded
        if images.ndim == 4:  # what CPU convolutions are fastest on
            images = images.contiguous(memory_format=torch.channels_last)
        self._chunks = list(images.split(CHUNK))
        self._kept: list[tuple[Values, Values]] = [({}, {}) for _ in self._chunks]
        self._limit = max(2 * images[0].numel(), SMALL)
        self._start = 0

    def inputs(self, node: fx.Node) -> Iterator[tuple[Tensor, Tensor]]:
        """For each chunk of images the layer's input in the float network and in the quantized one.

        Layers must be asked for in the order in which they are computed, and the iterator be used up.
        """
        stop, source = self.real.nodes.index(node), node.all_input_nodes[0]
        reached = []
        for chunk, kept in zip(self._chunks, self._kept, strict=True):
            pair: tuple[Values, Values] = (dict(kept[0]), dict(kept[1]))
            with torch.inference_mode():
                for simulation, values in zip((self.real, self.coded), pair, strict=True):
                    for step in simulation.nodes[self._start : stop]:
                        simulation.compute(step, values, chunk)
            small = sum(value[0].numel() for value in pair[0].values()) <= self._limit
            reached.append(pair if small else None)
            yield pair[0][source], pair[1][source]
        if all(pair is not None for pair in reached):
            self._kept, self._start = [pair for pair in reached if pair is not None], stop
