"""The adapter of GHDL on a counter, its testbench, and what can go wrong with both."""

from pathlib import Path

import pytest

from bitfab.errors import BitfabError
from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError, ToolError

COUNTER = """\
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;

entity counter is
  port (
    clk_i : in std_logic;
    rst_i : in std_logic;
    count_o : out std_logic_vector(3 downto 0)
  );
end entity counter;

architecture rtl of counter is
  signal count_q : unsigned(3 downto 0);
begin
  process (clk_i)
  begin
    if rising_edge(clk_i) then
      count_q <= count_q + 1;
      if rst_i = '1' then
        count_q <= (others => '0');
      end if;
    end if;
  end process;
  count_o <= std_logic_vector(count_q);
end architecture rtl;
"""
BENCH = """\
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use std.env.finish;
use std.textio.all;

entity tb is
  generic (Cycles : natural := 5; Mode : string := "pass");
end entity tb;

architecture sim of tb is
  signal clk, rst : std_logic := '1';
  signal count : std_logic_vector(3 downto 0);
begin
  clk <= not clk after 5 ns;
  dut : entity work.counter port map (clk_i => clk, rst_i => rst, count_o => count);
  process
    file vectors : text open read_mode is "vectors.txt";
    variable text_line : line;
    variable word : std_logic_vector(3 downto 0);
  begin
    wait until rising_edge(clk);
    rst <= '0';
    for cycle in 0 to Cycles loop
      wait until rising_edge(clk);
    end loop;
    readline(vectors, text_line);
    hread(text_line, word);
    write(output, "count " & to_hstring(count) & " of " & to_hstring(word) & LF);
    if Mode = "endless" then
      wait;
    end if;
    assert Mode /= "warn" report "told to warn" severity warning;
    assert Mode /= "fail" report "told to fail" severity failure;
    finish;
  end process;
end architecture sim;
"""


@pytest.fixture
def project(tmp_path: Path) -> list[Path]:
    """The sources, in a folder whose name has a space."""
    try:
        ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))
    folder = tmp_path / "a counter"
    folder.mkdir()
    (folder / "vectors.txt").write_text("9\n")
    for name, text in {"counter": COUNTER, "tb": BENCH}.items():
        (folder / f"{name}.vhd").write_text(text)
    return [folder / "counter.vhd", folder / "tb.vhd"]


def test_missing_ghdl_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MissingToolError, match=r"^ghdl: not on PATH: install it \(Debian, Ubuntu: `apt install ghdl`\)$"
    ):
        ghdl.require()


def test_analysis_accepts_clean_sources_and_leaves_nothing(project: list[Path]) -> None:
    folder = project[0].parent
    ghdl.analyse(project)
    assert {path.name for path in folder.iterdir()} == {"counter.vhd", "tb.vhd", "vectors.txt"}


def test_analysis_raises_on_a_warning(project: list[Path]) -> None:
    unused = "  function idle (x : bit) return bit is\n  begin\n    return x;\n  end function idle;\nbegin\n  process"
    project[0].write_text(COUNTER.replace("begin\n  process", unused, 1))
    with pytest.raises(ToolError, match=r'analysing counter\.vhd: it warned; the whole log: .*\n.*"idle" is never ref'):
        ghdl.analyse(project[:1], directory=project[0].parent)
    assert (project[0].parent / "analyse_counter.log").is_file()


def test_analysis_raises_on_an_error(project: list[Path]) -> None:
    project[0].write_text(COUNTER.replace("count_q + 1", "count_p + 1"))
    with pytest.raises(ToolError, match=r'(?s)exit code 1.*no declaration for "count_p"'):
        ghdl.analyse(project)


def test_missing_source_is_one_line(project: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BitfabError, match=r"^\S*no\.vhd: no such VHDL file$"):
        ghdl.analyse([tmp_path / "no.vhd"])


def test_testbench_runs_with_generics(project: list[Path]) -> None:
    folder = project[0].parent
    assert ghdl.run_testbench(project, "tb", folder)[0] == "count 5 of 9"
    assert ghdl.run_testbench(project, "tb", folder, {"Cycles": 9})[0] == "count 9 of 9"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("fail", r"simulating tb: failed with exit code 1\n  .*\(assertion failure\): told to fail$"),
        ("warn", r"simulating tb: it warned\n  .*\(assertion warning\): told to warn"),
        ("endless", r"simulating tb: stopped at the time limit of 2 s"),
    ],
)
def test_testbench_that_does_not_pass(mode: str, message: str, project: list[Path]) -> None:
    with pytest.raises(ToolError, match=message):
        ghdl.run_testbench(project, "tb", project[0].parent, {"Mode": mode}, time_limit=2)


def test_missing_vectors_are_an_error(project: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"vectors\.txt"):
        ghdl.run_testbench(project, "tb", tmp_path)


def test_translation_to_verilog(project: list[Path]) -> None:
    folder = project[0].parent / "out"
    netlist = ghdl.to_verilog(project[:1], "counter", folder / "counter.v")
    assert netlist.read_text().splitlines()[0] == "module counter"
    assert {path.name for path in folder.iterdir()} == {"counter.v", "counter.log"}


def test_failed_translation_leaves_only_its_log(project: list[Path]) -> None:
    folder = project[0].parent / "out"
    with pytest.raises(ToolError, match="translating no_such to Verilog"):
        ghdl.to_verilog(project[:1], "no_such", folder / "counter.v")
    assert {path.name for path in folder.iterdir()} == {"counter.log"}
