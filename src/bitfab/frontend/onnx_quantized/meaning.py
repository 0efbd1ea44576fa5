"""What a tensor of a quantized ONNX file means: integers, and the exact real function of them that it stands for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfab.dtypes import IntType
from bitfab.frontend.onnx_quantized.quantizers import Quantizer
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Pads, Shape

Reals = npt.NDArray[np.float64]
"""One real number, shape (1,), or one for each channel (axis 0 of the tensor without its batch), shape (C,)."""

NO_PADS: Pads = (0, 0, 0, 0)


def reals(*values: float) -> Reals:
    """Values as an array."""
    return np.asarray(values, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Const:
    """A constant; `array` holds its real values, whole multiples of `step` (same shape) where that is known."""

    array: npt.NDArray[Any]
    step: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Source:
    """An input of the model whose codes nobody has chosen yet; `type` where the file gives integers."""

    name: str
    shape: Shape
    type: IntType | None


@dataclass(frozen=True, eq=False)
class Sums:
    """Exact sums of products of the integers `input`, waiting for a bias; `op.bias` is 0 until then."""

    op: Conv2d | ConvTranspose2d | Dense
    input: str
    name: str


@dataclass(frozen=True, eq=False)
class Quantized:
    """Codes of `tensor`, not made yet, so that a clip that follows (QCDQ) can still narrow their type."""

    tensor: Tensor
    quantizer: Quantizer
    name: str


@dataclass(frozen=True, eq=False)
class Joined:
    """Tensors one after the other along the channels; a quantizer that follows acts on each."""

    parts: tuple[Tensor, ...]
    name: str


@dataclass(frozen=True)
class Function:
    """A function of reals (C or 1, L); `rising` where it is monotone and never falls, `uniform` over the channels."""

    name: str
    apply: Callable[[Reals], Reals]
    rising: bool
    uniform: bool = True


@dataclass(frozen=True, eq=False)
class Tensor:
    """`then(clip(scale * q + offset, low, high))` of the integers q that `value` names or will become.

    All four are one number or one for each channel, float64. `shape` has no batch axis; `pads` zeros lie around.
    """

    value: str | Source | Sums | Quantized | Joined
    shape: Shape
    scale: Reals = field(default_factory=lambda: reals(1))
    offset: Reals = field(default_factory=lambda: reals(0))
    low: Reals = field(default_factory=lambda: reals(-np.inf))
    high: Reals = field(default_factory=lambda: reals(np.inf))
    then: tuple[Function, ...] = ()
    pads: Pads = NO_PADS

    @property
    def affine_only(self) -> bool:
        """Whether it is `scale * q + offset`."""
        return not self.then and bool(np.isneginf(self.low).all() and np.isposinf(self.high).all())

    @property
    def rising(self) -> bool:
        """Whether it never falls as q grows."""
        return bool((self.scale > 0).all()) and all(function.rising for function in self.then)

    @property
    def uniform(self) -> bool:
        """Whether all channels mean the same."""
        known = (self.scale, self.offset, self.low, self.high)
        return all((part == part[0]).all() for part in known) and all(function.uniform for function in self.then)

    @property
    def unchanged(self) -> bool:
        """Whether it is q itself."""
        return self.affine_only and bool((self.scale == 1).all() and (self.offset == 0).all())

    @property
    def held(self) -> str:
        """The name of its value in the graph."""
        assert isinstance(self.value, str), self.value
        return self.value

    def of(self, q: npt.NDArray[Any]) -> Reals:
        """The reals that integers (C or 1, L) stand for."""
        return self._through(self.scale[:, None] * q + self.offset[:, None])

    def of_codes(self, q: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """What few codes (1, L) stand for in float32, as executors of the file compute it; all channels mean the same.

        Where a function ends between two codes, float32 decides: with a slope of 0.1 (0.100000001490 in float32), -5
        becomes -0.5, and -0.50000000745 in float64.
        """
        scale, offset = self.scale[0], self.offset[0]
        zero = np.rint(-offset / scale) if scale else 0.0
        if offset == -scale * zero:
            return self._through((q - zero).astype(np.float32) * np.float32(scale))
        return self._through((scale * q + offset).astype(np.float32))

    def _through(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The clip and the functions behind it, in x's precision."""
        x = np.clip(x, self.low.astype(x.dtype)[:, None], self.high.astype(x.dtype)[:, None])
        for function in self.then:
            x = function.apply(x)
        return x

    def affine(self, a: Reals, b: Reals) -> Tensor:
        """`a * self + b`."""
        if isinstance(self.value, Joined):
            return self._each(lambda part, cut: part.affine(cut(a), cut(b)))
        if self.then:
            uniform = bool((a == a[0]).all() and (b == b[0]).all())
            a, b = (a[:1], b[:1]) if uniform else (a, b)
            return self.mapped(Function("Mul", lambda x: a[:, None] * x + b[:, None], bool((a > 0).all()), uniform))
        with np.errstate(invalid="ignore"):
            ends = a * self.low + b, a * self.high + b
        return replace(
            self,
            scale=a * self.scale,
            offset=a * self.offset + b,
            low=np.where(a == 0, -np.inf, np.where(a > 0, ends[0], ends[1])),
            high=np.where(a == 0, np.inf, np.where(a > 0, ends[1], ends[0])),
        )

    def clipped(self, low: Reals, high: Reals) -> Tensor:
        """`clip(self, low, high)`, low <= high."""
        if isinstance(self.value, Joined):
            return self._each(lambda part, cut: part.clipped(cut(low), cut(high)))
        if self.then:
            uniform = bool((low == low[0]).all() and (high == high[0]).all())
            low, high = (low[:1], high[:1]) if uniform else (low, high)
            return self.mapped(Function("Clip", lambda x: np.clip(x, low[:, None], high[:, None]), True, uniform))
        return replace(self, low=np.clip(self.low, low, high), high=np.clip(self.high, low, high))

    def mapped(self, function: Function) -> Tensor:
        """`function(self)`."""
        if isinstance(self.value, Joined):
            return self._each(lambda part, _: part.mapped(function))
        return replace(self, then=(*self.then, function))

    def _each(self, change: Callable[[Tensor, Callable[[Reals], Reals]], Tensor]) -> Tensor:
        """Change each joined tensor; `cut` gives it its channels of a parameter."""
        assert isinstance(self.value, Joined)
        parts, first = [], 0
        for part in self.value.parts:
            span = slice(first, first + part.shape[0])
            parts.append(change(part, functools.partial(_cut, span)))
            first = span.stop
        return replace(self, value=Joined(tuple(parts), self.value.name))


def _cut(span: slice, parameter: Reals) -> Reals:
    """A parameter's entries for some channels; one that all share stays."""
    return parameter if len(parameter) == 1 else parameter[span]
