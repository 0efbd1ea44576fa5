"""Products of two streams in hardware: squeeze-and-excitation from torch to RTL, FIFOs that hold whole images."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfab.backend import Simulation, simulate
from bitfab.dtypes import IntType, quantize
from bitfab.errors import BitfabError
from bitfab.hw import Design, Folding, Language, Multiplier, Style, cost, generate, write_files
from bitfab.hw.fit import fit
from bitfab.hw.plan import plan
from bitfab.hw.schedule import Schedule
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Add, Conv2d, Multiply, Requantize, Reshape, SumPool2d, Threshold
from bitfab.ir.run import run
from bitfab.ir.run_fast import run_fast
from bitfab.quant import quantize as quantized
from bitfab.tools import ghdl, yosys
from bitfab.tools.process import MissingToolError
from tests.strategies import batch

UINT8, INT5, BIPOLAR = IntType(8, signed=False), IntType(5, signed=True), IntType(1, signed=True)


class Excited(nn.Module):
    """A block with squeeze-and-excitation behind a convolution, added to its input (Hu et al. 2018, 1709.01507)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        gate = torch.sigmoid(self.squeeze(x)).reshape(-1, 6, 1, 1)
        return self.head(torch.relu(x + x * gate))


def late(stages: int) -> Graph:
    """Factors that come several images after the pixels that they multiply: a chain of layers as slow as the input."""
    rng, b = np.random.default_rng(0), Builder("late")
    x = b.input("x", (8, 2, 2), UINT8)
    y = b.add("pool", SumPool2d((2, 2), (2, 2)), x)
    for i in range(stages):
        y = b.add(f"conv{i}", Conv2d(rng.integers(-9, 10, (8, 8, 1, 1)), np.zeros(8, np.int32)), y)
        y = b.add(f"act{i}", Requantize(np.array([1]), np.array([3 if i else 5]), UINT8, 0, 255), y)
    return b.build((b.add("scaled", Multiply(3, 1), (x, y)),))


def mixed() -> Graph:
    """Factors from an input of their own, a square, signals, vectors, bipolar values, factors of two bits."""
    b = Builder("mixed")
    x, factor = b.input("x", (4, 3, 2), INT5), b.input("factor", (4, 1, 1), UINT8)
    signal, sign = b.input("signal", (2, 5), INT5), b.input("sign", (2, 5), BIPOLAR)
    scaled = b.add("scaled", Multiply(-16, 77), (x, factor))
    squared = b.add("squared", Multiply(99, -9), (x, x))
    whole = b.add("whole", Add(), (scaled, squared))
    bit = b.add("bit", Threshold(np.array([[100]]), IntType(1, signed=False), 0), factor)
    kept = b.add("kept", Multiply(0, 1), (whole, bit))
    lines = b.add("lines", Multiply(3, 0), (signal, sign))
    vectors = b.add("vectors", Multiply(0, 0), (factor, factor))
    return b.build((kept, lines, vectors))


def _require(tool: Callable[[], object]) -> None:
    try:
        tool()
    except MissingToolError as error:
        pytest.skip(str(error))


def _proved(design: Design, images: object, folder: Path) -> Simulation:
    found = simulate(design, images, folder)
    assert found.mismatches == 0
    assert found.steady.passed and found.paused.passed
    for observed in (found.steady, found.paused):
        assert all(observed.fifo_peaks[fifo.instance] <= fifo.capacity for fifo in design.fifos)
    return found


@pytest.mark.parametrize("language", list(Language))
def test_squeeze_and_excitation_from_torch_to_rtl(language: Language, tmp_path: Path) -> None:
    if language is Language.VHDL:
        _require(ghdl.require)
    torch.manual_seed(1)
    photos = np.random.default_rng(0).normal(size=(16, 2, 6, 5)).astype(np.float32)
    graph = quantized(Excited().eval(), [photos], name="excited")
    (product,) = [node for node in graph if isinstance(node.op, Multiply)]
    assert graph.values[product.inputs[1]].shape == (6, 1, 1)
    (x,) = graph.inputs
    assert x.qparams is not None
    images = quantize(photos[:4], x.qparams, x.type).astype(np.int64)
    images[2], images[3] = x.low, x.high
    np.testing.assert_array_equal(run(graph, images), run_fast(graph, images))
    design = generate(graph, parallelism=16, language=language)
    found = _proved(design, images, tmp_path / "excited")
    assert (np.diff(found.steady.last_out) <= design.expected_cycles).all()
    fifo = next(fifo for fifo in design.fifos if fifo.instance == f"u_{_read(design, product.name)}_fifo")
    assert found.steady.fifo_peaks[fifo.instance] >= 6 * 5  # an image waits for its factors


def _read(design: Design, node: str) -> str:
    """The stream that goes to a product's first FIFO."""
    held = next(instance for instance in design.instances if instance.name == f"u_{node}").inputs[0]
    fifo = next(instance for instance in design.instances if instance.outputs == (held,))
    return fifo.name.removeprefix("u_").removesuffix("_fifo")


def test_factors_many_images_late_cost_no_cycle(tmp_path: Path) -> None:
    """Room for so many images as are on their way to their factors, which the schedule finds."""
    _require(ghdl.require)  # which starts sooner than Verilator builds
    design = generate(late(6), parallelism=6, language=Language.VHDL)
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 2, 2))
    found = _proved(design, images, tmp_path / "late")
    assert (np.diff(found.steady.last_out) == design.expected_cycles).all()
    assert max(found.steady.fifo_peaks.values()) > 8 * 32  # words: more than eight images of 4 pixels, of 8 words


