// Widens bipolar lanes (one bit: 0 means -1, 1 means +1) to two's complement of two bits, for blocks that calculate.
//
// y[l] = 2 * x[l] - 1. Wires and inverters alone: latency 0; ready_o is ready_i.

module bf_bipolar #(
    parameter int Lanes = 1
) (
    input  logic               clk_i,
    input  logic               rst_i,
    input  logic               valid_i,
    output logic               ready_o,
    input  logic [  Lanes-1:0] data_i,
    output logic               valid_o,
    input  logic               ready_i,
    output logic [2*Lanes-1:0] data_o
);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Lanes < 1) begin : g_illegal_lanes
    $error("bf_bipolar: Lanes must be at least 1");
  end
`endif

  logic unused;
  assign unused  = &{1'b0, clk_i, rst_i};
  assign valid_o = valid_i;
  assign ready_o = ready_i;

  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    assign data_o[2*l+:2] = {!data_i[l], 1'b1};
  end

endmodule
