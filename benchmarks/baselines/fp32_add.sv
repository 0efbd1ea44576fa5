// Sum of two IEEE 754 single precision numbers, rounded to nearest, ties to even.
//
// Subnormals are zeros, in and out (a sum below 2^-126 is exact, hence this is unambiguous); a zero sum is +0 unless both
// operands are -0. Overflow gives infinity; infinities and NaN that come in are excluded.
//
// Latency: 8 cycles in which enable_i is 1. One sum a cycle.
module fp32_add (
    input  logic        clk_i,
    input  logic        enable_i,
    input  logic [31:0] a_i,
    input  logic [31:0] b_i,
    output logic [31:0] sum_o
);

  // Shifted right; the last bit is the OR of all that fell out.
  function automatic logic [26:0] shifted(input logic [26:0] x, input int unsigned by);
    shifted = x >> by;
    for (int unsigned i = 0; i < 27; i++) if (i < by && x[i]) shifted[0] = 1'b1;
  endfunction

  // ---- 1: which magnitude is greater ----
  logic [31:0] a_1, b_1;
  logic swap_1;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      a_1 <= a_i;
      b_1 <= b_i;
      swap_1 <= b_i[30:0] > a_i[30:0];
    end
  end

  // ---- 2: the greater first, the distance of their exponents; three bits more behind the mantissas ----
  logic [31:0] greater;
  logic [30:0] lesser;
  logic sign_2, minus_2, zeros_2;  // zeros: the sign of a sum of zeros
  logic [7:0] exponent_2, distance_2;
  logic [26:0] greater_2, lesser_2;

  assign greater = swap_1 ? b_1 : a_1;
  assign lesser = swap_1 ? a_1[30:0] : b_1[30:0];

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      sign_2 <= greater[31];
      minus_2 <= a_1[31] ^ b_1[31];
      zeros_2 <= a_1[31] && b_1[31];
      exponent_2 <= greater[30:23];
      distance_2 <= greater[30:23] - lesser[30:23];
      greater_2 <= greater[30:23] == '0 ? '0 : {1'b1, greater[22:0], 3'b0};
      lesser_2 <= lesser[30:23] == '0 ? '0 : {1'b1, lesser[22:0], 3'b0};
    end
  end

  // ---- 3, 4: aligned ----
  logic sign_3, minus_3, zeros_3, sign_4, minus_4, zeros_4;
  logic [7:0] exponent_3, exponent_4;
  logic [2:0] distance_3;
  logic [26:0] greater_3, lesser_3, greater_4, lesser_4;
  logic [26:0] coarse, by_4, by_2, by_1;

  always_comb begin
    case (distance_2[4:3])
      2'd0: coarse = lesser_2;
      2'd1: coarse = shifted(lesser_2, 8);
      2'd2: coarse = shifted(lesser_2, 16);
      default: coarse = shifted(lesser_2, 24);
    endcase
    if (distance_2[7:5] != '0) coarse = {26'b0, lesser_2 != '0};
  end

  assign by_4 = distance_3[2] ? shifted(lesser_3, 4) : lesser_3;
  assign by_2 = distance_3[1] ? shifted(by_4, 2) : by_4;
  assign by_1 = distance_3[0] ? shifted(by_2, 1) : by_2;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      {sign_3, minus_3, zeros_3, exponent_3, greater_3} <= {sign_2, minus_2, zeros_2, exponent_2, greater_2};
      lesser_3 <= coarse;
      distance_3 <= distance_2[7:5] == '0 ? distance_2[2:0] : '0;
      {sign_4, minus_4, zeros_4, exponent_4, greater_4} <= {sign_3, minus_3, zeros_3, exponent_3, greater_3};
      lesser_4 <= by_1;
    end
  end

  // ---- 5: the sum ----
  logic sign_5, zeros_5;
  logic [7:0] exponent_5;
  logic [27:0] sum_5;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      {sign_5, zeros_5, exponent_5} <= {sign_4, zeros_4, exponent_4};
      sum_5 <= minus_4 ? 28'(greater_4) - 28'(lesser_4) : 28'(greater_4) + 28'(lesser_4);
    end
  end

  // ---- 6, 7: the leading one to bit 27, five steps that halve ----
  logic sign_6, zeros_6, sign_7, zeros_7;
  logic signed [9:0] exponent_6, exponent_7;
  logic [27:0] sum_6, sum_7, left_16, left_8, left_4, left_2, left_1;
  logic [4:0] zeros;

  assign zeros[4] = sum_5[27:12] == '0;
  assign left_16 = zeros[4] ? sum_5 << 16 : sum_5;
  assign zeros[3] = left_16[27:20] == '0;
  assign left_8 = zeros[3] ? left_16 << 8 : left_16;
  assign zeros[2] = sum_6[27:24] == '0;
  assign left_4 = zeros[2] ? sum_6 << 4 : sum_6;
  assign zeros[1] = left_4[27:26] == '0;
  assign left_2 = zeros[1] ? left_4 << 2 : left_4;
  assign zeros[0] = !left_2[27];
  assign left_1 = zeros[0] ? left_2 << 1 : left_2;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      {sign_6, zeros_6, sum_6} <= {sign_5, zeros_5, left_8};
      exponent_6 <= $signed({2'b0, exponent_5}) + 10'sd1 - $signed({5'b0, zeros[4:3], 3'b0});
      {sign_7, zeros_7, sum_7} <= {sign_6, zeros_6, left_1};
      exponent_7 <= exponent_6 - $signed({7'b0, zeros[2:0]});
    end
  end

  // ---- 8: round and pack; a carry out of the fraction, which is 0 then, goes into the exponent ----
  logic [30:0] rounded;
  logic up;

  assign up = sum_7[3] && (sum_7[2:0] != '0 || sum_7[4]);
  assign rounded = {exponent_7[7:0], sum_7[26:4]} + 31'(up);

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      sum_o <= {sign_7, rounded};
      if (exponent_7 > 10'sd254) sum_o <= {sign_7, 8'hff, 23'b0};
      if (exponent_7 < 10'sd1) sum_o <= {sign_7, 31'b0};
      if (!sum_7[27]) sum_o <= {zeros_7, 31'b0};
    end
  end
endmodule
