"""The k best classes end to end: a trained network, its integer graph, and hardware of both styles and languages."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitfab as bf
from bitfab.backend import simulate
from bitfab.dtypes import IntType
from bitfab.hw import Language, generate
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import TopK
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError

CLASSES = 8


class Classes(nn.Module):
    """The three best classes of an image, and of each pixel of a coarse map the two best channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.scores = nn.Linear(4 * 9, CLASSES)

    def logits(self, x: Tensor) -> Tensor:
        return self.scores(torch.relu(self.conv(x)).flatten(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.relu(self.conv(x))
        return torch.topk(self.scores(maps.flatten(1)), 3).indices, torch.topk(maps, 2, dim=1).indices


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images (N, 1, 6, 6) of one of CLASSES patterns, and which."""
    patterns = torch.randn(CLASSES, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, CLASSES, (count,), generator=generator)
    return patterns[truth] + torch.randn(count, 1, 6, 6, generator=generator), truth


@pytest.fixture(scope="module")
def trained() -> Classes:
    torch.manual_seed(0)
    net = Classes()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    x, truth = data(512, seed=1)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.logits(x), truth).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def graph(trained: Classes) -> Graph:
    return bf.quantize(trained, [data(64, seed=2)[0]], name="classes")


def test_the_integer_graph_finds_the_classes(trained: Classes, graph: Graph) -> None:
    x, truth = data(400, seed=3)
    codes = bf.as_integers(graph, x.numpy())
    best, channels = bf.run(graph, codes)
    for found, expected in zip(bf.run_fast(graph, codes), (best, channels), strict=True):
        np.testing.assert_array_equal(found, expected)
    wanted, _ = trained(x)
    assert best.shape == (400, 3) and channels.shape == (400, 2, 3, 3)
    assert (best[:, 0] == wanted[:, 0].numpy()).mean() > 0.97
    assert (np.sort(best) == np.sort(wanted.numpy())).all(axis=1).mean() > 0.9
    right = [float((best[:, :k] == truth.numpy()[:, None]).any(axis=1).mean()) for k in (1, 3)]
    assert right[1] > right[0] > 0.8
    assert sum(isinstance(node.op, TopK) for node in graph) == 2


@pytest.mark.parametrize("language", list(Language))
def test_hardware_equals_the_graph(graph: Graph, language: Language, tmp_path: Path) -> None:
    _needs_tools(language)
    images = bf.as_integers(graph, data(6, seed=4)[0].numpy())
    simulation = simulate(generate(graph, parallelism=16, language=language), images, tmp_path)
    assert simulation.mismatches == 0
    assert simulation.steady.passed and simulation.paused.passed


@pytest.mark.parametrize("language", list(Language))
def test_parallel_hardware_equals_the_graph(language: Language, tmp_path: Path) -> None:
    """The four best of nine codes of two bits, where ties abound."""
    _needs_tools(language)
    builder = Builder("order")
    scores = builder.input("scores", (9,), IntType(2, signed=True))
    graph = builder.build((builder.add("best", TopK(4), scores),))
    images = np.random.default_rng(0).integers(-2, 2, (40, 9))
    simulation = simulate(generate(graph, style="parallel", language=language), images, tmp_path)
    assert simulation.mismatches == 0
    assert simulation.steady.passed and simulation.paused.passed


def test_training_under_quantization_keeps_the_indices(trained: Classes) -> None:
    """With powers of two what is trained equals the graph in every bit."""
    x, _ = data(64, seed=2)
    prepared = bf.prepare(trained, [x], bf.Recipe(scale="po2")).eval()
    graph = bf.lower(prepared, "classes")
    for found, expected in zip(bf.run(graph, bf.as_integers(graph, x.numpy())), prepared(x), strict=True):
        np.testing.assert_array_equal(found, expected.numpy())


def _needs_tools(language: Language) -> None:
    if language is Language.VHDL:
        try:
            ghdl.require()
        except MissingToolError as error:
            pytest.skip(str(error))
