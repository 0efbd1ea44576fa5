// Dot products with stationary weights: Simd inputs meet Pe rows of weights each cycle, Terms cycles a result.
//
// For each output pixel, r < Results, p < Pe (phase: which of a transposed convolution's weight sets the pixel takes):
//   y[r][p] = bias[phase][r][p] + sum over t < Terms, s < Simd of weight[phase][r][t][p][s] * x[r][t][s]
// The phase advances with each pixel of a row, modulo PhasesWidth, and with each row, modulo PhasesHeight; it starts at
// (PhaseHeight, PhaseWidth) in each image, at PhaseWidth in each row.
//
// A bipolar side has one bit: 1 means +1, 0 means -1 (InBipolar; weights of one bit).
//
// The pipeline never waits: a result begins only where there is room for it behind the accumulators, so that no signal
//   has to reach all registers at once. One word a cycle, also for readers that seldom wait.
// Latency from the last term to the result: 3 cycles (4 with weights in block RAM) and those of bf_products where a result
//   has so many terms that two places of room do; one cycle more with more room. ready_o comes from registers.
// Limits: the result fits AccBits; arithmetic is modulo 2^AccBits, so a partial sum need not fit.
// Memory: WeightFile word ((phase * Results) + r) * Terms + t, signed weight (p, s) at bit (p * Simd + s) * WeightBits;
//   BiasFile word phase * Results + r, signed bias p at bit p * AccBits;
//   phase = phase row * PhasesWidth + phase column. Where Loadable (see bf_memory), weights lie on the bus from LoadBase on,
//   biases from LoadBase + 2^AddressBits of the weights on; LoadBase is a multiple of twice that.
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
    parameter bit Loadable     = 1'b0,  // weights and biases can be written, over a bus of
    parameter int LoadBits        = 1,
    parameter int LoadAddressBits = 1,
    parameter int LoadBase        = 0,
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
    output logic [Pe*AccBits-1:0]  data_o,
    input  logic                       load_i,
    input  logic [LoadAddressBits-1:0] load_address_i,
    input  logic [LoadBits-1:0]        load_data_i
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
  localparam bit BlockRam = Memory == 1 || (Memory == 0 && WeightDepth >= 32);  // slow to answer: a register behind it
  // Before the accumulator: memory, operands, leaves, tree.
  localparam int Stages = 2 + int'(BlockRam) + LeafStages + $clog2(Leaves);

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

  // ---- Which term, result and set of weights the next input word belongs to ----
  logic [TermBits-1:0] term_d, term_q;
  logic [ResultBits-1:0] result_d, result_q;
  logic [WeightAddressBits-1:0] weight_address_d, weight_address_q, pixel_weight;
  logic [BiasAddressBits-1:0] bias_address_d, bias_address_q, pixel_bias;
  logic end_term, end_pixel;

  assign end_term = term_q == TermBits'(Terms - 1);
  assign end_pixel = end_term && (result_q == ResultBits'(Results - 1));

  // ---- The pipeline never waits: a result begins only if there is room for it behind the accumulators ----
  localparam int Round = Stages + 5;  // cycles from a result's first term until its room is free again, at least
  localparam int Room = 2 + (Round - 1) / Terms;  // results, so that a reader that never waits never waits for this block
  localparam int RoomBits = $clog2(Room + 1);
  logic [RoomBits-1:0] room_q;
  logic transfer, begins, ends;

  assign ready_o = term_q != '0 || room_q != '0;
  assign transfer = valid_i && ready_o;
  assign begins = transfer && term_q == '0;
  assign ends = valid_o && ready_i;

  always_ff @(posedge clk_i) begin
    if (begins != ends) room_q <= begins ? room_q - 1'b1 : room_q + 1'b1;
    if (rst_i) room_q <= RoomBits'(Room);
  end

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
    valid_q <= {valid_q[Stages-2:0], transfer};
    first_q <= {first_q[Stages-2:0], term_q == '0};
    last_q <= {last_q[Stages-2:0], end_term};
    stage_bias_q[0] <= bias_address_q;
    for (int i = 1; i < Stages - 2; i++) stage_bias_q[i] <= stage_bias_q[i-1];
    if (rst_i) valid_q <= '0;
  end

  // ---- Memories, products ----
  logic [Pe*Simd*WeightBits-1:0] weight_read_q, weight;
  logic [Pe*AccBits-1:0] bias_read_q, bias_q;
  logic [Simd*InBits-1:0] data_read_q, data;

  if (Loadable) begin : gen_loadable
    bf_memory #(
        .Bits(Pe * Simd * WeightBits),
        .Depth(WeightDepth),
        .AddressBits(WeightAddressBits),
        .Style(BlockRam ? 1 : Memory),
        .LoadBits(LoadBits),
        .LoadAddressBits(LoadAddressBits),
        .LoadBase(LoadBase),
        .MemoryFile(WeightFile)
    ) u_weights (
        .clk_i         (clk_i),
        .enable_i      (1'b1),
        .address_i     (weight_address_q),
        .data_o        (weight_read_q),
        .load_i        (load_i),
        .load_address_i(load_address_i),
        .load_data_i   (load_data_i)
    );

    bf_memory #(
        .Bits(Pe * AccBits),
        .Depth(BiasDepth),
        .AddressBits(BiasAddressBits),
        .LoadBits(LoadBits),
        .LoadAddressBits(LoadAddressBits),
        .LoadBase(LoadBase + 2 ** WeightAddressBits),
        .MemoryFile(BiasFile)
    ) u_biases (
        .clk_i         (clk_i),
        .enable_i      (1'b1),
        .address_i     (stage_bias_q[Stages-3]),
        .data_o        (bias_read_q),
        .load_i        (load_i),
        .load_address_i(load_address_i),
        .load_data_i   (load_data_i)
    );
  end else begin : gen_constant
    logic unused;
`ifdef SYNTHESIS
    (* rom_style = BlockRam ? "block" : Memory == 2 ? "logic" : "auto" *)
`endif
    logic [Pe*Simd*WeightBits-1:0] weights[0:WeightDepth-1];
    logic [Pe*AccBits-1:0] biases[0:BiasDepth-1];

    initial $readmemh(WeightFile, weights);
    initial $readmemh(BiasFile, biases);

    always_ff @(posedge clk_i) begin
      weight_read_q <= weights[weight_address_q];
      bias_read_q <= biases[stage_bias_q[Stages-3]];
    end
    assign unused = &{1'b0, load_i, load_address_i, load_data_i, 1'(LoadBase)};
  end

  always_ff @(posedge clk_i) begin
    data_read_q <= data_i;
    bias_q <= bias_read_q;
  end

  if (BlockRam) begin : gen_block_ram
    logic [Pe*Simd*WeightBits-1:0] weight_q;
    logic [Simd*InBits-1:0] data_q;

    always_ff @(posedge clk_i) begin
      weight_q <= weight_read_q;
      data_q <= data_read_q;
    end
    assign weight = weight_q;
    assign data = data_q;
  end else begin : gen_logic
    assign weight = weight_read_q;
    assign data = data_read_q;
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
        .enable_i(1'b1),
        .data_i  (data),
        .weight_i(weight[q*Rows*Simd*WeightBits+:Rows*Simd*WeightBits]),
        .sum_o   (sums[q*Rows*AccBits+:Rows*AccBits]),
        .carry_o (carries[q*Rows+:Rows])
    );
  end

  // ---- Accumulators, and room behind them ----
  logic [Pe*AccBits-1:0] acc_d, acc_q;
  logic done_q, room;

  for (genvar p = 0; p < Pe; p++) begin : gen_acc
    logic [AccBits-1:0] base;
    assign base = first_q[Stages-1] ? bias_q[p*AccBits+:AccBits] : acc_q[p*AccBits+:AccBits];
    assign acc_d[p*AccBits+:AccBits] = base + sums[p*AccBits+:AccBits] + AccBits'(carries[p]);
  end

  always_ff @(posedge clk_i) begin
    done_q <= valid_q[Stages-1] && last_q[Stages-1];
    if (valid_q[Stages-1]) acc_q <= acc_d;
    if (rst_i) done_q <= 1'b0;
  end

  if (Room == 2) begin : gen_skid
    bf_skid #(
        .Bits(Pe * AccBits)
    ) u_room (
        .clk_i  (clk_i),
        .rst_i  (rst_i),
        .valid_i(done_q),
        .ready_o(room),
        .data_i (acc_q),
        .valid_o(valid_o),
        .ready_i(ready_i),
        .data_o (data_o)
    );
  end else begin : gen_fifo
    bf_fifo #(
        .Bits (Pe * AccBits),
        .Depth(Room)
    ) u_room (
        .clk_i  (clk_i),
        .rst_i  (rst_i),
        .valid_i(done_q),
        .ready_o(room),
        .data_i (acc_q),
        .valid_o(valid_o),
        .ready_i(ready_i),
        .data_o (data_o)
    );
  end

`ifdef SYNTHESIS
  logic unused;
  assign unused = room;
`else
  always @(posedge clk_i) begin
    if (!rst_i && done_q && !room) $error("bf_dot: a result without room");
  end
`endif
endmodule
