// Multiplies two streams lane by lane, exactly: word by word, or each pixel of an image by one pixel of factors.
//
// y[l] = (a[l] - AZero) * (b[l] - BZero). Pixels = 1: a word of b for each word of a. Else b holds one pixel of Words words
// for each Pixels pixels of a (squeeze-and-excitation): it is taken beside the first of them, kept, and read for the others.
// Latency 4 cycles, with Multiplier = 2 those of bf_multiply and 3; one word per cycle. A word is taken from both streams at
// once, or from a alone: a_ready_o and b_ready_o are combinational in the other's valid and in ready_i.
// AFactorBits, BFactorBits and OutBits follow from range analysis; what does not fit them is an error in simulation.
// Memory: word i of the factors at address i; written while b is taken, read for the pixels after.

module bf_scale #(
    parameter int ABits       = 8,     // of a lane
    parameter bit ASigned     = 1'b0,
    parameter int AZero       = 0,
    parameter int AFactorBits = 9,     // of a - AZero, two's complement
    parameter int BBits       = 8,
    parameter bit BSigned     = 1'b0,
    parameter int BZero       = 0,
    parameter int BFactorBits = 9,
    parameter int Lanes       = 1,
    parameter int Words       = 1,     // of a pixel
    parameter int Pixels      = 1,     // of a that share a pixel of b
    parameter int OutBits     = 16,
    parameter bit OutSigned   = 1'b0,
    parameter int Multiplier  = 0      // 0: `*`; 2: adders alone (bf_multiply)
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

  localparam bit Adders = Multiplier == 2;
  localparam int WideBits = AFactorBits > BFactorBits ? AFactorBits : BFactorBits;
  localparam int SlimBits = AFactorBits > BFactorBits ? BFactorBits : AFactorBits;  // bf_multiply's digits are of it
  localparam int Stages = !Adders ? 4 : SlimBits > 4 ? 4 + (SlimBits - 1) / 2 : 5;
  localparam int ProductBits = AFactorBits + BFactorBits;
  localparam int ExactBits = 35;  // of a difference, whatever the widths
  localparam int SumBits = ProductBits > OutBits ? ProductBits + 1 : OutBits + 1;

`ifndef __ICARUS__  // which has no $error at elaboration
  if (ABits < 1 || ABits > 32 || BBits < 1 || BBits > 32 || OutBits < 1 || OutBits > 32) begin : g_illegal_bits
    $error("bf_scale: ABits, BBits and OutBits must be 1 to 32");
  end
  if (AFactorBits < 2 || AFactorBits > 33 || BFactorBits < 2 || BFactorBits > 33) begin : g_illegal_factor_bits
    $error("bf_scale: AFactorBits and BFactorBits must be 2 to 33");
  end
  if (Lanes < 1 || Words < 1 || Pixels < 1) begin : g_illegal_sizes
    $error("bf_scale: Lanes, Words and Pixels must be at least 1");
  end
  if (Multiplier != 0 && Multiplier != 2) begin : g_illegal_multiplier
    $error("bf_scale: Multiplier must be 0 or 2");
  end
`endif

  // ---- Handshake; one bit of valid_q a stage, the newest lowest ----
  logic [Stages-1:0] valid_q;
  logic enable, take_b, transfer;

  assign enable    = ready_i || !valid_q[Stages-1];
  assign a_ready_o = enable && (b_valid_i || !take_b);
  assign b_ready_o = enable && a_valid_i && take_b;
  assign transfer  = a_valid_i && (b_valid_i || !take_b);
  assign valid_o   = valid_q[Stages-1];

  always_ff @(posedge clk_i) begin
    if (enable) valid_q <= {valid_q[Stages-2:0], transfer};
    if (rst_i) valid_q <= '0;
  end

  // ---- Stage 1: both words, that of b new or from memory ----
  logic [Lanes*ABits-1:0] a_q;
  logic [Lanes*BBits-1:0] b_q, b;

  always_ff @(posedge clk_i) begin
    if (enable) a_q <= a_data_i;
    if (enable) b_q <= b_data_i;
  end

  if (Pixels > 1) begin : g_factors
    localparam int AddressBits = Words > 1 ? $clog2(Words) : 1;
    localparam int PixelBits = $clog2(Pixels);
    localparam logic [AddressBits-1:0] LastWord = AddressBits'(Words - 1);
    localparam logic [PixelBits-1:0] LastPixel = PixelBits'(Pixels - 1);
    // A word that is read while it is written is not used.
    (* no_rw_check *) logic [Lanes*BBits-1:0] memory[0:Words-1];
    logic [Lanes*BBits-1:0] read_q;
    logic [AddressBits-1:0] word_q;
    logic [PixelBits-1:0] pixel_q;
    logic new_q;

    assign take_b = pixel_q == '0;
    assign b      = new_q ? b_q : read_q;

    always_ff @(posedge clk_i) begin
      if (enable && transfer && take_b) memory[word_q] <= b_data_i;
      if (enable) read_q <= memory[word_q];
      if (enable) new_q <= take_b;
      if (enable && transfer) begin
        word_q <= word_q == LastWord ? '0 : word_q + 1'b1;
        if (word_q == LastWord) pixel_q <= pixel_q == LastPixel ? '0 : pixel_q + 1'b1;
      end
      if (rst_i) begin
        word_q  <= '0;
        pixel_q <= '0;
      end
    end

