// Keeps a slice of a stream along one axis: places Start, Start + Step, ... below Stop of Size, each of Inner words.
//
//   for each run of Size * Inner words: y = x[Start:Stop:Step]
//
// Latency 1 cycle, one word in per cycle. Words are opaque. ready_o is combinational in ready_i for the words it keeps;
// those it drops it takes at any time. Limits: 0 <= Start < Stop <= Size.

module bf_slice #(
    parameter int Bits  = 8,  // of a stream word
    parameter int Inner = 1,  // words of a place
    parameter int Size  = 2,  // places
    parameter int Start = 0,
    parameter int Stop  = 1,
    parameter int Step  = 1
) (
    input  logic            clk_i,
    input  logic            rst_i,
    input  logic            valid_i,
    output logic            ready_o,
    input  logic [Bits-1:0] data_i,
    output logic            valid_o,
    input  logic            ready_i,
    output logic [Bits-1:0] data_o
);

  localparam int InnerBits = Inner > 1 ? $clog2(Inner) : 1;
  localparam int PlaceBits = Size > 1 ? $clog2(Size) : 1;
  localparam int SkipBits = Step > 1 ? $clog2(Step) : 1;

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Bits < 1 || Inner < 1 || Step < 1) begin : g_illegal_sizes
    $error("bf_slice: Bits, Inner and Step must be at least 1");
  end
  if (Start < 0 || Start >= Stop || Stop > Size) begin : g_illegal_slice
    $error("bf_slice: the slice must lie within Size");
  end
`endif

  logic [InnerBits-1:0] inner_q;
  logic [PlaceBits-1:0] place_q;
  logic [SkipBits-1:0] skip_q;  // places since the last kept one
  logic inside_q, keep, enable, transfer, end_inner, before_start;

  assign keep         = inside_q && skip_q == '0;
  assign enable       = ready_i || !valid_o;
  assign ready_o      = enable || !keep;
  assign transfer     = valid_i && ready_o;
  assign end_inner    = inner_q == InnerBits'(Inner - 1);
  assign before_start = place_q == PlaceBits'((Start + Size - 1) % Size);

  always_ff @(posedge clk_i) begin
    if (enable) begin
      valid_o <= valid_i && keep;
      data_o  <= data_i;
    end
    if (transfer) inner_q <= end_inner ? '0 : inner_q + 1'b1;
    if (transfer && end_inner) begin
      place_q <= place_q == PlaceBits'(Size - 1) ? '0 : place_q + 1'b1;
      skip_q  <= before_start || skip_q == SkipBits'(Step - 1) ? '0 : skip_q + 1'b1;
      if (before_start) inside_q <= 1'b1;
      else if (place_q == PlaceBits'(Stop - 1)) inside_q <= 1'b0;
    end
    if (rst_i) begin
      valid_o  <= 1'b0;
      inner_q  <= '0;
      place_q  <= '0;
      skip_q   <= '0;
      inside_q <= Start == 0;
    end
  end

`ifndef SYNTHESIS
  always @(posedge clk_i) if (!rst_i && 32'(place_q) >= Size) $error("bf_slice: place out of bounds");
`endif

endmodule
