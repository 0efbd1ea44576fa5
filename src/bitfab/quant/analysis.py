"""Seeing where accuracy goes: each layer quantized alone, and the white paper's flow chart tried step by step.

Everything here is computed by `bitfab.quant.simulate`: float arithmetic on what the integer codes mean. The integer
graph of the recipe found best is a `bitfab.quantize` away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn

from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant.calibrate import as_batches
from bitfab.quant.fold import fold
from bitfab.quant.lower import Choices
from bitfab.quant.metrics import Metric, Predict, Sqnr, all_of, float_network, measured, outputs, top1
from bitfab.quant.plan import check_weights, make_plan
from bitfab.quant.ptq import choose
from bitfab.quant.recipe import AdaRound, BiasCorrection, ObserverKind, Recipe, recipe_or
from bitfab.quant.sample import keep
from bitfab.quant.simulate import Progress, Simulation

__all__ = ["Diagnosis", "LayerSensitivity", "Metric", "Predict", "Trial", "debug", "sensitivity"]

OBSERVERS = (ObserverKind.MIN_MAX, ObserverKind.PERCENTILE, ObserverKind.MSE, ObserverKind.ENTROPY)
FLOAT, CHECK, WEIGHTS, ACTIVATIONS = "float", "nothing quantized", "weights only", "activations only"
RECIPE, TOGETHER = "the recipe", "all that helped"
FP32_TOLERANCE = 1e-3  # of the largest output: folding and another order of sums stay far below it
SMALL = 0.01  # of the float network's figure: a smaller loss may be chance on a few hundred tests
MOST = 0.9  # of the gap: a remedy that closes less leaves something to do


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer alone does: its weights and the activation it puts out.

    `sqnr_db` is the signal to noise ratio of the network's output, `10 log10(sum y^2 / sum (y - y_q)^2)`, on the
    images kept (at most 140, what float32 resolves); `metric` the task's figure.
    """

    layer: str
    sqnr_db: float
    metric: float


