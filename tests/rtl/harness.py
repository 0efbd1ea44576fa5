"""Run one RTL block on many cases (parameters, vectors, idle input, back-pressure) in a single Verilator simulator."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import bitfab
from bitfab.tools import verilator

RTL = Path(bitfab.__file__).parent / "rtl"
SETTLE_CYCLES = 64  # after the last expected word: a word too many must still be seen


@dataclass(frozen=True)
class Words:
    """Words of a stream or of a memory: `bits` wide, each given as an integer that is reduced modulo 2**bits."""

    bits: int
    words: Sequence[int]

    def mem(self) -> str:
        """The text of a `.mem` file: one hexadecimal word a line."""
        digits, mask = -(-self.bits // 4), (1 << self.bits) - 1
        return "".join(f"{int(word) & mask:0{digits}x}\n" for word in self.words)


@dataclass(frozen=True)
class Case:
    """One instance of the block with its vectors.

    `inputs` and `outputs` are keyed by the prefix of the ports: "" for `valid_i`, "a_" for `a_valid_i`. `memories` are
    keyed by the parameter that takes the file's name. `idle` and `stall` are percentages; `probes` are signals inside
    the block whose final value is wanted (`peak_q`).
    """

    name: str
    inputs: Mapping[str, Words]
    outputs: Mapping[str, Words]
    parameters: Mapping[str, int] = field(default_factory=dict)
    memories: Mapping[str, Words] = field(default_factory=dict)
    idle: int = 0
    stall: int = 0
    seed: int = 1
    probes: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """What one case did: output words seen and expected, mismatches (breaches of the handshake among them), cycles from
    the first accepted input word to the last output word (both counted), whether every input word was taken, the final
    values of the probes, and what the monitors printed."""

    name: str
    count: int
    expected: int
    mismatches: int
    cycles: int
    drained: bool
    probes: Mapping[str, int]
    messages: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.count == self.expected and self.mismatches == 0 and self.drained


def pack(lanes: Iterable[int], bits: int) -> int:
    """One word of lanes of `bits` bits, lane 0 in the least significant bits; negative lanes in two's complement."""
    word = 0
    for index, lane in enumerate(lanes):
        word |= (int(lane) & ((1 << bits) - 1)) << (index * bits)
    return word


def pack_words(values: Iterable[Iterable[int]], bits: int) -> Words:
    """A stream of shape (words, lanes) as words of lanes * bits bits."""
    rows = [list(row) for row in values]
    return Words(len(rows[0]) * bits, [pack(row, bits) for row in rows])


def crossed(idles: Sequence[int] = (0, 30, 70), stalls: Sequence[int] = (0, 30, 70)) -> list[tuple[int, int]]:
    """All pairs of idle and stall percentages."""
    return [(idle, stall) for idle in idles for stall in stalls]


def simulate(
    module: str,
    cases: Sequence[Case],
    directory: Path,
    *,
    sources: Sequence[Path] | None = None,
    cycles: int | None = None,
    time_limit: float = 120,
) -> dict[str, Result]:
    """Build one simulator of all the cases, side by side, and return their results by name.

    Cases that differ in idle, stall and seed alone share one instance (with the first one's seed), and the simulator
    runs once for each pair of idle and stall: building takes far longer than running. `sources` defaults to the block's
    own folder. A run ends `SETTLE_CYCLES` after the last case is done, or after `cycles` (default: ample for the number
    of words): a case that hangs then shows count < expected.
    """
    assert len({case.name for case in cases}) == len(cases), "case names must differ"
    if sources is None:
        sources = sorted((RTL / module.removeprefix("bf_")).glob("*.sv"))
    directory.mkdir(parents=True, exist_ok=True)
    instances: list[Case] = []
    for case in cases:
        if not any(_same_instance(case, other) for other in instances):
            instances.append(case)
    for number, case in enumerate(instances):
        for file, words in files_of(number, case).items():
            (directory / file).write_text(words.mem())
    top = directory / "tb.sv"
    top.write_text(_testbench(module, instances, enough_cycles(cases) if cycles is None else cycles))
    everything = [*sources, *sorted((RTL / "sim").glob("*.sv")), top]
    simulator = verilator.build(everything, "tb", directory, optimize=False, time_limit=time_limit)
    printed = {
        (idle, stall): verilator.run(simulator, directory, time_limit, arguments=[f"+idle={idle}", f"+stall={stall}"])
        for idle, stall in sorted({(case.idle, case.stall) for case in cases})
    }
    results = {}
    for case in cases:
        number = next(number for number, other in enumerate(instances) if _same_instance(case, other))
        results[case.name] = result_of(number, case, printed[case.idle, case.stall])
    return results


