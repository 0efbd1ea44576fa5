"""From an integer graph to a parallel design: build cells, place registers, render."""

from __future__ import annotations

import math
from dataclasses import replace

from bitfab.errors import BitfabError, whole
from bitfab.hw.design import Instance, Language, Stream, Target, layer_of
from bitfab.hw.parallel import verilog, vhdl
from bitfab.hw.parallel.build import build
from bitfab.hw.parallel.cells import Netlist
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.hw.parallel.names import reserved
from bitfab.hw.parallel.pipeline import levels_for, pipeline
from bitfab.ir.graph import Graph, Value
from bitfab.ir.ops import Bits, Compare, Lut, Popcount
from bitfab.output import MARKER

BIT_OPERATIONS = Compare | Bits | Lut | Popcount


def generate_parallel(
    graph: Graph, target: Target, levels: int | None = None, serial: bool = False, language: Language = Language.VERILOG
) -> ParallelDesign:
    """A parallel design, in memory; see `bitfab.hw.generate`."""
    if reserved(graph.name):
        raise BitfabError(f"{graph.name}: a word of Verilog or VHDL; give the graph another name")
    limit = levels_for(target.clock_mhz) if levels is None else whole(levels, f"levels {levels!r}", 0)
    netlist = pipeline(build(graph, serial), limit)
    design = ParallelDesign(
        name=graph.name,
        graph=graph,
        target=target,
        streams=(),
        taps=tuple(_stream(block.value.name, graph.values[block.node]) for block in netlist.blocks),
        instances=tuple(Instance(f"u_{block.name}", block.name, {}, (), (), block.node) for block in netlist.blocks),
        layers=tuple(
            layer_of(node, graph, None, 1, block.value.name)
            for block in netlist.blocks
            for node in graph
            if node.name == block.node
        ),
        fifos=(),
        inputs=(_entry(netlist, graph.inputs[0]),),
        outputs=(_stream("output", graph.output_values[0]),),
        expected_cycles=len(netlist.input.wires) if serial else 1,
        expected_latency=netlist.latency + (len(netlist.input.wires) - 1 if serial else 0),
        files={},
        netlist=netlist,
        levels=limit,
        language=language,
    )
    render = verilog.render if language == Language.VERILOG else vhdl.render
    return replace(design, files=render(netlist) | {MARKER: '{"design": "' + graph.name + '"}\n'})


def _entry(netlist: Netlist, value: Value) -> Stream:
    whole = _stream("input", value)
    return replace(whole, lanes=1) if netlist.serial else whole


def _stream(name: str, value: Value) -> Stream:
    """All of a value in one word."""
    count = math.prod(value.shape)
    return Stream(name, value.name, value.type.bits, count, (count, 1, 1))
