"""Projects for Vivado and Quartus: Tcl that parses and runs, and names only files that are there."""

from pathlib import Path

import numpy as np
import pytest

from bitfab.dtypes import IntType
from bitfab.hw import generate, write_files
from bitfab.hw.design import Design, Target
from bitfab.hw.project import project_files
from bitfab.ir import Builder
from bitfab.ir.ops import Conv2d
from bitfab.parts import PARTS, Placer

tkinter = pytest.importorskip("tkinter", reason="Python without Tcl")

# What the vendors' commands stand for here: they note what they were given. `file` and `cd` are Tcl's own.
VIVADO = ["read_verilog", "read_vhdl", "read_mem", "read_xdc", "synth_design", "opt_design", "place_design"]
VIVADO += ["phys_opt_design", "route_design", "report_utilization", "report_timing_summary", "write_checkpoint"]
QUARTUS = ["project_open", "execute_flow", "project_close", "set_global_assignment", "set_instance_assignment"]
CLOCKS = ["create_clock", "get_ports"]
STUB = "proc {name} {{args}} {{ lappend ::calls [linsert $args 0 {name}]; return {{}} }}"


def design_for(part: str, language: str = "verilog") -> Design:
    builder = Builder("filter")
    x = builder.input("image", (3, 4, 3), IntType(5, signed=False))
    weight = np.random.default_rng(0).integers(-8, 8, (3, 3, 3, 3)).astype(np.int8)
    conv = Conv2d(weight, np.zeros(3, np.int32), padding=(1, 1, 1, 1))
    graph = builder.build((builder.add("sums", conv, x),))
    return generate(graph, Target(part, clock_mhz=160), parallelism=9, language=language)


def run_tcl(script: Path) -> list[list[str]]:
    """Run a script with the vendors' commands stubbed; every call as its words."""
    tcl = tkinter.Tcl()
    text = script.read_text(encoding="utf-8")
    assert tcl.tk.call("info", "complete", text)
    tcl.eval("set calls {}")
    tcl.eval("rename package tcl_package; proc package {args} {}")
    for name in (*VIVADO, *QUARTUS, *CLOCKS):
        tcl.eval(STUB.format(name=name))
    here = tcl.eval("pwd")
    try:
        tcl.tk.call("source", str(script))
    finally:
        tcl.tk.call("cd", here)
    return [list(map(str, tcl.splitlist(call))) for call in tcl.splitlist(tcl.eval("set calls"))]


@pytest.mark.parametrize("language", ["verilog", "vhdl"])
@pytest.mark.parametrize("part", ["xc7a35t", "xczu3eg"])
def test_vivado_reads_every_file_of_the_design(part: str, language: str, tmp_path: Path) -> None:
    design = design_for(part, language)
    files = project_files(design)
    assert set(files) == {"vivado/build.tcl", "vivado/clock.xdc"}
    write_files(dict(design.files) | files, tmp_path / "a folder")
    calls = run_tcl(tmp_path / "a folder" / "vivado" / "build.tcl")
    read = [Path(call[-1]) for call in calls if call[0].startswith("read_")]
    assert all(path.is_file() for path in read)
    wanted = {path.name for path in (tmp_path / "a folder" / "rtl").iterdir()} | {"clock.xdc"}
    assert {path.name for path in read} == wanted
    kinds = {"verilog": ["read_verilog", "-sv"], "vhdl": ["read_vhdl", "-vhdl2008"]}
    assert {tuple(call[:2]) for call in calls if call[0] in ("read_verilog", "read_vhdl")} == {tuple(kinds[language])}
    (synthesis,) = (call for call in calls if call[0] == "synth_design")
    assert synthesis[1:7] == ["-top", "filter", "-part", PARTS[part].device, "-mode", "out_of_context"]
    steps = [call[0] for call in calls if call[0].endswith("_design")]
    assert steps == ["synth_design", "opt_design", "place_design", "phys_opt_design", "route_design"]
    written = [call[call.index("-file") + 1] for call in calls if "-file" in call]
    assert {Path(path).parent.name for path in written} == {"vivado"}
    (clock,) = (call for call in run_tcl(tmp_path / "a folder" / "vivado" / "clock.xdc") if call[0] == "create_clock")
    assert clock[1:5] == ["-name", "clk_i", "-period", "6.25"]


@pytest.mark.parametrize("language", ["verilog", "vhdl"])
def test_quartus_s_settings_name_files_that_are_there(language: str, tmp_path: Path) -> None:
    design = design_for("5ceba4", language)
    write_files(dict(design.files) | project_files(design), tmp_path / "out")
    folder = tmp_path / "out" / "quartus"
    calls = run_tcl(folder / "build.tcl")
    assert [call[0] for call in calls] == ["project_open", "execute_flow", "project_close"]
    assert calls[0][1:] == ["-revision", "filter", "filter"]
    assert (folder / "filter.qpf").read_text() == 'PROJECT_REVISION = "filter"\n'
    settings = [call[2:] for call in run_tcl(folder / "filter.qsf") if call[0] == "set_global_assignment"]
    named = [folder / value for name, value in settings if name.endswith("_FILE")]
    assert all(path.is_file() for path in named)
    assert {path.name for path in named} == {path.name for path in (tmp_path / "out" / "rtl").iterdir()} | {"clock.sdc"}
    assert ["DEVICE", "5CEBA4F23C7"] in settings and ["TOP_LEVEL_ENTITY", "filter"] in settings
    assert ["SEARCH_PATH", "../rtl"] in settings


def test_memories_are_named_without_a_folder(tmp_path: Path) -> None:
    design = design_for("xc7a35t")
    top = design.files["rtl/filter.sv"]
    memories = [Path(path).name for path in design.files if path.endswith(".mem")]
    assert memories and all(f'"{name}"' in top for name in memories)


def test_only_parts_of_vendors_get_a_project() -> None:
    for part in PARTS.values():
        files = project_files(design_for(part.name))
        assert bool(files) == (part.family.facts.placer is not Placer.NEXTPNR), part.name
