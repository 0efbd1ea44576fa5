"""The recipe: how many bits, which scales and which observer each layer gets."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar

from bitfab.dtypes import QuantSpec, Rounding, ScaleKind
from bitfab.errors import BitfabError

EXCLUDED_BITS = 16
MULTIPLIER_BITS = range(2, 25)

Choice = TypeVar("Choice", bound=enum.StrEnum)


class ObserverKind(enum.StrEnum):
    """How the range of an activation follows from the calibration data."""

    MIN_MAX = "minmax"  # the smallest and the largest value seen
    MOVING_AVERAGE = "moving_average"  # exponential average of each batch's extremes (Jacob et al. 2018, section 3.1)
    PERCENTILE = "percentile"  # all but the outermost values
    MSE = "mse"  # the range of least squared error of the quantized values; of the weights' scales too
    ENTROPY = "entropy"  # the range whose quantized histogram tells most of the original (Kullback-Leibler, TensorRT)
    BATCH_NORM = "batch_norm"  # beta +- 6 gamma of the batch norm before (Nagel et al. 2019), else as minmax


class BiasCorrection(enum.StrEnum):
    """How the mean error that quantized weights leave in a layer's output is taken out of its bias."""

    NONE = "none"
    EMPIRICAL = "empirical"  # measured layer by layer on calibration images
    ANALYTIC = "analytic"  # computed from the batch norms' statistics, without data


@dataclass(frozen=True)
class AdaRound:
    """How weights learn whether to round up or down (Nagel et al. 2020); see `bitfab.quant.adaround`.

    Args:
        iterations: of each layer.
        seed: of the samples and their order; the same seed gives the same weights.
    """

    iterations: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise BitfabError(f"recipe: adaround with {self.iterations} iterations: at least 1 is needed")


@dataclass(frozen=True)
class Override:
    """What differs from the recipe for some layers; None keeps the recipe's choice."""

    weights: int | None = None
    activations: int | None = None
    observer: ObserverKind | None = None

    def __post_init__(self) -> None:
        for bits in (self.weights, self.activations):
            if bits is not None:
                QuantSpec(bits=bits)
        if self.observer is not None:
            object.__setattr__(self, "observer", _choice(ObserverKind, self.observer, "observer"))


@dataclass(frozen=True)
class LayerRecipe:
    """The choices that hold for one layer: its weights, and the activation it puts out."""

    weights: QuantSpec
    activations: QuantSpec
    observer: ObserverKind

    @property
    def search_weights(self) -> bool:
        """Whether the weights' scales are searched for least squared error."""
        return self.observer is ObserverKind.MSE


@dataclass(frozen=True)
class Recipe:
    """How to quantize a network.

    Layers are named by their path in the user's module (`encoder.0.conv`); a name also stands for all layers inside
    that module, and may be a pattern (`encoder.*.conv`, as in `fnmatch`). A layer's activations are its output.

    Args:
        weights, activations: bits, 2 to 16.
        observer: how ranges of activations are chosen; `mse` searches the weights' scales as well.
        percentile: for the percentile observer, how many percent of the values lie below the upper end (and above the
            lower end), 50 to 100.
        per_channel: one weight scale per output channel, else one per layer.
        symmetric_activations: signed activations with zero point 0, else unsigned ones with a zero point.
        scale: `po2` makes every scale of weights and activations a power of two, the smallest that covers the range
            (the `mse` observer weighs clipping against resolution instead); requantizing is then a shift.
        rounding: of every requantize.
        multiplier_bits: of every requantize, 2 to 24.
        equalize: first even out the channels' ranges between layers joined by a ReLU, and absorb high biases
            (`bitfab.quant.equalize`).
        bias_correction: take the mean error of each layer's output out of its bias (`bitfab.quant.bias_correction`).
        adaround: learn the rounding of the weights (`bitfab.quant.adaround`); None rounds to nearest. Not with bias
            correction: learned weights may err where the activation clips, and taking that out of the bias does harm
            (measured: 82.7 % became 70.3 % with EfficientNet-Lite0 at W4A8).
        images: how many calibration images are kept for steps that need them again (a uniform sample of all).
        exclude: layers left out of the low-bit quantization. There is no float in an integer graph: they keep 16-bit
            weights and put out 16-bit activations.
        overrides: other bits or another observer for some layers; a later entry wins over an earlier one, and both
            over `exclude`.
    """

    weights: int = 8
    activations: int = 8
    observer: ObserverKind = ObserverKind.MIN_MAX
    percentile: float = 99.99
    per_channel: bool = True
    symmetric_activations: bool = False
    scale: ScaleKind = ScaleKind.REAL
    rounding: Rounding = Rounding.HALF_UP
    multiplier_bits: int = 16
    equalize: bool = False
    bias_correction: BiasCorrection = BiasCorrection.NONE
    adaround: AdaRound | None = None
    images: int = 128
    exclude: tuple[str, ...] = ()
    overrides: Mapping[str, Override] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choices = {
            "observer": ObserverKind,
            "scale": ScaleKind,
            "rounding": Rounding,
            "bias_correction": BiasCorrection,
        }
        for name, kind in choices.items():
            object.__setattr__(self, name, _choice(kind, getattr(self, name), name))
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        object.__setattr__(self, "exclude", exclude)
        QuantSpec(bits=self.weights)
        QuantSpec(bits=self.activations)
        if not 50 < self.percentile <= 100:
            raise BitfabError(f"recipe: percentile {self.percentile}: choose one above 50 and up to 100, such as 99.99")
        if self.adaround and self.bias_correction is not BiasCorrection.NONE:
            raise BitfabError("recipe: adaround takes the mean error into account already; leave bias_correction out")
        if self.images < 1:
            raise BitfabError(f"recipe: images {self.images}: at least 1 must be kept")
        if self.multiplier_bits not in MULTIPLIER_BITS:
            raise BitfabError(f"recipe: multiplier_bits {self.multiplier_bits}: 2 to 24 are supported")

    def layer(self, *names: str) -> LayerRecipe:
        """The choices for a layer, or for layers that become one (a convolution and its ReLU)."""
        weights, activations, observer = self.weights, self.activations, self.observer
        if any(matches(pattern, name) for pattern in self.exclude for name in names):
            weights, activations = EXCLUDED_BITS, EXCLUDED_BITS
        for pattern, override in self.overrides.items():
            if any(matches(pattern, name) for name in names):
                weights = override.weights or weights
                activations = override.activations or activations
                observer = override.observer or observer
        symmetric = self.symmetric_activations
        return LayerRecipe(
            QuantSpec(weights, signed=True, symmetric=True, per_channel=self.per_channel, scale_kind=self.scale),
            QuantSpec(activations, signed=symmetric, symmetric=symmetric, scale_kind=self.scale),
            observer,
        )

    def check(self, names: Iterable[str]) -> None:
        """Raise BitfabError where a name or pattern of the recipe fits none of the network's layers."""
        known = list(names)
        for pattern in (*self.exclude, *self.overrides):
            if not any(matches(pattern, name) for name in known):
                close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4) or known[:8]
                raise BitfabError(f"recipe: no layer matches '{pattern}'; did you mean {', '.join(close)}?")


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern stands for a layer: the name itself, an fnmatch pattern, or a module that holds the layer."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _choice(kind: type[Choice], value: str, name: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise BitfabError(f"recipe: {name} '{value}' is unknown; choose one of {', '.join(kind)}") from None