def check(results: Mapping[str, Result]) -> None:
    """Fail with every case that did not pass, and what its monitors printed."""
    failed = [str(result) for result in results.values() if not result.passed]
    assert not failed, "\n".join(failed)


def _same_instance(case: Case, other: Case) -> bool:
    return replace(case, name="", idle=0, stall=0, seed=0) == replace(other, name="", idle=0, stall=0, seed=0)


def files_of(number: int, case: Case) -> dict[str, Words]:
    """File name to contents of all the case's vectors and memories."""
    groups = {"in": case.inputs, "out": case.outputs, "mem": case.memories}
    return {
        f"case{number}_{group}_{key}.mem": words for group, members in groups.items() for key, words in members.items()
    }


def enough_cycles(cases: Sequence[Case]) -> int:
    """Words times a generous factor for idling, stalling and latency; per case, since they run side by side."""

    def needed(case: Case) -> int:
        words = sum(len(stream.words) for stream in (*case.inputs.values(), *case.outputs.values()))
        return 4 * words * 100 // (100 - max(case.idle, case.stall)) + 4000

    return max(needed(case) for case in cases)


def _stream_wires(kind: str, prefix: str, bits: int) -> str:
    """Declarations of one stream: kind_prefix_{valid,ready,data}."""
    name = f"{kind}_{prefix}"
    return f"logic {name}valid, {name}ready;\nlogic [{bits - 1}:0] {name}data;"


def _source(number: int, case: Case, index: int, prefix: str) -> str:
    words = case.inputs[prefix]
    return f"""\
{_stream_wires("in", prefix, words.bits)}
bf_sim_source #(.Bits({words.bits}), .Words({len(words.words)}), .File("case{number}_in_{prefix}.mem"),
    .Seed({case.seed * 16 + index})) source_{index} (
    .clk_i(clk), .rst_i(rst), .valid_o(in_{prefix}valid), .ready_i(in_{prefix}ready), .data_o(in_{prefix}data),
    .done_o(taken[{index}]));
"""


def _sink(number: int, case: Case, index: int, prefix: str) -> str:
    words = case.outputs[prefix]
    return f"""\
{_stream_wires("out", prefix, words.bits)}
bf_sim_ready #(.Seed({case.seed * 16 + 8 + index})) ready_{index} (
    .clk_i(clk), .rst_i(rst), .ready_o(out_{prefix}ready));
bf_sim_check #(.Bits({words.bits}), .Words({len(words.words)}), .File("case{number}_out_{prefix}.mem"),
    .Name("case{number}{"." if prefix else ""}{prefix.rstrip("_")}")) check_{index} (
    .clk_i(clk), .rst_i(rst), .valid_i(out_{prefix}valid), .ready_i(out_{prefix}ready), .data_i(out_{prefix}data),
    .count_o(counts[{index}]), .mismatches_o(mismatches[{index}]), .done_o(complete[{index}]));
"""


