"""Writes the integer graph: chooses the input's codes, folds biases, and makes integers out of meanings when needed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bitfab.dtypes import MAX_BITS, IntArray, IntType, QParams, Rounding
from bitfab.errors import BitfabError
from bitfab.frontend.onnx_quantized import requantizing
from bitfab.frontend.onnx_quantized.meaning import Joined, Quantized, Reals, Source, Sums, Tensor, reals
from bitfab.frontend.onnx_quantized.quantizers import Grid, Ladder, Quantizer, narrowed
from bitfab.ir import Builder
from bitfab.ir import ops as ir
from bitfab.ir.graph import Value
from bitfab.ir.infer import infer
from bitfab.ir.names import Names, plain

RAW_TYPE = IntType(16, signed=True)
RAW_SCALE = 2.0**-11
"""Codes of a real input that the file quantizes nowhere: 16 bits of 2**-11, from -16 to 16."""

IMAGE_TYPE = IntType(8, signed=False)
PIXELS_BELOW = 1 / 16  # a factor on the input smaller than this one tells that its pixels go to 255, and not to 1

GUARD_BITS = (
    12  # operands of an add come to a scale so many bits finer (with 8, one output in a hundred was a code off)
)
MAX_GUARD = 8  # bits by which weights may grow for the sake of a bias that lies between their sums
MAX_SUM_BITS = 30  # of the operands of an add at their common scale
MAX_BIAS = 2.0**31
MAX_CHANNELS = 1 << 20  # that get parameters of their own


class Emitter:
    """The graph under construction."""

    def __init__(self, name: str, raw_scale: float) -> None:
        self.builder = Builder(name)
        self.raw_scale = raw_scale
        self._names = Names()
        self._inputs: dict[str, tuple[str, float, float]] = {}  # by ONNX name: value, scale and offset of its codes
        self._made: dict[object, tuple[object, str]] = {}  # by what it was made from, which is kept alive

    def input_of(self, name: str) -> str | None:
        """The graph's input that stands for an input of the model; None where nothing reads it."""
        return self._inputs[name][0] if name in self._inputs else None

    def known(self, tensor: Tensor) -> Value:
        """The graph's value of a tensor that has one."""
        return self.builder.value(tensor.held)

    def add(self, name: str, kind: str, op: ir.Op, inputs: str | tuple[str, ...], qparams: QParams | None) -> str:
        """A node named `<name>_<kind>`; raises BitfabError naming it where it is impossible."""
        return self.builder.add(self._take(name, kind), op, inputs, qparams, source=name)

    def moved(self, tensor: Tensor, op: ir.Op, name: str, kind: str) -> Tensor:
        """A tensor with a value, through an operation that leaves each integer's meaning what it was."""
        value = self.add(name, kind, op, tensor.held, self.known(tensor).qparams)
        return replace(tensor, value=value, shape=self.builder.value(value).shape)

    def quantize(self, tensor: Tensor, quantizer: Quantizer, name: str) -> Tensor:
        """The codes that a quantizer makes of a tensor, as what they mean."""
        value = Quantized(tensor, quantizer, name)
        return Tensor(value, tensor.shape, scale=quantizer.scale, offset=quantizer.offset)

    def integers(self, tensor: Tensor, fine: Reals | None = None, biased: bool = True) -> Tensor:
        """The same meaning, of a value that the graph holds.

        Biases that lie between the integers of sums are rounded to these; where `fine`, the scale of the codes to be
        made, shows that this would be felt, the weights are doubled until it is not. Unless `biased`, sums get no bias,
        and all of the offset stays.
        """
        match tensor.value:
            case Source() as source:
                return self._border(tensor, source)
            case Sums() as sums:
                return self._sums(tensor, sums, fine, biased)
            case Quantized() as quantized:
                return self._codes(tensor, quantized)
            case Joined() as joined:
                return self._concat(joined, tensor.shape)
        return tensor

    def settled(self, tensor: Tensor) -> Tensor | None:
        """The same meaning as a rising affine map of a value's integers alone; None where that is impossible."""
        t = self.integers(tensor)
        if not t.then and (t.scale <= 0).any():
            t = self.integers(self._one_product_each(t))
        if t.then or not t.rising or t.affine_only:
            return t if t.affine_only else None
        value = self.known(t)
        exact = np.stack(np.broadcast_arrays(*((end - t.offset) / t.scale for end in (t.low, t.high))))
        ends = np.rint(np.clip(exact, value.low, value.high))
        if (ends != ends[:, :1]).any() or np.abs(ends - np.clip(exact, value.low, value.high)).max() > 1e-6:
            return None
        same = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        op = ir.Requantize(*same, value.type, int(ends[0, 0]), int(ends[1, 0]))
        return self.moved(replace(t, low=reals(-np.inf), high=reals(np.inf)), op, t.held, "clip")

    def total(self, a: Tensor, b: Tensor, name: str) -> Tensor | None:
        """The sum of two tensors of one shape, exact where their scales are equal; None where it is impossible."""
        first, second = self.settled(a), self.settled(b)
        if first is None or second is None:
            return None
        if not (first.scale == second.scale).all():
            scale = self._common_scale(first, second)
            first, second = self._rescaled(first, scale, name), self._rescaled(second, scale, name)
        value = self.add(name, "sum", ir.Add(), (first.held, second.held), _qparams(first.scale))
        return Tensor(value, a.shape, first.scale, first.offset + second.offset)

    def output(self, tensor: Tensor, name: str) -> tuple[str, QParams]:
        """The value of an output and what its integers mean: of one scale for all channels, so that they compare."""
        t = self.settled(tensor)
        if t is None:
            what = tensor.then[-1].name if tensor.then else "a clip"
            raise BitfabError(f"{name}: the model ends with {what} that no quantizer follows; add one, or leave it out")
        if (t.scale != t.scale[0]).any():
            t = self._rescaled(t, float(t.scale.min()), name)
        zero = np.rint(-t.offset / t.scale)
        return t.held, QParams((float(t.scale[0]),), int(zero[0]))

    def comparable(self, tensor: Tensor, name: str) -> str | None:
        """A value whose integers are in the order of the reals, over all channels; None where that is impossible."""
        t = self.settled(tensor)
        if t is not None and (t.scale != t.scale[0]).any():
            t = self._rescaled(t, float(t.scale.min()), name)
        return t.held if t is not None and np.ptp(np.rint(t.offset / t.scale)) == 0 else None

    def _rescaled(self, t: Tensor, scale: float, name: str) -> Tensor:
        """Affine integers at another scale, rounded to it, in a type in which nothing clips."""
        zero, ratio = np.rint(-t.offset / t.scale), t.scale / scale
        zero = zero if (zero == zero[0]).all() else np.zeros(1)
        wide = IntType(MAX_BITS, signed=True)
        span = (wide, wide.low, wide.high)
        op = requantizing.scaling(ratio, 24, (int(zero[0]), 0), span, Rounding.HALF_EVEN)
        known = infer(op, [self.known(t).signature])
        low, high = min(known.low, -1), known.high
        op = replace(op, type=IntType.holding(low, high), low=low, high=high)
        made = self.add(name, "rescale", op, t.held, QParams((scale,)))
        return Tensor(made, t.shape, reals(scale), t.offset + zero[:1] * t.scale)

    def _common_scale(self, *operands: Tensor) -> float:
        """GUARD_BITS finer than the finest of the operands, but no finer than MAX_SUM_BITS allow."""
        finest = min(float(t.scale.min()) for t in operands) / 2**GUARD_BITS
        reach = max(float(t.scale.max()) * max(abs(self.known(t).low), abs(self.known(t).high), 1) for t in operands)
        return max(finest, 2.0 ** (math.ceil(math.log2(reach)) - MAX_SUM_BITS + 2))

    def _take(self, name: str, kind: str) -> str:
        """An identifier of SystemVerilog, unique whatever the case of its letters; the kind keeps it off keywords."""
        return self._names.take(f"{plain(name, most=80)}_{kind}")

    def _border(self, tensor: Tensor, source: Source) -> Tensor:
        """The input's integers; codes that no quantizer of the file gives are chosen here (see load_quantized_onnx)."""
        if source.name not in self._inputs:
            type, scale = source.type, 1.0
            if type is None and tensor.unchanged:
                type, scale = RAW_TYPE, self.raw_scale
            elif type is None:
                type, scale = IMAGE_TYPE, 1.0 if np.abs(tensor.scale).max() < PIXELS_BELOW else 1 / 255
            self._input(source, type, QParams((scale,)))
        value, scale, offset = self._inputs[source.name]
        value = self._reshaped(value, tensor.shape)
        return replace(tensor, value=value, scale=tensor.scale * scale, offset=tensor.scale * offset + tensor.offset)

    def _input(self, source: Source, type: IntType, codes: QParams) -> None:
        name = self.builder.input(self._take(source.name, "codes"), source.shape, type, codes)
        self._inputs[source.name] = (name, codes.scale[0], -codes.scale[0] * codes.zero_point)

    def _reshaped(self, value: str, shape: ir.Shape) -> str:
        known = self.builder.value(value)
        return value if known.shape == shape else self.add(value, "reshape", ir.Reshape(shape), value, known.qparams)

    def _sums(self, t: Tensor, sums: Sums, fine: Reals | None, biased: bool) -> Tensor:
        """Sums with as much of the offset as integers can hold for a bias; channels that fall are negated."""
        outputs = len(sums.op.bias)
        scale, offset = np.broadcast_to(t.scale, outputs), np.broadcast_to(t.offset, outputs)
        sign = np.sign(scale).astype(np.int64)
        constant = np.where(offset == 0, 1.0, np.abs(offset))  # what a channel without slope counts in
        scale = np.where(sign == 0, constant, np.abs(scale))
        guard = self._guard(sums, scale, offset, fine)
        bias = np.clip(np.rint(offset / scale * 2.0**guard), -MAX_BIAS, MAX_BIAS) if biased else np.zeros(outputs)
        key = (id(sums), bias.tobytes(), sign.tobytes(), guard)
        scale = scale / 2.0**guard
        if key not in self._made:
            op = replace(sums.op, weight=_scaled(sums.op, sign << guard), bias=bias.astype(np.int64))
            self._made[key] = (sums, self.add(sums.name, "sums", op, sums.input, _qparams(scale)))
        return replace(t, value=self._made[key][1], scale=scale, offset=offset - scale * bias)

    def _guard(self, sums: Sums, scale: Reals, offset: Reals, fine: Reals | None) -> int:
        """By how many bits the weights must grow for the biases' rounding to move no code by more than TOLERANCE."""
        if fine is None:
            return 0
        ideal, guard = offset / scale, 0
        room = MAX_BITS - infer(sums.op, [self.builder.value(sums.input).signature]).type.bits - 1
        while guard < min(MAX_GUARD, room):
            exact = ideal * 2.0**guard
            if (np.abs(exact - np.rint(exact)) * scale / 2.0**guard / fine).max() <= requantizing.TOLERANCE:
                break
            guard += 1
        return guard

    def _one_product_each(self, t: Tensor) -> Tensor:
        """The same meaning of a depthwise convolution with one weight, which can hold an offset for each channel."""
        shape = t.shape if len(t.shape) == 3 else (math.prod(t.shape), 1, 1)
        if shape[0] > MAX_CHANNELS:
            raise BitfabError(f"{t.held}: {shape[0]:,} channels, up to {MAX_CHANNELS:,} can be scaled; use fewer")
        ones, zeros = np.ones((shape[0], 1, 1, 1), dtype=np.int64), np.zeros(shape[0], dtype=np.int64)
        value = self._reshaped(t.held, shape)
        return replace(t, value=Sums(ir.Conv2d(ones, zeros, groups=shape[0]), value, t.held), shape=shape)

    def _codes(self, tensor: Tensor, quantized: Quantized) -> Tensor:
        """Codes made by the quantizer, whose range a clip of them narrows."""
        quantizer, t = quantized.quantizer, tensor
        if isinstance(quantizer, Grid) and not tensor.affine_only and not tensor.then and (tensor.scale > 0).all():
            exact = np.stack(np.broadcast_arrays(*((end - t.offset) / t.scale for end in (t.low, t.high))))
            exact = np.clip(exact, quantizer.low, quantizer.high)
            ends = np.rint(exact)
            if (ends == ends[:, :1]).all() and np.abs(exact - ends).max() < 1e-6:
                quantizer = narrowed(quantizer, int(ends[0, 0]), int(ends[1, 0]))
                t = replace(t, low=reals(-np.inf), high=reals(np.inf))
        key = (id(quantized), quantizer.low, len(quantizer.levels))
        if key not in self._made:
            self._made[key] = (quantized, self._make_codes(quantized.tensor, quantizer, quantized.name).held)
        return replace(t, value=self._made[key][1])

    def _make_codes(self, t: Tensor, quantizer: Quantizer, name: str) -> Tensor:
        """A tensor whose value holds the quantizer's codes; only its value and shape have a meaning."""
        if isinstance(t.value, Joined):
            parts = [self._make_codes(part, _cut(quantizer, t, i), name) for i, part in enumerate(t.value.parts)]
            return self._concat(
                Joined(tuple(replace(p, scale=reals(1), offset=reals(0)) for p in parts), name), t.shape
            )
        fits = t.unchanged and isinstance(quantizer, Grid) and len(quantizer.scale) == 1
        if isinstance(t.value, Source) and t.value.type is None and t.value.name not in self._inputs and fits:
            return self._quantized_input(t, t.value, quantizer, name)
        shape = t.shape
        few = len(quantizer.levels) <= requantizing.FEW_LEVELS and all(function.rising for function in t.then)
        t = self.integers(t, None if few else quantizer.scale, biased=not few)
        if requantizing.already(t, self.known(t), quantizer):
            return t
        op = requantizing.operation(t, self.known(t), quantizer)
        if op is None:
            t = self.integers(self._one_product_each(t), quantizer.scale)
            op = requantizing.operation(t, self.known(t), quantizer)
        if op is None:
            raise BitfabError(
                f"{name}: no integer operation makes its codes out of {t.then[-1].name if t.then else 'a product'} of "
                f"{self.known(t).type}; put a quantizer of at most 8 bits before that"
            )
        kind = type(op).__name__.lower()
        zero = quantizer.zero if isinstance(quantizer, Grid) else 0
        value = self.add(name, kind, op, t.held, _qparams(quantizer.scale, zero))
        return Tensor(self._reshaped(value, shape), shape)

    def _quantized_input(self, t: Tensor, source: Source, grid: Quantizer, name: str) -> Tensor:
        """The model's first quantizer becomes the border: the graph's input are its codes."""
        assert isinstance(grid, Grid)
        codes = QParams((float(grid.scale[0]),), grid.zero)
        self._input(source, grid.type, codes)
        t = Tensor(self._reshaped(self._inputs[source.name][0], t.shape), t.shape)
        if (grid.low, grid.high) != (grid.type.low, grid.type.high):
            same = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
            t = self.moved(t, ir.Requantize(*same, grid.type, grid.low, grid.high), name, "clip")
        return t

    def _concat(self, joined: Joined, shape: ir.Shape) -> Tensor:
        """Parts one after the other, their integers as they are, in a type that holds all."""
        parts = [self.settled(part) for part in joined.parts]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            raise BitfabError(f"{joined.name}: joins what no quantizer made integers of; quantize its inputs or output")
        values = [self.known(part) for part in known]
        type = values[0].type
        if any(value.type != type for value in values):
            type = IntType.holding(min(value.low for value in values), max(value.high for value in values))
            same = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
            op = ir.Requantize(*same, type, type.low, type.high)
            known = [self.moved(part, op, joined.name, "widen") for part in known]
        scale, offset = (
            np.concatenate([np.broadcast_to(getattr(part, what), part.shape[0]) for part in known])
            for what in ("scale", "offset")
        )
        value = self.add(joined.name, "concat", ir.Concat(), tuple(part.held for part in known), _qparams(scale))
        return Tensor(value, shape, scale, offset)


