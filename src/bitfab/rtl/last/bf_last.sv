// bf_last: marks the last word of each image, for AXI-Stream's tlast.
//
//   last_o = 1 on words Words - 1, 2 * Words - 1, ...
//
// Latency: none; valid, ready and data pass through, a counter watches the transfers. `ready_o` is combinational.
module bf_last #(
    parameter int Bits  = 8,
    parameter int Words = 1   // words an image
) (
    input  logic            clk_i,
    input  logic            rst_i,
    input  logic            valid_i,
    output logic            ready_o,
    input  logic [Bits-1:0] data_i,
    output logic            valid_o,
    input  logic            ready_i,
    output logic [Bits-1:0] data_o,
    output logic            last_o
);
  localparam int CountBits = (Words > 1) ? $clog2(Words) : 1;

  logic [CountBits-1:0] count_d, count_q;

  assign valid_o = valid_i;
  assign ready_o = ready_i;
  assign data_o  = data_i;
  assign last_o  = count_q == CountBits'(Words - 1);

  always_comb begin
    count_d = count_q;
    if (valid_i && ready_i) count_d = last_o ? '0 : count_q + 1'b1;
  end

  always_ff @(posedge clk_i) begin
    count_q <= count_d;
    if (rst_i) count_q <= '0;
  end
endmodule
