// Register slice of a stream that breaks both the valid/data and the ready path, at full throughput.
//
// Latency 1 cycle. Two words of storage: the output register, and a spare one for the word that arrives in the cycle in which
// the output stalls. valid_o, data_o and ready_o all come straight from registers.

module bf_skid #(
    parameter int Bits = 8  // of a stream word
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

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Bits < 1) begin : g_illegal_bits
    $error("bf_skid: Bits must be at least 1");
  end
`endif

  logic valid_q, spare_valid_q;
  logic [Bits-1:0] data_q, spare_q;
  logic advance;

  assign advance = ready_i || !valid_q;
  assign ready_o = !spare_valid_q;
  assign valid_o = valid_q;
  assign data_o  = data_q;

  always_ff @(posedge clk_i) begin
    if (advance) data_q <= spare_valid_q ? spare_q : data_i;
    if (!spare_valid_q) spare_q <= data_i;
    if (advance) begin
      valid_q       <= valid_i || spare_valid_q;
      spare_valid_q <= 1'b0;
    end else if (valid_i) begin
      spare_valid_q <= 1'b1;
    end
    if (rst_i) begin
      valid_q       <= 1'b0;
      spare_valid_q <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  logic waiting_q;
  logic [Bits-1:0] waiting_data_q;
  always @(posedge clk_i) begin
    waiting_q      <= valid_o && !ready_i && !rst_i;
    waiting_data_q <= data_o;
    if (!rst_i && waiting_q && !(valid_o && data_o == waiting_data_q)) $error("bf_skid: output changed while waiting");
  end
`endif

endmodule
