"""Lowering: a folded float network and what was chosen for it become the exact integer graph."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from bitfab.dtypes import MAX_BITS, IntType, QParams, ScaleKind, multiplier_and_shift, storage
from bitfab.errors import BitfabError
from bitfab.frontend.bilinear import Bilinear
from bitfab.frontend.top_k import top_k
from bitfab.ir import Builder, Graph
from bitfab.ir import ops as ir
from bitfab.ir.infer import infer
from bitfab.ir.names import Names, identifier
from bitfab.quant import bilinear
from bitfab.quant.encodings import Encoding
from bitfab.quant.fake_quant import round_real
from bitfab.quant.lower_parts import clip_range, ends, pair, reaches_outside, trailing_shape, transpose
from bitfab.quant.multipliers import add_factors, float_safe
from bitfab.quant.piecewise import shortened
from bitfab.quant.plan import Accumulating, Averaging, Clipping, Passing, Unary, make_plan
from bitfab.quant.recipe import Recipe
from bitfab.quant.weights import LayerWeights, lower_weights


@dataclass(frozen=True)
class Choices:
    """All that quantization decides for a folded float network; encodings and weights by the names of its nodes.

    A `trained` network has met its scales in training: factors are those nearest to them, not those that float32 rounds
    alike (`multipliers.float_safe`).
    """

    module: fx.GraphModule
    recipe: Recipe
    encodings: Mapping[str, Encoding]
    weights: Mapping[str, LayerWeights]
    trained: bool = False


@dataclass(frozen=True)
class Lowered:
    """The integer graph, and for each of its values the node of the float network whose output it stands for."""

    graph: Graph
    meaning: Mapping[str, str]


@dataclass(frozen=True)
class Codes:
    """A value of the graph under construction whose integers are codes of a scale.

    `pads` lie around it: zeros, or where it is `lowest` what is below all codes.
    """

    value: str
    qparams: QParams | None
    pads: ir.Pads = (0, 0, 0, 0)
    lowest: bool = False


def lower_choices(choices: Choices, name: str, shape: ir.Shape) -> Lowered:
    """The integer graph of what was chosen for a network whose input has `shape` (no batch axis).

    Values bear the names of the user's layers (`encoder_0_conv`, its codes `encoder_0_conv_requantize`), valid in
    SystemVerilog. Raises BitfabError where the integer graph has no operation for a layer, or scales are too unequal.
    """
    lowering = _Lowering(choices, identifier(name), shape)
    for node in choices.module.graph.nodes:
        lowering.visit(node)
    return lowering.result()


class _Lowering:
    """The state of one lowering: the graph so far, and what codes stand for each float node."""

    def __init__(self, choices: Choices, name: str, shape: ir.Shape) -> None:
        self.choices = choices
        self.plan = make_plan(choices.module, choices.recipe)
        self.recipe = choices.recipe
        self.shape = shape
        self.builder = Builder(name)
        self.names = Names()
        self.codes: dict[fx.Node, Codes] = {}
        self.meaning: dict[str, str] = {}
        self.outputs: tuple[str, ...] = ()

    def result(self) -> Lowered:
        return Lowered(self.builder.build(self.outputs), self.meaning)

    def visit(self, node: fx.Node) -> None:
        """Emit what the node becomes; a fused activation became part of its producer already."""
        if node.op == "output":
            self.outputs = self._outputs(node)
            return
        if node not in self.codes:
            self.codes[node] = self._emit(node)
            if node in self.plan.fused:
                self.codes[self.plan.fused[node]] = self.codes[node]

    def _outputs(self, node: fx.Node) -> tuple[str, ...]:
        """The values that the network returns, in its order."""
        returned: list[fx.Node] = []
        fx.map_arg(node.args, returned.append)  # each as often as it is there, unlike all_input_nodes
        values = tuple(self._read(source).value for source in returned)
        twins = {
            source.meta["source"]: 0 for source, value in zip(returned, values, strict=True) if values.count(value) > 1
        }
        if twins:
            raise BitfabError(f"{' and '.join(twins)}: the network returns the same integers twice; return them once")
        return values

    def _emit(self, node: fx.Node) -> Codes:
        match layer := self.plan.layers[node]:
            case None:
                return self._input(node)
            case nn.Conv2d() | nn.ConvTranspose2d() | nn.Linear():
                return self._accumulate(node, layer)
            case nn.AvgPool2d() | nn.AdaptiveAvgPool2d():
                return self._average(node, layer)
            case Bilinear():
                return self._interpolate(node, layer)
            case nn.MaxPool2d() | nn.Upsample() | nn.Flatten():
                return self._pass(node, layer)
            case nn.ConstantPad2d():
                x = self._read(node.args[0])
                left, right, top, bottom = layer.padding
                return Codes(x.value, x.qparams, (top, left, bottom, right), lowest=layer.value != 0)
            case nn.Module():
                return self._table(node, layer)
            case torch.add:
                return self._add(node)
            case torch.mul:
                return self._multiply(node)
            case torch.cat:
                return self._concat(node)
            case torch.reshape:
                return self._move(node, ir.Reshape(trailing_shape(node)))
            case torch.permute:
                return self._move(node, transpose(node))
            case operator.getitem:
                return self._move(node, self._slice(node))
            case _:
                return self._top_k(node)

    def _read(self, node: object, padded: type[nn.Module] | None = None) -> Codes:
        """The node's codes; those with padding only for the layer that takes it, `padded`."""
        assert isinstance(node, fx.Node)
        codes = self.codes[node]
        taker = nn.MaxPool2d if codes.lowest else nn.Conv2d
        if any(codes.pads) and padded is not taker:
            what = "padding with -inf" if codes.lowest else "zero padding"
            raise BitfabError(
                f"{node.meta['source']}: {what} is supported before a {taker.__name__} alone; pad there instead"
            )
        return codes

    def _target(self, node: fx.Node) -> tuple[QParams, IntType]:
        """Scale, zero point and type of the codes that the node puts out."""
        encoding = self.choices.encodings[node.name]
        return encoding.qparams, encoding.type

    def _new(
        self, node: fx.Node, op: ir.Op, inputs: tuple[str, ...] | str, qparams: QParams | None, end: str = ""
    ) -> str:
        """A graph node named after the float node; `end` tells several apart."""
        path = str(node.meta["source"])
        made = self.builder.add(self.names.take(identifier(f"{path}{end}")), op, inputs, qparams, source=path)
        self.meaning[made] = node.name
        return made

    def _input(self, node: fx.Node) -> Codes:
        qparams, type = self._target(node)
        name = self.names.take(identifier(node.meta["source"]))
        self.meaning[name] = node.name
        return Codes(self.builder.input(name, self.shape, type, qparams), qparams)

    def _requantize(self, node: fx.Node, value: str, ratio: np.ndarray, input_zero: int = 0) -> Codes:
        """Bring exact integers to the node's codes; a fused activation is the clip range."""
        qparams, type = self._target(node)
        final = self.plan.fused.get(node, node)
        if type.bipolar:
            return self._binarize(node, value, ratio * qparams.scale[0], input_zero)
        low, high = type.low, type.high
        if final is not node:
            low, high = clip_range(self.plan.layers[final], qparams, type, self.recipe.rounding)
        zero, bits = qparams.zero_point, self.recipe.multiplier_bits
        multiplier, shift = self._multiplier_and_shift(node, ratio)
        if not self.choices.trained:
            multiplier, shift = float_safe(multiplier, shift, bits, (low, high, zero))
        op = ir.Requantize(multiplier, shift, type, low, high, input_zero, zero, self.recipe.rounding)
        name = self._new(node, op, value, qparams, "_requantize")
        self.meaning[name] = final.name
        return Codes(name, qparams)

    def _binarize(self, node: fx.Node, value: str, scale: np.ndarray, zero: int) -> Codes:
        """The sign of `scale * (q - zero) - shift` for each channel: whether q reaches a threshold."""
        encoding = self.choices.encodings[node.name]
        final = self.plan.fused.get(node, node)
        low, high = ends(self.plan.layers[final]) if final is not node else (-np.inf, np.inf)
        shift = np.asarray(encoding.shift or (0.0,))
        if (shift <= low).all():
            raise BitfabError(
                f"{node.meta['source']}: signs of what {final.meta['source']} lets pass are all +1; use Hardtanh, or "
                "symmetric_activations=False"
            )
        reached = np.ceil(shift / scale) + zero
        always, never = IntType(MAX_BITS, signed=True).low, IntType(MAX_BITS, signed=True).high
        thresholds = np.where(shift <= low, always, np.where(shift > high, never, reached.clip(always, never)))
        op = ir.Threshold(thresholds.astype(np.int32)[:, None], encoding.type, encoding.type.low)
        name = self._new(node, op, value, encoding.qparams, "_sign")
        self.meaning[name] = final.name
        return Codes(name, encoding.qparams)

    def _rescale(
        self,
        node: fx.Node,
        operand: fx.Node,
        position: int,
        qparams: QParams,
        type: IntType | None,
        factor: float | None = None,
    ) -> str:
        """An operand of an add or concat brought to another scale; without a type, one in which nothing clips.

        `factor` is what its codes are multiplied by where that is not exactly the ratio of the scales.
        """
        x = self._read(operand)
        assert x.qparams is not None
        if type is not None and (x.qparams, self.builder.value(x.value).type) == (qparams, type):
            return x.value
        if type is not None and type.bipolar:
            return self._binarize(node, x.value, np.array([x.qparams.scale[0]]), x.qparams.zero_point).value
        ratio = factor or x.qparams.scale[0] / qparams.scale[0]
        multiplier, shift = self._multiplier_and_shift(node, np.array([ratio]))
        zeros = (x.qparams.zero_point, qparams.zero_point)
        if type is None:
            source = self.builder.value(x.value)
            wide = IntType(32, signed=True)
            probe = ir.Requantize(multiplier, shift, wide, wide.low, wide.high, *zeros, self.recipe.rounding)
            reached = infer(probe, [source.signature])
            type = IntType.holding(min(reached.low, -1), reached.high)
        op = ir.Requantize(multiplier, shift, type, type.low, type.high, *zeros, self.recipe.rounding)
        name = self._new(node, op, x.value, qparams, f"_requantize_{position}")
        self.meaning[name] = operand.name
        return name

    def _multiplier_and_shift(self, node: fx.Node, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            multiplier, shift = multiplier_and_shift(ratio, self.recipe.multiplier_bits)
        except BitfabError as error:
            raise BitfabError(f"{node.meta['source']}: {error}; check its data, or raise multiplier_bits") from error
        same = (multiplier == multiplier[0]).all() and (shift == shift[0]).all()
        return (multiplier[:1], shift[:1]) if same else (multiplier, shift)

    def _accumulate(self, node: fx.Node, layer: Accumulating) -> Codes:
        x = self._read(node.args[0], padded=nn.Conv2d if isinstance(layer, nn.Conv2d) else None)
        assert x.qparams is not None
        if self.builder.value(x.value).type.bipolar and reaches_outside(layer, x.pads):
            raise BitfabError(
                f"{node.meta['source']}: pads its input of signs with zeros, which are no signs; use padding=0, or "
                "more than 1 bit for the activation before"
            )
        qparams, _ = self._target(node)
        op, weight_scale = lower_weights(layer, self.choices.weights[node.name], x.qparams, x.pads)
        accumulated = weight_scale * x.qparams.scale[0]
        acc = self._new(node, op, x.value, QParams(tuple(float(s) for s in accumulated)))
        return self._requantize(node, acc, accumulated / qparams.scale[0])

    def _average(self, node: fx.Node, layer: Averaging) -> Codes:
        x = self._read(node.args[0])
        assert x.qparams is not None
        zero = x.qparams.zero_point
        if isinstance(layer, nn.AvgPool2d):
            top, left = pair(layer.padding)
            op = ir.SumPool2d(pair(layer.kernel_size), pair(layer.stride), (top, left, top, left), zero)
        else:
            _, height, width = self.builder.value(x.value).shape
            op = ir.SumPool2d((height, width), (height, width))
        count = op.kernel[0] * op.kernel[1]
        scale = x.qparams.scale[0] / count
        total = self._new(node, op, x.value, QParams((scale,), count * zero))
        qparams, _ = self._target(node)
        return self._requantize(node, total, np.array([scale / qparams.scale[0]]), count * zero)

    def _interpolate(self, node: fx.Node, layer: Bilinear) -> Codes:
        x, (qparams, _), source = self._read(node.args[0]), self._target(node), self._shape(node.args[0])
        assert x.qparams is not None
        new = functools.partial(self._new, node, qparams=None)
        total, divisor = bilinear.emit(new, x.value, source, layer.factor)
        ratio = np.array([x.qparams.scale[0] / divisor / qparams.scale[0]])
        return self._requantize(node, total, ratio, divisor * x.qparams.zero_point)

    def _pass(self, node: fx.Node, layer: Passing) -> Codes:
        if isinstance(layer, nn.Flatten):
            return self._move(node, ir.Reshape((math.prod(self._shape(node.args[0])),)))
        if isinstance(layer, nn.Upsample):
            return self._move(node, ir.Upsample(pair(layer.scale_factor)))
        x = self._read(node.args[0], padded=nn.MaxPool2d)
        rows, columns = pair(layer.padding)
        top, left, bottom, right = x.pads
        padding = (top + rows, left + columns, bottom + rows, right + columns)
        op = ir.MaxPool2d(pair(layer.kernel_size), pair(layer.stride), padding)
        return Codes(self._new(node, op, x.value, x.qparams), x.qparams)

    def _move(self, node: fx.Node, op: ir.Op) -> Codes:
        """What leaves all codes as they are, or repeats them."""
        x = self._read(node.args[0])
        return Codes(self._new(node, op, x.value, x.qparams), x.qparams)

    def _shape(self, node: object) -> ir.Shape:
        return self.builder.value(self._read(node).value).shape

    def _slice(self, node: fx.Node) -> ir.Slice:
        index = node.args[1]
        assert isinstance(index, tuple) and isinstance(index[-1], slice)
        axis = len(index) - 2  # the batch axis does not count
        return ir.Slice(axis, *index[-1].indices(self._shape(node.args[0])[axis]))

    def _top_k(self, node: fx.Node) -> Codes:
        k = node.args[1] if node.target is top_k else 1  # an argmax
        assert isinstance(k, int)
        return Codes(self._new(node, ir.TopK(k), self._read(node.args[0]).value, None), None)

    def _table(self, node: fx.Node, layer: nn.Module) -> Codes:
        """Any unary function: each code's real value through the float layer, quantized again."""
        assert isinstance(layer, Clipping | Unary), layer
        x = self._read(node.args[0])
        assert x.qparams is not None
        domain = self.builder.value(x.value).type
        reals = (np.arange(domain.low, domain.high + 1) - x.qparams.zero_point) * x.qparams.scale[0]
        with torch.no_grad():
            images = layer(torch.from_numpy(reals)).numpy()
        qparams, type = self._target(node)
        if type.bipolar and isinstance(layer, Clipping):
            return self._binarize_clipped(node, x, images)
        codes = round_real(torch.from_numpy(images / qparams.scale[0]), self.recipe.rounding).numpy()
        table = (codes + qparams.zero_point).clip(type.low, type.high).astype(storage(type))
        op = shortened(images / qparams.scale[0] + qparams.zero_point, ir.Table(table, domain, type))
        return Codes(self._new(node, op, x.value, qparams), qparams)

    def _binarize_clipped(self, node: fx.Node, x: Codes, images: np.ndarray) -> Codes:
        """The sign of a clipping function of codes, whose `images` ascend, less the shift of each channel."""
        encoding, domain = self.choices.encodings[node.name], self.builder.value(x.value).type
        thresholds = domain.low + np.searchsorted(images, np.asarray(encoding.shift or (0.0,)))
        op = ir.Threshold(thresholds.astype(np.int32)[:, None], encoding.type, encoding.type.low)
        return Codes(self._new(node, op, x.value, encoding.qparams), encoding.qparams)

    def _add(self, node: fx.Node) -> Codes:
        """Both operands at one scale, finer than the output's, then the exact sum; po2: at the finest of all scales."""
        qparams, _ = self._target(node)
        operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
        known = [x.qparams for x in map(self._read, operands) if x.qparams is not None]
        factors: Sequence[float | None] = [None] * len(known)
        if self.recipe.scale is ScaleKind.PO2:
            fine = min(q.scale[0] for q in (qparams, *known))
        else:
            guard, factors = self._add_factors(node, operands)
            fine = qparams.scale[0] / 2**guard
        common = QParams((fine,))
        scaled = tuple(self._rescale(node, operand, i, common, None, factors[i]) for i, operand in enumerate(operands))
        total = self._new(node, ir.Add(), scaled, common)
        return self._requantize(node, total, np.array([fine / qparams.scale[0]]))

    def _add_factors(self, node: fx.Node, operands: Sequence[fx.Node]) -> tuple[int, Sequence[float | None]]:
        """See `multipliers.add_factors`."""
        qparams, type = self._target(node)
        ratios, codes = [], []
        for x in map(self._read, operands):
            assert x.qparams is not None
            domain = self.builder.value(x.value).type
            ratios.append(x.qparams.scale[0] / qparams.scale[0])
            codes.append(np.arange(domain.low, domain.high + 1) - x.qparams.zero_point)
        return add_factors(ratios, codes, self.recipe.multiplier_bits, (type.low, type.high, qparams.zero_point))

    def _multiply(self, node: fx.Node) -> Codes:
        """The exact product, the factor of each channel behind what it multiplies; then one requantize."""
        operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
        a, b = sorted(map(self._read, operands), key=lambda x: -math.prod(self.builder.value(x.value).shape))
        assert a.qparams is not None and b.qparams is not None
        scale, (qparams, _) = a.qparams.scale[0] * b.qparams.scale[0], self._target(node)
        op = ir.Multiply(a.qparams.zero_point, b.qparams.zero_point)
        product = self._new(node, op, (a.value, b.value), QParams((scale,)))
        return self._requantize(node, product, np.array([scale / qparams.scale[0]]))

    def _concat(self, node: fx.Node) -> Codes:
        qparams, type = self._target(node)
        operands = tuple(self._rescale(node, n, i, qparams, type) for i, n in enumerate(node.all_input_nodes))
        axis = node.args[1]
        assert isinstance(axis, int)
        return Codes(self._new(node, ir.Concat(axis - 1), operands, qparams), qparams)
