"""Genetic training of LUT networks on pulses: accuracy from a random start, and evaluations a second."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from common import ROOT, Check, main, told

from bitfab.data import pulses
from bitfab.dtypes import FloatArray, IntArray, IntType
from bitfab.ir.ops import Compare
from bitfab.ir.run import run
from bitfab.lutnet import Features, LutNetwork, genetic, lower, thermometer
from bitfab.lutnet.checkpoint import Settings
from bitfab.lutnet.genetic import Front, evaluator
from bitfab.lutnet.lut_space import Data, Limits, LutSpace, lut_space
from bitfab.lutnet.search_space import Genes

SHARED = ROOT.parent / "shared" / "data" / "pulses" / "sipm_2000.npz"
FEATURES = Features(pulses.SAMPLES, IntType(8, signed=False))
FRAMES = 8000
LEVELS = 15
WORKERS = 2
# 158 tables of 64 entries: 10,112 bits. Individuals drawn apart have nothing in common that could be evaluated once.
LARGE = Limits(158, fan_in=6)
SMALL = Limits(100, fan_in=6)
SETTINGS = Settings(population=32, children=64, generations=5000, seed=0, strength=(3, 1), crossover=0.4)
PARETO = Settings(population=64, children=64, generations=1000, seed=0, strength=(2, 1), crossover=0.4)
SOFTNESS = 1.0


def measure(arguments: argparse.Namespace) -> list[Check]:
    return list(told(itertools.chain(_speed(), _trained())))


def _space(limits: Limits, data: Data, **options: Any) -> LutSpace:
    x, _ = data
    telling = np.flatnonzero(np.quantile(x, 0.99, axis=0) > x.min(axis=0) + 2)  # the frame's tail is the baseline
    code = thermometer(x[:, telling], LEVELS)
    return lut_space(FEATURES, Compare(telling[code.channel], code.threshold), data, limits, 2, **options)


def _speed() -> Iterator[Check]:
    import torch  # here, so that the worker processes, which import this file, do without

    space = _space(LARGE, pulses.generate(2000, pulses.SPLIT_SEEDS["train"]))
    genes = space.random(200, np.random.default_rng(0))
    for workers in (1, WORKERS):
        with evaluator(space, workers) as evaluate:
            rate = _rate(evaluate, genes)
        processes = "1 process" if workers == 1 else f"{workers} processes"
        yield Check.at_least(f"10,112-bit individuals a second on 2,000 frames, {processes}", rate, 500)
    if torch.cuda.is_available():
        on_gpu = dataclasses.replace(space, device="cuda")
        rate = _rate(on_gpu.evaluate, space.random(8000, np.random.default_rng(0)))
        yield Check(f"the same on a GPU ({torch.cuda.get_device_name()})", rate)


def _rate(evaluate: Callable[[Genes], FloatArray], genes: Genes) -> float:
    """Individuals a second, the best of ten."""
    evaluate(genes)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        evaluate(genes)
        seconds.append(time.perf_counter() - start)
    return len(genes["table0"]) / min(seconds)


def _trained() -> Iterator[Check]:
    """From random individuals, by selection, crossover and mutation alone, on generated frames.

    First for accuracy alone, then for fewer tables too, from the network found.
    """
    start = time.perf_counter()
    train = pulses.generate(FRAMES, pulses.SPLIT_SEEDS["train"])
    validation = pulses.generate(FRAMES, pulses.SPLIT_SEEDS["validation"])
    space = _space(SMALL, train, validation=validation, softness=SOFTNESS, objectives=("loss",))
    front = genetic.search(space, SETTINGS, progress=_tell, every=SETTINGS.generations // 10, workers=WORKERS)
    seconds = time.perf_counter() - start
    yield Check.at_most("minutes of genetic search, random start", seconds / 60, 10)
    yield Check("individuals evaluated a second in it", SETTINGS.generations * SETTINGS.children / seconds)
    yield from _tested("accurate", front, front.best(), train)
    space = _space(SMALL, train, validation=validation, softness=SOFTNESS)
    front = genetic.search(space, PARETO, start=front.genes, workers=WORKERS)
    errors, tables = front.errors(), _tables(front)
    good = np.flatnonzero(errors <= errors.min() + 0.01)
    yield Check("networks on the front of loss, LUTs and depth", len(front))
    yield from _tested("within a point of it", front, int(good[tables[good].argmin()]), train)


def _tested(name: str, front: Front[LutNetwork], which: int, train: Data) -> Iterator[Check]:
    network = front.network(which)
    yield Check(f"{name}: truth tables of 6 inputs", float(_tables(front)[which]))
    yield Check(f"{name}: accuracy in training, %", _accuracy(network, train))
    generated = pulses.generate(10_000, pulses.SPLIT_SEEDS["test"])
    yield Check.at_least(f"{name}: accuracy on 10,000 generated frames, %", _accuracy(network, generated), 86)
    if SHARED.exists():
        shared = _accuracy(network, pulses.load(SHARED))
        yield Check.at_least(f"{name}: accuracy on the 2,000 shared frames, %", shared, 86)
    else:
        print(f"{SHARED} is absent: tested on generated frames only", file=sys.stderr)


def _tables(front: Front[LutNetwork]) -> IntArray:
    assert isinstance(front.space, LutSpace)
    return front.space.hardware(front.genes)[0]


def _tell(generation: int, front: Front[Any]) -> None:
    print(
        f"generation {generation}: loss {front.values[0, 0]:.4f}, errors in validation {front.errors().min():.4f}",
        file=sys.stderr,
        flush=True,
    )


def _accuracy(network: LutNetwork, data: Data) -> float:
    """In per cent, by the definition of the integer graph."""
    x, labels = data
    return 100 * float((np.ravel(run(lower(network, "pulses"), x)) == labels).mean())


if __name__ == "__main__":
    main(measure, argparse.ArgumentParser(description=__doc__))
