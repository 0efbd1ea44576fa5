"""Register packing: flip-flops move into the registers that an ECP5's multipliers and block RAMs have inside.

Vendors' tools do so after mapping, Yosys does not. A multiplier's operands and product then need no way from and to
flip-flops, and a block RAM answers from a register. Sources: Lattice FPGA-TN-02205 (sysDSP) on the registers of
MULT18X18D, FPGA-TN-02204 (memory usage) on the output registers of DP16KD.
"""

from collections import defaultdict
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["pack_registers"]

Bit = int | str  # a net, or a constant
MULTIPLIER, MEMORY, FLIP_FLOP = "MULT18X18D", "DP16KD", "TRELLIS_FF"
WIDE = 36  # bits of a word that takes both of a memory's ports: port B's clock and enables then rule its output


@dataclass(frozen=True)
class _Domain:
    """When a register takes its input."""

    clock: Bit
    enable: Bit


@dataclass(frozen=True)
class _Register:
    """A flip-flop that a multiplier or a memory could hold: no reset, 0 at the start."""

    name: str
    domain: _Domain
    before: Bit
    after: Bit


def pack_registers(module: MutableMapping[str, Any]) -> None:
    """Change a flat ECP5 `module` of Yosys' JSON: the same function, cycle by cycle, with fewer flip-flops.

    A multiplier takes its operands' registers where both operands come from registers alone (those that nothing else
    reads go), and its product's where nothing else reads the product; only such as never wait, since four multipliers
    share their enables, and nextpnr then may route without end. A block RAM takes the registers that alone read its
    words and obey the enable that it obeys. All that one cell takes have one clock and one enable.
    """
    netlist = _Netlist(module)
    for name in netlist.names(MULTIPLIER):
        _pack_operands(netlist, name)
        _pack_product(netlist, name)
    netlist.remove_unread_registers()
    for name in netlist.names(MEMORY):
        _pack_words(netlist, name)


class _Netlist:
    """A flat module, with the register that drives a net and the cells and ports that read it."""

    def __init__(self, module: MutableMapping[str, Any]) -> None:
        self.cells: dict[str, dict[str, Any]] = module["cells"]
        self.driving: dict[Bit, _Register] = {}
        self.reading: dict[Bit, set[tuple[str, str]]] = defaultdict(set)  # cell, port; the module's ports have no cell
        for port, description in module["ports"].items():
            for bit in description["bits"]:
                self.reading[bit].add(("", port))
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] != "output":
                    for bit in bits:
                        self.reading[bit].add((name, port))
            register = _register(name, cell)
            if register is not None:
                self.driving[register.after] = register

    def names(self, kind: str) -> list[str]:
        return [name for name, cell in self.cells.items() if cell["type"] == kind]

    def alone_reading(self, bit: Bit) -> _Register | None:
        """The register that takes a net, if nothing else reads it."""
        readers = list(self.reading[bit])
        if len(readers) != 1 or readers[0][1] != "DI":
            return None
        return self.driving.get(self.cells[readers[0][0]]["connections"]["Q"][0])

    def connect(self, name: str, port: str, bit: Bit) -> None:
        """Connect a cell's port, an input or an output, to another net or constant."""
        cell = self.cells[name]
        if cell["port_directions"].setdefault(port, "input") == "input":
            for old in cell["connections"].get(port, ()):
                self.reading[old].discard((name, port))
            self.reading[bit].add((name, port))
        cell["connections"][port] = [bit]

    def remove(self, register: _Register) -> None:
        for port, bits in self.cells.pop(register.name)["connections"].items():
            for bit in bits:
                self.reading[bit].discard((register.name, port))
        del self.driving[register.after]

    def remove_unread_registers(self) -> None:
        for register in list(self.driving.values()):
            if not self.reading[register.after]:
                self.remove(register)


