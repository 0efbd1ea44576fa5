"""From an integer graph to a hardware design: plan, schedule, connect, render, as one flat list of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bitfab.errors import BitfabError
from bitfab.hw.design import Design, Folding, Layer, Target
from bitfab.hw.netlist import Netlist, connect, input_lanes
from bitfab.hw.plan import Engine, plan
from bitfab.hw.render_verilog import library, render_top
from bitfab.hw.schedule import schedule
from bitfab.ir.graph import Graph
from bitfab.ir.infer import macs
from bitfab.ir.verify import verify
from bitfab.output import MARKER

PARALLELISM = 64


def generate(
    graph: Graph,
    target: Target | str = "ecp5-85k",
    parallelism: int = PARALLELISM,
    folding: Mapping[str, Folding] | None = None,
) -> Design:
    """A streaming design of the graph, in memory: one engine a layer, all of them at work at the same time.

    `parallelism` is the number of multipliers to spread over the layers; `folding` fixes some layers by name.
    Raises BitfabError for operations without hardware and for illegal foldings (the legal ones are named).
    """
    verify(graph)
    _check_name(graph)
    _check_ends(graph)
    engines, shapes = plan(graph, parallelism, folding or {})
    channels, height, width = shapes[graph.inputs[0].name]
    input_cycles = channels // input_lanes(graph, engines) * height * width
    timing = schedule(graph, engines, shapes, input_cycles)
    netlist, entry, exit_ = connect(graph, engines, shapes, timing.fifos)
    design = Design(
        name=graph.name,
        graph=graph,
        target=Target(target) if isinstance(target, str) else target,
        streams=tuple(netlist.streams),
        taps=tuple(netlist.taps.values()),
        instances=tuple(netlist.instances),
        layers=tuple(_layer(engine, netlist) for engine in engines.values()),
        fifos=tuple(netlist.fifos),
        input=entry,
        output=exit_,
        expected_cycles=timing.cycles_per_image,
        expected_latency=timing.latency_cycles,
        files={},
    )
    return replace(design, files=_files(design, netlist))


def _check_name(graph: Graph) -> None:
    if graph.name == "tb" or graph.name.startswith("bf_"):
        raise BitfabError(f"{graph.name}: bitfab's own modules are named so; quantize again under another name")


def _check_ends(graph: Graph) -> None:
    for what, names in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len(names) != 1:
            raise BitfabError(f"{graph.name}: {len(names)} {what}; a hardware design has one input and one output")


def _layer(engine: Engine, netlist: Netlist) -> Layer:
    node, values = engine.node, netlist.graph.values
    ins = [values[name] for name in node.inputs]
    shapes = (
        " + ".join("x".join(map(str, value.shape)) for value in ins) + " -> " + "x".join(map(str, node.output.shape))
    )
    types = f"{ins[0].type} -> {node.output.type}"
    op, count = type(node.op).__name__, macs(node.op, node.output.shape)
    return Layer(node.name, op, shapes, types, count, engine.folding, engine.cycles, netlist.taps[node.name].name)


def _files(design: Design, netlist: Netlist) -> dict[str, str]:
    blocks = {instance.block for instance in design.instances} | {"skid", "last"}
    files = {f"rtl/{name}": text for name, text in library(blocks).items()}
    files[f"rtl/{design.name}.sv"] = render_top(design)
    files |= {f"rtl/{name}": text for name, text in sorted(netlist.roms.items())}
    return files | {MARKER: '{"design": "' + design.name + '"}\n'}
