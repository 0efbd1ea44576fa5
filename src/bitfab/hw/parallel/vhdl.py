"""VHDL-2008 text of a parallel netlist: an entity for each block, a line for each cell, and the top around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.resources import files

from bitfab.hw.parallel.cells import (
    AtLeast,
    Bit,
    Block,
    Bundle,
    Cell,
    Clip,
    Join,
    Less,
    Lookup,
    Mux,
    Netlist,
    Register,
    Shift,
    Sum,
    Term,
    Wire,
)
from bitfab.hw.render_verilog import template

_INTEGER = 1 << 31  # VHDL's integers reach up to here
_DIGITS = 64  # hexadecimal digits of a truth table on one line


def render(netlist: Netlist) -> dict[str, str]:
    """The files by path, `rtl/<unit>.vhd`, each behind those it uses: the package, the blocks, the top."""
    texts = {"rtl/bf_cells.vhd": (files("bitfab") / "rtl" / "parallel" / "bf_cells.vhd").read_text(encoding="utf-8")}
    for block in netlist.blocks:
        texts[f"rtl/{netlist.name}_{block.name}.vhd"] = _block(netlist, block)
    texts[f"rtl/{netlist.name}.vhd"] = _top(netlist)
    return texts


def testbench(netlist: Netlist, frames: int) -> dict[str, str]:
    """The self-checking testbench `sim/tb.vhd`; it reads the vectors of so many frames, input.mem and output.mem."""
    frame = netlist.input.bits
    words = len(netlist.input.wires) if netlist.serial else 1
    result = netlist.output_type.bits * len(netlist.output.wires)
    text = template("parallel_tb.vhd.j2").render(
        netlist=netlist, frames=frames, words=words, word=frame // words, result=result
    )
    return {"sim/tb.vhd": text}


def _block(netlist: Netlist, block: Block) -> str:
    body = _Body()
    wires = [*(wire for bundle in block.inputs for wire in bundle.wires), *(cell.output for cell in block.cells)]
    registers = [cell for cell in block.cells if isinstance(cell, Register)]
    return template("parallel_block.vhd.j2").render(
        netlist=netlist,
        block=block,
        unpacked=[line for bundle in block.inputs for line in _unpack(bundle)],
        lines=[line for cell in block.cells if not isinstance(cell, Register) for line in body.render(cell)],
        registers=_registers(registers, wires),
        packed=_pack(block.value),
        signals=_declarations(wires),
        tables=body.tables,
    )


def _top(netlist: Netlist) -> str:
    frame = netlist.input.bits
    return template("parallel_top.vhd.j2").render(
        netlist=netlist,
        version=version("bitfab"),
        bundles=list(dict.fromkeys([netlist.input, *(block.value for block in netlist.blocks)])),
        word=frame // len(netlist.input.wires) if netlist.serial else frame,
        frame=frame,
        result=netlist.output_type.bits * len(netlist.output.wires),
        exit=_joined(_widened(netlist.output, netlist.output_type.bits)),
    )


class _Body:
    """The statements of an architecture; `tables` are the constants that they read, by content."""

    def __init__(self) -> None:
        self.tables: dict[str, str] = {}

    def render(self, cell: Cell) -> Iterator[str]:
        yield f"{_name(cell.output)} <= {self._expression(cell)};"

    def _expression(self, cell: Cell) -> str:
        output = cell.output
        match cell:
            case Bit(source=source, place=place):
                return _name(source) if _is_bit(source) else f"{source.name}({place})"
            case AtLeast(source=source, constant=constant):
                return _compared(source, constant)
            case Lookup():
                return self._lookup(cell)
            case Sum():
                return _sum(cell)
            case Join(sources=sources):
                return " & ".join(_name(source) for source in reversed(sources[: output.bits]))
            case Shift(source=source, places=places):
                return _as(f"shift_right({source.name}, {places})", output)
            case Clip():
                return _clip(cell)
            case Less(left=left, right=right):
                return _less(left, right)
            case Mux(select=select, zero=zero, one=one):
                return f"{_converted(one, output)} when {_name(select)} = '1' else {_converted(zero, output)}"
        raise AssertionError(cell)

    def _lookup(self, cell: Lookup) -> str:
        address = _address(cell.sources)
        if _is_bit(cell.output):
            return f"lut({_truth_table(cell.entries)}, {address})"
        # Two's complement of 32 bits, as integers of VHDL hold no more.
        entries = ", ".join(str((entry + _INTEGER) % (2 * _INTEGER) - _INTEGER) for entry in cell.entries)
        return _as(f"entry({self.tables.setdefault(entries, f'entries{len(self.tables)}')}, {address})", cell.output)


def _name(wire: Wire) -> str:
    return wire.name if wire.index is None else f"{wire.name}({wire.index})"


def _is_bit(wire: Wire) -> bool:
    """Whether the wire is a std_logic; others are unsigned or signed."""
    return wire.index is not None or (wire.bits == 1 and not wire.signed)


def _kind(wire: Wire) -> str:
    return "signed" if wire.signed else "unsigned"


def _as(number: str, target: Wire) -> str:
    """A number, whatever its type, as what the target holds."""
    text = f"as_{_kind(target)}({number}, {target.bits})"
    return f"lowest({text})" if _is_bit(target) else text


def _converted(source: Wire, target: Wire) -> str:
    same = (_is_bit(source), _kind(source), source.bits) == (_is_bit(target), _kind(target), target.bits)
    return _name(source) if same else _as(_name(source), target)


def _bits_of(wire: Wire) -> str:
    """The wire as part of a std_logic_vector."""
    return _name(wire) if _is_bit(wire) else f"std_logic_vector({wire.name})"


def _literal(value: int, wire: Wire) -> str:
    """The value as what the wire holds, modulo its width."""
    if _is_bit(wire):
        return f"'{value & 1}'"
    value &= (1 << wire.bits) - 1
    if value < _INTEGER and not wire.signed:
        return f"to_unsigned({value}, {wire.bits})"
    signed = value - (value >> (wire.bits - 1) << wire.bits)
    if abs(signed) < _INTEGER and wire.signed:
        return f"to_signed({signed}, {wire.bits})"
    return f'{_kind(wire)}\'({wire.bits}x"{value:x}")'


def _bound(value: int, wire: Wire) -> str:
    """What the wire is compared with: an integer where VHDL has it."""
    return str(value) if abs(value) < _INTEGER else _literal(value, wire)


def _compared(source: Wire, constant: int) -> str:
    return f"at_least({_name(source)}, {_bound(constant, source)})"


def _sum(cell: Sum) -> str:
    output, terms, constant = cell.output, cell.terms, cell.constant
    if not terms:
        return _literal(constant, output)
    if len(terms) == 1 and terms[0] == Term(terms[0].source) and constant == 0:
        return _converted(terms[0].source, output)
    number = Wire(output.name, output.low, output.high)
    text = ""
    if terms[0].negative:
        text, constant = _literal(constant, number), 0
    for term in terms:
        operand = _operand(term.source, output)
        operand = f"shift_left({operand}, {term.shift})" if term.shift else operand
        sign = "-" if term.negative else "+"
        text = f"{text} {sign} {operand}" if text else operand
    if constant:
        text += f" {'-' if constant < 0 else '+'} {_literal(abs(constant), number)}"
    return f"lowest({text})" if _is_bit(output) else text


def _operand(source: Wire, output: Wire) -> str:
    """The source as a number of the output's kind and width."""
    same = not _is_bit(source) and (_kind(source), source.bits) == (_kind(output), output.bits)
    return source.name if same else f"as_{_kind(output)}({_name(source)}, {output.bits})"


