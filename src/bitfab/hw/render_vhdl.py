"""VHDL-2008 text of a streaming design: its top, the library blocks that it uses, and its testbench."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.resources import files

from bitfab.hw.design import LOAD_PORTS, LOADED_BLOCKS, Design, Fifo, Instance
from bitfab.hw.parallel.names import identifiers
from bitfab.hw.ports import input_ports, output_ports
from bitfab.hw.render_verilog import template

_LIBRARY = files("bitfab") / "rtl"
_SHARED = ("package", "sim", "parallel")  # folders that hold more than a block
_USES = re.compile(r"\bwork\.bf_(\w+)")
_INTEGER = 1 << 31  # VHDL's integers reach up to here


def render_top(design: Design) -> dict[str, str]:
    """The top, AXI-Stream in and out, behind the package in which simulation sees its streams; by file name.

    GHDL 2.0 knows no external names: the top copies what the testbench watches into signals of that package, where
    synthesis does not look.
    """
    context = _context(design)
    return {
        f"{design.name}_probes.vhd": template("probes.vhd.j2").render(context),
        f"{design.name}.vhd": template("top.vhd.j2").render(context),
    }


def render_testbench(design: Design, images: int, patience: int) -> str:
    """The self-checking testbench: every stream against its vectors, deadlock after `patience` silent cycles."""
    return template("tb.vhd.j2").render(_context(design), images=images, patience=patience)


def library(blocks: Iterable[str]) -> dict[str, str]:
    """The sources of the blocks and of all that they use, by file name, each behind what it uses."""
    sources: dict[str, str] = {}
    for block in sorted(set(blocks)):
        _collect(block, sources)
    return sources


def simulation_library() -> dict[str, str]:
    """The testbench's own entities, by file name, in order of analysis."""
    return library(["sim_source", "sim_ready", "sim_check", "sim_peak"])


def _collect(block: str, sources: dict[str, str]) -> None:
    if f"bf_{block}.vhd" in sources:
        return
    folder = next(name for name in (block, *_SHARED) if (_LIBRARY / name / f"bf_{block}.vhd").is_file())
    text = (_LIBRARY / folder / f"bf_{block}.vhd").read_text(encoding="utf-8")
    for used in _USES.findall(text):
        _collect(used, sources)
    sources[f"bf_{block}.vhd"] = text


def _context(design: Design) -> dict[str, object]:
    names = identifiers(stream.name for stream in design.streams)
    fifos = [(fifo, *_ends(design, fifo)) for fifo in design.fifos]
    watched = {stream.name for stream in design.taps} | {name for _, *ends in fifos for name in ends}
    return {
        "design": design,
        "inputs": input_ports(design),
        "outputs": output_ports(design),
        "version": version("bitfab"),
        "names": names,
        "labels": identifiers(instance.name for instance in design.instances),
        "fifos": fifos,
        "probes": [stream for stream in design.streams if stream.name in watched],
        "generics": {instance.name: list(_generics(instance)) for instance in design.instances},
        "ports": {instance.name: list(_ports(instance, names)) for instance in design.instances},
    }


def _ends(design: Design, fifo: Fifo) -> tuple[str, str]:
    """The streams into and out of a FIFO."""
    instance = next(instance for instance in design.instances if instance.name == fifo.instance)
    return instance.inputs[0], instance.outputs[0]


def _generics(instance: Instance) -> Iterator[tuple[str, str]]:
    for name, value in instance.parameters.items():
        if isinstance(value, str):
            yield name, f'"{value}"'
        else:  # in 32 bits, as an int of SystemVerilog
            yield name, str((value + _INTEGER) % (2 * _INTEGER) - _INTEGER)


def _ports(instance: Instance, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Port and signal: clock, reset, input streams, output streams."""
    yield from (("clk_i", "clk_i"), ("rst_i", "rst_i"))
    prefixes = [""] if len(instance.inputs) == 1 else [f"{chr(ord('a') + i)}_" for i in range(len(instance.inputs))]
    for prefix, stream in zip(prefixes, instance.inputs, strict=True):
        yield f"{prefix}valid_i", f"{names[stream]}_valid"
        yield f"{prefix}ready_o", f"{names[stream]}_ready"
        yield f"{prefix}data_i", f"{names[stream]}_data"
    fork = len(instance.outputs) > 1  # bit i of valid and ready belongs to output i, all share the data
    for port in ("valid_o", "ready_i"):
        for i, stream in enumerate(instance.outputs):
            yield f"{port}({i})" if fork else port, f"{names[stream]}_{port[:5]}"
    yield "data_o", f"{names[instance.outputs[0]]}_data"
    if instance.block in LOADED_BLOCKS:
        unused = ("'0'", '"0"', '"0"')
        yield from ((port, port if instance.loadable else zero) for port, zero in zip(LOAD_PORTS, unused, strict=True))
