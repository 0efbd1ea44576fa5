"""The cost model: memories and multipliers as Yosys infers them, estimates within their error, foldings that fit."""

import itertools
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.hw import Folding, cost, generate
from bitfab.hw.blocks import parameters
from bitfab.hw.design import Multiplier, Target, write_files
from bitfab.hw.fit import fit, options
from bitfab.hw.memory_cost import difference_bits, dsps, ram, rom
from bitfab.hw.plan import plan
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Conv2d, Dense, Lut, MaxPool2d, Requantize, Reshape
from bitfab.parts import find_part
from bitfab.tools import yosys
from bitfab.tools.process import MissingToolError
from tests.rtl.harness import RTL

UINT8 = IntType(8, signed=False)


def network(seed: int = 0, channels: int = 8) -> Graph:
    """Two convolutions, a pool and a dense layer."""
    rng = np.random.default_rng(seed)
    builder = Builder("net")
    y = builder.input("x", (2, 12, 12), UINT8)
    for index, (inputs, outputs) in enumerate([(2, channels), (channels, channels)]):
        weight = rng.integers(-100, 101, (outputs, inputs, 3, 3), dtype=np.int32)
        y = builder.add(f"conv{index}", Conv2d(weight, rng.integers(-99, 99, outputs), padding=(1, 1, 1, 1)), y)
        op = Requantize(rng.integers(2**15, 2**16, outputs), np.full(outputs, 26), UINT8, 0, 255)
        y = builder.add(f"act{index}", op, y)
        y = builder.add(f"pool{index}", MaxPool2d((2, 2), (2, 2)), y)
    y = builder.add("flat", Reshape((channels * 9,)), y)
    return builder.build(
        (builder.add("dense", Dense(rng.integers(-100, 101, (5, channels * 9), dtype=np.int32), np.arange(5)), y),)
    )


def test_estimate_beside_synthesis(tmp_path: Path) -> None:
    try:
        yosys.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    design = generate(network(), "ecp5-25k", 16)
    write_files(design.files, tmp_path / "net")
    sources = [tmp_path / "net" / path for path in design.sources]
    real = yosys.synthesize_ecp5(sources, design.name, tmp_path / "build").total
    guess = cost.total(cost.estimate(design).values())
    assert (guess.dsp, guess.bram) == (real.dsp, real.bram)
    assert guess.lut == pytest.approx(real.lut, rel=0.2)
    assert guess.ff == pytest.approx(real.ff, rel=0.2)


@pytest.mark.parametrize(("words", "k"), [(10, 5), (100, 3)])
def test_the_estimate_of_a_sorter_grows_with_its_places(words: int, k: int, tmp_path: Path) -> None:
    try:
        yosys.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    sizes = {"Bits": 8, "Signed": 1, "Words": words, "K": k, "IndexBits": (words - 1).bit_length()}
    ports = "input logic clk_i, rst_i, valid_i, ready_i, input logic [7:0] data_i, output logic ready_o, valid_o"
    values = ", ".join(f".{name}({value})" for name, value in sizes.items())
    (tmp_path / "top.sv").write_text(
        f"module top ({ports}, output logic [{sizes['IndexBits'] - 1}:0] data_o);\n"
        f"bf_topk #({values}) block (.*);\nendmodule\n"
    )
    real = yosys.synthesize_ecp5([RTL / "topk" / "bf_topk.sv", tmp_path / "top.sv"], "top", tmp_path).total
    guess = cost.block_cost("topk", sizes)
    assert guess.lut == pytest.approx(real.lut, rel=0.25)
    assert guess.ff == pytest.approx(real.ff, rel=0.1)


