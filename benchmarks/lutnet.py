"""LUT networks trained by gradients on jets, pulses and MNIST: accuracy of the hardened networks, and their tables.

    python benchmarks/lutnet.py [--only NAME ...] [--json FILE]

Names: those of `benchmarks/models/lutnets.py`. Accuracy is that of the integer graph, by `run_fast`, on data that was
neither trained on nor, for the pulses, simulated by the same program. The jets' bounds are relative to a float MLP
64-32-32 trained on the same 16,000 jets. Data: ../shared/data (a network whose data is absent is left out, visibly) and
MNIST from PyPI. One thread a network.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.common import Check, main, told
from benchmarks.models import datasets, lutnets
from bitfab.ir.passes.simplify_bits import simplify
from bitfab.lutnet import LutNetwork, lower
from bitfab.lutnet.cost import lut6_by_node

FILES = {"jets-small": datasets.JETS, "jets": datasets.JETS, "pulses": lutnets.PULSES}
POINTS_LOST = {"jets-small": 3.0, "jets": 1.5}  # at most, against the float MLP
PERCENT = {"pulses": 90.0, "mnist-small": 97.0, "mnist": 98.0}


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    return list(told(check for name in arguments.only for check in _checks(name)))


def _checks(name: str) -> Iterator[Check]:
    if name in FILES and not FILES[name].exists():
        print(f"{name}: left out, {FILES[name]} is absent", file=sys.stderr)
        return
    recipe = lutnets.RECIPES[name]
    task = recipe.task()
    start = time.process_time()
    network = lutnets.trained(name)
    yield Check(f"{name}: training, CPU seconds", time.process_time() - start)
    if name in POINTS_LOST:
        yield Check("jets: float MLP 64-32-32, accuracy %", _reference())
        bound = _reference() - POINTS_LOST[name]
    else:
        bound = PERCENT[name]
    yield Check.at_least(f"{name}: accuracy %", lutnets.judged(network, task), bound)
    yield from _sizes(name, network, recipe.budget)


def _sizes(name: str, network: LutNetwork, budget: int) -> Iterator[Check]:
    luts = lut6_by_node(simplify(lower(network, "net")))
    yield Check(f"{name}: truth tables", network.tables)
    yield Check(f"{name}: encoder bits read", len(np.unique(network.layers[0].wiring)))
    yield Check.at_most(f"{name}: LUT6 estimated, all included", sum(luts.values()), budget)


@cache
def _reference() -> float:
    return lutnets.float_reference()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    names = list(lutnets.RECIPES)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    main(measure, parser)
