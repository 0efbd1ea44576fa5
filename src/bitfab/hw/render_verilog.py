"""SystemVerilog text of a design: its top, and the library blocks that the top uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from bitfab.hw.design import LOAD_PORTS, LOADED_BLOCKS, Design, Instance
from bitfab.hw.ports import input_ports, output_ports

_LIBRARY = files("bitfab") / "rtl"
_USES = re.compile(r"^\s*bf_(\w+)\s*(?:#\(|u_)", re.MULTILINE)


def render_top(design: Design) -> str:
    """The top module: AXI-Stream in and out, an instance for each layer, the streams between them."""
    return template("top.sv.j2").render(
        design=design,
        inputs=input_ports(design),
        outputs=output_ports(design),
        version=version("bitfab"),
    )


def library(blocks: Iterable[str]) -> dict[str, str]:
    """The sources of the blocks and of all that they instantiate, by file name."""
    sources: dict[str, str] = {}
    pending = sorted(set(blocks), reverse=True)
    while pending:
        block = pending.pop()
        if f"bf_{block}.sv" in sources:
            continue
        text = (_LIBRARY / block / f"bf_{block}.sv").read_text()
        sources[f"bf_{block}.sv"] = text
        pending.extend(used for used in _USES.findall(text) if used != block)
    return dict(sorted(sources.items()))


def simulation_library() -> dict[str, str]:
    """The testbench's own modules, by file name."""
    return {
        path.name: path.read_text()
        for path in sorted((_LIBRARY / "sim").iterdir(), key=lambda p: p.name)
        if path.name.endswith(".sv")
    }


def template(name: str) -> Template:
    """A template of this package; an undefined name in it is an error."""
    environment = Environment(
        loader=PackageLoader("bitfab.hw"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["literal"] = _literal
    environment.filters["ports"] = _ports
    return environment.get_template(name)


def _literal(value: int | str) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _ports(instance: Instance) -> Iterator[tuple[str, str]]:
    """Port and signal: clock, reset, input streams, output streams."""
    yield from (("clk_i", "clk_i"), ("rst_i", "rst_i"))
    prefixes = [""] if len(instance.inputs) == 1 else [f"{chr(ord('a') + i)}_" for i in range(len(instance.inputs))]
    for prefix, stream in zip(prefixes, instance.inputs, strict=True):
        yield f"{prefix}valid_i", f"{stream}_valid"
        yield f"{prefix}ready_o", f"{stream}_ready"
        yield f"{prefix}data_i", f"{stream}_data"
    first, *copies = instance.outputs
    if copies:  # a fork: bit i of valid and ready belongs to output i, all share the data
        yield "valid_o", "{" + ", ".join(f"{name}_valid" for name in reversed(instance.outputs)) + "}"
        yield "ready_i", "{" + ", ".join(f"{name}_ready" for name in reversed(instance.outputs)) + "}"
    else:
        yield "valid_o", f"{first}_valid"
        yield "ready_i", f"{first}_ready"
    yield "data_o", f"{first}_data"
    if instance.block in LOADED_BLOCKS:
        yield from ((port, port if instance.loadable else "1'b0") for port in LOAD_PORTS)
