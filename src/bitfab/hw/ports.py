"""The AXI-Stream ports of a streaming design's top: one an input and one an output of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitfab.hw.design import Design, Stream
from bitfab.hw.parallel.names import identifiers


@dataclass(frozen=True)
class Port:
    """A port, named s_axis or m_axis; where there are several, with its value's name behind.

    `tag` tells apart what belongs to several ports (empty for a single one), `label` is what the testbench calls it.
    """

    name: str
    tag: str
    label: str
    stream: Stream

    @property
    def bits(self) -> int:
        """The stream's word in whole bytes, as AXI-Stream wants tdata."""
        return -(-self.stream.width // 8) * 8


def input_ports(design: Design) -> list[Port]:
    """Ports of the graph's inputs, in its order."""
    return _ports("s_axis", "input", design.inputs)


def output_ports(design: Design) -> list[Port]:
    """Ports of the graph's outputs, in its order."""
    return _ports("m_axis", "output", design.outputs)


def _ports(prefix: str, label: str, streams: Sequence[Stream]) -> list[Port]:
    if len(streams) == 1:
        return [Port(prefix, "", label, streams[0])]
    names = identifiers(stream.value for stream in streams)
    return [
        Port(f"{prefix}_{names[stream.value]}", f"_{i}", f"{label}.{stream.value}", stream)
        for i, stream in enumerate(streams)
    ]
