// Products of Simd inputs with Pe rows of weights, and their sums: what bf_dot multiplies with.
//
//   sum[p] + carry[p] = sum over s < Simd of weight[p][s] * x[s], modulo 2^OutBits; the carry is for the adder behind.
// A bipolar side has one bit: 1 means +1, 0 means -1 (InBipolar; weights of one bit).
// Multiplier, where no side is bipolar: 0 one `*` each; 1 packed, one `*` for two neighbouring rows of weights;
//   2 adders alone (bf_multiply).
//
// Latency 1 + stages + ceil(log2(Leaves)) cycles: operands, leaves of the adder tree (one stage; those of bf_multiply
//   for Multiplier = 2), a register a level. Leaves = Simd, or ceil(Simd / 8) where both sides are bipolar.
// All registers obey enable_i.
// Each leaf and sum is a number and a carry of the same weight. An adder takes in the carry of its right operand and
// hands on that of its left one: complements and packed products are corrected by adders that are there anyway.
module bf_products #(
    parameter int InBits     = 8,
    parameter bit InSigned   = 1'b0,
    parameter bit InBipolar  = 1'b0,
    parameter int WeightBits = 8,     // signed; 1: bipolar
    parameter int Simd       = 1,     // lanes of the input
    parameter int Pe         = 1,     // rows of weights
    parameter int OutBits    = 24,
    parameter int Multiplier = 0
) (
    input  logic                          clk_i,
    input  logic                          enable_i,
    input  logic [       Simd*InBits-1:0] data_i,
    input  logic [Pe*Simd*WeightBits-1:0] weight_i,  // (p, s) at bit (p * Simd + s) * WeightBits
    output logic [        Pe*OutBits-1:0] sum_o,
    output logic [                Pe-1:0] carry_o
);

  localparam int Packed = 1, Adders = 2;
  localparam bit BipolarWeight = WeightBits == 1;
  localparam bit Xnor = InBipolar && BipolarWeight;
  localparam int ValueBits = InSigned ? InBits : InBits + 1;  // of x with a sign
  localparam int ProductBits = InBits + WeightBits;
  localparam int Leaves = Xnor ? (Simd + 7) / 8 : Simd;
  localparam int LeafBits = Xnor ? 3 : InBipolar ? WeightBits : BipolarWeight ? ValueBits : ProductBits;
  localparam int Levels = $clog2(Leaves);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (InBipolar && InBits != 1) begin : gen_bad_bipolar
    $error("bf_products: InBits must be 1 where InBipolar is 1");
  end
  if (Multiplier < 0 || Multiplier > Adders) begin : gen_bad_multiplier
    $error("bf_products: Multiplier must be 0 to 2");
  end
  if (Multiplier == Packed && !InBipolar && !BipolarWeight) begin : gen_check_packed
    if (Pe % 2 != 0) begin : gen_bad_pe
      $error("bf_products: Pe must be even to pack two products into a multiplication");
    end
    if (ValueBits > 18 || ProductBits + WeightBits + 1 > 27) begin : gen_bad_width  // what the widest DSPs take
      $error("bf_products: InBits + 2 * WeightBits must be at most 26 to pack two products into a multiplication");
    end
  end
