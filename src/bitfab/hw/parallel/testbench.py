"""The self-checking testbench of a parallel design: which frames it runs, and what every block must give for them."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.hw.design import Language
from bitfab.hw.memories import mem_file
from bitfab.hw.parallel import vhdl
from bitfab.hw.parallel.cells import Block
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.hw.render_verilog import simulation_library, template
from bitfab.ir.graph import Value
from bitfab.ir.run import trace

EXHAUSTIVE_BITS = 16  # of the input: up to here every frame there is
RANDOM_FRAMES = 1000


def frames(design: ParallelDesign, given: IntArray) -> IntArray:
    """All frames there are where the input has up to 16 bits, else the given ones (batch, *shape) and random ones."""
    value = design.graph.inputs[0]
    count, bits = int(np.prod(value.shape)), value.type.bits
    if count * bits > EXHAUSTIVE_BITS:
        codes = np.random.default_rng(0).integers(0, 1 << bits, (RANDOM_FRAMES, count))
    else:
        places = np.arange(count) * bits
        codes = (np.arange(1 << (count * bits))[:, None] >> places) & ((1 << bits) - 1)
    numbers = 2 * codes - 1 if value.type.bipolar else codes + value.type.low
    chosen = numbers.reshape(-1, *value.shape)
    return chosen if count * bits <= EXHAUSTIVE_BITS else np.concatenate([given.astype(np.int64), chosen])


def testbench(design: ParallelDesign, images: IntArray) -> dict[str, str]:
    """Files for the design's folder: `sim/` with testbench, vectors and Makefile, and the README.

    `images` (batch, *shape) are integers of the graph's input; what each block must give comes from `ir.run`. The one
    in VHDL compares the output alone.
    """
    values, graph, netlist = trace(design.graph, images), design.graph, design.netlist
    files = {f"sim/{name}": text for name, text in simulation_library().items()}
    entry, exit_ = graph.inputs[0], graph.output_values[0]
    lanes = _wires(values[entry.name], entry)
    files["sim/input.mem"] = mem_file(lanes.reshape(-1, design.input.lanes), entry.type.bits)
    files["sim/output.mem"] = mem_file(_wires(values[exit_.name], exit_), exit_.type.bits)
    if design.language is Language.VHDL:
        return {path: text for path, text in files.items() if path.endswith(".mem")} | vhdl.testbench(
            netlist, len(images)
        )
    for block in netlist.blocks:
        files[f"sim/{block.value.name}.mem"] = _expected(block, _wires(values[block.node], graph.values[block.node]))
    context = {"design": design, "netlist": netlist, "version": version("bitfab"), "images": len(images)}
    files["sim/tb.sv"] = template("parallel_tb.sv.j2").render(context)
    files["sim/Makefile"] = template("Makefile.j2").render()
    types = {"input_type": entry.type, "output_type": exit_.type}
    files["README.md"] = template("parallel_README.md.j2").render(context, **types)
    return files


def _wires(values: IntArray, value: Value) -> IntArray:
    """The integers as the wires carry them, (batch, count)."""
    return (np.maximum(values, 0) if value.type.bipolar else values).reshape(len(values), -1)


def _expected(block: Block, values: IntArray) -> str:
    return mem_file(values, [wire.bits for wire in block.value.wires])
