// Replaces each lane by its entry in a read-only table: any function of one integer, exact by construction.
//
// y[l] = table[x[l]], where x[l] is read as an unsigned number whatever it means. Latency 2 cycles, one word per cycle.
// ready_o is combinational in ready_i. Memory: TableFile holds 2^InBits hexadecimal words of OutBits bits, entry i at address i;
// one read port per lane.

module bf_table #(
    parameter int InBits    = 8,  // of a lane
    parameter int OutBits   = 8,
    parameter int Lanes     = 1,
    parameter     TableFile = ""
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     valid_i,
    output logic                     ready_o,
    input  logic [ Lanes*InBits-1:0] data_i,
    output logic                     valid_o,
    input  logic                     ready_i,
    output logic [Lanes*OutBits-1:0] data_o
);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (InBits < 1 || InBits > 16) begin : g_illegal_in_bits
    $error("bf_table: InBits must be 1 to 16");
  end
  if (OutBits < 1) begin : g_illegal_out_bits
    $error("bf_table: OutBits must be at least 1");
  end
  if (Lanes < 1) begin : g_illegal_lanes
    $error("bf_table: Lanes must be at least 1");
  end
  if (TableFile == "") begin : g_illegal_table_file
    $error("bf_table: TableFile must name a file");
  end
`endif

  logic [OutBits-1:0] table_rom[0:2**InBits-1];
  logic [Lanes*OutBits-1:0] read_q, data_q;
  logic read_valid_q, valid_q, enable;

  initial $readmemh(TableFile, table_rom);

  assign enable  = ready_i || !valid_q;
  assign ready_o = enable;
  assign valid_o = valid_q;
  assign data_o  = data_q;

  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    always_ff @(posedge clk_i) if (enable) read_q[l*OutBits+:OutBits] <= table_rom[data_i[l*InBits+:InBits]];
  end

  always_ff @(posedge clk_i) begin
    if (enable) begin
      data_q       <= read_q;  // a register behind the block RAM, whose read is slow
      read_valid_q <= valid_i;
      valid_q      <= read_valid_q;
    end
    if (rst_i) begin
      read_valid_q <= 1'b0;
      valid_q      <= 1'b0;
    end
  end

endmodule
