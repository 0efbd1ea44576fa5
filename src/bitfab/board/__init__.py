"""A design on a board: pins, a serial line in and out, and the bitstream."""

from bitfab.board.boards import BAUD, BOARDS, Board, Pin, find_board
from bitfab.board.build import Bitstream, bitstream, require_tools, simulate_board
from bitfab.board.framing import Frame, Framing, framing
from bitfab.board.top import check_board

__all__ = [
    "BAUD",
    "BOARDS",
    "Bitstream",
    "Board",
    "Frame",
    "Framing",
    "Pin",
    "bitstream",
    "check_board",
    "find_board",
    "framing",
    "require_tools",
    "simulate_board",
]
