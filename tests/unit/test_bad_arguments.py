"""Whatever is wrong with what a user passes is one line that names the thing, the reason and the remedy."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bitfab as bf
from bitfab import backend, flow
from bitfab.dtypes import IntType
from bitfab.hw.design import Design
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Add, Dense, Requantize
from bitfab.parts import find_part
from bitfab.tools.cells import Counts
from bitfab.tools.nextpnr import check_fit
from bitfab.tools.yosys import Netlist

NET = nn.Linear(4, 3)
DATA = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)


def graph() -> Graph:
    builder = Builder("net")
    x = builder.input("x", (2,), IntType(8, signed=True))
    y = builder.add("layer", Dense(np.array([[100, 2], [3, 90]]), np.array([5, 7])), x)
    op = Requantize(np.array([40000]), np.array([22]), IntType(8, True), -128, 127)
    return builder.build((builder.add("scaled", op, y),))


def design(**options: object) -> Design:
    return bf.generate(graph(), **options)


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: bf.Folding(0, 1), "folding: pe 0: give a whole number, 1 or more"),
    (lambda: bf.Folding(1, -1), "folding: simd -1: give a whole number, 1 or more"),
    (lambda: bf.Folding(2.0, 1), "folding: pe 2.0: give a whole number"),
    (lambda: bf.Folding(1, 1, "foo"), "folding: multiplier 'foo': choose one of dsp, packed, luts"),
    (lambda: bf.Folding(1, 1, None, "foo"), "folding: memory 'foo': choose one of block, luts"),
    (lambda: design(folding={"layer": (1, 1)}), r"folding {'layer': \(1, 1\)}: give a dict of layers' names"),
    (lambda: design(folding=bf.Folding(1, 1)), "give a dict of layers' names and Foldings"),
    (lambda: design(folding={"nope": bf.Folding(1, 1)}), "layers that fold are layer, scaled$"),
    (lambda: design(parallelism="a"), "parallelism 'a': give a whole number"),
    (lambda: design(parallelism=2.5), "parallelism 2.5: give a whole number"),
    (lambda: design(style="parallel", levels=1.5), "levels 1.5: give a whole number, 0 or more"),
    (lambda: design(target=None), "target None: give a Target, or the name of a part"),
    (lambda: bf.fit(graph(), None), "target None: give a Target"),
    (lambda: bf.Target("ecp5-85k", float("nan")), "ecp5-85k: a clock of nan MHz; give a positive number"),
    (lambda: bf.Target("ecp5-85k", 0), "ecp5-85k: a clock of 0 MHz"),
    (lambda: bf.Target("ecp5-12k"), "ecp5-12k: unknown part"),
    (lambda: bf.generate(NET), "graph: a Linear given; give what bitfab.quantize gives"),
    (lambda: bf.quantize(lambda x: x, DATA), "network: a function given; give a torch.nn.Module"),
    (lambda: bf.quantize(nn.Linear, DATA), "network: a class Linear given; give a torch.nn.Module"),
    (lambda: bf.quantize_dynamic(nn.Linear), "network: a class Linear given"),
    (lambda: bf.quantize(NET, DATA, "foo"), "recipe 'foo': give a bitfab.Recipe"),
    (lambda: bf.prepare(NET, DATA, "foo"), "recipe 'foo': give a bitfab.Recipe"),
    (lambda: bf.quantize(NET, DATA, bf.Recipe(exclude=("nope",))), "'nope'; its layers are input, linear$"),
    (lambda: bf.quantize(NET, DATA, bf.Recipe(exclude=("linaer",))), r"'linaer'; did you mean linear\?"),
    (lambda: bf.quantize_mixed(NET, [torch.zeros(2, 5)]), r"calibration input 0, a tensor of shape \(2, 5\) \(mat1"),
    (lambda: bf.quantize_mixed(NET, ["foo"]), "calibration input 0, a str"),
    (lambda: bf.train_luts(np.eye(8, dtype=int), np.arange(8) % 2, bf.LutRecipe(read=range(2, 100))), "^feature 8: "),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_one_line_says_what_is_wrong(case: int) -> None:
    call, message = CASES[case]
    with pytest.raises(bf.BitfabError, match=message) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_mixed_network_takes_the_same_calibration_array() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)).eval()
    images = torch.randn(6, 1, 8, 8)
    one = bf.quantize_mixed(net, images).module(images)
    assert torch.equal(one, bf.quantize_mixed(net, list(images.split(1))).module(images))
    assert torch.equal(one, bf.quantize_mixed(net, images.numpy()).module(images))


def test_inputs_to_build_with_may_be_arrays_tensors_or_lists() -> None:
    codes = [[1, 2], [-3, 4], [5, -6]]
    for given in (codes, torch.tensor(codes), np.array(codes), [np.array(codes)], [torch.tensor(codes)]):
        (found,) = flow._each_input(graph(), given)
        assert found.dtype == np.int64 and found.tolist() == codes
    for wrong in (None, 5, [[1, 2], [3]], "foo"):
        with pytest.raises(bf.BitfabError, match=r"^net: a \w+ given for inputs; give an array"):
            flow._each_input(graph(), wrong)


def test_each_of_several_inputs_may_be_a_list() -> None:
    builder = Builder("two")
    names = tuple(builder.input(name, (2,), IntType(8, signed=True)) for name in "ab")
    two = builder.build((builder.add("sum", Add(), names),))
    assert [array.tolist() for array in flow._each_input(two, [[[1, 2]], np.array([[3, 4]])])] == [[[1, 2]], [[3, 4]]]
    with pytest.raises(bf.BitfabError, match="1 arrays for the inputs a, b; give one for each"):
        flow._each_input(two, torch.ones(5, 2))


def test_a_board_without_the_part_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "require_tools", lambda *_: None)
    with pytest.raises(bf.BitfabError, match=r"^ice40-up5k: the ULX3S is sold with ecp5-25k"):
        bf.build(design(target="ice40-up5k"), np.zeros((1, 2), int), tmp_path / "new", board="ulx3s")
    assert not list(tmp_path.iterdir())


def test_too_many_multipliers_are_told_after_synthesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Netlist(tmp_path / "net.json", "net", Counts(dsp=14), {})
    monkeypatch.setattr(backend.yosys, "synthesize", lambda *_, **__: counted)
    with pytest.raises(bf.BitfabError, match=r"needs 14 DSP, the part has 8: multiply in LUTs \(--fold .*:luts"):
        backend.synthesize(design(target="ice40-up5k"), tmp_path)


def test_memories_are_folded_and_not_made_of_luts() -> None:
    part = find_part("ecp5-25k")
    with pytest.raises(bf.BitfabError, match=r"needs 60 BRAM, the part has 56: choose ecp5-45k or fold more \(a s"):
        check_fit(part, {"dsp": 3, "bram": 60})


def test_a_file_cut_short_says_so(tmp_path: Path) -> None:
    bf.save(graph(), tmp_path / "net.safetensors")
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(whole[:100])
    message = r"begins with a header of [\d,]+ bytes and holds 100 in all: cut short, or no graph; save it again"
    with pytest.raises(bf.BitfabError, match=message):
        bf.load(tmp_path / "net.safetensors")


def test_graphs_and_parts_are_shown_without_torch(tmp_path: Path) -> None:
    """Which takes seconds to import."""
    bf.save(graph(), tmp_path / "net.safetensors")
    file = str(tmp_path / "net.safetensors")
    for words in (["inspect", file], ["estimate", file], ["parts"]):
        code = (
            f"import sys; from bitfab.cli import app; app({words!r}, standalone_mode=False); "
            "sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0, words
