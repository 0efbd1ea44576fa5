// Dot products with stationary weights: Simd inputs meet Pe rows of weights each cycle, Terms cycles a result.
//
// For each output pixel, r < Results, p < Pe (phase: which of a transposed convolution's weight sets the pixel takes):
//   y[r][p] = bias[phase][r][p] + sum over t < Terms, s < Simd of weight[phase][r][t][p][s] * x[r][t][s]
// The phase advances with each pixel of a row, modulo PhasesWidth, and with each row, modulo PhasesHeight; it starts at
// (PhaseHeight, PhaseWidth) in each image, at PhaseWidth in each row.
//
// Latency: 4 + ceil(log2(Simd)) cycles from the last term to the result. One word a cycle. ready_o follows ready_i
//   within the cycle.
// Limits: the result fits AccBits; arithmetic is modulo 2^AccBits, so a partial sum need not fit.
// Memory: WeightFile word ((phase * Results) + r) * Terms + t, signed weight (p, s) at bit (p * Simd + s) * WeightBits;
//   BiasFile word phase * Results + r, signed bias p at bit p * AccBits;
//   phase = phase row * PhasesWidth + phase column.
module bf_dot #(
    parameter int InBits       = 8,
    parameter bit InSigned     = 1'b0,
    parameter int WeightBits   = 8,
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
  localparam int OperandBits = InSigned ? InBits : InBits + 1;
  localparam int ProductBits = InBits + WeightBits;
  localparam int Levels = $clog2(Simd);  // of the adder tree, each one register deep
  localparam int SumBits = ProductBits + Levels;
  localparam int Stages = 3 + Levels;  // registers before the accumulator: memory, operands, products, tree

`ifndef __ICARUS__  // which has no $error at elaboration
  if (WeightFile == "" || BiasFile == "") begin : gen_no_file
    $error("bf_dot: WeightFile and BiasFile must name files");
  end
  if (PhaseHeight >= PhasesHeight || PhaseWidth >= PhasesWidth) begin : gen_bad_phase
    $error("bf_dot: PhaseHeight, PhaseWidth must be less than PhasesHeight, PhasesWidth");
  end
  if (WeightBits < 2) begin : gen_bad_weight
    $error("bf_dot: WeightBits must be at least 2");
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

  // ---- Memories, operands, products ----
`ifdef SYNTHESIS
  (* rom_style = WeightDepth >= 32 ? "block" : "auto" *)
`endif
  logic [Pe*Simd*WeightBits-1:0] weights[0:WeightDepth-1];
  logic [Pe*AccBits-1:0] biases[0:BiasDepth-1];
  logic [Pe*Simd*WeightBits-1:0] weight_read_q, weight_q;
  logic [Pe*AccBits-1:0] bias_read_q, bias_q;
  logic [Simd*InBits-1:0] data_read_q, data_q;

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
      data_q <= data_read_q;
      weight_q <= weight_read_q;
      bias_q <= bias_read_q;
    end
  end

  // Level l of the tree holds ceil(Simd / 2^l) sums of ProductBits + l bits for each p; level 0 is the products.
  // Tried: an operand register per multiplier (kept from merging) and a second product register. 35 % more flip-flops,
  // and the frequency of placed designs changed no more than from seed to seed.
  for (genvar l = 0; l <= Levels; l++) begin : gen_level
    localparam int Count = (Simd + (1 << l) - 1) >> l;
    localparam int Bits = ProductBits + l;
    logic [Pe*Count*Bits-1:0] sum_d, sum_q;

    for (genvar p = 0; p < Pe; p++) begin : gen_pe
      for (genvar i = 0; i < Count; i++) begin : gen_sum
        if (l == 0) begin : gen_product
          logic signed [OperandBits-1:0] x;
          logic signed [WeightBits-1:0] w;
          assign x = OperandBits'(data_q[i*InBits+:InBits]);
          assign w = weight_q[(p*Simd+i)*WeightBits+:WeightBits];
          assign sum_d[(p*Count+i)*Bits+:Bits] = Bits'(x) * Bits'(w);
        end else begin : gen_add
          localparam int Before = (Simd + (1 << (l - 1)) - 1) >> (l - 1);
          logic signed [Bits-2:0] a, b;
          assign a = gen_level[l-1].sum_q[(p*Before+2*i)*(Bits-1)+:Bits-1];
          if (2 * i + 1 < Before) begin : gen_pair
            assign b = gen_level[l-1].sum_q[(p*Before+2*i+1)*(Bits-1)+:Bits-1];
          end else begin : gen_odd
            assign b = '0;
          end
          assign sum_d[(p*Count+i)*Bits+:Bits] = Bits'(a) + Bits'(b);
        end
      end
    end

    always_ff @(posedge clk_i) begin
      if (enable) sum_q <= sum_d;
    end
  end

  // ---- Accumulator, which is the output register: it waits for ready_i with everything behind it ----
  logic [Pe*AccBits-1:0] acc_d;

  for (genvar p = 0; p < Pe; p++) begin : gen_acc
    logic signed [SumBits-1:0] sum;
    logic signed [AccBits-1:0] base;
    assign sum = gen_level[Levels].sum_q[p*SumBits+:SumBits];
    assign base = first_q[Stages-1] ? bias_q[p*AccBits+:AccBits] : data_o[p*AccBits+:AccBits];
    assign acc_d[p*AccBits+:AccBits] = base + AccBits'(sum);
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
