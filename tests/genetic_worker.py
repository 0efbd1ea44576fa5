"""A small genetic search that tests share; as a program, it goes on from a checkpoint: `genetic_worker.py FILE`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.lutnet import Features, genetic, thermometer
from bitfab.lutnet.checkpoint import Settings
from bitfab.lutnet.genetic import Front
from bitfab.lutnet.lut_space import Limits, LutSpace, lut_space

FEATURES = Features(6, IntType(5, signed=False))
SETTINGS = Settings(population=16, children=16, generations=40, seed=7)


def data(count: int = 300, seed: int = 0) -> tuple[IntArray, IntArray]:
    """Three classes that no single feature tells."""
    x = np.random.default_rng(seed).integers(0, 32, size=(count, FEATURES.count))
    return x, (x[:, 0] + x[:, 1] > 31).astype(np.int64) + (x[:, 2] > x[:, 3])


def space(seed: int = 0, depth: int = 2) -> LutSpace:
    """At most 48 tables of 4 inputs."""
    x, labels = data(seed=seed)
    return lut_space(FEATURES, thermometer(x, 7), (x, labels), Limits(48, depth, 4), 3, validation=data(seed=seed + 1))


def same(one: Front[Any], other: Front[Any]) -> bool:
    """Whether two fronts are equal, bit for bit."""
    alike = one.genes.keys() == other.genes.keys() and np.array_equal(one.values, other.values)
    return alike and all(np.array_equal(one.genes[name], other.genes[name]) for name in one.genes)


def _tell(generation: int, front: Front[Any]) -> None:
    print(generation, flush=True)


if __name__ == "__main__":
    genetic.search(space(), SETTINGS, checkpoint=Path(sys.argv[1]), progress=_tell, every=1)
