"""The recipe: how many bits, which scales and which observer each layer gets."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from bitfab.dtypes import QuantSpec, Rounding, ScaleKind
from bitfab.errors import BitfabError, choice

EXCLUDED_BITS = 16
FACTOR_BITS = 4  # of the factor of a group of weights
MULTIPLIER_BITS = range(2, 25)


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


class WeightLevels(enum.StrEnum):
    """Which integers the weights can be: see `bitfab.quant.levels`."""

    UNIFORM = "uniform"  # all from -(2**(bits-1) - 1) to 2**(bits-1) - 1; for one bit -1 and 1
    PO2 = "po2"  # 0 and powers of two; 2 to 4 bits (a fifth would add levels too small to matter)
    APOT = "apot"  # 0 and sums of powers of two; 2 to 6 bits
    CODEBOOK = "codebook"  # 2**bits integers of 8 bits, chosen for each layer by k-means; 2 to 7 bits


LEVELS_BITS = {
    WeightLevels.UNIFORM: range(1, 17),
    WeightLevels.PO2: range(2, 5),
    WeightLevels.APOT: range(2, 7),
    WeightLevels.CODEBOOK: range(2, 8),
}


@dataclass(frozen=True)
class AdaRound:
    """How weights learn whether to round up or down (Nagel et al. 2020); see `bitfab.quant.adaround`.

    Args:
        iterations: of each layer, or of each block.
        blocks: let the layers of a block learn together, against the block's output, with scales and biases (Li et al.
            2021); better at 4 bits and below; see `bitfab.quant.reconstruct`.
        seed: of the samples and their order; the same seed gives the same weights.
    """

    iterations: int = 300
    blocks: bool = False
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
    levels: WeightLevels | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        for bits in (self.weights, self.activations):
            if bits is not None:
                QuantSpec(bits=bits)
        if self.observer is not None:
            observer = choice(ObserverKind, self.observer, f"recipe: observer {self.observer!r}")
            object.__setattr__(self, "observer", observer)
        if self.levels is not None:
            object.__setattr__(self, "levels", choice(WeightLevels, self.levels, f"recipe: levels {self.levels!r}"))


@dataclass(frozen=True)
class LayerRecipe:
    """The choices that hold for one layer: its weights, and the activation it puts out."""

    weights: QuantSpec
    activations: QuantSpec
    observer: ObserverKind
    levels: WeightLevels = WeightLevels.UNIFORM
    group_size: int = 0

    @property
    def evenly_spaced(self) -> bool:
        """Whether a weight's code can be any integer of its type, so that its neighbours are one up and one down."""
        return self.levels is WeightLevels.UNIFORM and not self.group_size and not self.weights.type.bipolar

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
        weights, activations: bits, 1 to 16. One-bit weights are -1 and +1 times their mean magnitude (XNOR-Net).
        boundary: bits that the network's input and output have at least (overrides may go below): few bits there cost
            much and save little.
        observer: how ranges of activations are chosen; `mse` searches the weights' scales as well.
        percentile: for the percentile observer, how many percent of the values lie below the upper end (and above the
            lower end), 50 to 100.
        per_channel: one weight scale per output channel, else one per layer.
        symmetric_activations: signed activations with zero point 0, else unsigned ones with a zero point.
        levels: which integers the weights can be: all of their bits (`uniform`), powers of two (`po2`, 2 to 4 bits),
            sums of them (`apot`, 2 to 6 bits), or the entries of a codebook (2 to 7 bits); see `bitfab.quant.levels`.
        group_size: so many consecutive weights of an output channel share a factor of 4 bits, 1 to 15, and a weight is
            scale * factor * code (VS-Quant, Dai et al. 2021, 2102.04503, section 4). Stored in `bits + 4 / group_size`
            bits; the integer graph holds the products `factor * code`. 0: no groups. For uniform levels.
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
    boundary: int = 8
    observer: ObserverKind = ObserverKind.MIN_MAX
    percentile: float = 99.99
    per_channel: bool = True
    symmetric_activations: bool = False
    levels: WeightLevels = WeightLevels.UNIFORM
    group_size: int = 0
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
            "levels": WeightLevels,
            "scale": ScaleKind,
            "rounding": Rounding,
            "bias_correction": BiasCorrection,
        }
        for name, kind in choices.items():
            value = getattr(self, name)
            object.__setattr__(self, name, choice(kind, value, f"recipe: {name} {value!r}"))
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        object.__setattr__(self, "exclude", exclude)
        QuantSpec(bits=self.weights)
        QuantSpec(bits=self.activations)
        QuantSpec(bits=self.boundary)
        _check_levels("recipe", self.weights, self.levels, self.group_size)
        if not 50 < self.percentile <= 100:
            raise BitfabError(f"recipe: percentile {self.percentile}: choose one above 50 and up to 100, such as 99.99")
        if self.adaround and self.bias_correction is not BiasCorrection.NONE:
            raise BitfabError("recipe: adaround takes the mean error into account already; leave bias_correction out")
        if self.images < 1:
            raise BitfabError(f"recipe: images {self.images}: at least 1 must be kept")
        if self.multiplier_bits not in MULTIPLIER_BITS:
            raise BitfabError(f"recipe: multiplier_bits {self.multiplier_bits}: 2 to 24 are supported")

    def layer(self, *names: str, boundary: bool = False) -> LayerRecipe:
        """The choices for a layer, or for layers that become one (a convolution and its ReLU).

        `boundary` says whether its activations are the network's input or output.
        """
        weights, activations, observer = self.weights, self.activations, self.observer
        levels, group_size = self.levels, self.group_size
        if boundary:
            activations = max(activations, self.boundary)
        if any(matches(pattern, name) for pattern in self.exclude for name in names):
            weights, activations, levels, group_size = EXCLUDED_BITS, EXCLUDED_BITS, WeightLevels.UNIFORM, 0
        for pattern, override in self.overrides.items():
            if any(matches(pattern, name) for name in names):
                weights = override.weights or weights
                activations = override.activations or activations
                observer = override.observer or observer
                levels = override.levels or levels
                group_size = group_size if override.group_size is None else override.group_size
        _check_levels(names[0], weights, levels, group_size)
        symmetric = self.symmetric_activations
        return LayerRecipe(
            QuantSpec(weights, signed=True, symmetric=True, per_channel=self.per_channel, scale_kind=self.scale),
            QuantSpec(activations, signed=symmetric, symmetric=symmetric, scale_kind=self.scale),
            observer,
            levels,
            group_size,
        )

    def check(self, names: Iterable[str]) -> None:
        """Raise BitfabError where a name or pattern of the recipe fits none of the network's layers."""
        known = list(names)
        for pattern in (*self.exclude, *self.overrides):
            if not any(matches(pattern, name) for name in known):
                close = ", ".join(difflib.get_close_matches(pattern, known, n=3, cutoff=0.6))
                others = f"its layers are {', '.join(known[:8])}{' and more' if len(known) > 8 else ''}"
                raise BitfabError(
                    f"recipe: no layer matches '{pattern}'; {f'did you mean {close}?' if close else others}"
                )


def recipe_or(recipe: Recipe | None, default: Recipe | None = None) -> Recipe:
    """The recipe, or the default in the place of None; BitfabError for anything else."""
    if not isinstance(recipe, Recipe | None):
        raise BitfabError(f"recipe {recipe!r}: give a bitfab.Recipe, such as Recipe(weights=8)")
    return recipe or default or Recipe()


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern stands for a layer: the name itself, an fnmatch pattern, or a module that holds the layer."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _check_levels(name: str, bits: int, levels: WeightLevels, group_size: int) -> None:
    """Raise BitfabError where weights of so many bits cannot have these levels or groups."""
    allowed = LEVELS_BITS[levels]
    if bits not in allowed:
        raise BitfabError(
            f"{name}: {levels} weights of {bits} bits: choose {allowed[0]} to {allowed[-1]} bits, or levels='uniform'"
        )
    if group_size < 0 or group_size == 1:
        raise BitfabError(f"{name}: group_size {group_size}: choose 2 or more, such as 16, or 0 for no groups")
    if group_size and levels is not WeightLevels.UNIFORM:
        raise BitfabError(f"{name}: {levels} weights take no group factors; set group_size=0, or levels='uniform'")
