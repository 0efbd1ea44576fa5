"""From a graph to a bitstream for a board, with the packages that bitfab needs anyway."""

from pathlib import Path

import pytest

from bitfab import board
from bitfab.errors import BitfabError
from bitfab.hw import generate
from bitfab.hw.design import Target
from bitfab.tools import nextpnr
from bitfab.tools.nextpnr import Placed
from bitfab.tools.process import MissingToolError
from tests.lut_networks import frames, lut_network


def test_a_network_becomes_a_bitstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        board.require_tools("ulx3s")
    except MissingToolError as error:
        pytest.skip(str(error))
    graph = lut_network()
    design = generate(graph, Target("ecp5-25k", clock_mhz=25))
    made = board.bitstream(design, frames(graph, 2), tmp_path, "ulx3s", baud=921_600)
    assert made.path == tmp_path / "board" / "lutnet_ulx3s.bit"
    data = made.path.read_bytes()
    assert b"Part: LFE5U-25F-6CABGA381" in data[:64]
    assert b"\xff\xff\xbd\xb3" in data[:64]  # the preamble; TN-02039, ECP5 sysCONFIG
    assert len(data) > 10_000
    assert (made.frames, made.values_compared) == (2, 2)
    assert made.placed.fmax_mhz is not None and made.placed.fmax_mhz > 25
    assert 100 < made.placed.used.lut < 1000

    def slow(*arguments: object, **options: object) -> Placed:
        return Placed("ecp5-25k", 20.0, made.placed.used, made.placed.available, (), "")

    monkeypatch.setattr(nextpnr, "place_and_route", slow)
    monkeypatch.setattr("bitfab.board.build.simulate_board", lambda *arguments: 2)
    with pytest.raises(BitfabError, match=r"^lutnet: reaches 20\.0 MHz, below the ULX3S's clock of 25 MHz$"):
        board.bitstream(design, frames(graph, 2), tmp_path, "ulx3s")
