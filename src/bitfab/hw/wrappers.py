"""What stands around a streaming design's top: AXI-Lite registers, and a shell in the other language."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version

from bitfab.hw import render_vhdl
from bitfab.hw.design import Design, Language
from bitfab.hw.ports import input_ports, output_ports
from bitfab.hw.render_verilog import library, template

_ADDRESS_BITS = 8
_AXI_LITE = (  # a slave's: channel, bits (0: a wire) of what the master gives, and of what it is given
    ("aw", {"addr": _ADDRESS_BITS, "prot": 3, "valid": 0}, {"ready": 0}),
    ("w", {"data": 32, "strb": 4, "valid": 0}, {"ready": 0}),
    ("b", {"ready": 0}, {"resp": 2, "valid": 0}),
    ("ar", {"addr": _ADDRESS_BITS, "prot": 3, "valid": 0}, {"ready": 0}),
    ("r", {"ready": 0}, {"data": 32, "resp": 2, "valid": 0}),
)


@dataclass(frozen=True)
class Signal:
    """A port of a top: `bits` is 0 for a single wire."""

    name: str
    output: bool
    bits: int = 0


def with_registers(design: Design) -> Design:
    """The design with one more module, `<name>_axi`, around its top: AXI-Lite registers (`rtl/registers`) at `s_axil`.

    They tell what the design is, open and close its first input, and count frames, cycles and stalls at the first
    input and the first output. Clock and reset have AXI's names: `aclk`, and `aresetn`, active low, synchronous.
    """
    context = {
        "design": design,
        "signals": list(registered_signals(design)),
        "inputs": input_ports(design),
        "outputs": output_ports(design),
        "version": version("bitfab"),
        "number": version_number(),
        "identity": identity(design),
        "bus": design.load_bus,
    }
    vhdl = design.language is Language.VHDL
    blocks = render_vhdl.library(["registers"]) if vhdl else library(["registers"])
    ending = "vhd" if vhdl else "sv"
    files = {f"rtl/{name}": text for name, text in blocks.items()}
    files[f"rtl/{design.name}_axi.{ending}"] = template(f"axi_top.{ending}.j2").render(context)
    return replace(design, files={**design.files, **files})


def with_shell(design: Design) -> Design:
    """The design with `wrapper/<top>_wrapper`: its outermost top, instantiated in the other language port by port."""
    top = f"{design.name}_axi" if has_registers(design) else design.name
    signals = list(registered_signals(design) if has_registers(design) else plain_signals(design))
    ending = "sv" if design.language is Language.VHDL else "vhd"
    text = template(f"wrapper.{ending}.j2").render(top=top, signals=signals, version=version("bitfab"))
    return replace(design, files={**design.files, f"wrapper/{top}_wrapper.{ending}": text})


def identity(design: Design) -> int:
    """A number that tells one design from another: the CRC-32 of its sources and memories, as a signed integer."""
    texts = "".join(text for path, text in design.files.items() if path.startswith("rtl/"))
    crc = zlib.crc32(texts.encode())
    return crc - (1 << 32) if crc >> 31 else crc


def version_number() -> int:
    """bitfab's version as major << 16 | minor << 8 | patch."""
    major, minor, patch = (int(part) for part in version("bitfab").split(".")[:3])
    return major << 16 | minor << 8 | patch


def plain_signals(design: Design) -> Iterator[Signal]:
    """The ports of the top."""
    yield from (Signal("clk_i", False), Signal("rst_i", False))
    yield from _streams(design)


def registered_signals(design: Design) -> Iterator[Signal]:
    """The ports of the top with registers."""
    yield from (Signal("aclk", False), Signal("aresetn", False))
    for channel, given, taken in _AXI_LITE:
        yield from (Signal(f"s_axil_{channel}{name}", False, bits) for name, bits in given.items())
        yield from (Signal(f"s_axil_{channel}{name}", True, bits) for name, bits in taken.items())
    yield from _streams(design)


def _streams(design: Design) -> Iterator[Signal]:
    for port in input_ports(design) + output_ports(design):
        out = port.name.startswith("m_")
        yield Signal(f"{port.name}_tdata", out, port.bits)
        yield Signal(f"{port.name}_tvalid", out)
        yield Signal(f"{port.name}_tready", not out)
        yield Signal(f"{port.name}_tlast", out)


def has_registers(design: Design) -> bool:
    return any(path.startswith(f"rtl/{design.name}_axi.") for path in design.files)
