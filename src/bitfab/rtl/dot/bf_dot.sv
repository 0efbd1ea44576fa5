// Dot products with stationary weights: Simd inputs meet Pe rows of weights each cycle, Terms cycles a result.
//
// For each output pixel, r < Results, p < Pe (phase: which of a transposed convolution's weight sets the pixel takes):
//   y[r][p] = bias[phase][r][p] + sum over t < Terms, s < Simd of weight[phase][r][t][p][s] * x[r][t][s]
// The phase advances with each pixel of a row, modulo PhasesWidth, and with each row, modulo PhasesHeight; it starts at
// (PhaseHeight, PhaseWidth) in each image, at PhaseWidth in each row.
//
// A bipolar side has one bit: 1 means +1, 0 means -1 (InBipolar; weights of one bit).
//
// Latency from the last term to the result: 2 cycles and those of bf_products; 4 + ceil(log2(Simd)) for a `*` each.
//   One word a cycle. ready_o follows ready_i within the cycle.
// Limits: the result fits AccBits; arithmetic is modulo 2^AccBits, so a partial sum need not fit.
// Memory: WeightFile word ((phase * Results) + r) * Terms + t, signed weight (p, s) at bit (p * Simd + s) * WeightBits;
//   BiasFile word phase * Results + r, signed bias p at bit p * AccBits;
//   phase = phase row * PhasesWidth + phase column.
module bf_dot #(
    parameter int InBits       = 8,
    parameter bit InSigned     = 1'b0,
    parameter bit InBipolar    = 1'b0,  // InBits is 1
    parameter int WeightBits   = 8,     // signed; 1: bipolar
    parameter int Simd         = 1,     // lanes of an input word
    parameter int Pe           = 1,     // lanes of an output word
    parameter int AccBits      = 24,
    parameter int Terms        = 1,     // input words a result
    parameter int Results      = 1,     // output words a pixel
    parameter int PhasesHeight = 1,     // sets of weights
    parameter int PhasesWidth  = 1,
    parameter int PhaseHeight  = 0,     // of the first output pixel
    parameter int PhaseWidth   = 0,
    parameter int OutHeight    = 1,     // output image; unused with one set of weights
    parameter int OutWidth     = 1,
    parameter int Multiplier   = 0,     // 0: a `*` each, 1: one for two products, 2: adders; unused with a bipolar side
    parameter int Memory       = 0,     // of the weights: 0 by depth, 1 block RAM, 2 LUTs
    parameter     WeightFile   = "",    // required
    parameter     BiasFile     = ""     // required
) (
    input  logic                   clk_i,
    input  logic                   rst_i,
    input  logic                   valid_i,
    output logic                   ready_o,
    input  logic [Simd*InBits-1:0] data_i,
    output logic                   valid_o,
    input  logic                   ready_i,
    output logic [Pe*AccBits-1:0]  data_o
);

  // Bits of a register that counts 0 .. n - 1.
  function automatic int counter_bits(input int n);
    counter_bits = (n > 1) ? $clog2(n) : 1;
  endfunction

  localparam int Phases = PhasesHeight * PhasesWidth;
  localparam int WeightDepth = Phases * Results * Terms;
  localparam int BiasDepth = Phases * Results;
  localparam int WeightAddressBits = counter_bits(WeightDepth);
  localparam int BiasAddressBits = counter_bits(BiasDepth);
  localparam int TermBits = counter_bits(Terms);
  localparam int ResultBits = counter_bits(Results);
  localparam int PhaseBits = counter_bits(Phases);
  // As in bf_products: leaves of the adder tree, cycles to make them.
  localparam bit Bipolar = InBipolar || WeightBits == 1;
  localparam int Leaves = InBipolar && WeightBits == 1 ? (Simd + 7) / 8 : Simd;
  localparam int ValueBits = InSigned ? InBits : InBits + 1;
  localparam int DigitBits = ValueBits <= 3 && ValueBits <= WeightBits ? ValueBits : WeightBits;
  localparam int LeafStages = Multiplier == 2 && !Bipolar && DigitBits > 4 ? (DigitBits - 1) / 2 : 1;
  localparam int Stages = 2 + LeafStages + $clog2(Leaves);  // before the accumulator: memory, operands, leaves, tree

