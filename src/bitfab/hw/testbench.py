"""The self-checking testbench of a design: vectors for every stream from the definition, and how to run it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from bitfab.dtypes import IntArray
from bitfab.hw import render_vhdl
from bitfab.hw.design import Design, Language, Stream
from bitfab.hw.loading import memory_map
from bitfab.hw.memories import mem_file, to_stream
from bitfab.hw.ports import Port, input_ports, output_ports
from bitfab.hw.render_verilog import simulation_library, template
from bitfab.hw.wrappers import has_registers
from bitfab.ir.graph import Value
from bitfab.ir.run import trace


@dataclass(frozen=True)
class Observed:
    """What a run of the testbench printed: cycles at which each image's first and last words passed, and counts."""

    first_in: tuple[int, ...]
    last_in: tuple[int, ...]
    first_out: tuple[int, ...]
    last_out: tuple[int, ...]
    values: Mapping[str, int]  # values compared, by stream
    mismatches: Mapping[str, int]
    fifo_peaks: Mapping[str, int]  # words, by FIFO instance
    passed: bool
    complaints: tuple[str, ...]

    @property
    def cycles_per_image(self) -> int:
        """Steady state: the distance between the last two images' ends, or one image's time from end to end."""
        return self.last_out[-1] - self.last_out[-2] if len(self.last_out) > 1 else self.latency_cycles

    @property
    def latency_cycles(self) -> int:
        """From the first word of the first image in to its last word out, pipeline empty."""
        return self.last_out[0] - self.first_in[0] + 1


def observe(design: Design, lines: Sequence[str]) -> Observed:
    """Read what the testbench printed."""
    text = "\n".join(lines)
    images = [tuple(map(int, row)) for row in re.findall(r"^IMAGE \d+ in (\d+) (\d+) out (\d+) (\d+)", text, re.M)]
    first_in, last_in, first_out, last_out = zip(*images, strict=True) if images else ((), (), (), ())
    streams = re.findall(r"^STREAM (\S+) words (\d+) mismatches (\d+)", text, re.M)
    lanes = {stream.value: stream.lanes for stream in design.taps}
    lanes |= {port.label: port.stream.lanes for port in output_ports(design)}
    return Observed(
        first_in,
        last_in,
        first_out,
        last_out,
        values={name: int(words) * lanes[name] for name, words, _ in streams},
        mismatches={name: int(wrong) for name, _, wrong in streams},
        fifo_peaks={name: int(peak) for name, peak in re.findall(r"^FIFO (\S+) depth \d+ peak (\d+)", text, re.M)},
        passed=any(line.startswith("PASS") for line in lines),
        complaints=tuple(line for line in lines if re.match(r"MISMATCH|PROTOCOL|.*FAIL|%Error", line)),
    )


def testbench(design: Design, images: Sequence[IntArray]) -> dict[str, str]:
    """Files for the design's folder: `sim/` with testbench, vectors and Makefile, and the README.

    `images` are integers (batch, *shape) for each of the graph's inputs; what each stream must carry comes from
    `ir.run`.
    """
    values, count = trace(design.graph, *images), len(images[0])
    inputs, outputs = input_ports(design), output_ports(design)
    taps = design.taps
    vhdl, patience = design.language is Language.VHDL, 100_000 + 50 * design.expected_latency
    shared = render_vhdl.simulation_library() if vhdl else simulation_library()
    files = {f"sim/{name}": text for name, text in shared.items()}
    for stream in taps:
        files[f"sim/{stream.name}.mem"] = _vectors(design, stream, values[stream.value])
    for port in (*inputs, *outputs):
        files[f"sim/{port.label}.mem"] = _vectors(design, port.stream, values[port.stream.value])
    context = {
        "design": design,
        "inputs": inputs,
        "outputs": outputs,
        "version": version("bitfab"),
    }
    if vhdl:
        files["sim/tb.vhd"] = render_vhdl.render_testbench(design, count, patience)
        files["sim/Makefile"] = template("Makefile_vhdl.j2").render(design=design, bench=[*shared, "tb.vhd"])
    else:
        files["sim/tb.sv"] = template("tb.sv.j2").render(context, images=count, taps=taps, patience=patience)
        files["sim/Makefile"] = template("Makefile.j2").render()
    files["README.md"] = template("README.md.j2").render(
        context, rows=_rows(design), registers=has_registers(design), loaded=memory_map(design)
    )
    return files


def _vectors(design: Design, stream: Stream, values: IntArray) -> str:
    """What a stream must carry, as the text of a .mem file."""
    words = to_stream(values, stream.shape, stream.lanes, design.graph.values[stream.value].type)
    return mem_file(words, stream.bits)


def _rows(design: Design) -> list[tuple[str, Port, str, str]]:
    """For each port: input or output, the port, its type, and what its integers mean, where that is known."""
    found = []
    for kind, ports in (("input", input_ports(design)), ("output", output_ports(design))):
        for port in ports:
            value, meaning = design.graph.values[port.stream.value], ""
            if value.qparams is not None and len(value.qparams.scale) == 1:
                zero, scale = value.qparams.zero_point, value.qparams.scale[0]
                meaning = f"`real = {scale!r} * (integer - {zero})`"
            found.append((kind, port, _type(value), meaning))
    return found


def _type(value: Value) -> str:
    return "one bit (0 means -1, 1 means +1)" if value.type.bipolar else str(value.type)
