"""Output folders are whole, whoever else writes them and whatever was killed before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitfab.errors import BitfabError
from bitfab.output import MARKER, whole_folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(place: Path, state: str, process: int) -> Path:
    """What a process leaves that is killed while it writes the folder."""
    folder = place.with_name(f".{place.name}.{process}-0.{state}")
    folder.mkdir()
    (folder / MARKER).write_text("left")
    return folder


def test_two_at_a_time_leave_each_other_alone(tmp_path: Path) -> None:
    first, second = whole_folder(tmp_path / "net"), whole_folder(tmp_path / "net")
    with first as one:
        (one / MARKER).write_text("first")
        with second as two:
            (two / MARKER).write_text("second")
            assert (one / MARKER).read_text() == "first"
        assert (tmp_path / "net" / MARKER).read_text() == "second"
    assert (tmp_path / "net" / MARKER).read_text() == "first"
    assert names(tmp_path) == {"net"}


def test_an_error_in_one_leaves_the_other(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "net") as one:
        with pytest.raises(BitfabError), whole_folder(tmp_path / "net"):
            raise BitfabError("fails")
        (one / MARKER).write_text("first")
    assert names(tmp_path) == {"net"}


def test_a_folder_moved_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    place = tmp_path / "net"
    left(place, "old", dead_process())
    left(place, "unfinished", dead_process())
    with pytest.raises(BitfabError), whole_folder(place):
        assert (place / MARKER).read_text() == "left"
        raise BitfabError("fails")
    assert names(tmp_path) == {"net"} and (place / MARKER).read_text() == "left"


def test_what_a_running_process_writes_stays(tmp_path: Path) -> None:
    draft = left(tmp_path / "net", "unfinished", os.getppid())
    with whole_folder(tmp_path / "net") as folder:
        (folder / MARKER).write_text("mine")
    assert names(tmp_path) == {"net", draft.name}