`ifndef __ICARUS__  // which has no $error at elaboration
  if (WeightFile == "" || BiasFile == "") begin : gen_no_file
    $error("bf_dot: WeightFile and BiasFile must name files");
  end
  if (PhaseHeight >= PhasesHeight || PhaseWidth >= PhasesWidth) begin : gen_bad_phase
    $error("bf_dot: PhaseHeight, PhaseWidth must be less than PhasesHeight, PhasesWidth");
  end
  if (WeightBits < 1 || Memory < 0 || Memory > 2) begin : gen_bad_weight
    $error("bf_dot: WeightBits must be at least 1, Memory 0 to 2");
  end
`endif

  logic enable, transfer;

  assign enable = ready_i || !valid_o;
  assign ready_o = enable;
  assign transfer = enable && valid_i;

  // ---- Which term, result and set of weights the next input word belongs to ----
  logic [TermBits-1:0] term_d, term_q;
  logic [ResultBits-1:0] result_d, result_q;
  logic [WeightAddressBits-1:0] weight_address_d, weight_address_q, pixel_weight;
  logic [BiasAddressBits-1:0] bias_address_d, bias_address_q, pixel_bias;
  logic end_term, end_pixel;

  assign end_term = term_q == TermBits'(Terms - 1);
  assign end_pixel = end_term && (result_q == ResultBits'(Results - 1));

  always_comb begin
    term_d = end_term ? '0 : term_q + 1'b1;
    result_d = result_q;
    bias_address_d = bias_address_q;
    weight_address_d = end_pixel ? pixel_weight : weight_address_q + 1'b1;
    if (end_term) begin
      result_d = end_pixel ? '0 : result_q + 1'b1;
      bias_address_d = end_pixel ? pixel_bias : bias_address_q + 1'b1;
    end
  end

  localparam int FirstPhase = PhaseHeight * PhasesWidth + PhaseWidth;

  if (Phases == 1) begin : gen_one_phase
    assign pixel_weight = '0;
    assign pixel_bias = '0;
  end else begin : gen_phases
    localparam int RowBits = counter_bits(OutHeight);
    localparam int ColumnBits = counter_bits(OutWidth);
    logic [RowBits-1:0] row_q;
    logic [ColumnBits-1:0] column_q;
    logic [PhaseBits-1:0] row_phase_d, row_phase_q;  // of the row's first pixel
    logic [PhaseBits-1:0] phase_d, phase_q;  // of this pixel
    logic [PhaseBits-1:0] next_row_phase, next_column_phase;
    logic [PhasesHeight-1:0] row_ends;
    logic end_row, end_image, wrap_column, wrap_row;

    assign end_row = column_q == ColumnBits'(OutWidth - 1);
    assign end_image = end_row && (row_q == RowBits'(OutHeight - 1));
    assign wrap_row = row_phase_q == PhaseBits'((PhasesHeight - 1) * PhasesWidth + PhaseWidth);
    // The columns of a row's phases end where the next row's begin. Assignments: with the next phase in an always_comb,
    // Icarus 11 never settles.
    for (genvar i = 0; i < PhasesHeight; i++) begin : gen_row_phase
      assign row_ends[i] = phase_q == PhaseBits'((i + 1) * PhasesWidth - 1);
    end
    assign wrap_column = |row_ends;
    assign next_column_phase = wrap_column ? phase_q - PhaseBits'(PhasesWidth - 1) : phase_q + 1'b1;
    assign next_row_phase = wrap_row ? PhaseBits'(PhaseWidth) : row_phase_q + PhaseBits'(PhasesWidth % Phases);
    assign row_phase_d = end_image ? PhaseBits'(FirstPhase) : end_row ? next_row_phase : row_phase_q;
    assign phase_d = end_row ? row_phase_d : next_column_phase;

    // A table of constants, Phases entries.
    always_comb begin
      pixel_weight = '0;
      pixel_bias = '0;
      for (int i = 1; i < Phases; i++) begin
        if (phase_d == PhaseBits'(i)) begin
          pixel_weight = WeightAddressBits'(i * Results * Terms);
          pixel_bias = BiasAddressBits'(i * Results);
        end
      end
    end

    always_ff @(posedge clk_i) begin
      if (transfer && end_pixel) begin
        column_q <= end_row ? '0 : column_q + 1'b1;
        if (end_row) row_q <= end_image ? '0 : row_q + 1'b1;
        row_phase_q <= row_phase_d;
        phase_q <= phase_d;
      end
      if (rst_i) begin
        column_q <= '0;
        row_q <= '0;
        row_phase_q <= PhaseBits'(FirstPhase);
        phase_q <= PhaseBits'(FirstPhase);
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (transfer) begin
      term_q <= term_d;
      result_q <= result_d;
      weight_address_q <= weight_address_d;
      bias_address_q <= bias_address_d;
    end
    if (rst_i) begin
      term_q <= '0;
      result_q <= '0;
      weight_address_q <= WeightAddressBits'(FirstPhase * Results * Terms);
      bias_address_q <= BiasAddressBits'(FirstPhase * Results);
    end
  end

  // ---- What travels with a word through the stages ----
  logic [Stages-1:0] valid_q, first_q, last_q;
  logic [BiasAddressBits-1:0] stage_bias_q[Stages-2];  // the bias is read two stages before the accumulator

  always_ff @(posedge clk_i) begin
    if (enable) begin
      valid_q <= {valid_q[Stages-2:0], valid_i};
      first_q <= {first_q[Stages-2:0], term_q == '0};
      last_q <= {last_q[Stages-2:0], end_term};
      stage_bias_q[0] <= bias_address_q;
      for (int i = 1; i < Stages - 2; i++) stage_bias_q[i] <= stage_bias_q[i-1];
    end
    if (rst_i) valid_q <= '0;
  end

  // ---- Memories, products ----
`ifdef SYNTHESIS
  (* rom_style = Memory == 1 || (Memory == 0 && WeightDepth >= 32) ? "block" : Memory == 2 ? "logic" : "auto" *)
`endif
  logic [Pe*Simd*WeightBits-1:0] weights[0:WeightDepth-1];
  logic [Pe*AccBits-1:0] biases[0:BiasDepth-1];
  logic [Pe*Simd*WeightBits-1:0] weight_read_q;
  logic [Pe*AccBits-1:0] bias_read_q, bias_q;
  logic [Simd*InBits-1:0] data_read_q;

  initial $readmemh(WeightFile, weights);
  initial $readmemh(BiasFile, biases);

  always_ff @(posedge clk_i) begin
    if (enable) begin
      weight_read_q <= weights[weight_address_q];
      bias_read_q <= biases[stage_bias_q[Stages-3]];
    end
  end

  always_ff @(posedge clk_i) begin
    if (enable) begin
      data_read_q <= data_i;
      bias_q <= bias_read_q;
    end
  end

  logic [Pe*AccBits-1:0] sums;
  logic [Pe-1:0] carries;

  // A module for each Rows results: tools elaborate one that many rows share far faster than one with all of them.
  localparam int Rows = Bipolar || Multiplier == 0 ? 1 : Multiplier == 1 && Pe % 2 == 0 ? 2 : Pe;

  for (genvar q = 0; q < Pe / Rows; q++) begin : gen_products
    bf_products #(
        .InBits(InBits),
        .InSigned(InSigned),
        .InBipolar(InBipolar),
        .WeightBits(WeightBits),
        .Simd(Simd),
        .Pe(Rows),
        .OutBits(AccBits),
        .Multiplier(Multiplier)
    ) u_products (
        .clk_i   (clk_i),
        .enable_i(enable),
        .data_i  (data_read_q),
        .weight_i(weight_read_q[q*Rows*Simd*WeightBits+:Rows*Simd*WeightBits]),
        .sum_o   (sums[q*Rows*AccBits+:Rows*AccBits]),
        .carry_o (carries[q*Rows+:Rows])
    );
  end

  // ---- Accumulator, which is the output register: it waits for ready_i with everything behind it ----
  logic [Pe*AccBits-1:0] acc_d;

  for (genvar p = 0; p < Pe; p++) begin : gen_acc
    logic [AccBits-1:0] base;
    assign base = first_q[Stages-1] ? bias_q[p*AccBits+:AccBits] : data_o[p*AccBits+:AccBits];
    assign acc_d[p*AccBits+:AccBits] = base + sums[p*AccBits+:AccBits] + AccBits'(carries[p]);
  end

  always_ff @(posedge clk_i) begin
    if (enable) valid_o <= valid_q[Stages-1] && last_q[Stages-1];
    if (enable && valid_q[Stages-1]) data_o <= acc_d;
    if (rst_i) valid_o <= 1'b0;
  end

`ifndef SYNTHESIS
  logic [Pe*AccBits-1:0] last_data_q;
  logic waiting_q;

  always @(posedge clk_i) begin
    last_data_q <= data_o;
    waiting_q <= valid_o && !ready_i && !rst_i;
    if (!rst_i && waiting_q) begin
      if (!valid_o || data_o != last_data_q) $error("bf_dot: the output changed while it waited");
    end
  end
`endif
endmodule
