"""The harness in VHDL: the same cases, run by GHDL on the VHDL of a block, for the same results."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitfab.hw.render_vhdl import library, simulation_library
from bitfab.tools import ghdl
from tests.rtl.harness import (
    RTL,
    SETTLE_CYCLES,
    Case,
    Result,
    enough_cycles,
    files_of,
    result_of,
)


def simulate(
    module: str,
    cases: Sequence[Case],
    directory: Path,
    *,
    sources: Sequence[Path] | None = None,
    cycles: int | None = None,
    time_limit: float = 120,
) -> dict[str, Result]:
    """As `harness.simulate`, but a run for each pair of idle and stall has the cases of that pair alone, side by side:
    GHDL is slow to run, not to build.

    Of `sources`, those that are not of the library have their VHDL beside them. The one probe that there is, `peak_q`,
    counts the words inside the block: what went in less what came out.
    """
    own = [path.with_suffix(".vhd") for path in sources or () if not path.is_relative_to(RTL)]
    blocks = [path.stem for path in sources or () if path.is_relative_to(RTL)] or [module]
    texts = library(block.removeprefix("bf_") for block in blocks) | simulation_library()
    texts |= {path.name: path.read_text() for path in own}
    directory.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        for file, words in files_of(number, case).items():
            (directory / file).write_text(words.mem())
    limit, results = enough_cycles(cases) if cycles is None else cycles, {}
    for idle, stall in sorted({(case.idle, case.stall) for case in cases}):
        group = {number: case for number, case in enumerate(cases) if (case.idle, case.stall) == (idle, stall)}
        for name, text in {**texts, "tb.vhd": _testbench(module, group, limit)}.items():
            (directory / name).write_text(text)
        paths = [directory / name for name in (*texts, "tb.vhd")]
        lines = ghdl.run_testbench(paths, "tb", directory, {"Idle": idle, "Stall": stall}, time_limit=time_limit)
        results |= {case.name: result_of(number, case, lines) for number, case in group.items()}
    return results


def _wires(kind: str, prefix: str, bits: int) -> str:
    name = f"{kind}_{prefix}"
    return f"""\
signal {name}valid, {name}ready : std_logic;
signal {name}data : std_logic_vector({bits - 1} downto 0);
"""


def _source(number: int, case: Case, index: int, prefix: str) -> str:
    words = case.inputs[prefix]
    return f"""\
source_{index} : entity work.bf_sim_source
  generic map (Bits => {words.bits}, Words => {len(words.words)}, Path => "case{number}_in_{prefix}.mem",
    IdlePercent => Idle, Seed => {case.seed * 16 + index})
  port map (clk, rst, in_{prefix}valid, in_{prefix}ready, in_{prefix}data, taken({index}));
"""


def _sink(number: int, case: Case, index: int, prefix: str) -> str:
    words = case.outputs[prefix]
    name = f"case{number}{'.' if prefix else ''}{prefix.rstrip('_')}"
    return f"""\
ready_{index} : entity work.bf_sim_ready
  generic map (StallPercent => Stall, Seed => {case.seed * 16 + 8 + index})
  port map (clk, rst, out_{prefix}ready);
check_{index} : entity work.bf_sim_check
  generic map (Bits => {words.bits}, Words => {len(words.words)}, Path => "case{number}_out_{prefix}.mem",
    Name => "{name}")
  port map (clk, rst, out_{prefix}valid, out_{prefix}ready, out_{prefix}data, counts({index}), mismatches({index}));