@dataclass(frozen=True)
class Trial:
    """One line of the table: what was tried, the metric it gave, the output's SQNR, and the share of the gap it closes.

    `sqnr_db` is on the calibration images kept (at most 140): steadier than a metric of few tests. The gap is what the
    recipe loses against float: 1 is all of it, below 0 made things worse, None where there is no gap. Where the metric
    is the SQNR, the gap is the power of the noise, so 10 dB more close 90 % of it.
    """

    name: str
    metric: float
    sqnr_db: float
    closes: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What `debug` found: every trial; layers, the most sensitive first; and what helps most.

    `remedy` is the name of the best trial of the whole network, or "the recipe" where that loses nothing; `recipe` the
    recipe to repeat it with. `combined` are the trials that "all that helped" consists of.
    `fp32_difference` is the largest difference between the network given and the simulation with nothing quantized,
    as a share of the largest output.
    """

    trials: tuple[Trial, ...]
    layers: tuple[LayerSensitivity, ...]
    worst_layer: str
    remedy: str
    recipe: Recipe
    combined: tuple[str, ...]
    fp32_difference: float

    @property
    def findings(self) -> tuple[str, ...]:
        """What the table says, in sentences, in the order of the flow chart."""
        by_name = {trial.name: trial for trial in self.trials}
        if self.fp32_difference > FP32_TOLERANCE:
            return (
                f"FP32 check: with nothing quantized the output differs from the network's by "
                f"{self.fp32_difference:.1%} of the largest; not quantization but what was captured is at fault",
            )
        found = [f"FP32 check: equal to the network but for {self.fp32_difference:.1e} of the largest output"]
        if by_name[RECIPE].closes is None:
            return (*found, f"the recipe loses nothing; the least exact layer is {self.worst_layer}")
        exact, lost = by_name[FLOAT].metric, by_name[FLOAT].metric - by_name[RECIPE].metric
        if lost < SMALL * abs(exact):
            found.append(f"the recipe loses {lost:.2g} of {exact:.4g}: so little may be chance; the SQNR is steadier")
        costly = "weights" if by_name[WEIGHTS].metric < by_name[ACTIVATIONS].metric else "activations"
        found.append(f"the {costly} cost the most; the layer that hurts most is {self.worst_layer}")
        closed = by_name[self.remedy].closes or 0.0
        if self.remedy != RECIPE:
            parts = f" ({' + '.join(self.combined)})" if self.remedy == TOGETHER else ""
            found.append(f"what helps most: {self.remedy}{parts}, which closes {closed:.0%} of the gap")
        if closed < MOST:
            rest = "the rest" if self.remedy != RECIPE else "nothing tried helps"
            found.append(f"{rest}: more bits for {self.worst_layer}, or training with quantization")
        return tuple(found)

    def __str__(self) -> str:
        rows = []
        for trial in self.trials:
            share = "" if trial.closes is None else f"{trial.closes:10.0%}"
            rows.append(f"{trial.name:<34}{trial.metric:10.4f}{trial.sqnr_db:10.1f} dB{share}")
        layers = [f"{item.layer:<34}{item.metric:10.4f}{item.sqnr_db:10.1f} dB" for item in self.layers]
        return "\n".join([*rows, "", *layers, "", *self.findings, f"worst layer: {self.worst_layer}"])


def sensitivity(
    choices: Choices, images: Tensor, metric: Metric, progress: Progress | None = None
) -> tuple[LayerSensitivity, ...]:
    """How much each layer with weights hurts when it alone is quantized; the worst first.

    images (N, *shape) are inputs for the SQNR, save where the metric is one; the metric is called once a layer.
    """
    plan = make_plan(choices.module, choices.recipe)
    sqnr = metric if isinstance(metric, Sqnr) else Sqnr(Simulation(plan), images)
    found = []
    for done, node in enumerate(plan.weighted()):
        if progress:
            progress(f"layers: {node.meta['source']} alone", done, len(plan.weighted()))
        weights = {node.name: choices.weights[node.name]}
        alone = Simulation(plan, weights, {node.name: choices.encodings[node.name]})
        decibels = sqnr(alone)
        figure = decibels if metric is sqnr else measured(metric, alone)
        found.append(LayerSensitivity(str(node.meta["source"]), decibels, figure))
    return tuple(sorted(found, key=lambda item: (item.metric, item.sqnr_db)))


def debug(
    net: nn.Module,
    calibration: Iterable[Any],
    metric: Metric | None = None,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    *,
    tests: Iterable[Any] | None = None,
    labels: Any = None,
) -> Diagnosis:
    """Which layer hurts, and what helps: the flow chart of Nagel et al. 2021 (2106.08295), figure 7.1, as a table.

    Tried: float, and the simulation with nothing quantized; the recipe; its weights alone and its activations alone;
    per channel, equalization, the range methods, bias correction (from data and without) and AdaRound, each added
    alone to the recipe; then all that helped together; then each layer quantized alone.

    Args:
        net: as for `quantize`.
        calibration: as for `quantize`; at most `recipe.images` of the images are kept.
        metric: the task's own figure: called with a network, a function from a batch of inputs to its (first) output,
            it returns a finite number, larger for a better one. It is called about 16 times, and once for each layer.
        recipe: what to improve upon; 8 bits by default.
        progress: called as (what, done, in all).
        tests, labels: in place of a metric: with labels (N,) the share of the tests (N, *shape) whose class is told
            right; without, the SQNR of the output on the tests, or on the calibration images where there are none.

    Raises:
        BitfabError: as `quantize` does; fewer than two calibration images; labels that do not fit the tests; a metric
            that gives no finite number.
    """
    recipe = recipe_or(recipe)
    check_weights(net)
    images = keep(as_batches(calibration, net), recipe.images)
    module = fold(capture(net, images[:1]))
    return _diagnose(net, module, images, _chosen(net, images, metric, tests, labels), recipe, progress)


def _diagnose(
    net: nn.Module, module: fx.GraphModule, images: Tensor, metric: Metric, recipe: Recipe, progress: Progress | None
) -> Diagnosis:
    """`debug` on the images kept; `module` is the network folded."""
    network = float_network(net)
    changes = {RECIPE: {}, **_remedies(recipe)}
    trials = _Trials(metric, Sqnr(network, images), progress, len(changes) + 5)
    trials.measure(FLOAT, network)
    base = trials.attempt(RECIPE, module, images, recipe)
    plan = make_plan(base.module, recipe)
    parts: Mapping[str, Simulation] = {
        CHECK: Simulation(make_plan(module, recipe)),
        WEIGHTS: Simulation(plan, base.weights),
        ACTIVATIONS: Simulation(plan, {}, base.encodings),
    }
    for name, part in parts.items():
        trials.measure(name, part)
    recipes = {name: replace(recipe, **change) for name, change in changes.items()}
    for name in list(recipes)[1:]:
        trials.attempt(name, module, images, recipes[name])
    helpful = sorted((name for name in recipes if trials[name] > trials[RECIPE]), key=trials.__getitem__)
    together = {key: value for name in helpful for key, value in changes[name].items()}  # the better of two stays
    combined = tuple(name for name in helpful if changes[name].items() <= together.items())
    if len(combined) > 1:
        recipes[TOGETHER] = replace(recipe, **together)
        trials.attempt(TOGETHER, module, images, recipes[TOGETHER])
    best = max(recipes, key=lambda name: (trials[name], trials.sqnr[name])) if trials.gap > 0 else RECIPE
    layers = sensitivity(base, images, metric, progress)
    worst = layers[0].layer if layers else ""
    return Diagnosis(
        trials.table(), layers, worst, best, recipes[best], combined, _difference(network, parts[CHECK], images)
    )


class _Trials(dict[str, float]):
    """The metric of each trial by its name, in the order in which they were made."""

    def __init__(self, metric: Metric, closeness: Sqnr, progress: Progress | None, count: int) -> None:
        super().__init__()
        self.metric, self.progress, self.count = metric, progress, count
        self.closeness = metric if isinstance(metric, Sqnr) else closeness
        self.sqnr: dict[str, float] = {}

    def measure(self, name: str, network: Predict) -> None:
        self._announce(name)
        self._judge(name, network)

    def attempt(self, name: str, module: fx.GraphModule, images: Tensor, recipe: Recipe) -> Choices:
        self._announce(name)
        choices = choose(module, images, recipe, self.progress)
        simulated = Simulation(make_plan(choices.module, recipe), choices.weights, choices.encodings)
        self._judge(name, simulated)
        return choices

    def _judge(self, name: str, network: Predict) -> None:
        self[name] = measured(self.metric, network)
        self.sqnr[name] = self[name] if self.metric is self.closeness else self.closeness(network)

    def _announce(self, name: str) -> None:
        if self.progress:
            self.progress(f"trying: {name}", len(self), self.count)

    def table(self) -> tuple[Trial, ...]:
        """Float and what leaves parts of the network in float first, then the recipe and its changes."""
        first = [FLOAT, CHECK, WEIGHTS, ACTIVATIONS]
        names = [*first, *(name for name in self if name not in first)]
        gap = self.gap
        closes = {name: 1 - self._loss(name) / gap if gap > 0 else None for name in names}
        return tuple(Trial(name, self[name], self.sqnr[name], closes[name]) for name in names)

    @property
    def gap(self) -> float:
        """What the recipe loses against float."""
        return self._loss(RECIPE)

    def _loss(self, name: str) -> float:
        if isinstance(self.metric, Sqnr):
            return float(10 ** (-self[name] / 10)) - float(10 ** (-self[FLOAT] / 10))
        return self[FLOAT] - self[name]


def _chosen(net: nn.Module, images: Tensor, metric: Metric | None, tests: Iterable[Any] | None, labels: Any) -> Metric:
    """The metric given, or the one that tests and labels stand for."""
    if metric is not None:
        if not callable(metric):
            raise BitfabError(f"metric: a {type(metric).__name__} given; give a function of a network")
        if tests is not None or labels is not None:
            raise BitfabError("metric: given with tests or labels; give either the metric or these")
        return metric
    if tests is None:
        if labels is not None:
            raise BitfabError("labels: given without tests; give the images that they belong to as tests")
        return Sqnr(float_network(net), images)
    judged = all_of(tests, net, "tests")
    if judged.shape[1:] != images.shape[1:]:
        shapes = tuple(judged.shape[1:]), tuple(images.shape[1:])
        raise BitfabError(f"tests: shape {shapes[0]}, but the calibration images have {shapes[1]}; give the same")
    return Sqnr(float_network(net), judged) if labels is None else top1(judged, labels)


def _remedies(recipe: Recipe) -> Mapping[str, dict[str, Any]]:
    """What the flow chart tries, as changes to the recipe; nothing that the recipe does already, or cannot do."""
    changes: dict[str, dict[str, Any]] = {
        "per channel": {"per_channel": True},
        "equalization": {"equalize": True},
        **{f"range: {kind}": {"observer": kind} for kind in OBSERVERS},
        "bias correction from data": {"bias_correction": BiasCorrection.EMPIRICAL, "adaround": None},
        "bias correction from batch norm": {"bias_correction": BiasCorrection.ANALYTIC, "adaround": None},
        "adaround": {"adaround": recipe.adaround or AdaRound(), "bias_correction": BiasCorrection.NONE},
    }
    found = {}
    for name, change in changes.items():
        with suppress(BitfabError):
            if replace(recipe, **change) != recipe:
                found[name] = change
    return found


def _difference(network: Predict, simulated: Predict, images: Tensor) -> float:
    """The largest difference of two networks' outputs, as a share of the first one's largest."""
    expected = outputs(network, images)
    largest = float(expected.abs().max())
    difference = float((outputs(simulated, images) - expected).abs().max())
    return difference / largest if largest else difference