def _clip(cell: Clip) -> str:
    source, output, text = cell.source, cell.output, ""
    if source.high > output.high:
        text += f"{_literal(output.high, output)} when {_compared(source, output.high + 1)} = '1' else "
    if source.low < output.low:
        text += f"{_literal(output.low, output)} when {_compared(source, output.low)} = '0' else "
    return text + _converted(source, output)


def _less(left: Wire, right: Wire) -> str:
    if _is_bit(left) and _is_bit(right):
        return f"not {_name(left)} and {_name(right)}"
    signed = left.signed or right.signed
    return f"less({_comparable(left, signed)}, {_comparable(right, signed)})"


def _comparable(wire: Wire, signed: bool) -> str:
    if signed and not wire.signed:
        return f"as_signed({_name(wire)}, {wire.bits + 1})"
    return f"as_unsigned({_name(wire)}, 1)" if _is_bit(wire) else wire.name


def _address(sources: Sequence[Wire]) -> str:
    """The sources side by side as a std_logic_vector, the first lowest."""
    names = [_bits_of(source) for source in reversed(sources)]
    if not all(_is_bit(source) for source in sources):
        return " & ".join(names)
    return f"({', '.join(names)})" if len(names) > 1 else f"(0 => {names[0]})"


def _truth_table(entries: Sequence[int]) -> str:
    """A literal with entry 0 as its last bit."""
    bits = "".join(str(entry) for entry in reversed(entries))
    if len(bits) < 4:
        return f'"{bits}"'
    digits = f"{int(bits, 2):0{len(bits) // 4}x}"
    return " & ".join(f'x"{digits[i : i + _DIGITS]}"' for i in range(0, len(digits), _DIGITS))


