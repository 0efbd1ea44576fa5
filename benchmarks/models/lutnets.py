"""LUT networks for the three applications: their data as integers, what they may cost, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from benchmarks.models import datasets
from benchmarks.models.mlp import JETS, mlp
from benchmarks.models.training import Schedule, accuracy, train
from bitfab.data import pulses
from bitfab.dtypes import IntArray, IntType
from bitfab.ir.ops import Compare
from bitfab.ir.run_fast import run_fast
from bitfab.lutnet import Features, LutNetwork, checkpoint, fixed_point, genetic, gradient, integers, lower, thermometer
from bitfab.lutnet.gradient import Settings
from bitfab.lutnet.lut_space import around

PULSES = datasets.SHARED / "pulses" / "sipm_2000.npz"
FRAMES = 100_000
REFINED_ON = 60_000  # of these frames
CHOSEN_ON = 10_000  # others
QUANTILES_OF = 20_000  # frames, for the thermometer code
TELLING = range(2, 100)  # samples of a frame: before lies the baseline, afterwards it has come back
EVEN = 2  # a comparison with an even threshold leaves out a bit: one LUT6 for a sample of 7 bits
INK = 128  # a threshold that is a pixel's top bit, and costs nothing
RARE = 0.01  # a pixel that is ink, or paper, in fewer images tells nothing


@dataclass(frozen=True)
class Task:
    """Integers to train on and to be judged by, and the bits that a network may read."""

    features: Features
    encoder: Compare
    samples: IntArray
    labels: IntArray
    test: IntArray
    truth: IntArray
    classes: int


@dataclass(frozen=True)
class Recipe:
    """A network: its task, its tables a layer, how to train it, and the LUT6 it may take, all included.

    With `refinement` a genetic search follows the gradients.
    """

    task: Callable[[], Task]
    widths: tuple[int, ...]
    settings: Settings
    budget: int
    refinement: checkpoint.Settings | None = None


@cache
def jets(levels: int) -> Task:
    """16,000 and 4,000 jets, 16 observables of 8 bits (7 cost a point), thermometer codes by quantiles."""
    stored = np.load(datasets.JETS)
    x, y = stored["x"].astype(np.float64), stored["y"].astype(np.int64)
    features = fixed_point(x[:16000], bits=8)
    codes = integers(x, features)
    encoder = thermometer(codes[:16000], levels)
    return Task(features, encoder, codes[:16000], y[:16000], codes[16000:], y[16000:], 5)


@cache
def pulses_task() -> Task:
    """Generated frames to train on; the 2,000 shared ones, of another simulation, to be judged by."""
    x, y = pulses.generate(FRAMES, pulses.SPLIT_SEEDS["train"])
    test, truth = pulses.load(PULSES)
    encoder = thermometer(x[:QUANTILES_OF].astype(np.int64), 15, read=TELLING, step=EVEN)
    return Task(Features(pulses.SAMPLES, IntType(7, signed=False)), encoder, x, y, test, truth, 2)


@cache
def mnist() -> Task:
    """60,000 images, each also moved by one pixel to each side, and the 10,000 test images; pixels are ink or paper."""
    data = datasets.mnist()
    images, test = (((part + 1) * 127.5).round().to(torch.uint8).numpy() for part in (data.train, data.test))
    share = (images >= INK).mean(axis=0)
    telling = np.flatnonzero((share > RARE) & (share < 1 - RARE))
    encoder = Compare(telling, np.full(len(telling), INK))
    square = images.reshape(-1, 28, 28)
    moved = [np.roll(square, step, axis).reshape(-1, 784) for axis in (1, 2) for step in (-1, 1)]
    labels = np.tile(data.labels.numpy(), 1 + len(moved))
    features = Features(784, IntType(8, signed=False))
    return Task(features, encoder, np.concatenate([images, *moved]), labels, test, data.truth.numpy(), 10)


RECIPES = {
    "jets-small": Recipe(lambda: jets(15), (70,), Settings(epochs=20, temperature=4.0), 500),
    "jets": Recipe(lambda: jets(31), (300,), Settings(epochs=20, temperature=6.0), 2500),
    # Few bits to count make it fast on an ECP5: (300,) takes 21 ns, (400, 32) 15.3 ns, these 13 ns.
    "pulses": Recipe(
        pulses_task,
        (300, 24),
        Settings(epochs=10, learned=2),
        3300,
        checkpoint.Settings(population=16, children=32, generations=2000, strength=(2, 1), crossover=0.3),
    ),
    "mnist-small": Recipe(mnist, (1100,), Settings(epochs=3, batch=256, temperature=4.0), 3000),
    "mnist": Recipe(mnist, (2000,), Settings(epochs=4, batch=256, temperature=4.5), 8000),
}


def trained(name: str, seed: int = 0) -> LutNetwork:
    """The network of RECIPES[name], trained on one thread."""
    recipe = RECIPES[name]
    task = recipe.task()
    torch.set_num_threads(1)
    settings = replace(recipe.settings, seed=seed)
    return gradient.train(task.features, task.encoder, recipe.widths, task.samples, task.labels, task.classes, settings)


def refined(network: LutNetwork, name: str) -> LutNetwork:
    """The pulses' network after the genetic search of its recipe, which counts errors on generated frames."""
    settings = RECIPES[name].refinement
    if settings is None:
        return network
    task = RECIPES[name].task()
    training = task.samples[:REFINED_ON], task.labels[:REFINED_ON]
    validation = pulses.generate(CHOSEN_ON, pulses.SPLIT_SEEDS["validation"])
    space, genes = around(network, training, validation=validation, objectives=("loss",), softness=1.0)
    front = genetic.search(space, settings, start=genes)
    return front.network(front.best())


def judged(network: LutNetwork, task: Task) -> float:
    """Correct answers of the integer graph on the task's test samples, in percent."""
    answers = run_fast(lower(network, "judged"), task.test)
    assert isinstance(answers, np.ndarray)
    return 100 * float((answers[:, 0] == task.truth).mean())


def float_reference(seed: int = 0) -> float:
    """The float MLP 64-32-32 on the same jets, trained on the same 16,000, in percent."""
    data = datasets.jets()
    torch.manual_seed(seed)
    return accuracy(train(mlp(JETS), data, Schedule(20), seed), data)
