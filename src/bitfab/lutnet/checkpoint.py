"""A genetic search between two generations: its settings and state, written whole to a file and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from bitfab.dtypes import FloatArray
from bitfab.errors import BitfabError
from bitfab.lutnet.search_space import Genes, Space
from bitfab.output import write_whole

FORMAT = 1
METADATA_KEY = "bitfab"
VALUES = "values"


@dataclass(frozen=True)
class Settings:
    """How long and how a search goes; the same settings, space and start give the same front, bit for bit.

    A generation makes `children` of the `population` and keeps the best `population` of both. Changes to a child fall
    from `strength[0]` to `strength[1]` on average, geometrically over the generations. The search ends early after
    `patience` generations in which the first objective has not become better.
    """

    population: int = 64
    children: int = 64
    generations: int = 1000
    seed: int = 0
    strength: tuple[float, float] = (4.0, 1.0)
    crossover: float = 0.2  # share of children that have two parents
    tournament: int = 2
    patience: int | None = None

    def __post_init__(self) -> None:
        if min(self.population, self.children, self.tournament) < 1 or self.generations < 0 or self.seed < 0:
            raise BitfabError(
                "genetic search: population, children and tournament of at least 1, generations and seed of at least 0"
                " expected"
            )
        if min(self.strength) < 1 or not 0 <= self.crossover <= 1:
            raise BitfabError("genetic search: strength of at least 1 change and crossover from 0 to 1 expected")


@dataclass(frozen=True, eq=False)
class State:
    """A search between two generations; with the settings it determines all that follows, chance included."""

    generation: int
    genes: Genes
    values: FloatArray  # (population, objectives), the best first as `pareto.order` has it
    improved: int = 0  # the generation in which the first objective last became better
    island: int = 0


def save(path: Path, settings: Mapping[str, Any], states: Sequence[State]) -> None:
    """Write the states of all islands, and what the search depends on besides, as plain values.

    The file appears whole or not at all; an older one stays until then.
    """
    tensors = {}
    for state in states:
        for name, array in {**state.genes, VALUES: state.values}.items():
            tensors[f"{state.island}.{name}"] = np.ascontiguousarray(array)
    states_json = [{"generation": state.generation, "improved": state.improved} for state in states]
    document = {"format": FORMAT, "settings": settings, "states": states_json}
    write_whole(path, safetensors.numpy.save(tensors, {METADATA_KEY: json.dumps(document)}))


def load(path: Path, space: Space[Any], settings: Mapping[str, Any]) -> list[State]:
    """The states that `save` wrote.

    Raises BitfabError where the file cannot be read, is damaged, or belongs to other settings, another space or other
    data: all individuals are evaluated anew and must have the values in the file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            document = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if document["format"] != FORMAT or not document["states"]:
            raise ValueError(f"not of format {FORMAT}")
        states = []
        for island, numbers in enumerate(document["states"]):
            own = {name.partition(".")[2]: array for name, array in tensors.items() if name.startswith(f"{island}.")}
            values = own.pop(VALUES)
            states.append(State(int(numbers["generation"]), own, values, int(numbers["improved"]), island))
    except OSError as error:
        raise BitfabError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise BitfabError(f"{path}: no checkpoint of a genetic search, or damaged ({error}); remove it") from error
    _check_settings(path, document["settings"], settings)
    for state in states:
        _check_space(path, space, state)
    return states


def _check_settings(path: Path, found: object, settings: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(settings))
    if not isinstance(found, dict) or found != wanted:
        other = [name for name in wanted if not isinstance(found, dict) or found.get(name) != wanted[name]]
        names = ", ".join(other) or "settings"
        raise BitfabError(f"{path}: written by a search of other {names}; repeat its settings, or choose another file")


def _check_space(path: Path, space: Space[Any], state: State) -> None:
    expected = space.random(1, np.random.default_rng(0))
    same = state.genes.keys() == expected.keys() and all(
        array.dtype == expected[name].dtype and array.shape == (len(state.values), *expected[name].shape[1:])
        for name, array in state.genes.items()
    )
    if not same or not _same_values(space, state):
        raise BitfabError(f"{path}: written for another space or other data; repeat those, or choose another file")


def _same_values(space: Space[Any], state: State) -> bool:
    try:
        return np.array_equal(space.evaluate(state.genes), state.values)
    except (IndexError, ValueError):  # wires to bits that this space does not have
        return False
