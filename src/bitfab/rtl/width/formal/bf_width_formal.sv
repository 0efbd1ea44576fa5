// What is proved of bf_width: see bf_formal_queue.

module bf_width_formal #(
    parameter int Bits     = 1,
    parameter int InLanes  = 3,
    parameter int OutLanes = 1
) (
    input logic clk_i,
    input logic rst_i,
    input logic valid_i,
    input logic [InLanes*Bits-1:0] data_i,
    input logic ready_i
);

  logic ready_o, valid_o;
  logic [OutLanes*Bits-1:0] data_o;

  bf_width #(
      .Bits(Bits),
      .InLanes(InLanes),
      .OutLanes(OutLanes)
  ) block (
      .clk_i  (clk_i),
      .rst_i  (rst_i),
      .valid_i(valid_i),
      .ready_o(ready_o),
      .data_i (data_i),
      .valid_o(valid_o),
      .ready_i(ready_i),
      .data_o (data_o)
  );

  bf_formal_queue #(
      .Bits(Bits),
      .Ins(InLanes),
      .Outs(OutLanes),
      .Capacity(InLanes > OutLanes ? InLanes : OutLanes)
  ) properties (
      .clk_i      (clk_i),
      .rst_i      (rst_i),
      .in_valid_i (valid_i),
      .in_ready_i (ready_o),
      .in_data_i  (data_i),
      .out_valid_i(valid_o),
      .out_ready_i(ready_i),
      .out_data_i (data_o)
  );

endmodule
