"""The files of a design on a board: top, serial line, pins, and a testbench that plays the host."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from bitfab.board.boards import Board
from bitfab.board.framing import Framing
from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.hw.design import Design, Language
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.hw.render_verilog import library
from bitfab.output import MARKER

__all__ = ["bench_files", "board_files", "top_name"]

_LINE = ("bf_uart_rx.sv", "bf_uart_tx.sv")
PATIENCE = 4  # an answer is given up after so many times the bits that its frame's cycles take


def top_name(design: Design, board: Board) -> str:
    """Name of the board's top module."""
    return f"{design.name}_{board.name}"


def check_board(design: Design, board: Board) -> None:
    """Raise BitfabError for a design in VHDL, and for a part that the board is not sold with."""
    if design.language is not Language.VERILOG:
        raise BitfabError(f"{design.name}: a board's top is SystemVerilog; generate the design in verilog")
    if design.target.part not in board.parts:
        raise BitfabError(
            f"{design.target.part}: the {board.title} is sold with {', '.join(board.parts)}; choose one of these"
        )


def board_files(design: Design, board: Board, frame: Framing) -> dict[str, str]:
    """The design's own RTL and what the board adds to it, by path in the output folder.

    `board/<top>.sv`, the serial line, `board/<board>.lpf` and `board/framing.json`. Raises BitfabError where
    `check_board` does, and for a rate that the board's clock cannot make.
    """
    check_board(design, board)
    top = top_name(design, board)
    context = {
        "design": design,
        "board": board,
        "frame": frame,
        "top": top,
        "baud": frame.baud,
        "clocks_per_bit": board.clocks_per_bit(frame.baud),
        "parallel": isinstance(design, ParallelDesign),
        "version": version("bitfab"),
    }
    rtl = {path: text for path, text in design.files.items() if path.startswith("rtl/") or path == MARKER}
    rtl |= {f"rtl/{name}": text for name, text in library(["fifo", "width", "last"]).items()}
    rtl |= {f"board/{name}": (files("bitfab.board") / "rtl" / name).read_text(encoding="utf-8") for name in _LINE}
    return rtl | {
        f"board/{top}.sv": _template("board_top.sv.j2", context),
        f"board/{board.name}.lpf": _template(f"{board.name}.lpf.j2", context),
        "board/framing.json": frame.to_json(),
    }


def bench_files(design: Design, board: Board, frame: Framing, images: IntArray) -> dict[str, str]:
    """A testbench of the whole board that sends the images (batch, *shape) over the line: `board_sim/`."""
    data = b"".join(frame.input.encode(image) for image in images)
    clocks = board.clocks_per_bit(frame.baud)
    context = {
        "top": top_name(design, board),
        "board": board,
        "frame": frame,
        "clocks_per_bit": clocks,
        "frames": len(images),
        "patience": PATIENCE * (10 * frame.output.frame_bytes + design.expected_latency // clocks + 20),
    }
    memory = "".join(f"{byte:02x}\n" for byte in data)
    return {"board_sim/tb.sv": _template("board_tb.sv.j2", context), "board_sim/frames.mem": memory}


def _template(name: str, context: dict[str, object]) -> str:
    environment = Environment(
        loader=PackageLoader("bitfab.board"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["bits"] = lambda number: int(number).bit_length()
    return environment.get_template(name).render(context)
