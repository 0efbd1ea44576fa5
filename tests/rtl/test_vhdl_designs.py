"""Whole streaming designs in VHDL: every stream equal to `run`, in the cycles of the Verilog, and able to fail."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from bitfab import zoo
from bitfab.backend import Simulation, simulate
from bitfab.dtypes import IntArray
from bitfab.dtypes import quantize as to_integers
from bitfab.errors import BitfabError
from bitfab.hw import Language, Target, generate
from bitfab.hw.ports import output_ports
from bitfab.hw.testbench import Observed
from bitfab.ir import Graph
from bitfab.ir.ops import Bits, Compare, Lut, Popcount, Reshape, Transpose
from bitfab.quant import quantize
from bitfab.tools import ghdl, yosys
from bitfab.tools.process import MissingToolError
from tests.nets import Spec, build
from tests.strategies import ALL_OPS, batch, graphs

WITHOUT_STREAMS = (Reshape, Transpose, Compare, Bits, Lut, Popcount)
SKIPS = Spec(
    (2, 6, 6),
    (
        ("conv", (0, 2, 0, 0)),
        ("concat", (0, 0, 0, 1)),
        ("max_pool", (0, 1, 0, 0)),
        ("transposed", (0, 1, 1, 2)),
        ("add", (0,) * 4),
    ),
    "argmax",
    7,
)


@pytest.fixture(autouse=True)
def _needs_ghdl() -> None:
    try:
        ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))


def prove(
    graph: Graph, images: IntArray | Sequence[IntArray], folder: Path, language: str = "vhdl", parallelism: int = 24
) -> Simulation:
    design = generate(graph, parallelism=parallelism, language=language)
    simulation = simulate(design, images, folder / language)
    assert simulation.mismatches == 0
    assert simulation.steady.passed and simulation.paused.passed
    labels = {port.label for port in output_ports(design)}
    assert set(simulation.steady.values) == {stream.value for stream in design.taps} | labels
    return simulation


def with_skips() -> tuple[Graph, IntArray]:
    data = torch.randn(3, *SKIPS.shape, generator=torch.Generator().manual_seed(SKIPS.seed))
    graph = quantize(build(SKIPS), [data], name="skips")
    value = graph.inputs[0]
    assert value.qparams is not None
    return graph, to_integers(data.numpy(), value.qparams, value.type).astype(np.int64)


def since_the_first_word(observed: Observed) -> tuple[object, ...]:
    """All that was seen; cycles counted from the first word in, as the simulators count reset differently."""
    times = (observed.first_in, observed.last_in, observed.first_out, observed.last_out)
    start = observed.first_in[0]
    counts = (observed.values, observed.mismatches, observed.fifo_peaks)
    return (*(tuple(cycle - start for cycle in cycles) for cycles in times), *counts)


def test_vhdl_and_verilog_do_the_same_in_every_cycle(tmp_path: Path) -> None:
    graph, images = with_skips()
    vhdl, verilog = (prove(graph, images, tmp_path, language) for language in Language)
    assert since_the_first_word(vhdl.steady) == since_the_first_word(verilog.steady)
    assert since_the_first_word(vhdl.paused) == since_the_first_word(verilog.paused)
    assert vhdl.steady.fifo_peaks


def test_digits_network(tmp_path: Path) -> None:
    calibration = np.random.default_rng(1).random((4, 1, 8, 8), dtype=np.float32)
    graph = quantize(zoo.load("digits"), [calibration], name="digits")
    value = graph.inputs[0]
    images = np.random.default_rng(0).integers(value.low, value.high + 1, (1, *value.shape))
    simulation = prove(graph, images, tmp_path, parallelism=64)
    assert simulation.values_compared > 2000


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(
    graphs(ops=tuple(op for op in ALL_OPS if op not in WITHOUT_STREAMS), max_nodes=8),
    st.integers(8, 40),
)
def test_any_integer_graph(graph: Graph, parallelism: int) -> None:
    assume(len(graph.nodes) >= 3)
    try:
        generate(graph, parallelism=parallelism)
    except BitfabError as error:  # values in another order than the stream's have none
        assume("hardware" not in str(error))
        raise
    with TemporaryDirectory() as folder:
        prove(graph, [images[:2] for images in batch(graph, seed=0)], Path(folder), parallelism=parallelism)


def test_a_wrong_word_is_named(tmp_path: Path) -> None:
    graph, images = with_skips()
    design = generate(graph, parallelism=24, language="vhdl")
    memory = next(path for path in design.files if path.endswith("_weight.mem"))
    first, rest = design.files[memory].split("\n", 1)
    wrong = f"{int(first, 16) ^ 1:0{len(first)}x}\n{rest}"
    object.__setattr__(design, "files", {**design.files, memory: wrong})
    with pytest.raises(
        BitfabError, match=r"differs from the integer graph: MISMATCH \S+ word \d+: expected [0-9A-F]+ got"
    ):
        simulate(design, images, tmp_path / "wrong")


def test_a_design_in_vhdl_is_synthesized(tmp_path: Path) -> None:
    spec = Spec((1, 4, 4), (("conv", (0, 1, 0, 0)),), "image", 3)
    data = torch.randn(2, *spec.shape, generator=torch.Generator().manual_seed(spec.seed))
    graph = quantize(build(spec), [data], name="small")
    design = generate(graph, Target("ecp5-25k"), parallelism=4, language="vhdl")
    for path, text in design.files.items():
        if path.startswith("rtl/"):
            (tmp_path / Path(path).name).write_text(text)
    sources = [tmp_path / Path(path).name for path in design.sources]
    total = yosys.synthesize_ecp5(
        [ghdl.to_verilog(sources, design.name, tmp_path / "net.v")], design.name, tmp_path
    ).total
    assert total.dsp >= design.multipliers and total.lut > 0


def test_a_name_that_vhdl_has_not_is_refused() -> None:
    graph, _ = with_skips()
    for name in ("signal", "net__1", "_net"):
        object.__setattr__(graph, "name", name)
        with pytest.raises(BitfabError, match=f"{name}: VHDL has no such name"):
            generate(graph, language="vhdl")
    with pytest.raises(BitfabError, match="language 'klingon'"):
        generate(graph, language="klingon")
