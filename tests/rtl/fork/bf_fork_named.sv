// bf_fork with three outputs under their own names, for the test harness.

module bf_fork_named #(
    parameter int unsigned Bits = 8
) (
    input  logic            clk_i,
    input  logic            rst_i,
    input  logic            valid_i,
    output logic            ready_o,
    input  logic [Bits-1:0] data_i,
    output logic            a_valid_o,
    input  logic            a_ready_i,
    output logic [Bits-1:0] a_data_o,
    output logic            b_valid_o,
    input  logic            b_ready_i,
    output logic [Bits-1:0] b_data_o,
    output logic            c_valid_o,
    input  logic            c_ready_i,
    output logic [Bits-1:0] c_data_o
);

  logic [Bits-1:0] data;

  bf_fork #(
      .Bits (Bits),
      .Count(3)
  ) fork_i (
      .clk_i  (clk_i),
      .rst_i  (rst_i),
      .valid_i(valid_i),
      .ready_o(ready_o),
      .data_i (data_i),
      .valid_o({c_valid_o, b_valid_o, a_valid_o}),
      .ready_i({c_ready_i, b_ready_i, a_ready_i}),
      .data_o (data)
  );

  assign a_data_o = data;
  assign b_data_o = data;
  assign c_data_o = data;

endmodule
