"""The mixed graph: layers and products of activations compute in integers, what has no integer form stays float."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfab.dtypes import FloatArray, QuantSpec
from bitfab.errors import BitfabError
from bitfab.frontend.matmul import MatMul
from bitfab.quant.activation_codes import ActivationCode, EvenCode, group_channels, log_uniform
from bitfab.quant.calibrate import as_batches
from bitfab.quant.census import Census, FloatPart, layer_macs
from bitfab.quant.dynamic import LARGEST_BITS, LARGEST_SUM, IntegerLayer
from bitfab.quant.observers import make_observer
from bitfab.quant.plan import check_weights
from bitfab.quant.recipe import EXCLUDED_BITS, BiasCorrection, LayerRecipe, Recipe, matches, recipe_or
from bitfab.quant.static_layers import StaticConv2d, StaticConvTranspose2d, StaticLinear, StaticMatMul

SAMPLE = 4096  # values kept of each operand at each call, for the choice between even and log-uniform codes
LARGEST_PRODUCT_BITS = 16  # of the operands of a product of activations: exact in float64
LEAST_ONE_SIDED = -0.1701  # GELU puts out nothing less
UNREACHED = "a layer that the calibration inputs never reach"

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class MixedLayer:
    """A layer that computes in integers: bits of its weights (0: it has none) and inputs, products on one input."""

    name: str
    kind: str
    weights: int
    activations: int
    code: str
    macs: int


@dataclass(frozen=True)
class Mixed:
    """A network computing in integers where it can: `module`, an ordinary one, and what became of each part."""

    module: nn.Module
    layers: tuple[MixedLayer, ...]
    floats: tuple[FloatPart, ...]

    @property
    def integer_share(self) -> float:
        """The share of all products, of one calibration input, that are products of integers."""
        integers, floats = (sum(part.macs for part in parts) for parts in (self.layers, self.floats))
        return integers / max(integers + floats, 1)


def quantize_mixed(
    net: nn.Module,
    calibration: Iterable[Inputs] | FloatArray,
    recipe: Recipe | None = None,
    *,
    channel_groups: int = 1,
    hybrid: bool = False,
) -> Mixed:
    """A copy whose `Linear`, `Conv2d`, `ConvTranspose2d` and `MatMul` compute in integers, scales fixed beforehand.

    `y = s_x * s_w * sum((q_x - z_x) * q_w) + b`: the sums are exact, the result is float again, and what lies between
    such layers (softmax, layer norm, activations, sums) is computed as it was, as are layers that no calibration input
    reaches. Weights are as `quantize_dynamic` makes them; a layer's `activations` are the bits of its inputs (of a
    `MatMul` up to 16), whose ranges the recipe's observer takes from the calibration. The table of the result says what
    stays float, and why.

    Args:
        net: any module, in eval mode, of any inputs; left as it is.
        calibration: inputs, each a tensor, or a tuple or dict of the arguments of `net`; or one array or tensor, whose
            first axis counts them, as `quantize` takes it.
        recipe: 8 bits each by default; without equalize, adaround and bias_correction. Excluded layers stay float.
        channel_groups: the inputs of a `Linear` share this many scales between their channels at most, similar channels
            one (channel-aware grouping; AHCPTQ, Zhang et al. 2025, 2503.03088, has 4); ranges are then extremes.
        hybrid: inputs of `Linear`, and first operands of `MatMul`, that are never below -0.17 (what GELU, ReLU and
            softmax put out) get log-uniform codes where these err less on the calibration (see
            `activation_codes.LogUniformCode`).

    Raises:
        BitfabError: no calibration, or one that the network cannot take; NaN or infinite values; nothing to quantize;
            bits or steps that this mode has not.
    """
    recipe = recipe_or(recipe)
    if recipe.equalize or recipe.adaround or recipe.bias_correction is not BiasCorrection.NONE:
        raise BitfabError("mixed: equalize, adaround and bias_correction are for integer graphs; leave them out")
    if channel_groups < 1:
        raise BitfabError(f"mixed: channel_groups {channel_groups}: choose 1 or more, such as 4")
    check_weights(net)
    recipe.check(name for name, _ in net.named_modules() if name)
    inputs = as_batches(calibration, net) if isinstance(calibration, np.ndarray | Tensor) else calibration
    module = copy.deepcopy(net)
    layers = _to_quantize(module, recipe)
    seen = {name: _Operands(layer, recipe.layer(name), recipe) for name, layer in layers.items()}
    census, macs = _observe(module, inputs, layers, seen)
    table, replaced = [], dict[nn.Module | None, nn.Module]()
    for name, layer in layers.items():
        if seen[name].calls == 0:
            continue
        integer, code = _static(name, layer, recipe.layer(name), seen[name], channel_groups, hybrid)
        chosen, weighted = recipe.layer(name), isinstance(integer, IntegerLayer)
        bits = chosen.weights.bits if weighted else 0
        table.append(MixedLayer(name, type(layer).__name__, bits, chosen.activations.bits, code, macs[name]))
        replaced[layer] = integer
    for holder in list(module.modules()):
        for place, held in holder._modules.items():
            if held in replaced:
                setattr(holder, place, replaced[held])
    unreached = (FloatPart(name, 0, 0, 0, UNREACHED) for name in layers if seen[name].calls == 0)
    return Mixed(replaced.get(module, module), tuple(table), (*census.parts(), *unreached))


def stored_bytes(module: nn.Module) -> int:
    """Bytes in which a module's tensors can be stored: integer weights in their bits, all else as it is held.

    What does not belong to weights (`MatMul` has scales) counts as well; buffers that `state_dict` leaves out do not.
    """
    total, counted = 0, set[int]()
    for layer in module.modules():
        if isinstance(layer, IntegerLayer) and id(layer.codes) not in counted:
            counted.add(id(layer.codes))
            total += math.ceil(layer.codes.numel() * layer.bits / 8)
    for tensor in module.state_dict(keep_vars=True).values():
        if id(tensor) not in counted:
            counted.add(id(tensor))
            total += tensor.numel() * tensor.element_size()
    return total


class _Operands:
    """What calibration shows of a layer's operands: one observer each, extremes of channels, and a sample of values."""

    def __init__(self, layer: nn.Module, chosen: LayerRecipe, recipe: Recipe) -> None:
        count = 2 if isinstance(layer, MatMul) else 1
        self.observers = [make_observer(chosen.observer, recipe.percentile) for _ in range(count)]
        self.low = self.high = torch.zeros(())
        self.samples: list[Tensor] = []
        self.calls = 0

    def update(self, inputs: tuple[Tensor, ...]) -> None:
        for observer, x in zip(self.observers, inputs, strict=True):
            observer.update(x)
        rows = inputs[0].reshape(-1, inputs[0].shape[-1])
        if self.calls == 0:
            self.low = self.high = rows.new_zeros(rows.shape[1])
        if self.low.shape == rows.shape[1:]:  # of images of several sizes nobody asks the channels
            self.low, self.high = torch.minimum(self.low, rows.amin(0)), torch.maximum(self.high, rows.amax(0))
        values = inputs[0].flatten()
        self.samples.append(values[:: max(1, len(values) // SAMPLE)].clone())
        self.calls += 1

    def channels(self) -> FloatArray:
        """The least and largest value of each channel (C, 2), 0 included."""
        return torch.stack((self.low, self.high), 1).double().cpu().numpy()

    def even(self, operand: int, spec: QuantSpec) -> EvenCode:
        return EvenCode(np.asarray(self.observers[operand].limits(spec)), spec)


def _to_quantize(module: nn.Module, recipe: Recipe) -> dict[str, nn.Module]:
    """The layers that become integer, by their first name; each in as many bits as this mode can."""
    layers: dict[str, nn.Module] = {}
    for name, layer in module.named_modules():
        plain = type(layer) in (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, MatMul)
        if not plain or _inside_attention(module, name):
            continue
        chosen = recipe.layer(name)
        if chosen.weights.bits == EXCLUDED_BITS and any(matches(pattern, name) for pattern in recipe.exclude):
            continue
        if isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1:
            continue
        product = isinstance(layer, MatMul)
        widest = LARGEST_PRODUCT_BITS if product else LARGEST_BITS
        if (chosen.weights.bits > LARGEST_BITS and not product) or not 2 <= chosen.activations.bits <= widest:
            raise BitfabError(
                f"{name}: weights of {chosen.weights.bits} bits, activations of {chosen.activations.bits}: a mixed "
                f"graph has 1 to {LARGEST_BITS}, and 2 to {widest} here; choose fewer, or exclude the layer"
            )
        layers[name] = layer
    if not layers:
        raise BitfabError(
            f"{type(module).__name__}: nothing to quantize: no Linear, convolution or MatMul, or all excluded"
        )
    return layers


def _inside_attention(module: nn.Module, name: str) -> bool:
    """Whether torch's own attention holds the layer: its code reads the float weights."""
    parents = name.split(".")[:-1]
    holders = (module.get_submodule(".".join(parents[:depth])) for depth in range(len(parents) + 1))
    return any(isinstance(holder, nn.MultiheadAttention | nn.TransformerEncoderLayer) for holder in holders)


def _observe(
    module: nn.Module, calibration: Iterable[Inputs], layers: Mapping[str, nn.Module], seen: Mapping[str, _Operands]
) -> tuple[Census, dict[str, int]]:
    """Show all calibration inputs to the observers; count what the first one costs in the layers, and beside them."""
    census, macs = Census(), dict.fromkeys(layers, 0)
    count = 0

    def before(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            census.mute(True)
            try:
                seen[name].update(inputs)
            except BitfabError as error:
                raise BitfabError(f"{name}: {error} in its inputs; clean the calibration data") from error

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            census.mute(False)
            if count == 0:
                macs[name] += layer_macs(layer, inputs, output)

        return hook

    handles = [layer.register_forward_pre_hook(before(name)) for name, layer in layers.items()]
    handles += [layer.register_forward_hook(after(name)) for name, layer in layers.items()]
    with torch.no_grad(), ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        for item in calibration:
            with census if count == 0 else nullcontext():
                _show(module, item, count)
            count += 1
    if count == 0:
        raise BitfabError("mixed: no calibration inputs; give a few that are typical, at least one")
    return census, macs


def _show(module: nn.Module, item: Inputs, place: int) -> None:
    try:
        call(module, item)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        what = f"a tensor of shape {tuple(item.shape)}" if isinstance(item, Tensor) else f"a {type(item).__name__}"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BitfabError(
            f"mixed: the network cannot take calibration input {place}, {what} ({reason}); "
            "give tensors with a batch axis, or tuples or dicts of its arguments"
        ) from error


def call(module: nn.Module, item: Inputs) -> object:
    """What the module makes of one calibration input."""
    if isinstance(item, Tensor):
        return module(item)
    return module(**item) if isinstance(item, Mapping) else module(*item)


def _static(
    name: str, layer: nn.Module, chosen: LayerRecipe, seen: _Operands, channel_groups: int, hybrid: bool
) -> tuple[nn.Module, str]:
    """The integer layer, and in words how its inputs are coded."""
    spec = chosen.activations
    first: ActivationCode = seen.even(0, spec)
    code = "even"
    logarithmic = None
    sample = torch.cat(seen.samples)
    if hybrid and isinstance(layer, nn.Linear | MatMul) and bool((sample >= LEAST_ONE_SIDED).all()):
        logarithmic = log_uniform(sample, spec, shares=isinstance(layer, MatMul) and bool((sample >= 0).all()))
    if logarithmic is not None:
        first, code = logarithmic, "log-uniform"
    elif channel_groups > 1 and isinstance(layer, nn.Linear):
        limits, groups = group_channels(seen.channels(), channel_groups)
        if len(limits) > 1:
            first, code = EvenCode(limits, spec, groups), f"{len(limits)} groups"
    integer: nn.Module
    match layer:
        case MatMul():
            return StaticMatMul(first, seen.even(1, spec)), code
        case nn.Linear():
            integer = StaticLinear(layer, chosen, first)
        case nn.Conv2d():
            assert isinstance(first, EvenCode)
            integer = StaticConv2d(layer, chosen, first)
        case nn.ConvTranspose2d():
            assert isinstance(first, EvenCode)
            integer = StaticConvTranspose2d(layer, chosen, first)
        case _:
            raise AssertionError(layer)
    if integer.codes.dtype != torch.int8 or integer.largest_sum() >= LARGEST_SUM:
        raise BitfabError(f"{name}: weights that do not fit int8, or sums that do not fit 32 bits; exclude it")
    return integer, code
