// Brings integers of one scale to another, channel by channel: multiply, shift, round, add the zero point, clip.
//
// y = clip(round((x - InputZero) * m / 2^n) + OutputZero, Low, High), n = MinShift + extra, per channel m >= 0 and extra >= 0.
// Latency 6 cycles, with Multiplier = 2 those of bf_multiply and 5; one word per cycle. ready_o is combinational in
// ready_i: the whole pipeline stalls together.
// Exact for all inputs. Limits: InBits <= 32; InputZero, OutputZero, Low and High fit 32 bits signed.
// Rounding: 0 half_up, 1 half_even, 2 half_away (from zero), 3 floor. It takes no wide adder: the quotient is cut off and
// saturated first; then a carry, found from the sign, the first bit cut off and the OR of the others, is added with the
// zero point.
// Memory: ScaleFile holds Words words, one per channel word of a pixel: lane l at bits
// [l*(MultiplierBits+ExtraBits)+:MultiplierBits+ExtraBits], m in its low MultiplierBits bits, extra above.
// MultiplierBits = 0 means m = 1 without a multiplier; with ExtraBits = 0 too there is no memory.

module bf_requantize #(
    parameter int InBits         = 16,    // of a lane
    parameter bit InSigned       = 1'b1,
    parameter int OutBits        = 8,
    parameter int Lanes          = 1,
    parameter int Words          = 1,     // channel words per pixel
    parameter int InputZero      = 0,
    parameter int OutputZero     = 0,
    parameter int Low            = -128,
    parameter int High           = 127,
    parameter int MultiplierBits = 16,
    parameter int MinShift       = 0,
    parameter int ExtraBits      = 0,
    parameter int Rounding       = 0,
    parameter int Multiplier     = 0,     // 0: `*`, one or two a lane; 2: adders alone (bf_multiply)
    parameter bit Loadable       = 1'b0,  // the memory can be written (bf_memory), over a bus of
    parameter int LoadBits        = 1,
    parameter int LoadAddressBits = 1,
    parameter int LoadBase        = 0,
    parameter     ScaleFile      = ""
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     valid_i,
    output logic                     ready_o,
    input  logic [ Lanes*InBits-1:0] data_i,
    output logic                     valid_o,
    input  logic                     ready_i,
    output logic [Lanes*OutBits-1:0] data_o,
    input  logic                       load_i,
    input  logic [LoadAddressBits-1:0] load_address_i,
    input  logic [LoadBits-1:0]        load_data_i
);

  // The fewest bits, at least 2, that hold every number of [lowest, highest].
  function automatic int holding(logic signed [34:0] lowest, logic signed [34:0] highest);
    logic signed [34:0] limit;
    limit   = 35'sd2;
    holding = 2;
    while (-limit > lowest || limit <= highest) begin
      limit   = limit <<< 1;
      holding = holding + 1;
    end
  endfunction

  // Of every value of the input type less InputZero.
  function automatic int difference_bits();
    logic signed [34:0] lowest, highest;
    lowest  = InSigned ? -(35'sd1 <<< (InBits - 1)) : 35'sd0;
    highest = (35'sd1 <<< (InSigned ? InBits - 1 : InBits)) - 35'sd1;
    difference_bits = holding(lowest - 35'(InputZero), highest - 35'(InputZero));
  endfunction

  localparam int HalfUp = 0, HalfEven = 1, HalfAway = 2, Floor = 3;
  localparam int DifferenceBits = difference_bits();
  localparam int ScaleBits = MultiplierBits + ExtraBits;
  localparam bit Adders = Multiplier == 2 && MultiplierBits > 0;
  // As in bf_multiply, whose weight is m with a zero for its sign.
  localparam bit CutData = DifferenceBits <= 3 && DifferenceBits <= MultiplierBits + 1;
  localparam int DigitBits = CutData ? DifferenceBits : MultiplierBits + 1;
  localparam int ProductStages = !Adders ? 2 : DigitBits > 4 ? 2 + (DigitBits - 1) / 2 : 3;
  localparam int Stages = 4 + ProductStages;
  localparam int ProductBits = DifferenceBits + MultiplierBits;
  // The product with a zero bit below it (the first bit cut off when nothing is), wide enough to shift by MinShift.
  localparam int WideBits = ProductBits > MinShift ? ProductBits + 1 : MinShift + 2;
  localparam int KeptBits = WideBits - MinShift;

  // The fewest bits in which saturation changes no result, and which hold all the constants of the last stage.
  function automatic int enough_bits();
    logic signed [34:0] lowest, highest;
    lowest  = 35'(Low) - 35'(OutputZero) - 35'sd1;
    highest = 35'(High) - 35'(OutputZero);
    if (35'(OutputZero) < lowest) lowest = 35'(OutputZero);
    if (35'(OutputZero) > highest) highest = 35'(OutputZero);
    if (35'(Low) < lowest) lowest = 35'(Low);
    if (35'(High) > highest) highest = 35'(High);
    enough_bits = holding(lowest, highest);
  endfunction

  localparam int EnoughBits = enough_bits();
  localparam int QuotientBits = KeptBits - 1 < EnoughBits ? KeptBits - 1 : EnoughBits;
  localparam int SumBits = EnoughBits + 2;
  localparam logic signed [SumBits-1:0] SumZero = SumBits'(OutputZero);
  localparam logic signed [SumBits-1:0] SumLow = SumBits'(Low);
  localparam logic signed [SumBits-1:0] SumHigh = SumBits'(High);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (InBits < 1 || InBits > 32) begin : g_illegal_in_bits
    $error("bf_requantize: InBits must be 1 to 32");
  end
  if (OutBits < 1 || OutBits > 32) begin : g_illegal_out_bits
    $error("bf_requantize: OutBits must be 1 to 32");
  end
  if (Lanes < 1 || Words < 1) begin : g_illegal_lanes
    $error("bf_requantize: Lanes and Words must be at least 1");
  end
  if (Low > High) begin : g_illegal_low
    $error("bf_requantize: Low must not exceed High");
  end
  if (MultiplierBits > 31 || ExtraBits > 6) begin : g_illegal_multiplier_bits
    $error("bf_requantize: MultiplierBits must be 0 to 31, ExtraBits 0 to 6");
  end
  if (Rounding > Floor) begin : g_illegal_rounding
    $error("bf_requantize: Rounding must be 0 to 3");
  end
  if (Multiplier != 0 && Multiplier != 2) begin : g_illegal_multiplier
    $error("bf_requantize: Multiplier must be 0 or 2");
  end
  if (ScaleBits > 0 && ScaleFile == "") begin : g_illegal_scale_bits
    $error("bf_requantize: ScaleFile must name a file");
  end
`endif

  logic [Stages-1:0] valid_q;
  logic enable;

  assign enable  = ready_i || !valid_q[Stages-1];
  assign ready_o = enable;
  assign valid_o = valid_q[Stages-1];

  always_ff @(posedge clk_i) begin
    if (enable) valid_q <= {valid_q[Stages-2:0], valid_i};
    if (rst_i) valid_q <= '0;
  end

  // Scale memory: read in the first stage, registered in the second, right before the multiplier.
  localparam int ScaleWordBits = ScaleBits > 0 ? Lanes * ScaleBits : 1;
  logic [ScaleWordBits-1:0] scale_q;

  if (ScaleBits > 0) begin : g_scale
    localparam int AddressBits = Words > 1 ? $clog2(Words) : 1;
    localparam logic [AddressBits-1:0] LastAddress = AddressBits'(Words - 1);
    logic [ScaleWordBits-1:0] read_q;
    logic [AddressBits-1:0] address_q;

    if (Loadable) begin : g_loadable
      bf_memory #(
          .Bits(ScaleWordBits),
          .Depth(Words),
          .AddressBits(AddressBits),
          .LoadBits(LoadBits),
          .LoadAddressBits(LoadAddressBits),
          .LoadBase(LoadBase),
          .MemoryFile(ScaleFile)
      ) u_scales (
          .clk_i         (clk_i),
          .enable_i      (enable),
          .address_i     (address_q),
          .data_o        (read_q),
          .load_i        (load_i),
          .load_address_i(load_address_i),
          .load_data_i   (load_data_i)
      );
    end else begin : g_constant
      logic unused;
      logic [ScaleWordBits-1:0] scale_rom[0:Words-1];
      initial $readmemh(ScaleFile, scale_rom);
      always_ff @(posedge clk_i) if (enable) read_q <= scale_rom[address_q];
      assign unused = &{1'b0, load_i, load_address_i, load_data_i, 1'(LoadBase)};
    end

    always_ff @(posedge clk_i) begin
      if (enable) scale_q <= read_q;
      if (enable && valid_i) address_q <= address_q == LastAddress ? '0 : address_q + 1'b1;
      if (rst_i) address_q <= '0;
    end

`ifndef SYNTHESIS
    always @(posedge clk_i) if (!rst_i && 32'(address_q) >= Words) $error("bf_requantize: scale address out of bounds");
`endif
  end else begin : g_no_scale
    logic unused;
    assign scale_q = 1'b0;
    assign unused  = &{1'b0, scale_q, load_i, load_address_i, load_data_i, Loadable, 1'(LoadBase)};
  end

  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    logic [InBits-1:0] input_q;
    logic signed [DifferenceBits-1:0] extended, difference_q;
    logic signed [ProductBits-1:0] product_q;
    logic signed [WideBits-1:0] wide;
    logic signed [KeptBits-1:0] kept;
    logic sticky, carry, carry_q;
    logic signed [QuotientBits-1:0] quotient, quotient_q;
    logic signed [SumBits-1:0] sum;
    logic [OutBits-1:0] data_q;

    // Stages 1 and 2: input, difference.
    assign extended = InSigned ? DifferenceBits'($signed(input_q)) : $signed(DifferenceBits'(input_q));
    always_ff @(posedge clk_i) begin
      if (enable) input_q <= data_i[l*InBits+:InBits];
      if (enable) difference_q <= extended - DifferenceBits'(InputZero);
    end

    // Stages 3 and 4: product; in two parts, each for one 18 x 18 multiplier, where the difference is wider than that.
    // More stages with adders alone, the last one for their carry.
    if (MultiplierBits == 0) begin : g_no_multiplier
      logic signed [ProductBits-1:0] same_q;
      always_ff @(posedge clk_i) begin
        if (enable) same_q <= difference_q;
        if (enable) product_q <= same_q;
      end
    end else begin : g_multiplier
      logic signed [MultiplierBits:0] multiplier;
      assign multiplier = {1'b0, scale_q[l*ScaleBits+:MultiplierBits]};

      if (Adders) begin : g_adders
        logic [ProductBits:0] product;  // its highest bit repeats the sign: m has none
        logic product_carry, unused;
        assign unused = &{1'b0, product[ProductBits]};
        bf_multiply #(
            .InBits(DifferenceBits),
            .InSigned(1'b1),
            .WeightBits(MultiplierBits + 1)
        ) u_multiply (
            .clk_i    (clk_i),
            .enable_i (enable),
            .data_i   (difference_q),
            .weight_i (multiplier),
            .product_o(product),
            .carry_o  (product_carry)
        );
        always_ff @(posedge clk_i) if (enable) product_q <= ProductBits'(product) + ProductBits'(product_carry);
      end else if (DifferenceBits <= 18) begin : g_one_product
        logic signed [ProductBits-1:0] first_q;
        always_ff @(posedge clk_i) begin
          if (enable) first_q <= ProductBits'(difference_q) * ProductBits'(multiplier);
          if (enable) product_q <= first_q;
        end
      end else begin : g_two_products
        localparam int LowBits = 17;
        localparam int LowProductBits = LowBits + 1 + MultiplierBits;
        localparam int HighProductBits = ProductBits - LowBits;
        logic signed [LowBits:0] low;
        logic signed [DifferenceBits-LowBits-1:0] high;
        logic signed [LowProductBits-1:0] low_product_q;
        logic signed [HighProductBits-1:0] high_product_q;
        assign low  = {1'b0, difference_q[LowBits-1:0]};
        assign high = difference_q[DifferenceBits-1:LowBits];
        always_ff @(posedge clk_i) begin
          if (enable) low_product_q <= LowProductBits'(low) * LowProductBits'(multiplier);
          if (enable) high_product_q <= HighProductBits'(high) * HighProductBits'(multiplier);
          if (enable) product_q <= (ProductBits'(high_product_q) <<< LowBits) + ProductBits'(low_product_q);
        end
      end
    end

    // Then shift (bit 0 of `kept` is the first bit cut off, `sticky` the OR of those below), saturate, find the carry.
    assign wide = WideBits'($signed({product_q, 1'b0}));
    if (ExtraBits > 0) begin : g_extra_shift
      logic [ExtraBits-1:0] extra;
      logic [ProductStages*ExtraBits-1:0] extra_q;  // the newest lowest
      always_ff @(posedge clk_i) begin
        if (enable) begin
          extra_q <= {extra_q[0+:(ProductStages-1)*ExtraBits], scale_q[l*ScaleBits+MultiplierBits+:ExtraBits]};
        end
      end
      assign extra = extra_q[ProductStages*ExtraBits-1-:ExtraBits];
      always_comb begin
        kept   = KeptBits'(wide >>> MinShift);
        sticky = |(wide & ~({WideBits{1'b1}} << MinShift));
        for (int i = 0; i < ExtraBits; i++) begin
          if (extra[i]) begin
            sticky = sticky || |(kept & ~({KeptBits{1'b1}} << (1 << i)));
            kept   = kept >>> (1 << i);
          end
        end
      end
    end else begin : g_fixed_shift
      assign kept   = KeptBits'(wide >>> MinShift);
      assign sticky = |(wide & ~({WideBits{1'b1}} << MinShift));
    end

    assign carry = kept[0] && (Rounding == HalfUp || (Rounding == HalfEven && (sticky || kept[1])) ||
                               (Rounding == HalfAway && (sticky || !kept[KeptBits-1])));

    if (KeptBits - 1 > QuotientBits) begin : g_saturate
      logic [KeptBits-1-QuotientBits:0] top;  // the bits that all equal the sign where the quotient fits
      assign top = kept[KeptBits-1:QuotientBits];
      assign quotient = top == '0 || top == '1 ? kept[QuotientBits:1] :
                        {kept[KeptBits-1], {(QuotientBits - 1) {!kept[KeptBits-1]}}};
    end else begin : g_fits
      assign quotient = kept[KeptBits-1:1];
    end

    always_ff @(posedge clk_i) begin
      if (enable) quotient_q <= quotient;
      if (enable) carry_q <= carry;
    end

    // Last stage: zero point and clip.
    assign sum = SumBits'(quotient_q) + SumZero + $signed(SumBits'(carry_q));
    always_ff @(posedge clk_i) if (enable) data_q <= OutBits'(sum < SumLow ? SumLow : sum > SumHigh ? SumHigh : sum);
    assign data_o[l*OutBits+:OutBits] = data_q;
  end

endmodule
