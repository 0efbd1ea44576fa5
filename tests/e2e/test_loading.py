"""A design's memories after the writes that load another graph: every stream is the other graph's, in simulation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitfab.backend import simulate
from bitfab.hw import Design, generate
from bitfab.hw.loading import LOAD_ADDRESS, LOAD_DATA, load_writes, memory_map
from bitfab.hw.memories import lines
from bitfab.ir import run
from tests.e2e import test_binary, test_multipliers
from tests.perturbed import perturbed
from tests.strategies import batch

NETWORKS = {"binary": test_binary.network, "multipliers": test_multipliers.network}


def loaded(design: Design, writes: list[tuple[int, int]]) -> Design:
    """The design with its memories' files as rtl/registers and rtl/memory leave the memories."""
    files = dict(design.files)
    memories = memory_map(design)
    words = {memory.file: list(lines(files[f"rtl/{memory.file}"])) for memory in memories}
    stored: Counter[int] = Counter()
    word = 0
    assert design.load_bus is not None
    for address, data in writes:
        assert 0 <= data < 1 << 32
        if address == LOAD_DATA:
            word = (word << 32 | data) % (1 << design.load_bus.bits)
            continue
        assert address == LOAD_ADDRESS and data < 1 << design.load_bus.address_bits
        (memory,) = (memory for memory in memories if 0 <= data - memory.base < memory.words)
        words[memory.file][data - memory.base] = word % (1 << memory.bits)
        stored[data] += 1
    assert set(stored.values()) == {1} and len(stored) == sum(memory.words for memory in memories)
    texts = {f"rtl/{file}": "".join(f"{word:x}\n" for word in held) for file, held in words.items()}
    return replace(design, files={**files, **texts})


@pytest.mark.parametrize("network", NETWORKS)
def test_a_loaded_design_is_the_other_graph(network: str, tmp_path: Path) -> None:
    graph = NETWORKS[network]()
    folding = test_multipliers.FOLDINGS if network == "multipliers" else None
    design = generate(graph, parallelism=32, folding=folding, registers=True, loadable=True)
    other, images = perturbed(graph, 5), batch(graph, seed=1, size=3)
    first, second = (run(each, *images) for each in (graph, other))
    assert any((one != two).any() for one, two in zip(_each(first), _each(second), strict=True))
    simulation = simulate(replace(loaded(design, load_writes(design, other)), graph=other), images, tmp_path / "net")
    assert simulation.mismatches == 0
    own = loaded(design, load_writes(design, graph))
    for memory in memory_map(design):
        path = f"rtl/{memory.file}"
        assert list(lines(own.files[path])) == list(lines(design.files[path])), path


def _each(outputs: np.ndarray | tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return (outputs,) if isinstance(outputs, np.ndarray) else outputs
