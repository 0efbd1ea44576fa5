"""Behaviour of the ECP5's multipliers and block RAMs with their registers, as netlists name them; for simulation.

After Lattice FPGA-TN-02205 (sysDSP) and FPGA-TN-02204 (memory); what bitfab's designs do not use is left out: resets,
a second writing port, clocks inverted.
"""

from __future__ import annotations


def _ports(direction: str, *groups: tuple[str, int]) -> str:
    return ", ".join(f"{direction} logic {name}{bit}" for name, count in groups for bit in range(count))


def _bits(name: str, count: int) -> str:
    return "{" + ", ".join(f"{name}{bit}" for bit in reversed(range(count))) + "}"


_REGISTERS = ", ".join(
    f'parameter REG_{register}_{port} = "NONE"'
    for register in ("INPUTA", "INPUTB", "OUTPUT")
    for port in ("CLK", "CE", "RST")
)
MULTIPLIER = f"""\
module MULT18X18D #({_REGISTERS}) (
    {_ports("input", ("A", 18), ("B", 18), ("C", 18))},
    input logic SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CE0, RST0,
    {_ports("output", ("P", 36))}
);
  logic [17:0] a_q, b_q, a, b;
  logic [35:0] p_q, p;
  assign a = REG_INPUTA_CLK == "CLK0" ? a_q : {_bits("A", 18)};
  assign b = REG_INPUTB_CLK == "CLK0" ? b_q : {_bits("B", 18)};
  assign p = 36'($signed({{SIGNEDA && a[17], a}}) * $signed({{SIGNEDB && b[17], b}}));
  assign {_bits("P", 36)} = REG_OUTPUT_CLK == "CLK0" ? p_q : p;
  always @(posedge CLK0) if (CE0) begin
    a_q <= {_bits("A", 18)};
    b_q <= {_bits("B", 18)};
    p_q <= p;
  end
endmodule
"""

_INITIAL = [f"INITVAL_{row:02X}" for row in range(64)]
_TEXTS = ["ASYNC_RESET_RELEASE", "CLKAMUX", "CLKBMUX", "CSDECODE_A", "CSDECODE_B", "GSR", "RESETMODE"]
_TEXTS += ["WRITEMODE_A", "WRITEMODE_B", "REGMODE_A", "REGMODE_B"]
# Words of 18 bits, two bytes of 9; narrower words leave out the ninth. 36 bits are two words, the lower one at port A.
MEMORY = f"""\
module DP16KD #(
    parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18,
    parameter {", ".join(f'{name} = ""' for name in _TEXTS)},
    parameter [319:0] {", ".join(f"{name} = '0" for name in _INITIAL)}
) (
    {_ports("input", ("ADA", 14), ("ADB", 14), ("DIA", 18), ("DIB", 18), ("CSA", 3), ("CSB", 3))},
    input logic CLKA, CEA, OCEA, WEA, RSTA, CLKB, CEB, OCEB, WEB, RSTB,
    {_ports("output", ("DOA", 18), ("DOB", 18))}
);
  localparam bit Wide = DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36;
  localparam [64*320-1:0] Initial = {{{", ".join(reversed(_INITIAL))}}};
  logic [17:0] words[1024];
  logic [13:0] address_a, address_b;
  logic [17:0] read_a_q, read_b_q, register_a_q, register_b_q;
  logic [35:0] data;
  initial for (int i = 0; i < 1024; i++) words[i] = Initial[20*i+:18];
  assign address_a = {_bits("ADA", 14)};
  assign address_b = {_bits("ADB", 14)};
  assign data = {{{_bits("DIB", 18)}, {_bits("DIA", 18)}}};

  function automatic int place(input int width, input logic [13:0] address);
    place = width >= 18 ? 0 : 9 * int'(address[3]) + (width == 9 ? 0 : int'(address[2:0]) & ~(width - 1));
  endfunction

  function automatic [17:0] read(input int width, input logic [13:0] address);
    read = words[address[13:4]] >> place(width, address);
  endfunction

  always @(posedge CLKA) begin
    if (CEA && WEA) begin
      if (DATA_WIDTH_A >= 18) begin
        for (int byte_ = 0; byte_ < DATA_WIDTH_A / 9; byte_++)
          if (address_a[byte_]) words[DATA_WIDTH_A == 36 ? {{address_a[13:5], byte_[1]}} : address_a[13:4]]
              [9*(byte_%2)+:9] <= data[9*byte_+:9];
      end else begin
        for (int bit_ = 0; bit_ < DATA_WIDTH_A; bit_++)
          words[address_a[13:4]][place(DATA_WIDTH_A, address_a)+bit_] <= data[bit_];
      end
    end
    if (CEA && !Wide) read_a_q <= read(DATA_WIDTH_A, address_a);
    if (OCEA && !Wide) register_a_q <= read_a_q;
  end
  always @(posedge CLKB) begin
    if (WEB && CEB) $fatal(1, "DP16KD: port B writes");
    if (CEB) begin
      read_b_q <= DATA_WIDTH_B == 36 ? words[{{address_b[13:5], 1'b1}}] : read(DATA_WIDTH_B, address_b);
      if (Wide) read_a_q <= words[{{address_b[13:5], 1'b0}}];
    end
    if (OCEB) register_b_q <= read_b_q;
    if (OCEB && Wide) register_a_q <= read_a_q;
  end
  assign {_bits("DOA", 18)} = REGMODE_A == "OUTREG" ? register_a_q : read_a_q;
  assign {_bits("DOB", 18)} = REGMODE_B == "OUTREG" ? register_b_q : read_b_q;
endmodule
"""

MODELS = MULTIPLIER + MEMORY
