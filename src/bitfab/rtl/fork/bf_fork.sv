// Gives each word of a stream to Count streams, each of which takes it exactly once and in its own time.
//
// Latency 0. Bit i of valid_o and ready_i belongs to output i; all share data_o. An output that has taken the word is marked
// done until the slowest has taken it too, so that no output waits for another's ready. ready_o is combinational in ready_i.

module bf_fork #(
    parameter int Bits  = 8,  // of a stream word
    parameter int Count = 2   // output streams
) (
    input  logic             clk_i,
    input  logic             rst_i,
    input  logic             valid_i,
    output logic             ready_o,
    input  logic [ Bits-1:0] data_i,
    output logic [Count-1:0] valid_o,
    input  logic [Count-1:0] ready_i,
    output logic [ Bits-1:0] data_o
);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Bits < 1) begin : g_illegal_bits
    $error("bf_fork: Bits must be at least 1");
  end
  if (Count < 1) begin : g_illegal_count
    $error("bf_fork: Count must be at least 1");
  end
`endif

  logic [Count-1:0] done_q;

  assign ready_o = &(done_q | ready_i);
  assign valid_o = {Count{valid_i}} & ~done_q;
  assign data_o  = data_i;

  always_ff @(posedge clk_i) begin
    if (valid_i) done_q <= ready_o ? '0 : done_q | ready_i;
    if (rst_i) done_q <= '0;
  end

`ifndef SYNTHESIS
  logic waiting_q;
  logic [Bits-1:0] waiting_data_q;
  always @(posedge clk_i) begin
    waiting_q      <= valid_i && !ready_o && !rst_i;
    waiting_data_q <= data_i;
    if (!rst_i && waiting_q && !(valid_i && data_i == waiting_data_q)) $error("bf_fork: input changed while waiting");
  end
`endif

endmodule
