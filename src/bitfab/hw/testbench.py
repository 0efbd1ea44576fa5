"""The self-checking testbench of a design: vectors for every stream from the definition, and how to run it."""

from __future__ import annotations

from importlib.metadata import version

from bitfab.dtypes import IntArray
from bitfab.hw.design import Design
from bitfab.hw.memories import mem_file, to_stream
from bitfab.hw.render_verilog import byte_bits, simulation_library, template
from bitfab.ir.run import trace


def testbench(design: Design, images: IntArray) -> dict[str, str]:
    """Files for the design's folder: `sim/` with testbench, vectors and Makefile, and the README.

    `images` (batch, *shape) are integers of the graph's input; what each stream must carry comes from `ir.run`.
    """
    values = trace(design.graph, images)
    taps = design.taps
    files = {f"sim/{name}": text for name, text in simulation_library().items()}
    for stream in taps:
        files[f"sim/{stream.name}.mem"] = mem_file(
            to_stream(values[stream.value], stream.shape, stream.lanes), stream.bits
        )
    out = to_stream(values[design.graph.outputs[0]], design.output.shape, design.output.lanes)
    files["sim/input.mem"] = files[f"sim/{design.input.name}.mem"]
    files["sim/output.mem"] = mem_file(out, design.output.bits)
    context = {
        "design": design,
        "input": design.input,
        "output": design.output,
        "in_width": byte_bits(design.input),
        "out_width": byte_bits(design.output),
        "version": version("bitfab"),
    }
    patience = 100_000 + 50 * design.expected_latency
    files["sim/tb.sv"] = template("tb.sv.j2").render(context, images=len(images), taps=taps, patience=patience)
    files["sim/Makefile"] = template("Makefile.j2").render()
    files["README.md"] = template("README.md.j2").render(context, **_ends(design))
    return files


def _ends(design: Design) -> dict[str, str]:
    """What the integers at both ends mean."""
    first, last = design.graph.inputs[0], design.graph.output_values[0]
    words = []
    for name, value in (("input", first), ("output", last)):
        if value.qparams is not None and len(value.qparams.scale) == 1:
            zero, scale = value.qparams.zero_point, value.qparams.scale[0]
            words.append(f"{name}: `real = {scale!r} * (integer - {zero})`")
    return {"input_type": str(first.type), "output_type": str(last.type), "quantization": "; ".join(words)}
