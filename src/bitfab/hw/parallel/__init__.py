"""A whole small integer graph as one unrolled, pipelined function: a new frame in every cycle.

    design = bitfab.generate(graph, "ecp5-85k", style="parallel", levels=0)   # combinational between registers
    report = bitfab.build(design, vectors)

By hand, without the tools: `netlist = pipeline(build(graph), levels)`, then `verilog.render(netlist)` gives the files
by path and `evaluate(netlist, x)` the integers that the cells compute.
"""

from bitfab.hw.parallel.build import build
from bitfab.hw.parallel.pipeline import depth, pipeline

__all__ = ["build", "depth", "pipeline"]
