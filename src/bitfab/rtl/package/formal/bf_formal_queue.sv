// Properties of a block that passes words on in order, for sby: no loss, no duplication, no overflow, order and handshake kept.
//
// A transfer in carries Ins parts, one out Outs parts, lowest first. Data independence (Wolper 1986): the block never looks at
// data, so it is enough to follow one part, put in at a time and with a value of the solver's choice. `ahead` counts the parts
// that must come out before it; when all have, the output must be that part. `held` counts the parts inside: it never goes
// below zero (nothing comes out twice) nor above Capacity, and while there is a word to give the output is silent for at
// most Patience cycles (nothing is lost). With fewer than Holds parts inside, the input is ready.

module bf_formal_queue #(
    parameter int Bits     = 2,  // of a part
    parameter int Ins      = 1,
    parameter int Outs     = 1,
    parameter int Capacity = 2,  // parts
    parameter int Holds    = 0,
    parameter int Patience = 1
) (
    input logic                 clk_i,
    input logic                 rst_i,
    input logic                 in_valid_i,
    input logic                 in_ready_i,
    input logic [ Ins*Bits-1:0] in_data_i,
    input logic                 out_valid_i,
    input logic                 out_ready_i,
    input logic [Outs*Bits-1:0] out_data_i
);

  localparam int CountBits = $clog2(Capacity + Ins + 1) + 1;

  (* anyconst *) logic [Bits-1:0] chosen;
  (* anyconst *) logic [CountBits-1:0] part;  // of its word
  (* anyseq *) logic mark;  // the word that goes in now holds the part to follow

  logic begun_q = 1'b0;
  logic marked_q, waiting_q;
  logic [CountBits-1:0] held_q, ahead_q, left, silent_q;
  logic [Outs*Bits-1:0] waiting_data_q;
  logic push, pop;

  assign push = in_valid_i && in_ready_i;
  assign pop  = out_valid_i && out_ready_i;
  assign left = pop ? held_q - CountBits'(Outs) : held_q;

  always_ff @(posedge clk_i) begin
    begun_q        <= 1'b1;
    held_q         <= push ? left + CountBits'(Ins) : left;
    waiting_q      <= out_valid_i && !out_ready_i;
    waiting_data_q <= out_data_i;
    silent_q       <= out_valid_i || held_q < CountBits'(Outs) ? '0 : silent_q + 1'b1;
    if (marked_q && pop) begin
      ahead_q <= ahead_q - CountBits'(Outs);
      if (ahead_q < CountBits'(Outs)) marked_q <= 1'b0;
    end
    if (!marked_q && push && mark) begin
      marked_q <= 1'b1;
      ahead_q  <= left + part;
    end
    if (rst_i) begin
      held_q    <= '0;
      marked_q  <= 1'b0;
      waiting_q <= 1'b0;
      silent_q  <= '0;
    end
  end

  always_comb begin
    if (!begun_q) assume (rst_i);
    assume (part < CountBits'(Ins));
    if (!marked_q && push && mark) assume (Bits'(in_data_i >> (part * Bits)) == chosen);
    if (begun_q && !rst_i) begin
      assert (held_q <= CountBits'(Capacity));
      assert (!pop || held_q >= CountBits'(Outs));
      assert (silent_q <= CountBits'(Patience));
      assert (held_q >= CountBits'(Holds) || in_ready_i);
      assert (!waiting_q || (out_valid_i && out_data_i == waiting_data_q));
      if (marked_q && pop && ahead_q < CountBits'(Outs)) assert (Bits'(out_data_i >> (ahead_q * Bits)) == chosen);
    end
  end

endmodule
