// A block that breaks the handshake on purpose, for the test of the harness: it passes words on, but drops valid (Drop) or inverts
// the data (else) in every second cycle in which a word waits.

module bf_broken #(
    parameter int unsigned Bits = 8,
    parameter bit          Drop = 1'b0
) (
    input  logic            clk_i,
    input  logic            rst_i,
    input  logic            valid_i,
    output logic            ready_o,
    input  logic [Bits-1:0] data_i,
    output logic            valid_o,
    input  logic            ready_i,
    output logic [Bits-1:0] data_o
);

  logic break_q;

  assign valid_o = valid_i && !(Drop && break_q);
  assign ready_o = ready_i && valid_o && !break_q;
  assign data_o  = break_q && !Drop ? ~data_i : data_i;

  always_ff @(posedge clk_i) begin
    break_q <= valid_i && !ready_i && !break_q;
    if (rst_i) break_q <= 1'b0;
  end

endmodule