def _scaled(op: ir.Conv2d | ir.ConvTranspose2d | ir.Dense, factor: IntArray) -> IntArray:
    """The weights, each output's multiplied by its factor (O,)."""
    weight = op.weight.astype(np.int64)
    if isinstance(op, ir.ConvTranspose2d):
        inputs, outputs, *kernel = weight.shape
        grouped = weight.reshape(op.groups, inputs // op.groups, outputs, *kernel)
        return (grouped * factor.reshape(op.groups, 1, outputs, 1, 1)).reshape(weight.shape)
    return weight * factor.reshape((-1,) + (1,) * (weight.ndim - 1))


def _cut(quantizer: Quantizer, t: Tensor, index: int) -> Quantizer:
    """A quantizer of joined parts for one of them."""
    assert isinstance(t.value, Joined)
    first = sum(part.shape[0] for part in t.value.parts[:index])
    span = slice(first, first + t.value.parts[index].shape[0])
    if isinstance(quantizer, Ladder) and len(quantizer.thresholds) > 1:
        quantizer = replace(quantizer, thresholds=quantizer.thresholds[span])
    return replace(quantizer, scale=quantizer.scale[span]) if len(quantizer.scale) > 1 else quantizer


def _qparams(scale: Reals, zero: int = 0) -> QParams:
    same = (scale == scale[0]).all()
    return QParams(tuple(float(s) for s in (scale[:1] if same else scale)), zero)
