"""What a hardware design is: streams, block instances, memories and foldings, in memory; one function writes files."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bitfab.ir.graph import Graph, Node
from bitfab.ir.infer import macs
from bitfab.output import whole_folder

Shape3 = tuple[int, int, int]  # (C, H, W)


class Language(enum.StrEnum):
    """The language of a design's files."""

    VERILOG = "verilog"
    VHDL = "vhdl"


@dataclass(frozen=True)
class Target:
    """The part a design is meant for and the clock it should reach, in MHz."""

    part: str = "ecp5-85k"
    clock_mhz: float = 80.0


@dataclass(frozen=True)
class Folding:
    """A layer's parallelism: `pe` output channels times `simd` input channels are multiplied in each cycle."""

    pe: int
    simd: int

    @property
    def multipliers(self) -> int:
        return self.pe * self.simd


@dataclass(frozen=True)
class Stream:
    """A valid/ready stream that carries a graph value: images, rows, pixels, then channels, `lanes` channels a word."""

    name: str
    value: str
    bits: int
    lanes: int
    shape: Shape3

    @property
    def width(self) -> int:
        """Bits of a word."""
        return self.bits * self.lanes

    @property
    def words(self) -> int:
        """Words an image."""
        channels, height, width = self.shape
        return channels // self.lanes * height * width


@dataclass(frozen=True)
class Instance:
    """One block of the RTL library; parameters are integers, or strings for file names."""

    name: str
    block: str
    parameters: Mapping[str, int | str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: str
    comment: str = ""


@dataclass(frozen=True)
class Layer:
    """What the report says of a graph node in hardware; `cycles` is how long it is busy for an image."""

    name: str
    op: str
    shapes: str
    types: str
    macs: int
    folding: Folding | None
    cycles: int
    stream: str


@dataclass(frozen=True)
class Fifo:
    """A skip connection's buffer: `instance` in the top, `depth` in words."""

    instance: str
    stream: str
    depth: int

    @property
    def capacity(self) -> int:
        """Words it can hold: a bf_fifo has up to two output registers behind its memory."""
        return self.depth + 2


@dataclass(frozen=True)
class Design:
    """A generated design: structure, memory contents and RTL text; nothing on disk yet.

    `taps` are the streams that carry the graph's values, one each. `files` maps paths relative to the design's folder
    to text. `expected_cycles` is the steady-state cycles an image that the schedule predicts, `expected_latency` the
    cycles from the first word in to the last word out.
    """

    name: str
    graph: Graph = field(repr=False)
    target: Target
    streams: tuple[Stream, ...]
    taps: tuple[Stream, ...]
    instances: tuple[Instance, ...]
    layers: tuple[Layer, ...]
    fifos: tuple[Fifo, ...]
    input: Stream
    output: Stream
    expected_cycles: int
    expected_latency: int
    language: Language
    files: Mapping[str, str] = field(repr=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """The synthesizable files, each of VHDL behind those it uses, the top last."""
        return tuple(path for path in self.files if path.startswith("rtl/") and path.endswith((".sv", ".vhd")))

    @property
    def multipliers(self) -> int:
        return sum(layer.folding.multipliers for layer in self.layers if layer.folding)


def layer_of(node: Node, graph: Graph, folding: Folding | None, cycles: int, stream: str) -> Layer:
    """What the report says of a node that is busy for so many cycles an image; `stream` carries its result."""
    ins = [graph.values[name] for name in node.inputs]
    shapes = " + ".join("x".join(map(str, value.shape)) for value in ins)
    return Layer(
        name=node.name,
        op=type(node.op).__name__,
        shapes=f"{shapes} -> {'x'.join(map(str, node.output.shape))}",
        types=f"{ins[0].type} -> {node.output.type}",
        macs=macs(node.op, node.output.shape),
        folding=folding,
        cycles=cycles,
        stream=stream,
    )


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Put the files into `folder`, all or none.

    An existing folder is replaced only if it is empty or was written by bitfab (it holds a `bitfab.json`).
    Raises BitfabError where the folder holds something else or cannot be written.
    """
    with whole_folder(folder) as draft:
        for path, text in files.items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