def _declarations(wires: Sequence[Wire]) -> list[str]:
    """A signal for each vector and each wire of its own, in the order in which they come."""
    sizes = _sizes(wires)
    found = {}
    for wire in wires:
        size = sizes[wire.name] if wire.index is not None else wire.bits
        kind = "std_logic_vector" if wire.index is not None else _kind(wire)
        bit = wire.index is None and _is_bit(wire)
        found[wire.name] = f"{wire.name} : {'std_logic' if bit else f'{kind}({size - 1} downto 0)'}"
    return list(found.values())


def _sizes(wires: Sequence[Wire]) -> dict[str, int]:
    """The bits of each vector."""
    sizes: dict[str, int] = {}
    for wire in wires:
        if wire.index is not None:
            sizes[wire.name] = max(sizes.get(wire.name, 0), wire.index + 1)
    return sizes


def _registers(cells: Sequence[Register], wires: Sequence[Wire]) -> list[str]:
    """One assignment for each register, or for a vector of them that delays another as it is."""
    sizes = _sizes(wires)
    delayed: dict[tuple[str, str], int] = {}
    for cell in cells:
        if cell.output.index is not None and cell.output.index == cell.source.index:
            delayed[cell.output.name, cell.source.name] = delayed.get((cell.output.name, cell.source.name), 0) + 1
    lines: dict[str, None] = {}
    for cell in cells:
        output, source = cell.output.name, cell.source.name
        whole = delayed.get((output, source)) == sizes.get(output) == sizes.get(source, 0)
        names = (output, source) if whole else (_name(cell.output), _name(cell.source))
        lines[" <= ".join(names) + ";"] = None
    return list(lines)


def _unpack(bundle: Bundle) -> list[str]:
    """The wires of an input port."""
    if bundle.vector:
        return [f"{bundle.name} <= {bundle.name}_i;"]
    lines, low = [], 0
    for wire in bundle.wires:
        port = f"{bundle.name}_i({low})" if _is_bit(wire) else f"{bundle.name}_i({low + wire.bits - 1} downto {low})"
        lines.append(f"{wire.name} <= {port if _is_bit(wire) else f'{_kind(wire)}({port})'};")
        low += wire.bits
    return lines


def _pack(bundle: Bundle) -> str:
    if bundle.vector:
        return bundle.name
    parts = [_bits_of(wire) for wire in bundle.wires]
    return f"(0 => {parts[0]})" if bundle.bits == 1 else _joined(parts)


def _widened(bundle: Bundle, width: int) -> list[str]:
    """The wires of a port, each at `width` bits, its sign extended."""
    if bundle.bits == width * len(bundle.wires):
        return [bundle.name]
    parts, low = [], 0
    for wire in bundle.wires:
        part = f"{_kind(wire)}({bundle.name}({low + wire.bits - 1} downto {low}))"
        parts.append(f"std_logic_vector(resize({part}, {width}))")
        low += wire.bits
    return parts


def _joined(parts: Sequence[str]) -> str:
    """Parts of a std_logic_vector side by side, the first lowest."""
    return "\n        & ".join(reversed(parts)) if len(parts) > 1 else parts[0]
