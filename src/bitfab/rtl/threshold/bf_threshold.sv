// Counts the thresholds that each lane reaches: any monotone function of an integer to Levels + 1 steps, channel by channel.
//
// y = Low + #{ i < Levels : x >= T[channel][i] }, modulo 2^OutBits. Latency 4 cycles, one word per cycle. ready_o is
// combinational in ready_i: the whole pipeline stalls together. Bipolar outputs (0 means -1, 1 means +1) have Levels = 1,
// OutBits = 1 and Low = 0. Limits: InBits <= 32, ThresholdBits <= 34, Levels <= 15, all compared at once.
// Memory: ThresholdFile holds Words words, one per channel word of a pixel: threshold i of lane l, two's complement, at bits
// [(l*Levels+i)*ThresholdBits+:ThresholdBits]. The order of a lane's thresholds does not matter.

module bf_threshold #(
    parameter int InBits        = 16,    // of a lane
    parameter bit InSigned      = 1'b1,
    parameter int OutBits       = 2,
    parameter int Lanes         = 1,
    parameter int Words         = 1,     // channel words per pixel
    parameter int Levels        = 3,     // thresholds a channel
    parameter int Low           = 0,     // where no threshold is reached
    parameter int ThresholdBits = 16,
    parameter bit Loadable      = 1'b0,  // the memory can be written (bf_memory), over a bus of
    parameter int LoadBits        = 1,
    parameter int LoadAddressBits = 1,
    parameter int LoadBase        = 0,
    parameter     ThresholdFile = ""
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

  localparam int Stages = 4;
  localparam int LaneBits = Levels * ThresholdBits;
  localparam int SignedBits = InSigned ? InBits : InBits + 1;
  localparam int CompareBits = SignedBits > ThresholdBits ? SignedBits : ThresholdBits;
  localparam int AddressBits = Words > 1 ? $clog2(Words) : 1;
  localparam logic [AddressBits-1:0] LastAddress = AddressBits'(Words - 1);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (InBits < 1 || InBits > 32) begin : g_illegal_in_bits
    $error("bf_threshold: InBits must be 1 to 32");
  end
  if (ThresholdBits < 1 || ThresholdBits > 34) begin : g_illegal_threshold_bits
    $error("bf_threshold: ThresholdBits must be 1 to 34");
  end
  if (OutBits < 1 || OutBits > 32) begin : g_illegal_out_bits
    $error("bf_threshold: OutBits must be 1 to 32");
  end
  if (Levels < 1 || Levels > 15) begin : g_illegal_levels
    $error("bf_threshold: Levels must be 1 to 15");
  end
  if (Lanes < 1 || Words < 1) begin : g_illegal_lanes
    $error("bf_threshold: Lanes and Words must be at least 1");
  end
  if (ThresholdFile == "") begin : g_illegal_threshold_file
    $error("bf_threshold: ThresholdFile must name a file");
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

  // Threshold memory: read in the first stage, registered in the second, right before the comparators.
  logic [Lanes*LaneBits-1:0] read_q, threshold_q;
  logic [AddressBits-1:0] address_q;

  if (Loadable) begin : g_loadable
    bf_memory #(
        .Bits(Lanes * LaneBits),
        .Depth(Words),
        .AddressBits(AddressBits),
        .LoadBits(LoadBits),
        .LoadAddressBits(LoadAddressBits),
        .LoadBase(LoadBase),
        .MemoryFile(ThresholdFile)
    ) u_thresholds (
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
    logic [Lanes*LaneBits-1:0] threshold_rom[0:Words-1];
    initial $readmemh(ThresholdFile, threshold_rom);
    always_ff @(posedge clk_i) if (enable) read_q <= threshold_rom[address_q];
    assign unused = &{1'b0, load_i, load_address_i, load_data_i, 1'(LoadBase)};
  end

  always_ff @(posedge clk_i) begin
    if (enable) threshold_q <= read_q;
    if (enable && valid_i) address_q <= address_q == LastAddress ? '0 : address_q + 1'b1;
    if (rst_i) address_q <= '0;
  end

  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    logic [InBits-1:0] input_q, compared_q;
    logic signed [CompareBits-1:0] x;
    logic [Levels-1:0] reached_q;
    logic [OutBits-1:0] data_d, data_q;

    assign x = InSigned ? CompareBits'($signed(compared_q)) : $signed(CompareBits'(compared_q));

    // Stages 1 and 2: input; stage 3: comparisons.
    always_ff @(posedge clk_i) begin
      if (enable) input_q <= data_i[l*InBits+:InBits];
      if (enable) compared_q <= input_q;
    end

    for (genvar i = 0; i < Levels; i++) begin : g_level
      logic signed [ThresholdBits-1:0] threshold;
      assign threshold = threshold_q[l*LaneBits+i*ThresholdBits+:ThresholdBits];
      always_ff @(posedge clk_i) if (enable) reached_q[i] <= x >= CompareBits'(threshold);
    end

    // Stage 4: count.
    always_comb begin
      data_d = OutBits'(Low);
      for (int i = 0; i < Levels; i++) data_d = data_d + OutBits'(reached_q[i]);
    end
    always_ff @(posedge clk_i) if (enable) data_q <= data_d;
    assign data_o[l*OutBits+:OutBits] = data_q;
  end

`ifndef SYNTHESIS
  always @(posedge clk_i) if (!rst_i && 32'(address_q) >= Words) $error("bf_threshold: address out of bounds");
`endif

endmodule