def _device(module: str, number: int, case: Case) -> str:
    parameters = {name: str(value) for name, value in case.parameters.items()}
    parameters |= {name: f'"case{number}_mem_{name}.mem"' for name in case.memories}
    ports = [".clk_i(clk)", ".rst_i(rst)"]
    for prefix in case.inputs:
        ports += [f".{prefix}valid_i(in_{prefix}valid)", f".{prefix}ready_o(in_{prefix}ready)"]
        ports += [f".{prefix}data_i(in_{prefix}data)"]
    for prefix in case.outputs:
        ports += [f".{prefix}valid_o(out_{prefix}valid)", f".{prefix}ready_i(out_{prefix}ready)"]
        ports += [f".{prefix}data_o(out_{prefix}data)"]
    values = ", ".join(f".{name}({value})" for name, value in parameters.items())
    return f"{module} {f'#({values}) ' if values else ''}dut (\n    " + ",\n    ".join(ports) + ");"


def _case_module(module: str, number: int, case: Case) -> str:
    """One case as a module: sources, device under test, monitors, cycle count, and a task that prints the result."""
    transfers = [f"(in_{prefix}valid && in_{prefix}ready)" for prefix in case.inputs]
    last = [f"(out_{prefix}valid && out_{prefix}ready)" for prefix in case.outputs]
    probes = "".join(f'\n    $display("PROBE {number} {probe} %0d", dut.{probe});' for probe in case.probes)
    body = [_source(number, case, index, prefix) for index, prefix in enumerate(case.inputs)]
    body += [_sink(number, case, index, prefix) for index, prefix in enumerate(case.outputs)]
    body += [_device(module, number, case)]
    return f"""\
module case{number} (input logic clk, input logic rst, output logic done);
  // {case.name}
  logic [{len(case.inputs) - 1}:0] taken;
  logic [{len(case.outputs) - 1}:0] complete;
  logic [31:0] counts [{len(case.outputs)}];
  logic [31:0] mismatches [{len(case.outputs)}];
  int now = 0, first = -1, last = -1, count, wrong;
{textwrap.indent(chr(10).join(body), "  ")}
  always @(posedge clk) if (!rst) begin
    now <= now + 1;
    if (first < 0 && ({" || ".join(transfers)})) first <= now;
    if ({" || ".join(last)}) last <= now;
  end
  assign done = &taken && &complete;
  task automatic print();
    count = 0;
    wrong = 0;
    for (int i = 0; i < {len(case.outputs)}; i++) begin
      count += counts[i];
      wrong += mismatches[i];
    end
    $display("CASE {number} %0d %0d %0d %0d", count, wrong, last - first + 1, &taken);{probes}
  endtask
endmodule
"""


def _testbench(module: str, cases: Sequence[Case], cycles: int) -> str:
    instances = "\n".join(f"  case{n} run{n} (.clk(clk), .rst(rst), .done(done[{n}]));" for n in range(len(cases)))
    prints = "\n".join(f"    run{n}.print();" for n in range(len(cases)))
    modules = "\n".join(_case_module(module, number, case) for number, case in enumerate(cases))
    return f"""\
{modules}
module tb;
  logic clk = 1'b0;
  logic rst = 1'b1;
  logic [{len(cases) - 1}:0] done;
  int now = 0;
  always #5 clk = !clk;
{instances}
  initial begin
    repeat (4) @(posedge clk);
    rst <= 1'b0;
    while (!(&done) && now < {cycles}) begin
      @(posedge clk);
      now++;
    end
    repeat ({SETTLE_CYCLES}) @(posedge clk);
{prints}
    $finish;
  end
endmodule
"""


def result_of(number: int, case: Case, lines: Sequence[str]) -> Result:
    """What the testbench printed of a case."""
    fields = next(line.split()[2:] for line in lines if line.startswith(f"CASE {number} "))
    count, mismatches, cycles, drained = (int(text) for text in fields)
    probes = {line.split()[2]: int(line.split()[3]) for line in lines if line.startswith(f"PROBE {number} ")}
    monitors = tuple(f"{kind} case{number}{end}" for kind in ("MISMATCH", "PROTOCOL") for end in (" ", "."))
    return Result(
        name=case.name,
        count=count,
        expected=sum(len(words.words) for words in case.outputs.values()),
        mismatches=mismatches,
        cycles=cycles,
        drained=bool(drained),
        probes=probes,
        messages=tuple(line for line in lines if line.startswith(monitors)),
    )
