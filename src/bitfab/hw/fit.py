"""Foldings from a budget: the fastest network that fits so much of a device, or the smallest that is fast enough.

For a given pace (cycles an image of the slowest layer) an integer program picks each layer's PE x SIMD: one option a
layer, none slower than the pace, the sums of LUTs, multipliers and block RAMs within the budget, and the smallest
share of the budget (scipy's HiGHS). What depends on the pace alone, or on neighbours (requantizers' lanes, converters,
FIFOs), is taken from the estimate of the whole network with the last choice; the program is solved again with what
then is left. The fastest pace is found by bisection over all cycle counts that a layer can have.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from bitfab.errors import BitfabError
from bitfab.hw import folding as fold
from bitfab.hw.blocks import parameters
from bitfab.hw.cost import block_cost, estimate, total
from bitfab.hw.design import Folding, Language, Shape3, Target
from bitfab.hw.generate import structure
from bitfab.hw.plan import engine_of, stream_shapes
from bitfab.ir.graph import Graph, Node
from bitfab.ir.verify import verify
from bitfab.parts import Resources, find_part

SHARE = 0.8  # of a part: what is fuller routes badly
ROUNDS = 4  # of the integer program at one pace, until its estimate of the whole network holds
KINDS = ("LUT", "FF", "DSP", "BRAM")

Whole = Callable[[Mapping[str, Folding]], Resources]
"""The estimate of the whole network under these foldings."""


@dataclass(frozen=True)
class Option:
    """A legal folding of a layer, its cycles an image, what its engine takes."""

    folding: Folding
    cycles: int
    cost: Resources


def options(graph: Graph) -> dict[str, list[Option]]:
    """Every legal folding of every layer that folds."""
    shapes = stream_shapes(graph)
    found = {}
    for node in graph:
        if isinstance(node.op, fold.FOLDED):
            legal = fold.legal(node, shapes[node.inputs[0]][0])
            found[node.name] = [_option(node, graph, shapes, folding) for folding in legal]
    return found


def _option(node: Node, graph: Graph, shapes: Mapping[str, Shape3], folding: Folding) -> Option:
    engine = engine_of(node, graph, shapes, folding, 0)
    return Option(folding, engine.cycles, block_cost("conv2d", parameters(engine)))


def fit(
    graph: Graph, target: Target | str = "ecp5-85k", share: float = SHARE, rate: float | None = None
) -> dict[str, Folding]:
    """Foldings for `generate`: the fastest that fit a `share` of the part, or the smallest for `rate` images a second.

    Fastest: the fewest cycles an image in the slowest layer. A rate is reached at the target's clock. Both by the
    estimates of `bitfab.hw.cost`: LUTs within some 15 %, multipliers and block RAMs as Yosys infers them.
    Raises BitfabError where nothing fits (it names the resource that lacks most, and how much), where a layer cannot
    be so fast, and for what has no streaming hardware.
    """
    verify(graph)
    part = Target(target) if isinstance(target, str) else target
    if not 0 < share <= 1:
        raise BitfabError(f"share {share:g}: choose more than 0 and up to 1 of the part")
    budget = find_part(part.part).available.times(share)
    choices = options(graph)
    if not choices:
        raise BitfabError(f"{graph.name}: no layer folds; generate it as it is")
    whole = functools.partial(_estimated, graph, part)
    slowest = max(min(option.cycles for option in own) for own in choices.values())
    if rate is not None:
        wanted = int(part.clock_mhz * 1e6 / rate)
        if slowest > wanted:
            raise BitfabError(
                f"{graph.name}: a layer takes {slowest} cycles an image at least; at {part.clock_mhz:g} MHz that is "
                f"{part.clock_mhz * 1e6 / slowest:.0f} images a second, not {rate:g}: lower the rate or raise the clock"
            )
        return _fitting(graph, choices, wanted, budget, whole)
    paces = sorted({option.cycles for own in choices.values() for option in own if option.cycles >= slowest})
    found, low, high = _fitting(graph, choices, paces[-1], budget, whole), 0, len(paces) - 1
    while low < high:  # paces[high] fits
        middle = (low + high) // 2
        tried = _within(choices, paces[middle], budget, whole)
        if tried is None:
            low = middle + 1
        else:
            found, high = tried, middle
    return found


def _fitting(
    graph: Graph, choices: Mapping[str, Sequence[Option]], pace: int, budget: Resources, whole: Whole
) -> dict[str, Folding]:
    found = _within(choices, pace, budget, whole)
    if found is None:
        raise BitfabError(f"{graph.name}: {_lack(choices, pace, budget, whole)}")
    return found


def _estimated(graph: Graph, target: Target, foldings: Mapping[str, Folding]) -> Resources:
    multipliers = sum(folding.multipliers for folding in foldings.values())
    design, _ = structure(graph, target, multipliers, foldings, Language.VERILOG)
    return total(estimate(design).values())


def _within(
    choices: Mapping[str, Sequence[Option]], pace: int, budget: Resources, whole: Whole
) -> dict[str, Folding] | None:
    """Foldings no slower than the pace that fit, or None."""
    kept = {name: [option for option in own if option.cycles <= pace] for name, own in choices.items()}
    rest = Resources()  # what the network takes beside its multiplying engines
    for _ in range(ROUNDS):
        chosen = _solve(list(kept.values()), [b - r for b, r in zip(astuple(budget), astuple(rest), strict=True)])
        if chosen is None:
            return None
        foldings = {name: option.folding for name, option in zip(kept, chosen, strict=True)}
        needed = astuple(whole(foldings))
        if all(n <= b for n, b in zip(needed, astuple(budget), strict=True)):
            return foldings
        engines = astuple(total(option.cost for option in chosen))
        rest = Resources(*(max(0, n - e) for n, e in zip(needed, engines, strict=True)))
    return None


def _solve(layers: Sequence[Sequence[Option]], limits: Sequence[int]) -> list[Option] | None:
    """One option a layer with sums within the limits and the least sum of shares of them; None where there is none."""
    if min(limits) < 0:
        return None
    costs = np.array([astuple(option.cost) for own in layers for option in own], dtype=float)
    shares = (costs / np.maximum(limits, 1)).sum(axis=1)
    picks = np.zeros((len(layers), len(costs)))
    start = 0
    for row, own in enumerate(layers):
        picks[row, start : start + len(own)] = 1
        start += len(own)
    constraints = [LinearConstraint(picks, 1, 1), LinearConstraint(costs.T, -np.inf, np.asarray(limits, dtype=float))]
    solved = milp(shares, constraints=constraints, integrality=np.ones(len(costs)), bounds=Bounds(0, 1))
    if solved.x is None:
        return None
    flat = [option for own in layers for option in own]
    return [flat[i] for i in np.flatnonzero(solved.x > 0.5)]


def _lack(choices: Mapping[str, Sequence[Option]], pace: int, budget: Resources, whole: Whole) -> str:
    """Which resource lacks most with the cheapest engines, and how much."""
    cheapest = {
        name: min((option for option in own if option.cycles <= pace), key=lambda option: sum(astuple(option.cost)))
        for name, own in choices.items()
    }
    needed_by = whole({name: option.folding for name, option in cheapest.items()})
    pairs = zip(KINDS, astuple(needed_by), astuple(budget), strict=True)
    kind, needed, has = max(pairs, key=lambda pair: pair[1] / max(pair[2], 1))
    return (
        f"needs about {needed} {kind} at {pace} cycles an image, {has} are given; choose a larger part or a lower rate"
    )
