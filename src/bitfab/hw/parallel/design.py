"""What a parallel design is: a design all of whose streams carry one word a frame, and the cells within."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitfab.hw.design import Design
from bitfab.hw.parallel.cells import Netlist


@dataclass(frozen=True)
class ParallelDesign(Design):
    """A whole graph as one function, a frame a cycle, no back-pressure; `levels` of logic at most between registers.

    `levels` is 0 where there are registers at both ends alone. Ports and latency are the netlist's.
    """

    netlist: Netlist = field(repr=False)
    levels: int

    @property
    def serial(self) -> bool:
        """Whether the input comes one integer a cycle."""
        return self.netlist.serial
