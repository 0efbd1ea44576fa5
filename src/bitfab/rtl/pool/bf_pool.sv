// Reduces runs of Terms words to one word, lane by lane: the largest value, or the exact sum.
//
//   y[l] = max over t < Terms of x[t][l]   (Sum = 0)        y[l] = sum over t < Terms of x[t][l]   (Sum = 1)
//
// Latency: 1 cycle from the last term to the result. One word a cycle. ready_o follows ready_i within the cycle.
// Limits: the result fits OutBits (signed when Signed); OutBits >= Bits for a maximum.
module bf_pool #(
    parameter int Bits    = 8,     // of an input lane
    parameter bit Signed  = 1'b0,
    parameter int Lanes   = 1,
    parameter int Terms   = 4,
    parameter bit Sum     = 1'b0,  // 0: largest, 1: sum
    parameter int OutBits = 8      // of an output lane
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     valid_i,
    output logic                     ready_o,
    input  logic [   Lanes*Bits-1:0] data_i,
    output logic                     valid_o,
    input  logic                     ready_i,
    output logic [Lanes*OutBits-1:0] data_o
);

  localparam int TermBits = (Terms > 1) ? $clog2(Terms) : 1;

`ifndef __ICARUS__  // which has no $error at elaboration
  if (OutBits < Bits && !Sum) begin : gen_bad_bits
    $error("bf_pool: OutBits must be at least Bits for a maximum");
  end
`endif

  logic [TermBits-1:0] term_d, term_q;
  logic [Lanes*OutBits-1:0] data_d;
  logic enable, transfer, first, last;

  assign enable = ready_i || !valid_o;
  assign ready_o = enable;
  assign transfer = enable && valid_i;
  assign first = term_q == '0;
  assign last = term_q == TermBits'(Terms - 1);
  assign term_d = last ? '0 : term_q + 1'b1;

  for (genvar l = 0; l < Lanes; l++) begin : gen_lane
    logic [Bits-1:0] narrow;
    logic [OutBits-1:0] x, y;
    assign narrow = data_i[l*Bits+:Bits];
    assign y = data_o[l*OutBits+:OutBits];
    if (OutBits < Bits) begin : gen_narrow_sum
      logic unused;
      assign unused = &{1'b0, narrow};
    end
    if (Signed) begin : gen_signed
      assign x = OutBits'($signed(narrow));
    end else begin : gen_unsigned
      assign x = OutBits'(narrow);
    end
    if (Sum) begin : gen_sum
      assign data_d[l*OutBits+:OutBits] = first ? x : y + x;
    end else if (Signed) begin : gen_max_signed
      assign data_d[l*OutBits+:OutBits] = (first || $signed(x) > $signed(y)) ? x : y;
    end else begin : gen_max
      assign data_d[l*OutBits+:OutBits] = (first || x > y) ? x : y;
    end
  end

  always_ff @(posedge clk_i) begin
    if (enable) valid_o <= valid_i && last;
    if (transfer) begin
      term_q <= term_d;
      data_o <= data_d;
    end
    if (rst_i) begin
      term_q <= '0;
      valid_o <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  logic [Lanes*OutBits-1:0] last_data_q;
  logic waiting_q;

  always @(posedge clk_i) begin
    last_data_q <= data_o;
    waiting_q <= valid_o && !ready_i && !rst_i;
    if (!rst_i && waiting_q) begin
      if (!valid_o || data_o != last_data_q) $error("bf_pool: the output changed while it waited");
    end
  end
`endif
endmodule
