"""From a design to a board's bitstream: the whole top simulated over its line, synthesized, placed and packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitfab.backend import SEEDS, Stages
from bitfab.board.boards import BAUD, Board, find_board
from bitfab.board.framing import Framing, framing
from bitfab.board.top import bench_files, board_files, top_name
from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.hw.design import Design
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.ir.run import run
from bitfab.parts import find_part
from bitfab.tools import ecppack, nextpnr, verilator, yosys
from bitfab.tools.nextpnr import Placed

BUILD = Path("board/build")  # netlist, configuration and logs, apart from those of the design by itself


@dataclass(frozen=True)
class Bitstream:
    """A board's bitstream: the file, the placed top, and how many answers over the line were compared with `ir.run`."""

    path: Path
    placed: Placed
    frames: int
    values_compared: int


def require_tools(board: Board | str) -> None:
    """Raise BitfabError for an unknown board or a missing tool."""
    if isinstance(board, str):
        find_board(board)
    verilator.require()
    yosys.require()
    nextpnr.require()
    ecppack.require()


def bitstream(
    design: Design,
    images: IntArray,
    folder: Path,
    board: Board | str = "ulx3s",
    *,
    baud: int = BAUD,
    stages: Stages | None = None,
) -> Bitstream:
    """Write the board's files into `folder`, prove the whole top over its line, and make <folder>/board/<top>.bit.

    images: (batch, *shape) integers of the graph's input, sent byte by byte. The design runs at the board's
    oscillator. Raises BitfabError on any mismatch, a part that the board has not, a clock too slow; ToolError when a
    tool fails.
    """
    stages = stages or Stages()
    board = find_board(board) if isinstance(board, str) else board
    require_tools(board)
    frame = framing(design, baud)
    files = board_files(design, board, frame)
    compared = simulate_board(design, images, folder, board, frame, stages)
    sources = [folder / path for path in files if path.endswith(".sv")]
    top, build = top_name(design, board), folder / BUILD
    with stages.stage("synthesize board"):
        restructure = not isinstance(design, ParallelDesign)
        part = find_part(design.target.part)
        netlist = yosys.synthesize(sources, top, build, part, restructure=restructure)
    with stages.stage("place and route board"):
        placed, config = _placed(netlist.json, design, board, folder)
    with stages.stage("pack"):
        path = ecppack.pack(config, folder / "board" / f"{top}.bit", build)
    return Bitstream(path, placed, len(images), compared)


def simulate_board(
    design: Design, images: IntArray, folder: Path, board: Board, frame: Framing, stages: Stages | None = None
) -> int:
    """Send the images over the simulated board's line and compare each answer with `ir.run`; how many values.

    The files are put into `folder`. Before the first image comes half a frame and a break, which must leave nothing.
    Raises BitfabError on a mismatch, a byte too few or too many.
    """
    stages = stages or Stages()
    if len(images) == 0:
        raise BitfabError("simulate: no images given; at least one is needed")
    files = board_files(design, board, frame)
    bench = bench_files(design, board, frame, images)
    for path, text in (files | bench).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    with stages.stage("simulate board"):
        sources = [folder / path for path in (*files, *bench) if path.endswith(".sv")]
        program = verilator.build(sources, "tb", folder / "board_sim" / "obj")
        for path in files:
            if path.endswith(".mem"):  # read by name, from where the simulation runs
                (folder / "board_sim" / Path(path).name).write_text(files[path], encoding="utf-8")
        lines = verilator.run(program, folder / "board_sim", time_limit=3600)
    return _compared(design, frame, images, lines)


def _compared(design: Design, frame: Framing, images: IntArray, lines: Sequence[str]) -> int:
    answers = lines[lines.index("RESET") :] if "RESET" in lines else []
    data = bytes(int(line.split()[1], 16) for line in answers if line.startswith("BYTE "))
    size = frame.output.frame_bytes
    if len(data) != size * len(images):
        raise BitfabError(f"{design.name}: {len(data)} bytes came back over the line, not {size * len(images)}")
    expected = np.asarray(run(design.graph, images))
    for index, wanted in enumerate(expected):
        answer = frame.output.decode(data[index * size : (index + 1) * size])
        if not np.array_equal(answer, wanted):
            raise BitfabError(
                f"{design.name}: the answer to image {index} over the line differs from the integer graph"
            )
    return int(expected.size)


def _placed(netlist: Path, design: Design, board: Board, folder: Path) -> tuple[Placed, Path]:
    """The first placement that reaches the board's clock, and nextpnr's configuration of it."""
    build, pins = folder / BUILD, folder / "board" / f"{board.name}.lpf"
    config = build / f"{top_name(design, board)}.config"
    for seed in SEEDS:
        placed = nextpnr.place_and_route(
            netlist,
            design.target.part,
            build,
            target_mhz=board.clock_mhz,
            seed=seed,
            pins=nextpnr.Pins(pins, config),
        )
        if placed.fmax_mhz is not None and placed.fmax_mhz >= board.clock_mhz:
            return placed, config
    raise BitfabError(
        f"{design.name}: reaches {placed.fmax_mhz:.1f} MHz, below the {board.title}'s clock of {board.clock_mhz:g} MHz"
    )


__all__ = ["Bitstream", "bitstream", "require_tools", "simulate_board"]
