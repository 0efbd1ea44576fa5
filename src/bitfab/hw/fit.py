"""Foldings from a budget: the fastest network that fits so much of a device, or the smallest that is fast enough.

For a given pace (cycles an image of the slowest layer) an integer program picks each layer's PE x SIMD, multipliers and
memory, and what multiplies in each requantizer and product of streams: one option a layer, none slower than the pace,
the sums of LUTs, multipliers and block RAMs within the budget, and the fewest LUTs, of which other cells count as some
(scipy's HiGHS). Options than which another is nowhere worse are left out before. What depends on neighbours
(converters, FIFOs) is taken from the estimate of the whole network with the last choice; the program is solved again
with what then is left. The fastest pace is found by bisection over all cycle counts that a layer can have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.hw import folding as fold
from bitfab.hw.blocks import MEMORY_CODES, MULTIPLIER_CODES, block, parameters
from bitfab.hw.cost import block_cost, estimate, require_fitted, total
from bitfab.hw.design import Folding, Language, MemoryStyle, Multiplier, Shape3, Target, named_target
from bitfab.hw.generate import structure
from bitfab.hw.memory_cost import Parameters, memories
from bitfab.hw.plan import engine_of, pixel_cycles, stream_shapes
from bitfab.ir.graph import Graph, Node
from bitfab.ir.verify import verify
from bitfab.parts import Operands, Resources, find_part

SHARE = 0.8  # of a part: what is fuller routes badly
ROUNDS = 4  # of the integer program at one pace, until its estimate of the whole network holds
KINDS = ("LUT", "FF", "DSP", "BRAM")
WEIGHTS = (1.0, 0.1, 0.1, 0.1)  # of a share of the budget: a tenth of the DSPs is worth a hundredth of the LUTs
LUT_MEMORY = 1 << 14  # bits: more weights are never tried in LUTs
BLOCK_MEMORY = 8  # words: fewer are never tried in block RAM
EXCESS = 1e4  # the weight of a share that is not there


@dataclass(frozen=True)
class Option:
    """A legal folding of a layer, its cycles an image, what its engine takes."""

    folding: Folding
    cycles: int
    cost: Resources


def options(graph: Graph, operands: Operands = fold.OPERANDS) -> dict[str, list[Option]]:
    """Each layer's foldings, save those than which another is as fast and takes no more of anything."""
    shapes = stream_shapes(graph)
    found = {}
    for node in graph:
        if isinstance(node.op, fold.FOLDED):
            legal = fold.legal(node, shapes[node.inputs[0]][0])
            every = [option for folding in legal for option in _variants(node, graph, shapes, folding, operands)]
            found[node.name] = _undominated(every)
    return found


def _variants(
    node: Node, graph: Graph, shapes: Mapping[str, Shape3], folding: Folding, operands: Operands
) -> Iterator[Option]:
    """One PE x SIMD with each kind of multipliers and of memory."""
    engine = engine_of(node, graph, shapes, folding, 0, operands)
    plain = parameters(engine)
    multipliers = fold.styles(node, graph.values[node.inputs[0]].type, folding.pe, operands)
    for multiplier in (Multiplier.LUTS,) if operands == (0, 0) else multipliers:
        for memory in _memory_styles(plain):
            codes = {"Multiplier": MULTIPLIER_CODES[multiplier], "Memory": MEMORY_CODES[memory]}
            styled = replace(folding, multiplier=multiplier, memory=memory)
            yield Option(styled, engine.cycles, block_cost("conv2d", {**plain, **codes}))


def _memory_styles(plain: Parameters) -> list[MemoryStyle | None]:
    """As the depth asks, and the other one where it may pay."""
    _, weights, _ = memories("conv2d", plain)
    if weights.brams:
        return [None, MemoryStyle.LUTS] if weights.bits * weights.words <= LUT_MEMORY else [None]
    return [None, MemoryStyle.BLOCK] if weights.words >= BLOCK_MEMORY else [None]


def _undominated(every: Sequence[Option]) -> list[Option]:
    """Those than which no other (of equal ones no earlier) is as fast and takes no more of anything."""
    costs = np.array([(option.cycles, *_counts(option.cost)) for option in every])
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)  # [i, j]: i is no worse than j
    earlier = np.arange(len(costs))[:, None] < np.arange(len(costs))[None]
    beaten = (no_worse & (~no_worse.T | earlier)).any(axis=0)
    return [every[i] for i in np.flatnonzero(~beaten).tolist()]


def _laned(graph: Graph, pace: int, operands: Operands) -> dict[str, list[Option]]:
    """Requantizers and products with the lanes that the pace asks for, with DSPs and with LUTs."""
    shapes = stream_shapes(graph)
    budget = max(pace, pixel_cycles(graph, shapes))
    found = {}
    for node in graph:
        if isinstance(node.op, fold.LANED):
            engine = engine_of(node, graph, shapes, None, budget, operands)
            made, folding = block(engine), engine.folding
            assert folding is not None
            styles = (Multiplier.LUTS,) if operands == (0, 0) else (Multiplier.DSP, Multiplier.LUTS)
            codes = [(style, {**made.parameters, "Multiplier": MULTIPLIER_CODES[style]}) for style in styles]
            costs = [(replace(folding, multiplier=style), block_cost(made.name, own)) for style, own in codes]
            found[node.name] = [Option(styled, 0, cost) for styled, cost in costs]
    return found


