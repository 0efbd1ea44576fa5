"""From an integer graph to a hardware design; a streaming one by plan, schedule, connect, render."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import replace

from bitfab.errors import BitfabError, choice, whole
from bitfab.hw import render_vhdl
from bitfab.hw.design import Design, Folding, Language, Target, layer_of, named_target
from bitfab.hw.folding import FOLDED
from bitfab.hw.loading import add_loading, widened
from bitfab.hw.netlist import Netlist, connect, input_lanes
from bitfab.hw.parallel.generate import BIT_OPERATIONS, generate_parallel
from bitfab.hw.parallel.names import reserved
from bitfab.hw.plan import Engine, plan
from bitfab.hw.render_verilog import library, render_top
from bitfab.hw.schedule import schedule
from bitfab.hw.wrappers import with_registers, with_shell
from bitfab.ir.graph import Graph
from bitfab.ir.verify import verify
from bitfab.output import MARKER
from bitfab.parts import find_part

PARALLELISM = 64
_VHDL_NAME = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*")


class Style(enum.StrEnum):
    """How a graph becomes hardware: engines that streams connect, or all of it at once."""

    STREAM = "stream"
    PARALLEL = "parallel"


def generate(
    graph: Graph,
    target: Target | str = "ecp5-85k",
    parallelism: int = PARALLELISM,
    folding: Mapping[str, Folding] | None = None,
    *,
    style: str | None = None,
    levels: int | None = None,
    serial: bool = False,
    language: str = Language.VERILOG,
    registers: bool = False,
    loadable: bool = False,
) -> Design:
    """A design of the graph, in memory: of style "stream" or "parallel".

    A streaming design has one engine a layer, all of them at work at the same time; `parallelism` is the number of
    multipliers to spread over the layers, `folding` fixes some layers by name. A parallel design, which a graph with
    operations on bits gets by default, computes the whole graph in every cycle: a rank of registers after every
    `levels` levels of logic (0: at both ends alone; by default as many as the target's clock allows by an estimate),
    the input in one piece or, with `serial`, one integer a cycle. `language` is that of the files, verilog or vhdl.
    `registers` adds the module `<name>_axi` around a streaming design: AXI-Lite registers beside its AXI-Streams; with
    `loadable` they can write weights, biases, requantizers' factors and thresholds (`bitfab.load_writes`).
    Raises BitfabError for operations without hardware and for illegal foldings (the legal ones are named).
    """
    verify(graph)
    _check_name(graph)
    _check_read(graph)
    part, parallelism = named_target(target), whole(parallelism, f"parallelism {parallelism!r}", 0)
    text = _language(graph, language)
    if _style(graph, style) is Style.PARALLEL:
        _check_ends(graph)
        if registers or loadable:
            raise BitfabError(f"{graph.name}: a parallel design has no registers; choose the style stream")
        if folding:
            raise BitfabError(f"{graph.name}: a parallel design has no folding; choose the style stream")
        return generate_parallel(graph, part, levels, serial, text)
    if levels is not None or serial:
        raise BitfabError(f"{graph.name}: levels and serial are a parallel design's; choose that style")
    if loadable and not registers:
        raise BitfabError(f"{graph.name}: weights are loaded through the AXI-Lite registers; ask for these too")
    design, netlist = structure(graph, part, parallelism, _foldings(folding), text, loadable)
    design = replace(design, files=_files(design, netlist))
    design = with_registers(design) if registers else design
    return with_shell(design) if _is_vhdl_name(graph.name) else design


def structure(
    graph: Graph,
    target: Target,
    parallelism: int,
    folding: Mapping[str, Folding],
    language: Language,
    loadable: bool = False,
) -> tuple[Design, Netlist]:
    """A streaming design without its files, and the netlist that holds its memories' contents."""
    graph = widened(graph) if loadable else graph
    engines, shapes = plan(graph, parallelism, folding, find_part(target.part).operands)
    input_cycles = 0
    for value in graph.inputs:
        channels, height, width = shapes[value.name]
        input_cycles = max(input_cycles, channels // input_lanes(value.name, engines) * height * width)
    timing = schedule(graph, engines, shapes, input_cycles)
    netlist, entries, exits = connect(graph, engines, shapes, timing.fifos)
    if loadable:
        add_loading(netlist)
    design = Design(
        name=graph.name,
        graph=graph,
        target=target,
        streams=tuple(netlist.streams),
        taps=tuple(netlist.taps.values()),
        instances=tuple(netlist.instances),
        layers=tuple(
            layer_of(engine.node, graph, _folded(engine), engine.cycles, netlist.taps[engine.node.name].name)
            for engine in engines.values()
        ),
        fifos=tuple(netlist.fifos),
        inputs=entries,
        outputs=exits,
        expected_cycles=timing.cycles_per_image,
        expected_latency=timing.latency_cycles,
        language=language,
        files={},
    )
    return design, netlist


def _foldings(given: object) -> Mapping[str, Folding]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(folding, Folding) for folding in given.values()):
        raise BitfabError(f"folding {given!r}: give a dict of layers' names and Foldings, such as conv1: Folding(8, 4)")
    return given


def _folded(engine: Engine) -> Folding | None:
    """A multiplying layer's folding; a requantizer's lanes are none."""
    return engine.folding if isinstance(engine.node.op, FOLDED) else None


def _check_name(graph: Graph) -> None:
    if graph.name == "tb" or graph.name.startswith("bf_"):
        raise BitfabError(f"{graph.name}: bitfab's own modules are named so; quantize again under another name")


def _language(graph: Graph, wanted: str) -> Language:
    language = choice(Language, wanted, f"language {wanted!r}")
    if language is Language.VHDL and not _is_vhdl_name(graph.name):
        raise BitfabError(f"{graph.name}: VHDL has no such name; quantize again under a name of letters and digits")
    return language


def _is_vhdl_name(name: str) -> bool:
    return not reserved(name) and _VHDL_NAME.fullmatch(name) is not None


def _check_read(graph: Graph) -> None:
    for name, readers in graph.users.items():
        if not readers and name not in graph.outputs:
            raise BitfabError(f"{name}: nothing reads it; leave it out of the graph (see passes.prune)")


def _check_ends(graph: Graph) -> None:
    for what, names in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len(names) != 1:
            raise BitfabError(
                f"{graph.name}: {len(names)} {what}; a parallel design has one of each; choose the style stream"
            )


def _style(graph: Graph, wanted: str | None) -> Style:
    if wanted is None:
        return Style.PARALLEL if any(isinstance(node.op, BIT_OPERATIONS) for node in graph) else Style.STREAM
    return choice(Style, wanted, f"style {wanted!r}")


def _files(design: Design, netlist: Netlist) -> dict[str, str]:
    blocks = {instance.block for instance in design.instances} | {"skid", "last"}
    if design.language is Language.VHDL:
        sources = render_vhdl.library(blocks) | render_vhdl.render_top(design)
    else:
        sources = library(blocks) | {f"{design.name}.sv": render_top(design)}
    files = {f"rtl/{name}": text for name, text in sources.items()}
    files |= {f"rtl/{name}": text for name, text in sorted(netlist.roms.items())}
    return files | {MARKER: '{"design": "' + design.name + '"}\n'}
