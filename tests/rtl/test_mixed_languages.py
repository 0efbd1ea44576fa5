"""What joins the languages: components of the Verilog blocks, and the shell around a whole design."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitfab.backend import simulate
from bitfab.errors import BitfabError
from bitfab.hw import Language, generate
from bitfab.hw.render_vhdl import library
from bitfab.hw.wrappers import identity
from bitfab.ir import Graph
from bitfab.quant import quantize
from bitfab.tools import ghdl, verilator, yosys
from bitfab.tools.process import MissingToolError
from scripts.components import TARGET, blocks, components
from tests.nets import Spec, build
from tests.rtl.harness import RTL

SMALL = Spec((2, 4, 4), (("conv", (0, 1, 0, 0)),), "image", 3)
COMPONENTS = sorted(source.stem for source in blocks() if source.with_suffix(".vhd").is_file())


@pytest.fixture(scope="module")
def graph() -> Graph:
    data = torch.randn(2, *SMALL.shape, generator=torch.Generator().manual_seed(SMALL.seed))
    return quantize(build(SMALL), [data], name="shelled")


def _require_ghdl() -> None:
    try:
        ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))


def _interface(text: str) -> list[tuple[str, str]]:
    """Names of generics and ports in order, and of ports the direction and the number of bits, spaces left out."""
    text = re.sub(r"--.*", "", text)
    items = re.findall(r"^\s*([\w, ]+?)\s*:\s*(\w+)\b\s*([^;:\n]*)", text, re.MULTILINE)
    found = []
    for names, kind, rest in items:
        shape = kind + re.sub(r"\s+", "", rest) if kind in ("in", "out") else "generic"
        found += [(name.strip(), shape) for name in names.split(",")]
    return found


def test_the_package_of_components_is_current() -> None:
    assert TARGET.read_text() == components(blocks()), "run scripts/components.py"


def test_ghdl_takes_the_package_without_a_warning() -> None:
    _require_ghdl()
    ghdl.analyse([TARGET])


@pytest.mark.parametrize("block", COMPONENTS)
def test_a_component_is_what_the_block_in_vhdl_is(block: str) -> None:
    component = re.search(
        rf"^  component {block} is\n(.*?)^  end component", TARGET.read_text(), re.DOTALL | re.MULTILINE
    )
    (source,) = RTL.glob(f"*/{block}.vhd")
    entity = re.search(rf"^entity {block} is\n(.*?)^end entity", source.read_text(), re.DOTALL | re.MULTILINE)
    assert component and entity
    assert _interface(component.group(1)) == _interface(entity.group(1))


@pytest.mark.parametrize("registers", [False, True])
def test_a_shell_fits_the_design(graph: Graph, registers: bool, tmp_path: Path) -> None:
    """The same design in the wrapper's own language stands in for the one that it wraps."""
    _require_ghdl()
    designs = {
        language: generate(graph, parallelism=4, language=language, registers=registers) for language in Language
    }
    sources: dict[str, list[Path]] = {}
    for language, design in designs.items():
        for path, text in design.files.items():
            (tmp_path / language / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / language / path).write_text(text)
        sources[language] = [tmp_path / language / path for path in design.sources]
    top = "shelled_axi_wrapper" if registers else "shelled_wrapper"
    wrapper = tmp_path / "vhdl" / "wrapper" / f"{top}.sv"
    verilator.lint([*sources["verilog"], wrapper], top)
    wrapper = tmp_path / "verilog" / "wrapper" / f"{top}.vhd"
    ghdl.analyse([wrapper])
    for source in (tmp_path / "vhdl" / "rtl").glob("*.mem"):
        (tmp_path / source.name).write_text(source.read_text())
    ghdl.to_verilog([*sources["vhdl"], wrapper], top, tmp_path / "net.v")


def test_identity_tells_designs_apart(graph: Graph) -> None:
    design = generate(graph, parallelism=4)
    memory = next(path for path in design.files if path.endswith(".mem"))
    other = replace(design, files={**design.files, memory: design.files[memory] + "0\n"})
    assert identity(design) == identity(generate(graph, parallelism=4)) != identity(other)
    number = identity(design)
    assert f".Identity({number})" in generate(graph, parallelism=4, registers=True).files["rtl/shelled_axi.sv"]


def test_registers_leave_the_proof_as_it_is(graph: Graph, tmp_path: Path) -> None:
    _require_ghdl()
    value = graph.inputs[0]
    images = np.random.default_rng(0).integers(value.low, value.high + 1, (2, *value.shape))
    design = generate(graph, parallelism=4, language="vhdl", registers=True)
    assert simulate(design, images, tmp_path / "design").mismatches == 0


def test_registers_in_vhdl_synthesize(tmp_path: Path) -> None:
    """No latch on the way through Verilog, and about as much as those in Verilog."""
    _require_ghdl()
    for name, text in library(["registers"]).items():
        (tmp_path / name).write_text(text)
    parts = [tmp_path / name for name in library(["registers"])]
    translated = ghdl.to_verilog(parts, "bf_registers", tmp_path / "net.v")
    totals = [
        yosys.synthesize_ecp5([source], "bf_registers", tmp_path / source.suffix[1:]).total
        for source in (translated, RTL / "registers" / "bf_registers.sv")
    ]
    assert totals[0].ff == totals[1].ff
    assert totals[0].lut == pytest.approx(totals[1].lut, rel=0.15)


def test_a_parallel_design_has_no_registers(graph: Graph) -> None:
    with pytest.raises(BitfabError, match="shelled: a parallel design has no registers"):
        generate(graph, style="parallel", registers=True)