def _register(name: str, cell: MutableMapping[str, Any]) -> _Register | None:
    """The cell as a register to pack; None for other cells, and flip-flops with a reset or that start at 1."""
    if cell["type"] != FLIP_FLOP:
        return None
    options, nets = cell["parameters"], cell["connections"]
    # Yosys writes a string of digits with a space behind it.
    enable = {"CE": nets.get("CE", ["1"])[0], "1": "1"}.get(options["CEMUX"].strip())
    resets = options["LSRMUX"] != "LSR" or nets["LSR"] != ["0"] or options["REGSET"] != "RESET"
    if options["CLKMUX"] != "CLK" or enable is None or resets or "DI" not in nets:
        return None
    return _Register(name, _Domain(nets["CLK"][0], enable), nets["DI"][0], nets["Q"][0])


def _common_domain(registers: Collection[_Register | None]) -> _Domain | None:
    """The one domain of them all; None where one is no register, or there is none."""
    domains = {register.domain if register else None for register in registers}
    return domains.pop() if len(domains) == 1 else None


def _pack_operands(netlist: _Netlist, name: str) -> None:
    """Of both operands or of none: nextpnr knows no delays of a multiplier with registers at one."""
    nets = netlist.cells[name]["connections"]
    ports = [port for port in nets if port[0] in "AB" and port[1:].isdigit() and isinstance(nets[port][0], int)]
    registers = {port: netlist.driving.get(nets[port][0]) for port in ports}
    domain = _common_domain(registers.values())
    if domain is None or domain.enable != "1" or {port[0] for port in ports} != set("AB"):
        return
    for port, register in registers.items():
        assert register is not None
        netlist.connect(name, port, register.before)
    _clock(netlist, name, "REG_INPUTA", domain)
    _clock(netlist, name, "REG_INPUTB", domain)


def _pack_product(netlist: _Netlist, name: str) -> None:
    cell = netlist.cells[name]
    registers = _registers_behind(netlist, name, [f"P{bit}" for bit in range(36)])
    domain = _common_domain(registers.values())
    clock = cell["connections"].get("CLK0", [domain and domain.clock])[0]
    if domain is None or domain.enable != "1" or domain.clock != clock:
        return
    _take_over(netlist, name, registers)
    _clock(netlist, name, "REG_OUTPUT", domain)


def _clock(netlist: _Netlist, name: str, register: str, domain: _Domain) -> None:
    """Switch on one of a multiplier's registers."""
    netlist.cells[name]["parameters"] |= {f"{register}_CLK": "CLK0", f"{register}_CE": "CE0", f"{register}_RST": "RST0"}
    for port, bit in (("CLK0", domain.clock), ("CE0", domain.enable), ("RST0", "0")):
        netlist.connect(name, port, bit)


def _pack_words(netlist: _Netlist, name: str) -> None:
    """Of each port of a memory, or of both at once where a word takes both."""
    options, nets = netlist.cells[name]["parameters"], netlist.cells[name]["connections"]
    wide = WIDE in (int(options["DATA_WIDTH_A"], 2), int(options["DATA_WIDTH_B"], 2))
    for sides, ruling in ((("A", "B"), "B"),) if wide else ((("A",), "A"), (("B",), "B")):
        registers = _registers_behind(netlist, name, [f"DO{side}{bit}" for side in sides for bit in range(18)])
        domain = _common_domain(registers.values())
        if (
            domain != _Domain(nets[f"CLK{ruling}"][0], nets[f"CE{ruling}"][0])
            or options[f"CLK{ruling}MUX"] != f"CLK{ruling}"
        ):
            continue
        _take_over(netlist, name, registers)
        for side in sides:
            options[f"REGMODE_{side}"] = "OUTREG"
        netlist.connect(name, f"OCE{ruling}", domain.enable)


def _registers_behind(netlist: _Netlist, name: str, ports: Collection[str]) -> dict[str, _Register | None]:
    """For each of a cell's outputs that is read, the register that alone reads it."""
    nets = netlist.cells[name]["connections"]
    return {
        port: netlist.alone_reading(nets[port][0]) for port in ports if port in nets and netlist.reading[nets[port][0]]
    }


def _take_over(netlist: _Netlist, name: str, registers: MutableMapping[str, _Register | None]) -> None:
    """The cell's outputs drive what the registers behind them drove."""
    for port, register in registers.items():
        assert register is not None
        netlist.remove(register)
        netlist.connect(name, port, register.after)