@given(bits=st.integers(1, 300), words=st.integers(1, 20000))
def test_memories_hold_what_they_must(bits: int, words: int) -> None:
    held = ram(bits, words)
    assert not (held.brams and held.lutrams)
    room = held.brams * 18 * 1024 + held.lutrams * 64
    assert room >= bits * words or (words <= 2 and not room)
    constant = rom(bits, words, block=True)
    assert constant.brams * 18 * 1024 >= bits * words
    assert rom(bits, words).brams in (0, constant.brams)


def test_memories_that_yosys_was_seen_to_make() -> None:
    assert (ram(12, 96).lutrams, ram(4, 256).lutrams, ram(48, 40).lutrams) == (18, 16, 36)
    assert (ram(8, 192).brams, ram(16, 128).brams, ram(2, 384).brams, ram(64, 256).brams) == (1, 1, 1, 2)
    assert (rom(8, 16384, block=True).brams, rom(256, 75, block=True).brams, rom(4, 12288, block=True).brams) == (
        8,
        8,
        3,
    )
    assert (rom(17, 128).brams, rom(8, 256).brams) == (1, 0)  # 2,176 bits are too many for LUTs, 2,048 are not


@pytest.mark.parametrize(
    ("bits", "signed", "zero", "bits_less_zero", "count"),
    [
        (8, 0, 128, 8, 1),
        (11, 0, -2048, 13, 1),
        (17, 0, 1 << 17, 18, 1),
        (17, 0, -5, 19, 2),
        (18, 0, 0, 19, 1),
        (18, 1, 3, 19, 2),
        (16, 1, 1 << 20, 22, 2),
        (8, 1, -(1 << 31), 33, 2),
        (1, 0, 1, 2, 0),
    ],
)
def test_multipliers_that_yosys_was_seen_to_make(
    bits: int, signed: int, zero: int, bits_less_zero: int, count: int
) -> None:
    sizes = {"InBits": bits, "InSigned": signed, "InputZero": zero, "MultiplierBits": 16, "Lanes": 1}
    assert (difference_bits(sizes), dsps("requantize", sizes)) == (bits_less_zero, count)


@given(share=st.floats(0.05, 1.0), channels=st.sampled_from([2, 4, 8]))
@settings(deadline=None, max_examples=12)
def test_what_fits_is_within_the_share(share: float, channels: int) -> None:
    graph, budget = network(channels=channels), find_part("ecp5-25k").available.times(share)
    try:
        folding = fit(graph, "ecp5-25k", share)
    except BitfabError as error:
        assert "needs about" in str(error)
        return
    design = generate(graph, "ecp5-25k", folding=folding)
    used = cost.total(cost.estimate(design).values())
    assert all(u <= b for u, b in zip(astuple(used), astuple(budget), strict=True))


def test_no_folding_that_fits_is_faster() -> None:
    """Combinations of a small network's options that are faster and whose engines would fit: the whole does not."""
    graph, share = network(channels=2), 0.09
    chosen = fit(graph, "ecp5-25k", share)
    found = max(layer.cycles for layer in generate(graph, "ecp5-25k", folding=chosen).layers if layer.folding)
    budget = astuple(find_part("ecp5-25k").available.times(share))
    choices = options(graph)
    assert found > max(min(option.cycles for option in own) for own in choices.values())
    faster = list(itertools.product(*([o for o in own if o.cycles < found] for own in choices.values())))
    engines = [astuple(cost.total(option.cost for option in picked)) for picked in faster]
    fitting = [i for i, taken in enumerate(engines) if all(t <= b for t, b in zip(taken, budget, strict=True))]
    assert fitting
    for i in np.random.default_rng(0).permutation(fitting)[:40]:
        folding = {name: option.folding for name, option in zip(choices, faster[i], strict=True)}
        folding |= {name: folding for name, folding in chosen.items() if name not in choices}
        used = cost.total(cost.estimate(generate(graph, "ecp5-25k", folding=folding)).values())
        assert any(u > b for u, b in zip(astuple(used), budget, strict=True)), folding


