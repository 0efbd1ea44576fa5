"""Writing designs, what hardware refuses, and the order in which skip connections are sized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.hw import generate, write_files
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Add, Concat, Conv2d, MaxPool2d, Reshape, Threshold, TopK, Transpose, Upsample
from bitfab.output import MARKER

UINT8 = IntType(8, signed=False)
FILES = {"rtl/a.sv": "module a; endmodule\n", MARKER: "{}\n"}


def test_a_design_replaces_only_a_design(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_files(FILES | {"old": ""}, folder)
    write_files(FILES, folder)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["a.sv", MARKER]
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "no draft is left behind"


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(BitfabError, match="not bitfab's"):
        write_files(FILES, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(BitfabError, match="choose another"):
            write_files(FILES, folder)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BitfabError, match="cannot be written"):
        write_files(FILES | {"rtl/a.sv/b": "a file where a folder must be"}, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def _conv(builder: Builder, name: str, value: str) -> str:
    channels = builder.value(value).shape[0]
    weight = np.zeros((channels, channels, 3, 3), np.int8)
    return builder.add(name, Conv2d(weight, np.zeros(channels, np.int32), padding=(1, 1, 1, 1)), value)


def _skip(join: str, first: bool) -> Graph:
    """A value that meets itself again behind a pool, an upsampling and, on one side, nothing."""
    builder = Builder("skip")
    x = builder.input("image", (2, 8, 8), UINT8)
    pooled = builder.add("pool", MaxPool2d((2, 2), (2, 2)), x)
    up = builder.add("up", Upsample((2, 2)), pooled)
    ends = (x, up) if first else (up, x)
    return builder.build((builder.add("join", Add() if join == "add" else Concat(), ends),))


@pytest.mark.parametrize("join", ["add", "concat"])
@pytest.mark.parametrize("first", [True, False])
def test_only_the_short_branch_gets_a_fifo_of_some_rows(join: str, first: bool) -> None:
    design = generate(_skip(join, first))
    (fifo,) = design.fifos
    assert fifo.instance == "u_image_to_join_fifo"
    stream = next(stream for stream in design.streams if stream.name == fifo.stream)
    pixels = fifo.depth * stream.lanes // 2
    assert 8 + 1 <= pixels <= 64, "the pool needs a row and a pixel before it gives the first output"


def test_a_value_beside_itself_is_held_for_a_pixel() -> None:
    builder = Builder("twice")
    x = builder.input("image", (4, 2, 2), UINT8)
    design = generate(builder.build((builder.add("join", Concat(), (x, x)),)))
    assert len(design.fifos) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda b, x: b.add("turn", Reshape((4, 2, 2)), x),
            "turn: in hardware an image is flattened only before a dense layer",
        ),
        (lambda b, x: b.add("best", TopK(1), b.add("flat", Reshape((16,)), x)), "best: in hardware an image"),
        (
            lambda b, x: b.add(
                "holes",
                Conv2d(np.ones((1, 2, 2, 2), np.int8), np.zeros(1, np.int32), dilation=(2, 1), padding=(1, 1, 4, 1)),
                x,
            ),
            "holes: padding beyond the kernel's size has no hardware; pad less",
        ),
        (
            lambda b, x: b.add("turn", Transpose((0, 2, 1)), x),
            "turn: a transposition of an image's axes has no streaming",
        ),
        (
            lambda b, x: b.add("act", Threshold(np.zeros((1, 16), int), UINT8, 0), x),
            "act: 16 thresholds, but the hardware has up to 15; use 4 bits or fewer, or a requantize",
        ),
        (
            lambda b, x: b.add("act", Threshold(np.zeros((16, 1), int), UINT8, 0), b.add("flat", Reshape((16,)), x)),
            "act: has no hardware behind a flatten with thresholds for each value",
        ),
    ],
)
def test_what_has_no_hardware_is_named(make, message: str) -> None:
    builder = Builder("net")
    value = make(builder, builder.input("image", (2, 2, 4), UINT8))
    with pytest.raises(BitfabError, match=message):
        generate(builder.build((value,)))


def test_two_inputs_have_two_streams_but_in_a_parallel_design() -> None:
    builder = Builder("two")
    a, b = (builder.input(name, (1, 2, 2), UINT8) for name in "ab")
    graph = builder.build((builder.add("sum", Add(), (a, b)),))
    assert [stream.value for stream in generate(graph).inputs] == ["a", "b"]
    with pytest.raises(BitfabError, match="2 inputs; a parallel design has one of each"):
        generate(graph, style="parallel")
