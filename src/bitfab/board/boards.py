"""The boards that bitfab knows with their pins, and how fast their serial line may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitfab.errors import BitfabError
from bitfab.parts import PARTS, Family

BAUD = 1_000_000
TOLERANCE = 0.02  # of a bit's length: leaves the other end 3 of the 5 % after which the last bit of a byte is misread


@dataclass(frozen=True)
class Pin:
    """A port of the board's top: the ball it is on, its net in the schematics, electrical options of the .lpf."""

    port: str
    site: str
    net: str
    options: str


@dataclass(frozen=True)
class Board:
    """A board: the parts it is sold with, its oscillator in MHz, its pins; `high` are outputs that stay at 1."""

    name: str
    title: str
    source: str
    parts: tuple[str, ...]
    clock_mhz: float
    pins: tuple[Pin, ...]
    high: tuple[str, ...] = ()

    def clocks_per_bit(self, baud: int) -> int:
        """Cycles of the oscillator a bit; BitfabError for rates that it does not divide into within 2 %."""
        clocks = round(self.clock_mhz * 1e6 / baud) if baud > 0 else 0
        if clocks < 4 or abs(clocks * baud / (self.clock_mhz * 1e6) - 1) > TOLERANCE:
            raise BitfabError(
                f"{self.name}: {baud} baud cannot be made of {self.clock_mhz:g} MHz; choose 115200, 230400, 921600 or "
                "1000000"
            )
        return clocks


BOARDS: Mapping[str, Board] = {
    "ulx3s": Board(
        name="ulx3s",
        title="ULX3S",
        source="https://github.com/emard/ulx3s (open hardware; schematics and pin list there)",
        parts=tuple(part.name for part in PARTS.values() if part.family is Family.ECP5),
        clock_mhz=25,
        pins=(
            Pin("clk_i", "G2", "clk_25mhz", "PULLMODE=NONE"),
            Pin("rx_i", "M1", "ftdi_txd: from the USB serial chip", "PULLMODE=UP"),
            Pin("tx_o", "L4", "ftdi_rxd: to the USB serial chip", "PULLMODE=UP DRIVE=4"),
            Pin("button_i", "R1", "btn[1], FIRE1", "PULLMODE=DOWN"),
            Pin("led_o[0]", "B2", "led[0]", "PULLMODE=NONE DRIVE=4"),
            Pin("led_o[1]", "C2", "led[1]", "PULLMODE=NONE DRIVE=4"),
            Pin("led_o[2]", "C1", "led[2]", "PULLMODE=NONE DRIVE=4"),
            Pin(
                "wifi_gpio0_o", "L2", "wifi_gpio0: at 0 the ESP32 would load another bitstream", "PULLMODE=NONE DRIVE=4"
            ),
        ),
        high=("wifi_gpio0_o",),
    )
}


def find_board(name: str) -> Board:
    """The board of that name; BitfabError lists the names there are."""
    if name not in BOARDS:
        raise BitfabError(f"{name}: unknown board: choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