`endif

  // How many of three bits are one.
  function automatic logic [1:0] full_add(input logic [2:0] bits);
    full_add = {(bits[0] && bits[1]) || (bits[2] && (bits[0] || bits[1])), ^bits};
  endfunction

  // ---- Leaves: (p, i) at place p * Leaves + i ----
  logic [Pe*Leaves*LeafBits-1:0] leaf_q;
  logic [Pe*Leaves-1:0] carry_q;

  if (!InBipolar && !BipolarWeight && Multiplier == Adders) begin : gen_adders
    for (genvar s = 0; s < Simd; s++) begin : gen_lane
      logic [Pe*WeightBits-1:0] weights;
      logic [Pe*LeafBits-1:0] products;
      logic [Pe-1:0] carries;
      bf_multiply #(
          .InBits(InBits),
          .InSigned(InSigned),
          .WeightBits(WeightBits),
          .Count(Pe)
      ) u_multiply (
          .clk_i    (clk_i),
          .enable_i (enable_i),
          .data_i   (data_i[s*InBits+:InBits]),
          .weight_i (weights),
          .product_o(products),
          .carry_o  (carries)
      );
      for (genvar p = 0; p < Pe; p++) begin : gen_pe
        assign weights[p*WeightBits+:WeightBits] = weight_i[(p*Simd+s)*WeightBits+:WeightBits];
        assign leaf_q[(p*Simd+s)*LeafBits+:LeafBits] = products[p*LeafBits+:LeafBits];
        assign carry_q[p*Simd+s] = carries[p];
      end
    end
  end else if (!InBipolar && !BipolarWeight && Multiplier == Packed) begin : gen_packed
    // Two weights in one factor, w1 * 2^ProductBits + w0: below w1, w0 with its sign, which borrows from w1. Of the
    // product, the lower half is x * w0, and the upper one x * w1 less the lower one's sign. One register for the whole
    // product, and none beside it for that sign: so Yosys finds the registers inside a DSP48.
    localparam int FactorBits = ProductBits + WeightBits + 1;
    logic [Simd*InBits-1:0] data_q;

    always_ff @(posedge clk_i) begin
      if (enable_i) data_q <= data_i;
    end

    for (genvar i = 0; i < Pe / 2 * Simd; i++) begin : gen_pair
      localparam int Even = i / Simd * 2 * Simd + i % Simd;
      localparam int Odd = Even + Simd;
      logic signed [WeightBits-1:0] lower, upper;
      logic signed [FactorBits-1:0] factor_q;
      logic signed [ValueBits-1:0] x;
      logic signed [2*ProductBits-1:0] both_q;
      assign lower = weight_i[Even*WeightBits+:WeightBits];
      assign upper = weight_i[Odd*WeightBits+:WeightBits];
      assign x = ValueBits'(data_q[i%Simd*InBits+:InBits]);
      always_ff @(posedge clk_i) begin
        if (enable_i) begin
          factor_q <= {(WeightBits + 1)'(upper) - (WeightBits + 1)'(lower < 0), ProductBits'(lower)};
          both_q <= (2 * ProductBits)'(x) * (2 * ProductBits)'(factor_q);
        end
      end
      assign {leaf_q[Odd*LeafBits+:LeafBits], leaf_q[Even*LeafBits+:LeafBits]} = both_q;
      assign carry_q[Even] = 1'b0;
      assign carry_q[Odd] = both_q[ProductBits-1];
    end
  end else if (Xnor) begin : gen_matches
    // The operand registers hold which lanes match. A leaf counts the matches of seven lanes and has an eighth one for its
    // carry. As a number of three bits, the highest one inverted, a count of c is c - 4: half the sum of eight lanes of -1
    // and +1, and no constant is left over. Lanes beyond Simd match in turn, which sums to 0; an odd Simd takes the first
    // leaf's carry.
    for (genvar p = 0; p < Pe; p++) begin : gen_pe
      logic [Simd-1:0] match_q;
      logic [8*Leaves-1:0] match;

      for (genvar k = 0; k < 8 * Leaves; k++) begin : gen_match
        if (k < Simd) begin : gen_lane
          assign match[k] = match_q[k];
        end else begin : gen_beyond
          assign match[k] = k % 2 == 1 && k < 8 * Leaves - Simd % 2;
        end
      end

      always_ff @(posedge clk_i) begin
        if (enable_i) match_q <= ~(data_i ^ weight_i[p*Simd+:Simd]);
      end

      for (genvar i = 0; i < Leaves; i++) begin : gen_leaf
        logic [1:0] lower, upper, ones, twos;
        assign lower = full_add(match[7*i+:3]);
        assign upper = full_add(match[7*i+3+:3]);
        assign ones = full_add({lower[0], upper[0], match[7*i+6]});
        assign twos = full_add({lower[1], upper[1], ones[1]});
        always_ff @(posedge clk_i) begin
          if (enable_i) begin
            leaf_q[(p*Leaves+i)*3+:3] <= {!twos[1], twos[0], ones[0]};
            carry_q[p*Leaves+i] <= match[8*Leaves-1-i];
          end
        end
      end
    end
  end else begin : gen_plain
    logic [Simd*InBits-1:0] data_q;
    logic [Pe*Simd*WeightBits-1:0] weight_q;
    logic [Pe*Leaves*LeafBits-1:0] leaf_d;
    logic [Pe*Leaves-1:0] carry_d;

    always_ff @(posedge clk_i) begin
      if (enable_i) begin
        data_q <= data_i;
        weight_q <= weight_i;
        leaf_q <= leaf_d;
        carry_q <= carry_d;
      end
    end

    for (genvar p = 0; p < Pe; p++) begin : gen_pe
      for (genvar s = 0; s < Simd; s++) begin : gen_lane
        localparam int Place = p * Simd + s;
        logic signed [WeightBits-1:0] w;
        logic signed [LeafBits-1:0] product;
        assign w = weight_q[Place*WeightBits+:WeightBits];
        if (InBipolar) begin : gen_bipolar_data
          assign product = data_q[s] ? w : ~w;
          assign carry_d[Place] = !data_q[s];
        end else begin : gen_number
          logic signed [ValueBits-1:0] x;
          assign x = ValueBits'(data_q[s*InBits+:InBits]);
          if (BipolarWeight) begin : gen_bipolar_weight
            assign product = w[0] ? x : ~x;
            assign carry_d[Place] = !w[0];
          end else begin : gen_product
            assign product = LeafBits'(x) * LeafBits'(w);
            assign carry_d[Place] = 1'b0;
          end
        end
        assign leaf_d[Place*LeafBits+:LeafBits] = product;
      end
    end
  end

  // ---- Adder tree: level l holds ceil(Leaves / 2^l) sums of LeafBits + l bits for each p; level 0 is the leaves ----
  // Tried: an operand register per multiplier (kept from merging) and a second product register. 35 % more flip-flops,
  // and the frequency of placed designs changed no more than from seed to seed.
  for (genvar l = 0; l <= Levels; l++) begin : gen_level
    localparam int Count = (Leaves + (1 << l) - 1) >> l;
    localparam int Bits = LeafBits + l;
    logic [Pe*Count*Bits-1:0] sums;
    logic [Pe*Count-1:0] carries;

    if (l == 0) begin : gen_leaves
      assign sums = leaf_q;
      assign carries = carry_q;
    end else begin : gen_adders
      localparam int Before = (Leaves + (1 << (l - 1)) - 1) >> (l - 1);
      logic [Pe*Count*Bits-1:0] sums_d;
      logic [Pe*Count-1:0] carries_d;

      for (genvar p = 0; p < Pe; p++) begin : gen_pe
        for (genvar i = 0; i < Count; i++) begin : gen_add
          localparam int Left = p * Before + 2 * i;
          logic signed [Bits-2:0] a, b;
          logic carry;
          assign a = gen_level[l-1].sums[Left*(Bits-1)+:Bits-1];
          if (2 * i + 1 < Before) begin : gen_pair
            assign b = gen_level[l-1].sums[(Left+1)*(Bits-1)+:Bits-1];
            assign carry = gen_level[l-1].carries[Left+1];
          end else begin : gen_odd
            assign b = '0;
            assign carry = 1'b0;
          end
          assign sums_d[(p*Count+i)*Bits+:Bits] = Bits'(a) + Bits'(b) + Bits'(carry);
          assign carries_d[p*Count+i] = gen_level[l-1].carries[Left];
        end
      end

      always_ff @(posedge clk_i) begin
        if (enable_i) begin
          sums <= sums_d;
          carries <= carries_d;
        end
      end
    end
  end

  for (genvar p = 0; p < Pe; p++) begin : gen_sum
    localparam int SumBits = LeafBits + Levels;
    logic signed [SumBits-1:0] sum;
    logic carry, unused;
    assign unused = &{1'b0, sum};  // bits above OutBits
    assign sum = gen_level[Levels].sums[p*SumBits+:SumBits];
    assign carry = gen_level[Levels].carries[p];
    if (Xnor) begin : gen_double  // 2 * (sum + carry), or 2 * sum + 1 without a carry
      localparam bit One = Simd % 2 == 1;
      assign sum_o[p*OutBits+:OutBits] = OutBits'($signed({sum, One || carry}));
      assign carry_o[p] = !One && carry;
    end else begin : gen_single
      assign sum_o[p*OutBits+:OutBits] = OutBits'(sum);
      assign carry_o[p] = carry;
    end
  end

endmodule
