"""One call of the exported graph as the builders of the normal form see it, and the steps that they answer with."""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Affine:
    """`scale * x + shift` with one entry per channel (axis 1) each, or one for all, as vectors (C,) or (1,)."""

    scale: Tensor
    shift: Tensor


Steps = Sequence[nn.Module | Function | Affine]


class Call:
    """One aten call: its arguments by their schema names, defaults included, and the shapes (batch axis included).

    `args` and `kwargs` are those of `node` with nodes of the new graph, or constants, in the place of exported nodes.
    """

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

    def axis(self, name: str = "dim") -> int:
        """An axis of the input, counted from the first."""
        rank = len(self.input_shape)
        value = self.arguments[name]
        return value % rank if rank else value

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.node.meta["val"].shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        first = self.node.all_input_nodes[0]
        return tuple(first.meta["val"].shape)