"""


def _device(module: str, number: int, case: Case) -> str:
    values = {name: str(value) for name, value in case.parameters.items()}
    values |= {name: f'"case{number}_mem_{name}.mem"' for name in case.memories}
    ports = ["clk_i => clk", "rst_i => rst"]
    for prefix in case.inputs:
        ports += [f"{prefix}valid_i => in_{prefix}valid", f"{prefix}ready_o => in_{prefix}ready"]
        ports += [f"{prefix}data_i => in_{prefix}data"]
    for prefix in case.outputs:
        ports += [f"{prefix}valid_o => out_{prefix}valid", f"{prefix}ready_i => out_{prefix}ready"]
        ports += [f"{prefix}data_o => out_{prefix}data"]
    generics = ", ".join(f"{name} => {value}" for name, value in values.items())
    text = f"dut : entity work.{module}{f' generic map ({generics})' if generics else ''}\n  port map (\n    "
    return text + ",\n    ".join(ports) + ");\n"


def _case_entity(module: str, number: int, case: Case) -> str:
    """One case as an entity: sources, device under test, monitors, and what prints the result when `show` rises."""
    wires = [_wires("in", prefix, words.bits) for prefix, words in case.inputs.items()]
    wires += [_wires("out", prefix, words.bits) for prefix, words in case.outputs.items()]
    body = [_source(number, case, index, prefix) for index, prefix in enumerate(case.inputs)]
    body += [_sink(number, case, index, prefix) for index, prefix in enumerate(case.outputs)]
    body += [_device(module, number, case)]
    transfers = " or ".join(f"(in_{prefix}valid and in_{prefix}ready) = '1'" for prefix in case.inputs)
    last = " or ".join(f"(out_{prefix}valid and out_{prefix}ready) = '1'" for prefix in case.outputs)
    wanted = ", ".join(f"{i} => {len(words.words)}" for i, words in enumerate(case.outputs.values()))
    probe = f'        say("PROBE {number} peak_q " & to_string(peak));\n' if "peak_q" in case.probes else ""
    return f"""\
library ieee;
use ieee.std_logic_1164.all;
use work.bf_sim.all;

entity case{number} is  -- {case.name}
  generic (Idle, Stall : natural);
  port (clk, rst : in std_logic; show : in boolean; done : out boolean);
end entity case{number};

architecture sim of case{number} is
  constant Wanted : integer_vector(0 to {len(case.outputs) - 1}) := ({wanted});
  signal taken : boolean_vector(0 to {len(case.inputs) - 1});
  signal counts, mismatches : integer_vector(0 to {len(case.outputs) - 1});
{textwrap.indent("".join(wires), "  ")}
begin
{textwrap.indent("".join(body), "  ")}
  done <= (and taken) and counts = Wanted;

  process (clk, show)
    variable cycle, held, peak, count, wrong : natural := 0;
    variable first, last : integer := -1;
  begin
    if rising_edge(clk) and rst = '0' then
      if {transfers} then
        held := held + 1;
        first := cycle when first < 0 else first;
      end if;
      if {last} then
        held := held - 1 when held > 0 else 0;
        last := cycle;
      end if;
      peak := maximum(peak, held);
      cycle := cycle + 1;
    end if;
    if show'event and show then
      for i in counts'range loop
        count := count + counts(i);
        wrong := wrong + mismatches(i);
      end loop;
      say("CASE {number} " & to_string(count) & " " & to_string(wrong) & " " & to_string(last - first + 1) & " "
        & to_string(boolean'pos(and taken)));
{probe}    end if;
  end process;
end architecture sim;
"""


def _testbench(module: str, cases: Mapping[int, Case], cycles: int) -> str:
    entities = "\n".join(_case_entity(module, number, case) for number, case in cases.items())
    instances = "\n".join(
        f"  run{n} : entity work.case{n} generic map (Idle, Stall) port map (clk, rst, show, done({place}));"
        for place, n in enumerate(cases)
    )
    return f"""\
{entities}
library ieee;
use ieee.std_logic_1164.all;
use std.env.finish;

entity tb is
  generic (Idle, Stall : natural := 0);
end entity tb;

architecture sim of tb is
  signal clk : std_logic := '0';
  signal rst : std_logic := '1';
  signal show : boolean := false;
  signal done : boolean_vector(0 to {len(cases) - 1});
begin
  clk <= not clk after 5 ns;
{instances}

  process
    variable cycle : natural := 0;
  begin
    for i in 1 to 4 loop
      wait until rising_edge(clk);
    end loop;
    rst <= '0';
    while not (and done) and cycle < {cycles} loop
      wait until rising_edge(clk);
      cycle := cycle + 1;
    end loop;
    for i in 1 to {SETTLE_CYCLES} loop
      wait until rising_edge(clk);
    end loop;
    show <= true;
    wait for 1 ns;
    finish;
  end process;
end architecture sim;
"""
