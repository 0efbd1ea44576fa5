"""How an image becomes bytes on a serial line, and bytes an answer: the words of a stream, the lowest byte first."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.errors import BitfabError
from bitfab.hw.design import Design, Stream
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.ir.graph import Value


@dataclass(frozen=True)
class Frame:
    """One image of a stream as bytes.

    `words` words, each of `lanes` integers of `bits` bits, lane 0 lowest, filled up with zeros to whole bytes.
    `stream_shape` is (C, H, W), the order rows, columns, channels; `shape` that of the graph's value, without batch.
    """

    shape: tuple[int, ...]
    stream_shape: tuple[int, int, int]
    words: int
    lanes: int
    bits: int
    signed: bool

    @property
    def word_bytes(self) -> int:
        return -(-self.lanes * self.bits // 8)

    @property
    def frame_bytes(self) -> int:
        return self.words * self.word_bytes

    @property
    def type(self) -> IntType:
        return IntType(self.bits, self.signed)

    def encode(self, image: IntArray) -> bytes:
        """The bytes of one image, integers of `shape`."""
        if image.shape != self.shape:
            raise BitfabError(f"image of shape {image.shape}; the design takes {self.shape}")
        channels, height, width = self.stream_shape
        carried = (np.maximum(image, 0) if self.type.bipolar else image).astype(np.int64)
        lanes = carried.reshape(channels, height, width).transpose(1, 2, 0).reshape(self.words, self.lanes)
        places = [int(i * self.bits) for i in range(self.lanes)]
        mask = (1 << self.bits) - 1
        numbers = (sum((int(v) & mask) << at for v, at in zip(word, places, strict=True)) for word in lanes)
        return b"".join(number.to_bytes(self.word_bytes, "little") for number in numbers)

    def decode(self, data: bytes) -> IntArray:
        """The integers of `shape` that so many bytes carry; BitfabError where their number is wrong."""
        if len(data) != self.frame_bytes:
            raise BitfabError(f"answer of {len(data)} bytes; {self.frame_bytes} were expected: check the line's rate")
        size, mask = self.word_bytes, (1 << self.bits) - 1
        numbers = [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]
        codes = np.array([number >> (i * self.bits) & mask for number in numbers for i in range(self.lanes)])
        if self.type.bipolar:
            codes = 2 * codes - 1
        elif self.signed:
            codes = codes - ((codes >> (self.bits - 1)) << self.bits)
        channels, height, width = self.stream_shape
        return codes.reshape(height, width, channels).transpose(2, 0, 1).reshape(self.shape)


@dataclass(frozen=True)
class Framing:
    """What goes over the line for a design: frames in, frames out, at `baud` bits a second."""

    design: str
    baud: int
    input: Frame
    output: Frame

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Framing:
        """The framing of a `framing.json`; BitfabError where it is not one."""
        try:
            found = json.loads(text)
            frames = {name: Frame(**_tuples(found.pop(name))) for name in ("input", "output")}
            return Framing(found["design"], found["baud"], frames["input"], frames["output"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BitfabError("framing.json: is not what bitfab wrote; build the board again") from error


def framing(design: Design, baud: int) -> Framing:
    """How a design of one input and one output is fed and read over a line."""
    if len(design.graph.inputs) != 1 or len(design.graph.outputs) != 1:
        raise BitfabError(f"{design.name}: a board's line carries one input and one output")
    if isinstance(design, ParallelDesign) and design.serial:
        raise BitfabError(f"{design.name}: a board takes whole frames; generate it without --serial")
    entry, exit_ = design.graph.inputs[0], design.graph.output_values[0]
    return Framing(design.name, baud, _frame(design.input, entry), _frame(design.output, exit_))


def _frame(stream: Stream, value: Value) -> Frame:
    return Frame(value.shape, stream.shape, stream.words, stream.lanes, stream.bits, value.type.signed)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
