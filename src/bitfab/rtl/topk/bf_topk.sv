// Indices of the K largest of each Words words (classes) of a stream, the largest first; of equal ones the lower index.
//
// y[0] = min { i : x[i] = max(x) }, y[k] likewise among what y[0..k-1] leave; K = 1 is the argmax. One lane; one word in per
// cycle, K indices out per Words words, the first 1 cycle after the last of them. K sorted places hold the best so far: a word
// that beats a place moves that one and all behind it on. ready_o is combinational in ready_i, and falls only while indices
// wait at the last word of the next pixel.

module bf_topk #(
    parameter int Bits      = 8,     // of a stream word
    parameter bit Signed    = 1'b1,
    parameter int Words     = 2,     // classes per pixel
    parameter int K         = 1,
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
    $error("bf_topk: Bits must be at least 1");
  end
  if (K < 1 || K > Words) begin : g_illegal_k
    $error("bf_topk: K must be 1 to Words");
  end
  if (IndexBits < 1 || IndexBits < $clog2(Words)) begin : g_illegal_index_bits
    $error("bf_topk: IndexBits cannot hold the last index");
  end
`endif

  logic [IndexBits-1:0] position_q;
  logic [Bits-1:0] key;
  logic [K-1:0] beaten, valid_q;
  logic [K*Bits-1:0] best_d, best_q;
  logic [K*IndexBits-1:0] index_d, index_q, data_q;
  logic last, more, transfer;

  // Inverting the sign bit orders two's complement like unsigned numbers.
  assign key      = data_i ^ (Bits'(Signed) << (Bits - 1));
  assign last     = position_q == Last;
  assign more     = |(valid_q >> 1);
  assign ready_o  = !last || !valid_q[0] || (ready_i && !more);
  assign transfer = valid_i && ready_o;
  assign valid_o  = valid_q[0];
  assign data_o   = data_q[IndexBits-1:0];

  always_comb begin
    best_d  = best_q;
    index_d = index_q;
    for (int k = K - 1; k >= 0; k--) begin
      beaten[k] = position_q <= IndexBits'(k) || key > best_q[k*Bits+:Bits];
      if (beaten[k]) begin
        if (k < K - 1) begin
          best_d[(k+1)*Bits+:Bits]            = best_q[k*Bits+:Bits];
          index_d[(k+1)*IndexBits+:IndexBits] = index_q[k*IndexBits+:IndexBits];
        end
        best_d[k*Bits+:Bits]            = key;
        index_d[k*IndexBits+:IndexBits] = position_q;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (transfer) begin
      best_q     <= best_d;
      index_q    <= index_d;
      position_q <= last ? '0 : position_q + 1'b1;
    end
    if (ready_i) valid_q <= valid_q >> 1;
    if (ready_i && more) data_q <= data_q >> IndexBits;
    if (transfer && last) begin
      valid_q <= '1;
      data_q  <= index_d;
    end
    if (rst_i) begin
      position_q <= '0;
      valid_q    <= '0;
    end
  end

`ifndef SYNTHESIS
  always @(posedge clk_i) if (!rst_i && 32'(position_q) >= Words) $error("bf_topk: position out of bounds");
`endif

endmodule