def test_options_leave_out_what_another_beats() -> None:
    """Whatever an option takes, none that is as fast takes less of one thing and no more of any other."""
    for own in options(network()).values():
        taken = [(option.cycles, *astuple(option.cost)) for option in own]
        assert len(set(taken)) == len(taken)
        for mine in taken:
            assert not any(other != mine and all(o <= m for o, m in zip(other, mine, strict=True)) for other in taken)
        assert {option.folding.multiplier for option in own} == {"dsp", "luts"}


def test_luts_multiply_where_dsps_lack() -> None:
    """The same rate with ever fewer DSPs: 8 bits, two of which have no room in one."""
    graph, taken = network(), []
    for part, share in (("ecp5-85k", 1.0), ("ecp5-25k", 1.0), ("ecp5-25k", 0.5)):
        target = Target(part, 100.0)
        design = generate(graph, target, folding=fit(graph, target, share, 20000))
        used = cost.total(cost.estimate(design).values())
        assert used.dsp <= find_part(part).available.times(share).dsp
        taken.append((used.dsp, -used.lut))
    assert taken == sorted(taken, reverse=True) and taken[-1][0] < taken[0][0]


def test_only_parts_that_were_measured() -> None:
    """LUTs of another family are other LUTs; a part without DSPs still gets a design, of LUT multipliers."""
    design = generate(network(), "ice40-hx8k", 8)
    assert {layer.folding.multiplier for layer in design.layers if layer.folding} == {Multiplier.LUTS}
    for refused in (lambda: cost.estimate(design), lambda: fit(network(), "ice40-hx8k")):
        with pytest.raises(BitfabError, match="ice40-hx8k: estimates are fitted to the ECP5"):
            refused()


def test_a_parallel_design_is_not_estimated() -> None:
    with pytest.raises(BitfabError, match=r"^bits: estimates are of streaming designs; synthesize a parallel one"):
        builder = Builder("bits")
        x = builder.input("x", (3,), IntType(1, signed=False))
        wiring, table = np.array([[0, 1], [1, 2]]), np.array([[0, 1, 1, 0], [0, 0, 0, 1]])
        cost.estimate(generate(builder.build((builder.add("lut", Lut(wiring, table), x),))))


@pytest.mark.parametrize(
    ("style", "dsps"),
    [({}, 32), ({"Multiplier": 1}, 16), ({"Multiplier": 2}, 0), ({"WeightBits": 1}, 0), ({"InBipolar": 1}, 0)],
)
def test_multipliers_of_an_engine(style: dict[str, int], dsps: int) -> None:
    engines, _ = plan(network(), 64, {"conv1": Folding(4, 8), "conv0": Folding(4, 2), "dense": Folding(1, 1)})
    assert cost.block_cost("conv2d", {**parameters(engines["conv1"]), **style}).dsp == dsps


def test_a_rate_is_reached_with_less() -> None:
    graph, target = network(), Target("ecp5-25k", 100.0)
    slow, fast = (fit(graph, target, 1.0, rate) for rate in (2000, 20000))
    areas = []
    for folding, rate in ((slow, 2000), (fast, 20000)):
        design = generate(graph, target, folding=folding)
        assert max(layer.cycles for layer in design.layers if layer.folding) <= 100e6 / rate
        areas.append(cost.total(cost.estimate(design).values()).lut)
    assert areas[0] < areas[1]


def test_what_cannot_be() -> None:
    with pytest.raises(BitfabError, match=r"needs about \d+ LUT at 20736 cycles an image, 485 are given"):
        fit(network(), "ecp5-25k", 0.02)
    with pytest.raises(BitfabError, match="lower the rate or raise the clock"):
        fit(network(), "ecp5-25k", 1.0, 1e7)
    with pytest.raises(BitfabError, match="choose more than 0"):
        fit(network(), "ecp5-25k", 1.5)
    with pytest.raises(BitfabError, match="unknown part"):
        fit(network(), "ecp5-26k")