def test_a_fifo_of_less_than_an_image_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the schedule matters: with room for a few pixels the design hangs, and the testbench says so."""
    _require(ghdl.require)
    b = Builder("stops")
    x = b.input("x", (2, 8, 8), UINT8)
    y = b.add("pool", SumPool2d((8, 8), (8, 8)), x)
    graph, images = b.build((b.add("scaled", Multiply(), (x, y)),)), np.full((2, 2, 8, 8), 7)

    def shallow(*args: object) -> Schedule:
        return Schedule(64, 64, {("x", "scaled"): 2, ("pool", "scaled"): 2})

    monkeypatch.setattr(import_module("bitfab.hw.generate"), "schedule", shallow)
    with pytest.raises(BitfabError, match="the design is stuck"):
        simulate(generate(graph, language=Language.VHDL), images, tmp_path / "shallow")


@pytest.mark.parametrize("language", list(Language))
def test_every_kind_of_product(language: Language, tmp_path: Path) -> None:
    if language is Language.VHDL:
        _require(ghdl.require)
    graph = mixed()
    folding = {"scaled": Folding(2, 1, Multiplier.LUTS), "squared": Folding(4, 1)}
    design = generate(graph, folding=folding, language=language, style="stream")
    instances = {instance.name: instance.parameters for instance in design.instances}
    styles = {name: instances[f"u_{name}"].get("Multiplier", 0) for name in ("scaled", "squared", "kept", "vectors")}
    assert styles == {"scaled": 2, "squared": 0, "kept": 2, "vectors": 0}
    _proved(design, batch(graph, 0, 5), tmp_path / "mixed")


def test_multipliers_and_memories_as_synthesis_makes_them(tmp_path: Path) -> None:
    """DSPs and block RAMs exactly, LUTs within the error of estimates: by factors in each style, and wide numbers."""
    _require(yosys.require)
    b = Builder("counted")
    x, wide = b.input("x", (32, 8, 8), UINT8), b.input("wide", (32, 8, 8), IntType(20, signed=True))
    factor = b.input("factor", (32, 1, 1), UINT8)
    one, two = b.add("one", Multiply(9, 3), (x, factor)), b.add("two", Multiply(0, 200), (x, factor))
    graph = b.build((one, two, b.add("three", Multiply(), (wide, factor))))
    folding = {"one": Folding(2, 1), "two": Folding(1, 1, Multiplier.LUTS), "three": Folding(4, 1)}
    design = generate(graph, folding=folding)
    write_files(design.files, tmp_path / "net")
    sources = [tmp_path / "net" / path for path in design.sources]
    netlist = yosys.synthesize_ecp5(sources, design.name, tmp_path / "build")
    found = {name: netlist.instances[f"u_{name}"] for name in folding}
    guesses = {i.name[2:]: cost.block_cost(i.block, i.parameters) for i in design.instances if i.block == "scale"}
    assert {name: (real.dsp, real.bram) for name, real in found.items()} == {
        name: (guess.dsp, guess.bram) for name, guess in guesses.items()
    }
    assert [found[name].dsp for name in folding] == [2, 0, 8]
    real, guess = (sum(count.lut for count in counts.values()) for counts in (found, guesses))
    assert guess == pytest.approx(real, rel=0.25)


def test_a_fitted_network_chooses_what_multiplies() -> None:
    rich, poor = fit(late(2), "ecp5-85k"), fit(late(2), "ecp5-25k", 1.0, 1000)
    assert rich["scaled"].pe >= poor["scaled"].pe and {rich["scaled"].simd, poor["scaled"].simd} == {1}


def test_a_product_folds_over_its_channels() -> None:
    with pytest.raises(BitfabError, match=r"scaled: folding .* a product has SIMD 1, PE 1, 2, 4, 8, multiplier dsp or"):
        plan(late(1), 8, {"scaled": Folding(3, 1)})


@pytest.mark.parametrize("op", [Add(), Multiply()])
@pytest.mark.parametrize("operands", [("flat", "vector"), ("vector", "flat")])
def test_a_flattened_image_on_either_side_is_refused(op: Add | Multiply, operands: tuple[str, str]) -> None:
    """Its numbers come in another order than those of a vector."""
    b = Builder("order")
    x, _ = b.input("x", (2, 2, 2), UINT8), b.input("vector", (8,), UINT8)
    b.add("flat", Reshape((8,)), x)
    graph = b.build((b.add("joined", op, operands),))
    with pytest.raises(BitfabError, match="joined: in hardware an image is flattened only before a dense layer"):
        generate(graph, style=Style.STREAM)


def test_a_join_behind_a_reshape_has_its_fifo(tmp_path: Path) -> None:
    """A signal that is read as an image of one row waits for its own convolution."""
    _require(ghdl.require)
    b = Builder("lines")
    x = b.input("x", (2, 9), UINT8)
    weight = np.random.default_rng(0).integers(-9, 10, (2, 2, 1, 5))
    row, same = b.add("row", Reshape((2, 1, 9)), x), b.add("same", Reshape((2, 1, 9)), x)
    y = b.add("conv", Conv2d(weight, np.zeros(2, np.int32), padding=(0, 2, 0, 2)), row)
    graph = b.build((b.add("joined", Multiply(0, 5), (y, same)),))
    design = generate(graph, language=Language.VHDL)
    assert [fifo.instance for fifo in design.fifos] == ["u_x_to_same_fifo"]
    _proved(design, batch(graph, 0), tmp_path / "lines")
