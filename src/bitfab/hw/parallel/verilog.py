"""SystemVerilog text of a netlist: a module a block, a line a wire, and the top with the registers at both ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

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
    Wire,
)


def render(netlist: Netlist) -> dict[str, str]:
    """The files by path, `rtl/<module>.sv`, the top last."""
    files = {f"rtl/{netlist.name}_{block.name}.sv": _module(netlist, block) for block in netlist.blocks}
    return files | {f"rtl/{netlist.name}.sv": _top(netlist)}


# ---- a wire in an expression ----


def _ref(wire: Wire) -> str:
    return wire.name if wire.index is None else f"{wire.name}[{wire.index}]"


def _wide(wire: Wire, bits: int) -> str:
    """The wire on so many bits: sign-extended, or its low bits."""
    return _ref(wire) if wire.bits == bits else f"{bits}'({_ref(wire)})"


def _literal(value: int, bits: int, signed: bool) -> str:
    if not signed:
        return f"{bits}'d{value}"
    fits = abs(value) < 1 << (bits - 1)
    return f"{'-' if value < 0 else ''}{bits}'sd{abs(value)}" if fits else f"{bits}'sh{value & (1 << bits) - 1:x}"


def _concat(parts: Sequence[str]) -> str:
    """The parts side by side, the first lowest."""
    return parts[0] if len(parts) == 1 else "{" + ", ".join(reversed(parts)) + "}"


# ---- a cell's right-hand side ----


def _bit(cell: Bit) -> str:
    return _ref(cell.source) if cell.source.bits == 1 else f"{_ref(cell.source)}[{cell.place}]"


def _at_least(cell: AtLeast) -> str:
    """As gates, bit by bit: `>=` becomes a carry chain.

    192 comparisons on ECP5 and in LUT6, `>=` and gates: 8 bits 1354 and 713, 302 and 301; 16 bits 2754 and 998, 1055
    and 680; never slower.
    """
    return _compared(cell.source, cell.constant)


def _compared(source: Wire, constant: int) -> str:
    bits = source.bits
    if not source.signed:
        return f"at_least{bits}({_ref(source)}, {bits}'d{constant})"
    top = 1 << (bits - 1)  # the order of two's complement is that of its bits, but for the sign
    flipped = f"{_ref(source)} ^ {bits}'h{top:x}" if bits > 1 else f"~{_ref(source)}"
    return f"at_least{bits}({flipped}, {bits}'d{constant + top})"


def _lookup(cell: Lookup) -> str:
    size, address = cell.address_bits, _concat([_ref(source) for source in cell.sources])
    tables = [
        sum((entry >> place & 1) << i for i, entry in enumerate(cell.entries)) for place in range(cell.output.bits)
    ]
    digits = -(-(1 << size) // 4)
    return _concat([f"lut{size}({1 << size}'h{table:0{digits}x}, {address})" for table in tables])


def _sum(cell: Sum) -> str:
    """Its terms, then the constant; first the constant where a minus would begin it (Yosys reads -8'(x) as a size)."""
    bits = cell.output.bits
    constant = _literal(cell.constant & (1 << bits) - 1, bits, signed=False)
    constant_first = not cell.terms or cell.terms[0].negative
    text = constant if constant_first else ""
    for term in cell.terms:
        wide = _wide(term.source, bits)
        shifted = f"({wide} <<< {term.shift})" if term.shift else wide
        text += (" - " if term.negative else " + " if text else "") + shifted
    return text if constant_first or not cell.constant else f"{text} + {constant}"


def _join(cell: Join) -> str:
    return _concat([_ref(source) for source in cell.sources])


def _shift(cell: Shift) -> str:
    low, bits = cell.places, cell.output.bits
    return f"{_ref(cell.source)}[{low + bits - 1}:{low}]" if bits > 1 else f"{_ref(cell.source)}[{low}]"


def _clip(cell: Clip) -> str:
    """Compared as gates: 13 bits clipped to 0..255 take 18 LUT6 with `<` and `>`, 10 so."""
    source, output = cell.source, cell.output
    text = _wide(source, output.bits)
    if source.high > output.high:
        beyond = _compared(source, output.high + 1)
        text = f"{beyond} ? {_literal(output.high, output.bits, output.signed)} : {text}"
    if source.low < output.low:
        low = _literal(output.low, output.bits, output.signed)
        text = f"!{_compared(source, output.low)} ? {low} : {text}"
    return text


def _less(cell: Less) -> str:
    left, right = cell.left, cell.right
    signed = left.signed or right.signed
    bits = max(wire.bits + (signed and not wire.signed) for wire in (left, right))
    sides = [_wide(wire, bits) for wire in (left, right)]
    if signed:  # an expression is signed only if all of it is
        sides = [side if wire.signed else f"$signed({side})" for side, wire in zip(sides, (left, right), strict=True)]
    return f"{sides[0]} < {sides[1]}"


def _mux(cell: Mux) -> str:
    bits = cell.output.bits
    return f"{_ref(cell.select)} ? {_wide(cell.one, bits)} : {_wide(cell.zero, bits)}"


_TEXT: dict[type, Callable[[Any], str]] = {
    Bit: _bit,
    AtLeast: _at_least,
    Lookup: _lookup,
    Sum: _sum,
    Join: _join,
    Shift: _shift,
    Clip: _clip,
    Less: _less,
    Mux: _mux,
}


# ---- a block's module ----


def _module(netlist: Netlist, block: Block) -> str:
    ports = ["input  logic clk_i"] if block.clocked else []
    ports += [f"input  logic {_range(bundle.bits)}{bundle.name}" for bundle in block.inputs]
    ports += [f"output logic {_range(block.value.bits)}{block.value.name}"]
    lines = [
        f'// {netlist.name}_{block.name}: the node "{block.node}" of the integer graph: {block.comment}.',
        f"module {netlist.name}_{block.name} (",
        ",\n".join(f"    {port}" for port in ports),
        ");",
        *_functions(block.cells),
        *(line for bundle in block.inputs for line in _unpack(bundle)),
        *_declarations(block),
        *(f"  assign {_ref(cell.output)} = {_TEXT[type(cell)](cell)};" for cell in block.cells if type(cell) in _TEXT),
        *_registers(block.cells),
    ]
    if not block.value.vector:
        lines += ["", f"  assign {block.value.name} = {_concat([_ref(wire) for wire in block.value.wires])};"]
    return "\n".join([*lines, *_unused(block), "endmodule", ""])


def _range(bits: int) -> str:
    return f"[{bits - 1}:0] "


def _type(wire: Wire) -> str:
    return ("logic signed " if wire.signed else "logic ") + (_range(wire.bits) if wire.bits > 1 else "")


def _functions(cells: Sequence[Cell]) -> Iterator[str]:
    """lut1, lut2, ...: a bit of a table; at_least1, at_least2, ...: a comparison with a constant."""
    for size in sorted({cell.address_bits for cell in cells if isinstance(cell, Lookup)}):
        entries = f"input logic {_range(1 << size)}entries"
        yield f"  function automatic logic lut{size}({entries}, input logic {_range(size)}address);"
        yield f"    lut{size} = entries[address];"
        yield "  endfunction"
        yield ""
    for bits in sorted({cell.source.bits for cell in cells if isinstance(cell, AtLeast | Clip)}):
        name = f"at_least{bits}"
        yield f"  function automatic logic {name}(input logic {_range(bits)}number, input logic {_range(bits)}least);"
        yield f"    {name} = 1'b1;"
        yield f"    for (int i = 0; i < {bits}; i++) {name} = least[i] ? number[i] & {name} : number[i] | {name};"
        yield "  endfunction"
        yield ""


def _unpack(bundle: Bundle) -> Iterator[str]:
    """The wires of a port that carries several integers."""
    if bundle.vector:
        return
    start = 0
    for wire in bundle.wires:
        yield f"  {_type(wire)}{wire.name};"
        yield f"  assign {wire.name} = {bundle.name}[{start + wire.bits - 1}:{start}];"
        start += wire.bits


def _declarations(block: Block) -> Iterator[str]:
    vectors: dict[str, int] = {}
    for cell in block.cells:
        output = cell.output
        if output.index is None:
            yield f"  {_type(output)}{output.name};"
        elif output.name != block.value.name:
            vectors[output.name] = max(vectors.get(output.name, 0), output.index + 1)
    for name, bits in vectors.items():
        yield f"  logic {_range(bits)}{name};"


def _registers(cells: Sequence[Cell]) -> Iterator[str]:
    """One always_ff; the bits of a vector move together, in one line."""
    pairs = {cell.output: cell.source for cell in cells if isinstance(cell, Register)}
    if not pairs:
        return
    yield ""
    yield "  always_ff @(posedge clk_i) begin"
    done: set[tuple[str, str]] = set()
    for output, source in pairs.items():
        together = output.index is not None and output.index == source.index
        if not together:
            yield f"    {_ref(output)} <= {_ref(source)};"
        elif (output.name, source.name) not in done:
            done.add((output.name, source.name))
            yield f"    {output.name} <= {source.name};"
    yield "  end"


def _unused(block: Block) -> Iterator[str]:
    """Wires and bits that nothing reads, told to the linter."""
    read: set[Wire] = set(block.value.wires)
    places: dict[Wire, set[int]] = {}
    for cell in block.cells:
        for source in cell.sources:
            if isinstance(cell, Bit):
                places.setdefault(source, set()).add(cell.place)
            elif isinstance(cell, Shift):
                places.setdefault(source, set()).update(range(cell.places, cell.places + cell.output.bits))
            elif isinstance(cell, Sum | Mux) and cell.output.bits < source.bits:
                places.setdefault(source, set()).update(range(cell.output.bits))
            else:
                read.add(source)
    wires = [wire for bundle in block.inputs for wire in bundle.wires] + [cell.output for cell in block.cells]
    idle = []
    for wire in wires:
        if wire not in read:
            seen = places.get(wire, set())
            idle += [_ref(wire)] if not seen else [f"{_ref(wire)}[{i}]" for i in range(wire.bits) if i not in seen]
    if idle:
        yield ""
        yield "  logic unused;"
        yield f"  assign unused = &{{1'b0, {', '.join(idle)}}};"


# ---- the top ----


def _top(netlist: Netlist) -> str:
    entry, exit_, stages = netlist.input, netlist.output, netlist.stages
    word = entry.bits // len(entry.wires) if netlist.serial else entry.bits
    results = len(exit_.wires) * netlist.output_type.bits
    serial = ["    input  logic last_i,"] if netlist.serial else []
    wide = [_wide(wire, netlist.output_type.bits) for wire in exit_.wires]
    nets = dict.fromkeys([entry, *(block.value for block in netlist.blocks)])
    plain = exit_.vector or all(wire.bits == netlist.output_type.bits for wire in exit_.wires)
    return "\n".join(
        [
            *_header(netlist),
            f"module {netlist.name} (",
            "    input  logic clk_i,",
            "    input  logic valid_i,",
            *serial,
            f"    input  logic {_range(word)}data_i,",
            "    output logic valid_o,",
            f"    output logic {_range(results)}data_o",
            ");",
            f"  logic {_range(stages + 1)}valid_q;  // bit s: stage s holds a frame; the last one: data_o does",
            *(f"  logic {_range(bundle.bits)}{bundle.name};" for bundle in nets),
            "",
            *(line for block in netlist.blocks for line in _instance(netlist, block)),
            *([] if plain else _unpack(exit_)),
            "  always_ff @(posedge clk_i) begin",
            *_entry(netlist, word),
            f"    data_o <= {exit_.name if plain else _concat(wide)};",
            "  end",
            "",
            f"  assign valid_o = valid_q[{stages}];",
            "endmodule",
            "",
        ]
    )


def _header(netlist: Netlist) -> Iterator[str]:
    count, bits = len(netlist.input.wires), netlist.input_type.bits
    results, wide = len(netlist.output.wires), netlist.output_type.bits
    yield f"// {netlist.name}: generated by bitfab {version('bitfab')} from the integer graph of that name."
    yield "// Do not edit; generate again."
    yield "//"
    if netlist.serial:
        yield f"// data_i: one integer of {bits} bits a cycle, with valid_i; last_i with the last of a frame's {count}."
        yield "// The frame that ends is always the last so many integers: last_i may come as often as one likes."
    else:
        yield f"// data_i: a frame of {count} integers of {bits} bits, the first in the lowest bits, with valid_i."
    yield f"// data_o: {results} integers of {wide} bits, the first in the lowest bits, with valid_o."
    yield f"// Latency: {netlist.latency} cycles from valid_i{' with last_i' if netlist.serial else ''} to valid_o,"
    yield f"// {netlist.stages} stages of logic between registers; a new frame may come in every cycle."
    yield "// No reset: what the registers hold at first has left them after as many cycles without valid_i."


def _entry(netlist: Netlist, word: int) -> Iterator[str]:
    name, bits, stages = netlist.input.name, netlist.input.bits, netlist.stages
    first = "valid_i && last_i" if netlist.serial else "valid_i"
    yield f"    valid_q <= {{valid_q[{stages - 1}:0], {first}}};"
    if not netlist.serial:
        yield f"    {name} <= data_i;"
    elif word == bits:
        yield f"    if (valid_i) {name} <= data_i;"
    else:
        yield f"    if (valid_i) {name} <= {{data_i, {name}[{bits - 1}:{word}]}};"


def _instance(netlist: Netlist, block: Block) -> Iterator[str]:
    ports = (["clk_i"] if block.clocked else []) + [bundle.name for bundle in (*block.inputs, block.value)]
    yield f"  {netlist.name}_{block.name} u_{block.name} ("
    yield ",\n".join(f"      .{port}({port})" for port in ports)
    yield "  );"
    yield ""