def fit(
    graph: Graph, target: Target | str = "ecp5-85k", share: float = SHARE, rate: float | None = None
) -> dict[str, Folding]:
    """Foldings for `generate`: the fastest that fit a `share` of the part, or the smallest for `rate` images a second.

    Fastest: the fewest cycles an image in the slowest layer. A rate is reached at the target's clock. Both by the
    estimates of `bitfab.hw.cost`: LUTs within some 15 %, multipliers and block RAMs as Yosys infers them. Requantizers
    and products have a folding too: their lanes as PE, and what multiplies.
    Raises BitfabError where nothing fits (it names the resource that lacks most, and how much), where a layer cannot
    be so fast, and for what has no streaming hardware.
    """
    verify(graph)
    part = named_target(target)
    if not 0 < share <= 1:
        raise BitfabError(f"share {share:g}: choose more than 0 and up to 1 of the part")
    require_fitted(part.part)
    budget = find_part(part.part).available.times(share)
    operands = find_part(part.part).operands
    choices = options(graph, operands)
    if not choices:
        raise BitfabError(f"{graph.name}: no layer folds; generate it as it is")
    program = _Program(graph, part, budget, choices, operands)
    slowest = max(min(option.cycles for option in own) for own in choices.values())
    if rate is not None:
        wanted = int(part.clock_mhz * 1e6 / rate)
        if slowest > wanted:
            raise BitfabError(
                f"{graph.name}: a layer takes {slowest} cycles an image at least; at {part.clock_mhz:g} MHz that is "
                f"{part.clock_mhz * 1e6 / slowest:.0f} images a second, not {rate:g}: lower the rate or raise the clock"
            )
        return program.required(wanted)
    paces = sorted({option.cycles for own in choices.values() for option in own if option.cycles >= slowest})
    found, low, high = program.required(paces[-1]), 0, len(paces) - 1
    while low < high:  # paces[high] fits
        middle = (low + high) // 2
        tried = program.within(paces[middle])
        if tried is None:
            low = middle + 1
        else:
            found, high = tried, middle
    return found


@dataclass(frozen=True)
class _Program:
    """The integer program of a network for a part and a budget."""

    graph: Graph
    target: Target
    budget: Resources
    choices: Mapping[str, Sequence[Option]]
    operands: Operands

    def required(self, pace: int) -> dict[str, Folding]:
        """Foldings no slower than the pace that fit. Raises BitfabError that says what lacks."""
        found = self.within(pace)
        if found is None:
            raise BitfabError(f"{self.graph.name}: {self._lack(pace)}")
        return found

    def within(self, pace: int) -> dict[str, Folding] | None:
        """Foldings no slower than the pace that fit, or None."""
        kept = self._kept(pace)
        rest = np.zeros(len(KINDS), dtype=int)  # what the network takes beside these engines
        for _ in range(ROUNDS):
            chosen = _solve(list(kept.values()), _counts(self.budget) - rest)
            if chosen is None:
                return None
            foldings = {name: option.folding for name, option in zip(kept, chosen, strict=True)}
            needed = self._whole(foldings)
            if (needed <= _counts(self.budget)).all():
                return foldings
            rest = np.maximum(needed - sum(_counts(option.cost) for option in chosen), 0)
        return None

    def _kept(self, pace: int) -> dict[str, list[Option]]:
        """The options at this pace: all that are as fast count as equally fast."""
        fast = {name: [replace(o, cycles=0) for o in own if o.cycles <= pace] for name, own in self.choices.items()}
        every = fast | _laned(self.graph, pace, self.operands)
        return {name: _undominated(own) for name, own in every.items()}

    def _whole(self, foldings: Mapping[str, Folding]) -> IntArray:
        """The estimate of the whole network."""
        design, _ = structure(self.graph, self.target, 0, foldings, Language.VERILOG)
        return _counts(total(estimate(design).values()))

    def _lack(self, pace: int) -> str:
        """Which resource lacks most where the least is missing, and how much."""
        kept, limits = self._kept(pace), _counts(self.budget)
        chosen = _solve(list(kept.values()), limits, exceed=True)
        assert chosen is not None
        needed = self._whole({name: option.folding for name, option in zip(kept, chosen, strict=True)})
        worst = int(np.argmax(needed / np.maximum(limits, 1)))
        return (
            f"needs about {needed[worst]} {KINDS[worst]} at {pace} cycles an image, {limits[worst]} are given; "
            "choose a larger part or a lower rate"
        )


def _solve(layers: Sequence[Sequence[Option]], limits: IntArray, exceed: bool = False) -> list[Option] | None:
    """One option a layer with sums within the limits and the least weighted sum of shares; None where there is none.

    With `exceed` the sums may go beyond the limits, as little as can be.
    """
    if min(limits) < 0 and not exceed:
        return None
    flat = [option for own in layers for option in own]
    costs = np.array([_counts(option.cost) for option in flat], dtype=float)
    weights = (costs / np.maximum(limits, 1)) @ np.array(WEIGHTS)
    picks = np.repeat(np.eye(len(layers)), [len(own) for own in layers], axis=1)
    beyond = np.eye(len(KINDS)) if exceed else np.zeros((len(KINDS), 0))  # columns of what is taken beyond the limits
    extra = beyond.shape[1]
    constraints = [
        LinearConstraint(np.hstack([picks, np.zeros((len(layers), extra))]), 1, 1),
        LinearConstraint(np.hstack([costs.T, -beyond]), -np.inf, limits.astype(float)),
    ]
    solved = milp(
        np.concatenate([weights, (EXCESS / np.maximum(limits, 1))[:extra]]),
        constraints=constraints,
        integrality=np.concatenate([np.ones(len(flat)), np.zeros(extra)]),
        bounds=Bounds(0, np.concatenate([np.ones(len(flat)), np.full(extra, np.inf)])),
    )
    return None if solved.x is None else [flat[i] for i in np.flatnonzero(solved.x[: len(flat)] > 0.5)]


def _counts(resources: Resources) -> IntArray:
    """As a vector, in the order of KINDS."""
    return np.array([resources.lut, resources.ff, resources.dsp, resources.bram])
