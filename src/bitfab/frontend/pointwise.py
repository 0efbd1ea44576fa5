"""Functions of one value by itself that several calls compute together, such as `x * sigmoid(x)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten

# Besides the value itself they take numbers alone.
_AFFINE = {
    aten.add.Tensor,
    aten.add.Scalar,
    aten.sub.Tensor,
    aten.sub.Scalar,
    aten.rsub.Scalar,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.div.Scalar,
    aten.neg.default,
}
_CLIPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default}
_CURVES = {
    aten.sigmoid.default,
    aten.tanh.default,
    aten.silu.default,
    aten.gelu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.selu.default,
    aten.softplus.default,
    aten.mish.default,
}
# What has no module of its own in the normal form.
_OTHERS = {
    aten.abs.default,
    aten.celu.default,
    aten.clamp_max.default,
    aten.cos.default,
    aten.erf.default,
    aten.exp.default,
    aten.expm1.default,
    aten.log.default,
    aten.log1p.default,
    aten.log_sigmoid.default,
    aten.maximum.default,
    aten.minimum.default,
    aten.pow.Tensor_Scalar,
    aten.pow.Tensor_Tensor,
    aten.reciprocal.default,
    aten.rsqrt.default,
    aten.sin.default,
    aten.sqrt.default,
    aten.square.default,
    aten.threshold.default,
}
_ALL = _AFFINE | _CLIPS | _CURVES | _OTHERS

_STANDARD: tuple[Callable[[], nn.Module], ...] = (
    nn.SiLU,
    nn.Hardswish,
    nn.GELU,
    lambda: nn.GELU("tanh"),
    nn.Mish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Softplus,
    nn.ELU,
    nn.SELU,
)
_TOLERANCE = 1e-6  # relative to 1 or the value itself: constants in files are float32


class Pointwise(nn.Module):
    """A function of each value by itself that has no module of its own in torch; `function` computes it."""

    def __init__(self, function: fx.GraphModule) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def recognize(graph: fx.Graph, constants: Mapping[fx.Node, Any]) -> dict[fx.Node, tuple[fx.Node, nn.Module]]:
    """The calls that end such functions: for each the node that it is a function of, and the function.

    `constants` holds what nodes compute that depend on no input. Standard functions are recognized by their values,
    however they are composed, and as far back as possible.
    """
    recognizer = _Recognizer(constants)
    calls = (node for node in graph.nodes if node.op == "call_function" and node not in constants)
    found = {node: recognizer.find(node) for node in calls}
    return {node: function for node, function in found.items() if function is not None}


class _Recognizer:
    def __init__(self, constants: Mapping[fx.Node, Any]) -> None:
        self.constants = constants
        self._before: dict[fx.Node, fx.Node | None] = {}
        self._made: set[fx.Node] = set()

    def find(self, node: fx.Node) -> tuple[fx.Node, nn.Module] | None:
        """The node that this one is a function of, and the function; None where the call is best built by itself."""
        chain = self._chain(node)
        if len(chain) < 2:
            return None
        operands = self._operands(node)
        inverse = node.target is aten.div.Tensor and node.args[0] is not operands[0]
        joint = len(operands) > 1 and node.target is not aten.add.Tensor  # for sums there is an operation
        alone = node.target in _OTHERS or joint or inverse
        for start in chain[:0:-1]:
            if not alone and start is chain[1]:
                break  # a single call with a builder of its own
            module = _standard(self._function(start, node))
            if module is not None:
                self._made.add(node)
                return start, module
        follows = node.target in _AFFINE and chain[1] in self._made
        if not (alone or follows):
            return None
        start = chain[1]
        while start.target not in _CLIPS and (before := self._step(start)) is not None:
            start = before
        self._made.add(node)
        return start, Pointwise(self._function(start, node))

    def _operands(self, node: fx.Node) -> list[fx.Node]:
        """The operands that depend on the input, each as often as it occurs."""
        return [a for a in node.args if isinstance(a, fx.Node) and a not in self.constants]

    def _chain(self, node: fx.Node) -> list[fx.Node]:
        """The node, and all those of which it is a function, the nearest first."""
        chain = [node]
        while (before := self._step(chain[-1])) is not None:
            chain.append(before)
        return chain

    def _step(self, node: fx.Node) -> fx.Node | None:
        """The nearest node of which this one is a function of each value; None where there is none."""
        if node not in self._before:
            self._before[node] = self._nearest(node)
        return self._before[node]

    def _nearest(self, node: fx.Node) -> fx.Node | None:
        if node.target not in _ALL or node.kwargs.get("alpha", 1) != 1:
            return None
        operands = self._operands(node)
        numbers = [a for a in node.args if isinstance(a, fx.Node) and a not in operands]
        if not operands or any(self.constants[number].numel() != 1 for number in numbers):
            return None
        nearest = operands[0]
        if len(operands) > 1:
            if operands[0] is operands[1] and node.target is aten.add.Tensor:
                return None  # a sum like any other
            others = self._chain(operands[1])
            common = [candidate for candidate in self._chain(operands[0]) if candidate in others]
            if not common:
                return None
            nearest = common[0]
        same = nearest.meta["val"].shape == node.meta["val"].shape and nearest.meta["val"].is_floating_point()
        return nearest if same else None

    def _function(self, start: fx.Node, end: fx.Node) -> fx.GraphModule:
        """What lies between two nodes as a module of its own, constants as numbers."""
        graph = fx.Graph()
        made: dict[fx.Node, Any] = {start: graph.placeholder("x")}

        def copy(node: fx.Node) -> Any:
            if node not in made:
                if node in self.constants:
                    made[node] = float(self.constants[node])
                else:
                    args, kwargs = fx.map_arg((node.args, node.kwargs), copy)
                    made[node] = graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]
            return made[node]

        graph.output(copy(end))
        return fx.GraphModule(nn.Module(), graph, class_name="Function")


@cache
def _points() -> Tensor:
    return torch.cat(
        [torch.linspace(-9, 9, 181, dtype=torch.float64), torch.tensor([-60.0, -25.0, 17.0, 40.0]).double()]
    )


@cache
def _standard_values() -> list[Tensor]:
    return [make()(_points()) for make in _STANDARD]


def _standard(function: nn.Module) -> nn.Module | None:
    """The standard module that computes the same, by its values at many points."""
    try:
        found = function(_points())
    except (RuntimeError, TypeError):
        return None
    for make, expected in zip(_STANDARD, _standard_values(), strict=True):
        if torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            return make()
    return None
