// Product of two IEEE 754 single precision numbers, rounded to nearest, ties to even.
//
// Subnormals are zeros: those that come in, and a product whose magnitude before rounding is below 2^-126. Overflow gives
// infinity; infinities and NaN that come in are excluded. The 24 x 24 product is the four 18 x 18 multipliers that
// Yosys takes for it as well.
//
// Latency: 6 cycles in which enable_i is 1. One product a cycle.
module fp32_multiply (
    input  logic        clk_i,
    input  logic        enable_i,
    input  logic [31:0] a_i,
    input  logic [31:0] b_i,
    output logic [31:0] product_o
);

  // ---- 1: operands ----
  logic sign_1, zero_1;
  logic signed [9:0] exponent_1;
  logic [23:0] a_1, b_1;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      sign_1 <= a_i[31] ^ b_i[31];
      zero_1 <= (a_i[30:23] == '0) || (b_i[30:23] == '0);
      exponent_1 <= $signed({2'b0, a_i[30:23]}) + $signed({2'b0, b_i[30:23]}) - 10'sd127;
      a_1 <= {1'b1, a_i[22:0]};
      b_1 <= {1'b1, b_i[22:0]};
    end
  end

  // ---- 2: products of parts of 18 and 6 bits ----
  logic sign_2, zero_2;
  logic signed [9:0] exponent_2;
  logic [35:0] low_2;
  logic [23:0] cross_a_2, cross_b_2;
  logic [11:0] high_2;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      sign_2 <= sign_1;
      zero_2 <= zero_1;
      exponent_2 <= exponent_1;
      low_2 <= a_1[17:0] * b_1[17:0];
      cross_a_2 <= a_1[23:18] * b_1[17:0];
      cross_b_2 <= a_1[17:0] * b_1[23:18];
      high_2 <= a_1[23:18] * b_1[23:18];
    end
  end

  // ---- 3, 4: their sum ----
  logic sign_3, zero_3, sign_4, zero_4;
  logic signed [9:0] exponent_3, exponent_4;
  logic [47:0] outer_3, product_4;
  logic [24:0] cross_3;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      sign_3 <= sign_2;
      zero_3 <= zero_2;
      exponent_3 <= exponent_2;
      outer_3 <= {high_2, low_2};
      cross_3 <= cross_a_2 + cross_b_2;
      sign_4 <= sign_3;
      zero_4 <= zero_3;
      exponent_4 <= exponent_3;
      product_4 <= {outer_3[47:18] + 30'(cross_3), outer_3[17:0]};
    end
  end

  // ---- 5: what follows the leading one; bit 0 is the first that is cut off ----
  logic sign_5, zero_5, sticky_5;
  logic signed [9:0] exponent_5;
  logic [23:0] mantissa_5;

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      sign_5 <= sign_4;
      zero_5 <= zero_4;
      exponent_5 <= exponent_4 + (product_4[47] ? 10'sd1 : 10'sd0);
      mantissa_5 <= product_4[47] ? product_4[46:23] : product_4[45:22];
      sticky_5 <= (product_4[21:0] != '0) || (product_4[47] && product_4[22]);
    end
  end

  // ---- 6: round and pack; a carry out of the fraction, which is 0 then, goes into the exponent ----
  logic [30:0] rounded;
  logic up;

  assign up = mantissa_5[0] && (sticky_5 || mantissa_5[1]);
  assign rounded = {exponent_5[7:0], mantissa_5[23:1]} + 31'(up);

  always_ff @(posedge clk_i) begin
    if (enable_i) begin
      product_o <= {sign_5, rounded};
      if (exponent_5 > 10'sd254) product_o <= {sign_5, 8'hff, 23'b0};
      if (zero_5 || exponent_5 < 10'sd1) product_o <= {sign_5, 31'b0};
    end
  end
endmodule
