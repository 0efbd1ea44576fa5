"""A design on a board: bytes of frames, the line's rate, pins, and the whole top behind its simulated serial line."""

import os
import re
import runpy
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab import board
from bitfab.board import Frame, Framing
from bitfab.board.top import board_files
from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.hw import generate
from bitfab.hw.design import Design, Target
from bitfab.ir import Builder, Graph, run
from bitfab.ir.ops import Conv2d
from bitfab.tools import verilator
from bitfab.tools.process import MissingToolError
from tests.lut_networks import frames, lut_network

ULX3S = board.find_board("ulx3s")
TARGET = Target("ecp5-25k", clock_mhz=25)
HOST = Path(__file__).parents[2] / "examples" / "ulx3s" / "host.py"


def conv(name: str = "filter") -> Graph:
    """3 channels of 5 bits in, 3 channels of signed sums of 12 bits out, on images of 4 x 3."""
    builder = Builder(name)
    x = builder.input("image", (3, 4, 3), IntType(5, signed=False))
    weight = np.random.default_rng(0).integers(-8, 8, (3, 3, 1, 1)).astype(np.int8)
    return builder.build((builder.add("sums", Conv2d(weight, np.array([-9, 0, 7], np.int32)), x),))


def designs() -> dict[str, Design]:
    """One of streams, one that is all at once."""
    return {"stream": generate(conv(), TARGET, parallelism=9), "parallel": generate(lut_network(), TARGET)}


def needs_verilator() -> None:
    try:
        verilator.require()
    except MissingToolError as error:
        pytest.skip(str(error))


