// Multiplies one number by Count weights with adders alone: no multiplier of the device is taken.
//
//   product[c] + carry[c] = x * w[c]: the carry is left to an adder behind, which takes it in for nothing or nearly so.
// Of one operand, M, multiples are added; the other one, D, is cut into digits of two bits (d1, d0), lowest first:
//   D = (2 d1 + d0 - 2) + sum over j >= 1 of 2^(2j-1) * (2 b1 + b0),  b = +1 for a bit of 1, -1 for a bit of 0,
// where the sign bit of D counts inverted, and stands alone on top of an odd number of bits. So row 0 is one of
// {-2, -1, 0, 1} * M and each further row one of {-3, -1, 1, 3} * M: one LUT of four inputs a bit (M, 3 M, d1, d0),
// complement included, and one adder a row, into which the complement's carry goes. 3 M is made once for all weights.
// D is the weight, unless x is so narrow that its digits need no 3 M.
//
// Latency 1 + max(1, ceil(bits of D / 2) - 1) cycles: operands, then a cycle for each row, the first two rows together.
// All registers obey enable_i. Limits: WeightBits at least 2, weights signed.
module bf_multiply #(
    parameter int InBits     = 8,
    parameter bit InSigned   = 1'b0,
    parameter int WeightBits = 8,
    parameter int Count      = 1      // weights that meet the same x
) (
    input  logic                                 clk_i,
    input  logic                                 enable_i,
    input  logic [                   InBits-1:0] data_i,
    input  logic [         Count*WeightBits-1:0] weight_i,
    output logic [Count*(InBits+WeightBits)-1:0] product_o,
    output logic [                    Count-1:0] carry_o
);

  localparam int ValueBits = !InSigned ? InBits + 1 : InBits > 1 ? InBits : 2;  // of x with a sign
  localparam bit CutData = ValueBits <= 3 && ValueBits <= WeightBits;
  localparam int DigitBits = CutData ? ValueBits : WeightBits;  // of D
  localparam int MultipleBits = CutData ? WeightBits : ValueBits;  // of M
  localparam int Rows = (DigitBits + 1) / 2;
  localparam int Stages = Rows > 2 ? Rows - 1 : 1;
  localparam int OutBits = InBits + WeightBits;
  localparam int ProductBits = MultipleBits + DigitBits - 1;

`ifndef __ICARUS__  // which has no $error at elaboration
  if (WeightBits < 2) begin : gen_bad_weight
    $error("bf_multiply: WeightBits must be at least 2");
  end
`endif

  // ---- Operands, delayed as far as the rows need them; the newest lowest ----
  logic signed [ValueBits-1:0] value;
  logic [Stages*ValueBits-1:0] value_q;
  logic [Stages*Count*WeightBits-1:0] weight_q;

  assign value = InSigned ? ValueBits'($signed(data_i)) : $signed(ValueBits'(data_i));

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      value_q  <= (Stages * ValueBits)'({value_q, value});
      weight_q <= (Stages * Count * WeightBits)'({weight_q, weight_i});
    end
  end

  if (DigitBits >= 4) begin : gen_triple
    localparam int Bits = MultipleBits + 2;
    logic [Stages*Bits-1:0] triple_q;
    always_ff @(posedge clk_i) begin
      if (enable_i) triple_q <= (Stages * Bits)'({triple_q, Bits'(value) + (Bits'(value) <<< 1)});
    end
  end

  // ---- Rows; the first two share a stage ----
  for (genvar c = 0; c < Count; c++) begin : gen_product
    for (genvar j = 0; j < Rows; j++) begin : gen_row
      localparam int Stage = j > 1 ? j - 1 : 0;
      localparam int Shift = j > 0 ? 2 * j - 1 : 0;
      localparam bit Pair = 2 * j + 1 < DigitBits;  // of bits, not one alone
      localparam bit Top = j == Rows - 1;
      localparam int Bits = Top ? ProductBits : MultipleBits + 2 * j + 1;  // of the sum up to this row
      localparam int RowBits = Bits - Shift;
      logic [DigitBits-1:0] digits;
      logic signed [RowBits-1:0] multiple, row;
      logic high, carry_d, carry;
      logic [Bits-1:0] sum_d, sum;

      if (CutData) begin : gen_cut_data
        assign digits   = value_q[Stage*ValueBits+:ValueBits];
        assign multiple = RowBits'($signed(weight_q[(Stage*Count+c)*WeightBits+:WeightBits]));
      end else begin : gen_cut_weight
        assign digits   = weight_q[(Stage*Count+c)*WeightBits+:WeightBits];
        assign multiple = RowBits'($signed(value_q[Stage*ValueBits+:ValueBits]));
      end
      assign high = digits[Pair?2*j+1 : 2*j] ^ Top;  // 0: the row is a complement

      if (j == 0) begin : gen_first
        assign row = high ? (digits[0] ? multiple : '0) : ~(digits[0] ? multiple : multiple <<< 1);
        assign sum_d = row;
        assign carry_d = !high;
      end else begin : gen_further
        logic signed [RowBits-1:0] above;
        if (Pair) begin : gen_pair
          localparam int TripleBits = MultipleBits + 2;
          logic signed [RowBits-1:0] triple;
          assign triple = RowBits'($signed(gen_triple.triple_q[Stage*TripleBits+:TripleBits]));
          assign row = (high == digits[2*j] ? triple : multiple) ^ {RowBits{!high}};
        end else begin : gen_alone
          assign row = multiple ^ {RowBits{!high}};
        end
        assign above   = RowBits'($signed(gen_row[j-1].sum[2*j+MultipleBits-2:Shift]));
        assign sum_d   = {above + row + RowBits'(!high), gen_row[j-1].sum[Shift-1:0]};
        assign carry_d = gen_row[j-1].carry;
      end

      if (j == 0 && Rows > 1) begin : gen_wire
        assign sum   = sum_d;
        assign carry = carry_d;
      end else begin : gen_register
        logic [Bits-1:0] sum_q;
        logic carry_q;
        always_ff @(posedge clk_i) begin
          if (enable_i) begin
            sum_q   <= sum_d;
            carry_q <= carry_d;
          end
        end
        assign sum   = sum_q;
        assign carry = carry_q;
      end
    end

    assign product_o[c*OutBits+:OutBits] = OutBits'($signed(gen_row[Rows-1].sum));
    assign carry_o[c] = gen_row[Rows-1].carry;
  end

endmodule
