// Joins two streams: WordsA words of a, then WordsB words of b, in turns; a turn is a pixel (where channels are joined),
// a row (columns) or an image (rows).
//
// Latency 1 cycle, one word per cycle. Words are opaque: both streams have the same lanes. a_ready_o and b_ready_o are
// combinational in ready_i.

module bf_concat #(
    parameter int Bits   = 8,  // of a stream word
    parameter int WordsA = 1,  // of a turn
    parameter int WordsB = 1
) (
    input  logic            clk_i,
    input  logic            rst_i,
    input  logic            a_valid_i,
    output logic            a_ready_o,
    input  logic [Bits-1:0] a_data_i,
    input  logic            b_valid_i,
    output logic            b_ready_o,
    input  logic [Bits-1:0] b_data_i,
    output logic            valid_o,
    input  logic            ready_i,
    output logic [Bits-1:0] data_o
);

  localparam int PositionBits = WordsA + WordsB > 2 ? $clog2(WordsA + WordsB) : 1;
  localparam logic [PositionBits-1:0] FirstB = PositionBits'(WordsA);
  localparam logic [PositionBits-1:0] Last = PositionBits'(WordsA + WordsB - 1);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Bits < 1) begin : g_illegal_bits
    $error("bf_concat: Bits must be at least 1");
  end
  if (WordsA < 1 || WordsB < 1) begin : g_illegal_words_a
    $error("bf_concat: WordsA and WordsB must be at least 1");
  end
`endif

  logic [PositionBits-1:0] position_q;
  logic [Bits-1:0] data_q;
  logic valid_q, take_b_q, enable, transfer;

  assign enable    = ready_i || !valid_q;
  assign a_ready_o = enable && !take_b_q;
  assign b_ready_o = enable && take_b_q;
  assign transfer  = take_b_q ? b_valid_i : a_valid_i;
  assign valid_o   = valid_q;
  assign data_o    = data_q;

  always_ff @(posedge clk_i) begin
    if (enable) begin
      data_q  <= take_b_q ? b_data_i : a_data_i;
      valid_q <= transfer;
    end
    if (enable && transfer) begin
      position_q <= position_q == Last ? '0 : position_q + 1'b1;
      if (position_q == Last) take_b_q <= 1'b0;
      else if (position_q == FirstB - 1'b1) take_b_q <= 1'b1;
    end
    if (rst_i) begin
      valid_q    <= 1'b0;
      position_q <= '0;
      take_b_q   <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  always @(posedge clk_i) begin
    if (!rst_i && 32'(position_q) >= WordsA + WordsB) $error("bf_concat: position out of bounds");
    if (!rst_i && take_b_q != (position_q >= FirstB)) $error("bf_concat: wrong stream selected");
  end
`endif

endmodule