@settings(max_examples=60)
@given(
    pixels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    words=st.integers(1, 3),
    lanes=st.integers(1, 5),
    bits=st.integers(1, 17),
    signed=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_frames_come_back_as_they_went(
    pixels: tuple[int, int], words: int, lanes: int, bits: int, signed: bool, seed: int
) -> None:
    shape, type = (words * lanes, *pixels), IntType(bits, signed)
    frame = Frame(shape, shape, words * pixels[0] * pixels[1], lanes, bits, signed)
    image = np.random.default_rng(seed).integers(type.low, type.high + 1, shape)
    if type.bipolar:
        image = np.where(image < 0, -1, 1)
    data = frame.encode(image)
    assert len(data) == frame.frame_bytes == frame.words * frame.word_bytes
    np.testing.assert_array_equal(frame.decode(data), image)


def test_a_word_is_little_endian_with_lane_0_lowest() -> None:
    frame = Frame((2, 1, 2), (2, 1, 2), words=2, lanes=2, bits=5, signed=True)
    assert frame.encode(np.array([[[1, -1]], [[2, -16]]])) == bytes([1 | 2 << 5, 0, 0b10000_11111 & 255, 0b10])
    with pytest.raises(BitfabError, match=r"^image of shape \(2,\); the design takes \(2, 1, 2\)$"):
        frame.encode(np.zeros(2, np.int64))
    with pytest.raises(BitfabError, match="answer of 3 bytes; 4 were expected"):
        frame.decode(bytes(3))


def test_a_framing_survives_its_file_and_a_foreign_file_does_not() -> None:
    found = board.framing(generate(conv(), TARGET, parallelism=9), 115200)
    assert Framing.from_json(found.to_json()) == found
    for text in ("", "[]", "{}", '{"input": {}, "output": {}}', found.to_json().replace('"baud"', '"speed"')):
        with pytest.raises(BitfabError, match=r"^framing\.json: is not what bitfab wrote"):
            Framing.from_json(text)


def test_rates_are_those_that_the_oscillator_divides_into() -> None:
    assert [ULX3S.clocks_per_bit(baud) for baud in (115200, 921600, 1_000_000)] == [217, 27, 25]
    for baud in (0, -1, 2_000_000, 10**9):
        with pytest.raises(BitfabError, match=rf"^ulx3s: {baud} baud cannot be made of 25 MHz"):
            ULX3S.clocks_per_bit(baud)


def test_what_a_board_cannot_take_is_refused() -> None:
    with pytest.raises(BitfabError, match=r"^icebreaker: unknown board: choose one of ulx3s$"):
        board.find_board("icebreaker")
    other = generate(conv(), Target("xc7a35t"), parallelism=9)
    with pytest.raises(BitfabError, match=r"^xc7a35t: the ULX3S is sold with ecp5-25k, ecp5-45k, ecp5-85k"):
        board_files(other, ULX3S, board.framing(other, 115200))
    vhdl = generate(conv(), TARGET, parallelism=9, language="vhdl")
    with pytest.raises(BitfabError, match=r"^filter: a board's top is SystemVerilog"):
        board_files(vhdl, ULX3S, board.framing(vhdl, 115200))


@pytest.mark.parametrize("style", ["stream", "parallel"])
def test_every_port_has_its_pin_and_the_top_is_clean(style: str, tmp_path: Path) -> None:
    design = designs()[style]
    files = board_files(design, ULX3S, board.framing(design, 1_000_000))
    located = re.findall(r'LOCATE COMP "(\w+)(?:\[\d\])?" SITE "(\w+)"', files["board/ulx3s.lpf"])
    top = files[f"board/{design.name}_ulx3s.sv"]
    ports = re.findall(r"^    (?:input|output) +logic +(?:\[2:0\] )?(\w+)", top, re.MULTILINE)
    assert {port for port, _ in located} == set(ports)
    assert len({site for _, site in located}) == len(located) == 8
    needs_verilator()
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    verilator.lint([tmp_path / path for path in files if path.endswith(".sv")], f"{design.name}_ulx3s")


def test_a_streaming_design_answers_over_the_line_what_the_graph_does(tmp_path: Path) -> None:
    needs_verilator()
    design = designs()["stream"]
    images, frame = frames(design.graph, 3), board.framing(design, 1_000_000)
    assert board.simulate_board(design, images, tmp_path, ULX3S, frame) == 3 * 3 * 4 * 3


def test_a_wrong_answer_over_the_line_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parallel design, whose first two answers are right and of whose third something else is expected."""
    needs_verilator()
    design = designs()["parallel"]
    images, frame = frames(design.graph, 3), board.framing(design, 1_000_000)

    def wrong(graph: Graph, given: IntArray) -> IntArray:
        expected = np.array(run(graph, given))
        expected[2].flat[-1] ^= 1
        return expected

    monkeypatch.setattr("bitfab.board.build.run", wrong)
    with pytest.raises(BitfabError, match=r"^lutnet: the answer to image 2 over the line differs"):
        board.simulate_board(design, images, tmp_path, ULX3S, frame)


def test_the_host_script_speaks_the_board_s_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pseudo-terminal stands for the port, a thread with `ir.run` behind it for the board."""
    graph = lut_network()
    design = generate(graph, TARGET)
    frame, images = board.framing(design, 115200), frames(graph, 5)
    (tmp_path / "framing.json").write_text(frame.to_json())
    np.save(tmp_path / "images.npy", images)
    ours, theirs = os.openpty()
    host = runpy.run_path(str(HOST))

    def play() -> None:
        for _ in images:
            got = b""
            while len(got) < frame.input.frame_bytes:
                got += os.read(ours, frame.input.frame_bytes - len(got))
            answer = np.asarray(run(graph, frame.input.decode(got)[None]))[0]
            os.write(ours, frame.output.encode(answer))

    player = threading.Thread(target=play, daemon=True)
    player.start()
    arguments = [os.ttyname(theirs), str(tmp_path / "framing.json"), str(tmp_path / "images.npy")]
    monkeypatch.setattr("sys.argv", ["host.py", *arguments])
    host["main"]()
    player.join(timeout=10)
    os.close(ours)
    os.close(theirs)
    classes = np.asarray(run(graph, images))[:, 0]  # the network ends in its decision
    assert [int(line) for line in capsys.readouterr().out.split()] == classes.tolist()
