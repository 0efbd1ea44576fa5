// Adds two streams lane by lane, exactly.
//
// y[l] = a[l] + b[l]. Latency 1 cycle, one word per cycle. OutBits follows from range analysis and may be less than the types
// alone would need; a sum that does not fit (OutSigned: two's complement, else unsigned) is an error in simulation.
// A word is taken from both streams at once: a_ready_o is combinational in b_valid_i and ready_i, b_ready_o likewise.

module bf_add #(
    parameter int ABits   = 8,     // of a lane
    parameter bit ASigned = 1'b1,
    parameter int BBits   = 8,
    parameter bit BSigned = 1'b1,
    parameter int Lanes   = 1,
    parameter int OutBits = 9,
    parameter bit OutSigned = ASigned || BSigned
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     a_valid_i,
    output logic                     a_ready_o,
    input  logic [  Lanes*ABits-1:0] a_data_i,
    input  logic                     b_valid_i,
    output logic                     b_ready_o,
    input  logic [  Lanes*BBits-1:0] b_data_i,
    output logic                     valid_o,
    input  logic                     ready_i,
    output logic [Lanes*OutBits-1:0] data_o
);

  localparam int SumBits = (ABits > BBits ? ABits : BBits) + 2;  // two's complement, whatever the signs

`ifndef __ICARUS__  // which has no $error at elaboration
  if (ABits < 1 || BBits < 1 || OutBits < 1) begin : g_illegal_a_bits
    $error("bf_add: ABits, BBits and OutBits must be at least 1");
  end
  if (Lanes < 1) begin : g_illegal_lanes
    $error("bf_add: Lanes must be at least 1");
  end
`endif

  logic [Lanes*OutBits-1:0] sum, data_q;
  logic [Lanes-1:0] fits;
  logic valid_q, enable;

  assign enable    = ready_i || !valid_q;
  assign a_ready_o = enable && b_valid_i;
  assign b_ready_o = enable && a_valid_i;
  assign valid_o   = valid_q;
  assign data_o    = data_q;

  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    logic signed [ABits:0] a;
    logic signed [BBits:0] b;
    logic signed [SumBits-1:0] exact;
    assign a = {ASigned && a_data_i[(l+1)*ABits-1], a_data_i[l*ABits+:ABits]};
    assign b = {BSigned && b_data_i[(l+1)*BBits-1], b_data_i[l*BBits+:BBits]};
    assign exact = SumBits'(a) + SumBits'(b);
    assign sum[l*OutBits+:OutBits] = OutBits'(exact);
    if (OutSigned) begin : g_signed
      logic signed [SumBits-1:0] above;  // the sign alone, where the sum fits
      assign above   = exact >>> (OutBits - 1);
      assign fits[l] = above == '0 || above == '1;
    end else begin : g_unsigned
      assign fits[l] = (exact >> OutBits) == '0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (enable) begin
      data_q  <= sum;
      valid_q <= a_valid_i && b_valid_i;
    end
    if (rst_i) valid_q <= 1'b0;
  end

`ifndef SYNTHESIS
  always @(posedge clk_i) begin
    if (!rst_i && a_valid_i && b_valid_i && !(&fits)) $error("bf_add: the sum does not fit OutBits");
  end
`endif

endmodule
