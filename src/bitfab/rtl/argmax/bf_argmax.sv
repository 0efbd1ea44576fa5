// Index of the first largest of each Words words (classes) of a stream.
//
// y = min { i : x[i] = max(x) }. One lane; one word in per cycle; one index out per Words words, 1 cycle after the last of them.
// ready_o is combinational in ready_i, and falls only while an index waits at the last word of the next pixel.

module bf_argmax #(
    parameter int Bits      = 8,     // of a stream word
    parameter bit Signed    = 1'b1,
    parameter int Words     = 2,     // classes per pixel
    parameter int IndexBits = 1
) (
    input  logic                 clk_i,
    input  logic                 rst_i,
    input  logic                 valid_i,
    output logic                 ready_o,
    input  logic [     Bits-1:0] data_i,
    output logic                 valid_o,
    input  logic                 ready_i,
    output logic [IndexBits-1:0] data_o
);

  localparam logic [IndexBits-1:0] Last = IndexBits'(Words - 1);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Bits < 1) begin : g_illegal_bits
    $error("bf_argmax: Bits must be at least 1");
  end
  if (Words < 1) begin : g_illegal_words
    $error("bf_argmax: Words must be at least 1");
  end
  if (IndexBits < 1 || IndexBits < $clog2(Words)) begin : g_illegal_index_bits
    $error("bf_argmax: IndexBits cannot hold the last index");
  end
`endif

  logic [IndexBits-1:0] position_q, best_index_d, best_index_q, data_q;
  logic [Bits-1:0] key, best_d, best_q;
  logic valid_q, last, transfer;

  // Inverting the sign bit orders two's complement like unsigned numbers.
  assign key      = data_i ^ (Bits'(Signed) << (Bits - 1));
  assign last     = position_q == Last;
  assign ready_o  = !last || !valid_q || ready_i;
  assign transfer = valid_i && ready_o;
  assign valid_o  = valid_q;
  assign data_o   = data_q;

  always_comb begin
    best_d       = best_q;
    best_index_d = best_index_q;
    if (position_q == '0 || key > best_q) begin
      best_d       = key;
      best_index_d = position_q;
    end
  end

  always_ff @(posedge clk_i) begin
    if (transfer) begin
      best_q       <= best_d;
      best_index_q <= best_index_d;
      position_q   <= last ? '0 : position_q + 1'b1;
    end
    if (transfer && last) data_q <= best_index_d;
    if (ready_i) valid_q <= 1'b0;
    if (transfer && last) valid_q <= 1'b1;
    if (rst_i) begin
      position_q <= '0;
      valid_q    <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  always @(posedge clk_i) if (!rst_i && 32'(position_q) >= Words) $error("bf_argmax: position out of bounds");
`endif

endmodule
