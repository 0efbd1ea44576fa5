// A function of each lane as straight lines: the upper bits of x choose a segment, the lower ones the place within it.
//
//   y[l] = clip((base[s] + slope[s] * t) >> Shift, Low, High), {s, t} = the raw bits of x[l], t of PlaceBits bits
//
// Latency 4 cycles, one word per cycle. ready_o is combinational in ready_i. Memory: TableFile holds 2^(InBits - PlaceBits)
// words, segment s at address s: base (signed, BaseBits) in the low bits, slope (signed, SlopeBits) above; one read port
// per lane.

module bf_interpolate #(
    parameter int InBits    = 10,  // of a lane
    parameter int PlaceBits = 4,
    parameter int BaseBits  = 16,
    parameter int SlopeBits = 8,
    parameter int Shift     = 7,
    parameter int OutBits   = 8,
    parameter int Low       = 0,
    parameter int High      = 255,
    parameter int Lanes     = 1,
    parameter     TableFile = ""
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     valid_i,
    output logic                     ready_o,
    input  logic [ Lanes*InBits-1:0] data_i,
    output logic                     valid_o,
    input  logic                     ready_i,
    output logic [Lanes*OutBits-1:0] data_o
);

  function automatic int max2(input int a, input int b);
    max2 = (a > b) ? a : b;
  endfunction

  localparam int SegmentBits = InBits - PlaceBits;
  localparam int WordBits = SlopeBits + BaseBits;
  localparam int ProductBits = SlopeBits + PlaceBits + 1;
  localparam int SumBits = max2(max2(ProductBits, BaseBits), OutBits) + 1;
  localparam logic signed [SumBits-1:0] Lowest = SumBits'(Low);
  localparam logic signed [SumBits-1:0] Highest = SumBits'(High);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (PlaceBits < 1 || PlaceBits >= InBits || InBits > 16) begin : g_illegal_bits
    $error("bf_interpolate: InBits must be up to 16, PlaceBits 1 to InBits - 1");
  end
  if (Low > High) begin : g_illegal_clip
    $error("bf_interpolate: Low must not exceed High");
  end
  if (TableFile == "") begin : g_illegal_table_file
    $error("bf_interpolate: TableFile must name a file");
  end
`endif

  logic [WordBits-1:0] table_rom[0:2**SegmentBits-1];
  logic [3:0] valid_q;
  logic enable;

  initial $readmemh(TableFile, table_rom);

  assign enable  = ready_i || !valid_q[3];
  assign ready_o = enable;
  assign valid_o = valid_q[3];

  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    logic [WordBits-1:0] read_q, word_q;
    logic [PlaceBits-1:0] read_place_q, place_q;
    logic signed [BaseBits-1:0] base_q;
    logic signed [ProductBits-1:0] product_q;
    logic signed [SumBits-1:0] sum, whole;

    assign sum   = SumBits'(base_q) + SumBits'(product_q);
    assign whole = sum >>> Shift;

    always_ff @(posedge clk_i) begin
      if (enable) begin
        read_q       <= table_rom[data_i[l*InBits+PlaceBits+:SegmentBits]];
        read_place_q <= data_i[l*InBits+:PlaceBits];
        word_q       <= read_q;  // a register behind the block RAM, whose read is slow
        place_q      <= read_place_q;
        base_q       <= $signed(word_q[BaseBits-1:0]);
        product_q    <= $signed(word_q[BaseBits+:SlopeBits]) * $signed({1'b0, place_q});
        if (whole < Lowest) data_o[l*OutBits+:OutBits] <= OutBits'(Low);
        else if (whole > Highest) data_o[l*OutBits+:OutBits] <= OutBits'(High);
        else data_o[l*OutBits+:OutBits] <= whole[OutBits-1:0];
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (enable) valid_q <= {valid_q[2:0], valid_i};
    if (rst_i) valid_q <= '0;
  end

endmodule
