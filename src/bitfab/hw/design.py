"""What a hardware design is: streams, block instances, memories and foldings, in memory; one function writes files."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bitfab.errors import BitfabError, choice, whole
from bitfab.ir.graph import Graph, Node
from bitfab.ir.infer import macs
from bitfab.output import whole_folder
from bitfab.parts import find_part

Shape3 = tuple[int, int, int]  # (C, H, W)


class Language(enum.StrEnum):
    """The language of a design's files."""

    VERILOG = "verilog"
    VHDL = "vhdl"


@dataclass(frozen=True)
class Target:
    """The part a design is meant for and the clock it should reach, in MHz.

    Raises BitfabError for an unknown part, or a clock that is no positive number.
    """

    part: str = "ecp5-85k"
    clock_mhz: float = 80.0

    def __post_init__(self) -> None:
        find_part(self.part)
        if not isinstance(self.clock_mhz, int | float) or not 0 < self.clock_mhz < math.inf:
            raise BitfabError(f"{self.part}: a clock of {self.clock_mhz} MHz; give a positive number, such as 80")


def named_target(target: Target | str) -> Target:
    """The target itself, or that of a part's name; BitfabError for anything else."""
    if isinstance(target, str):
        return Target(target)
    if not isinstance(target, Target):
        raise BitfabError(f"target {target!r}: give a Target, or the name of a part, such as ecp5-85k")
    return target


class Multiplier(enum.StrEnum):
    """What computes products: a DSP each; a DSP for two weights that meet the same input; LUTs alone."""

    DSP = "dsp"
    PACKED = "packed"
    LUTS = "luts"


class MemoryStyle(enum.StrEnum):
    """Where weights lie: in block RAM, or in LUTs."""

    BLOCK = "block"
    LUTS = "luts"


@dataclass(frozen=True)
class Folding:
    """A layer's parallelism: `pe` output channels times `simd` input channels are multiplied in each cycle.

    What is None is chosen: `multiplier` by the operands' bits and the part (`hw.folding.styled`), `memory` by the
    weights' number. A requantizer or a product of streams has `pe` lanes and a `simd` of 1.
    Raises BitfabError for what no layer can have.
    """

    pe: int
    simd: int
    multiplier: Multiplier | None = None
    memory: MemoryStyle | None = None

    def __post_init__(self) -> None:
        for name in ("pe", "simd"):
            value = getattr(self, name)
            object.__setattr__(self, name, whole(value, f"folding: {name} {value!r}"))
        for name, kind in (("multiplier", Multiplier), ("memory", MemoryStyle)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, choice(kind, value, f"folding: {name} {value!r}"))

    @property
    def multipliers(self) -> int:
        """Products in a cycle."""
        return self.pe * self.simd

    def __str__(self) -> str:
        """Such as PE 8 x SIMD 4, packed multipliers, block memory."""
        styles = [(self.multiplier, "multipliers"), (self.memory, "memory")]
        return ", ".join([f"PE {self.pe} x SIMD {self.simd}", *(f"{style} {what}" for style, what in styles if style)])


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


LOAD_PORTS = ("load_i", "load_address_i", "load_data_i")  # of blocks whose memories can be loadable
LOADED_BLOCKS = ("conv2d", "requantize", "threshold")


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

    @property
    def loadable(self) -> bool:
        """Whether its memories can be written while the design is idle."""
        return bool(self.parameters.get("Loadable"))


@dataclass(frozen=True)
class LoadBus:
    """What writes a design's loadable memories: bits of a word, bits of its address."""

    bits: int
    address_bits: int


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

    `inputs` and `outputs` are the streams at the ports, in the graph's order; `taps` those that carry the graph's
    values, one each. `files` maps paths relative to the design's folder to text. `expected_cycles` is the steady-state
    cycles an image that the schedule predicts. `expected_latency` is a rough figure of the cycles from the first word
    in to the last word out: of a streaming design the schedule's, which leaves out what pipeline registers, forks and
    converters add (of small images that can be most of it); exact of a parallel one.
    """

    name: str
    graph: Graph = field(repr=False)
    target: Target
    streams: tuple[Stream, ...]
    taps: tuple[Stream, ...]
    instances: tuple[Instance, ...]
    layers: tuple[Layer, ...]
    fifos: tuple[Fifo, ...]
    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    expected_cycles: int
    expected_latency: int
    language: Language
    files: Mapping[str, str] = field(repr=False)

    @property
    def input(self) -> Stream:
        """The first input's stream."""
        return self.inputs[0]

    @property
    def output(self) -> Stream:
        """The first output's stream."""
        return self.outputs[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """The synthesizable files, each of VHDL behind those it uses, the top last."""
        return tuple(path for path in self.files if path.startswith("rtl/") and path.endswith((".sv", ".vhd")))

    @property
    def load_bus(self) -> LoadBus | None:
        """The bus of the loadable memories, where there are any."""
        for parameters in (instance.parameters for instance in self.instances if instance.loadable):
            return LoadBus(int(parameters["LoadBits"]), int(parameters["LoadAddressBits"]))
        return None

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
