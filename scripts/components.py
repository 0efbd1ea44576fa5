"""Write rtl/package/bf_components.vhd: a VHDL component of every SystemVerilog block; prints the file's path."""

from __future__ import annotations

import re
import sys
from pathlib import Path

RTL = Path(__file__).parent.parent / "src" / "bitfab" / "rtl"
TARGET = RTL / "package" / "bf_components.vhd"
HEADER = """\
-- The blocks in SystemVerilog as components, for a design in VHDL that instantiates them (mixed languages).
--
-- Generics and ports are those of each block's .sv file, whose header says what they mean; a bit is an integer, 0 or 1.
-- Written by scripts/components.py.
library ieee;
use ieee.std_logic_1164.all;

package bf_components is
"""
_MODULE = re.compile(r"^module (bf_\w+)\s*(?:#\((.*?)\n\)\s*)?\((.*?)\n\);", re.DOTALL | re.MULTILINE)
_PARAMETER = re.compile(r"^\s*parameter\s+(?:(?:int|bit)\s+)?(\w+)\s*=\s*(.+?),?\s*(?://.*)?$", re.MULTILINE)
_PORT = re.compile(r"^\s*(input|output)\s+logic\s*(?:\[\s*(.+?)\s*:0\])?\s*(\w+)", re.MULTILINE)
_LITERAL = re.compile(r"-?\d+")


def components(sources: list[Path]) -> str:
    """The package of the modules in the files, a component each."""
    modules = [match.groups() for source in sources for match in _MODULE.finditer(source.read_text(encoding="utf-8"))]
    return HEADER + "\n".join(_component(*module) for module in modules) + "end package bf_components;\n"


def _component(name: str, parameters: str | None, ports: str) -> str:
    generics = [_generic(*found) for found in _PARAMETER.findall(parameters or "")]
    lines = [f"  component {name} is"]
    if generics:
        lines += ["    generic (", ";\n".join(f"      {generic}" for generic in generics), "    );"]
    signals = [_signal(*found) for found in _PORT.findall(ports)]
    lines += [
        "    port (",
        ";\n".join(f"      {signal}" for signal in signals),
        "    );",
        f"  end component {name};",
        "",
    ]
    return "\n".join(lines)


def _generic(name: str, default: str) -> str:
    """A default that is computed from other parameters is left out: VHDL has none such."""
    if default.startswith('"'):
        return f"{name} : string" + (f" := {default}" if default != '""' else "")
    default = default.removeprefix("1'b")
    return f"{name} : integer" + (f" := {default}" if _LITERAL.fullmatch(default) else "")


def _signal(direction: str, high: str, name: str) -> str:
    kind = f"std_logic_vector({high.replace('-1', ' - 1')} downto 0)" if high else "std_logic"
    return f"{name} : {'in ' if direction == 'input' else 'out'} {kind}"


def blocks() -> list[Path]:
    """The sources of all blocks but the testbench's own."""
    return [source for source in sorted(RTL.glob("*/bf_*.sv")) if source.parent.name != "sim"]


def main() -> int:
    TARGET.write_text(components(blocks()), encoding="utf-8")
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