`ifndef SYNTHESIS
    always @(posedge clk_i) begin
      if (!rst_i && (32'(word_q) >= Words || 32'(pixel_q) >= Pixels)) $error("bf_scale: place out of bounds");
    end
`endif
  end else begin : g_word_by_word
    assign take_b = 1'b1;
    assign b      = b_q;
  end

  // ---- Stage 2: differences; then the product, in two stages or those of bf_multiply and one for its carry ----
  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    logic signed [ExactBits-1:0] a_exact, b_exact;
    logic signed [AFactorBits-1:0] a_factor_q;
    logic signed [BFactorBits-1:0] b_factor_q;
    logic signed [ProductBits-1:0] product_q;

    assign a_exact = ExactBits'($signed({ASigned && a_q[(l+1)*ABits-1], a_q[l*ABits+:ABits]})) - ExactBits'(AZero);
    assign b_exact = ExactBits'($signed({BSigned && b[(l+1)*BBits-1], b[l*BBits+:BBits]})) - ExactBits'(BZero);
    always_ff @(posedge clk_i) begin
      if (enable) a_factor_q <= AFactorBits'(a_exact);
      if (enable) b_factor_q <= BFactorBits'(b_exact);
    end

    if (Adders) begin : g_adders
      logic [WideBits-1:0] wide;
      logic [SlimBits-1:0] slim;
      logic [ProductBits-1:0] product;
      logic carry;
      if (AFactorBits > BFactorBits) begin : g_straight
        assign wide = a_factor_q;
        assign slim = b_factor_q;
      end else begin : g_swapped
        assign wide = b_factor_q;
        assign slim = a_factor_q;
      end
      bf_multiply #(
          .InBits(WideBits),
          .InSigned(1'b1),
          .WeightBits(SlimBits)
      ) u_multiply (
          .clk_i    (clk_i),
          .enable_i (enable),
          .data_i   (wide),
          .weight_i (slim),
          .product_o(product),
          .carry_o  (carry)
      );
      always_ff @(posedge clk_i) if (enable) product_q <= $signed(product) + $signed(ProductBits'(carry));
    end else begin : g_multiplier
      logic signed [ProductBits-1:0] first_q;
      always_ff @(posedge clk_i) begin
        if (enable) first_q <= ProductBits'(a_factor_q) * ProductBits'(b_factor_q);
        if (enable) product_q <= first_q;
      end
    end

    assign data_o[l*OutBits+:OutBits] = OutBits'(product_q);

`ifndef SYNTHESIS
    logic signed [SumBits-1:0] exact, given;
    assign exact = SumBits'(product_q);
    assign given = SumBits'($signed({OutSigned && data_o[(l+1)*OutBits-1], data_o[l*OutBits+:OutBits]}));
    always @(posedge clk_i) begin
      if (!rst_i && valid_q[0] && (ExactBits'(AFactorBits'(a_exact)) != a_exact ||
                                   ExactBits'(BFactorBits'(b_exact)) != b_exact)) begin
        $error("bf_scale: a factor does not fit its bits");
      end
      if (!rst_i && valid_o && exact != given) $error("bf_scale: the product does not fit OutBits");
    end
`endif
  end

endmodule
