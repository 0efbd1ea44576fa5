// What is proved of bf_fifo: see bf_formal_queue.

module bf_fifo_formal #(
    parameter int Bits  = 1,
    parameter int Depth = 3
) (
    input logic clk_i,
    input logic rst_i,
    input logic valid_i,
    input logic [Bits-1:0] data_i,
    input logic ready_i
);

  logic ready_o, valid_o;
  logic [Bits-1:0] data_o;

  bf_fifo #(
      .Bits (Bits),
      .Depth(Depth)
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
      .Capacity(Depth + 2),
      .Holds(Depth),
      .Patience(2)
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
