// bf_conv2d: a convolution, transposed convolution or dense layer as a sliding window in front of a dot engine.
//
//   acc[o] = bias[o] + sum over window and channels of weight[o] * x
//
// Takes Simd channels a word, gives Pe accumulators a word. One window word is multiplied in each cycle, so an output
// pixel takes Groups * Fold * Terms cycles, Terms = KernelHeight * KernelWidth * Words / Groups. Latency from the last
// input word that a result needs: that of bf_window plus that of bf_dot. Memory layout: see bf_window and bf_dot.
module bf_conv2d #(
    parameter int InBits       = 8,   // bits of an activation
    parameter bit InSigned     = 1'b0,
    parameter bit InBipolar    = 1'b0,  // InBits is 1: 1 means +1, 0 means -1
    parameter int WeightBits   = 8,   // bits of a weight, signed; 1: bipolar
    parameter int AccBits      = 24,  // bits of an accumulator
    parameter int Simd         = 1,   // input channels a cycle
    parameter int Pe           = 1,   // output channels a cycle
    parameter int Words        = 1,   // input words a pixel: input channels / Simd
    parameter int Height       = 1,
    parameter int Width        = 1,
    parameter int KernelHeight = 1,
    parameter int KernelWidth  = 1,
    parameter int StrideHeight = 1,
    parameter int StrideWidth  = 1,
    parameter int DilationHeight = 1,
    parameter int DilationWidth  = 1,
    parameter int UpHeight     = 1,   // stride of a transposed convolution
    parameter int UpWidth      = 1,
    parameter int PhaseHeight  = 0,
    parameter int PhaseWidth   = 0,
    parameter int OriginTop    = 0,   // row of the first tap of output (0, 0)
    parameter int OriginLeft   = 0,
    parameter int OutHeight    = 1,
    parameter int OutWidth     = 1,
    parameter int Groups       = 1,
    parameter int Fold         = 1,   // output channels of a group / Pe
    parameter int Rows         = 2,   // line-buffer rows
    parameter int PadValue     = 0,   // bits of what lies outside the image
    parameter int Multiplier   = 0,   // 0: a `*` each, 1: one for two products, 2: adders; see bf_dot
    parameter int Memory       = 0,   // of the weights: 0 by depth, 1 block RAM, 2 LUTs
    parameter bit Loadable     = 1'b0,  // weights and biases can be written, over a bus of
    parameter int LoadBits        = 1,
    parameter int LoadAddressBits = 1,
    parameter int LoadBase        = 0,  // address of the first word of weights
    parameter     WeightFile   = "",
    parameter     BiasFile     = ""
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
  logic                   window_valid;
  logic                   window_ready;
  logic [Simd*InBits-1:0] window_data;

  bf_window #(
      .Bits(InBits),
      .Lanes(Simd),
      .Words(Words),
      .Height(Height),
      .Width(Width),
      .KernelHeight(KernelHeight),
      .KernelWidth(KernelWidth),
      .StrideHeight(StrideHeight),
      .StrideWidth(StrideWidth),
      .DilationHeight(DilationHeight),
      .DilationWidth(DilationWidth),
      .UpHeight(UpHeight),
      .UpWidth(UpWidth),
      .PhaseHeight(PhaseHeight),
      .PhaseWidth(PhaseWidth),
      .OriginTop(OriginTop),
      .OriginLeft(OriginLeft),
      .OutHeight(OutHeight),
      .OutWidth(OutWidth),
      .Groups(Groups),
      .Fold(Fold),
      .Rows(Rows),
      .PadValue(PadValue)
  ) u_window (
      .clk_i  (clk_i),
      .rst_i  (rst_i),
      .valid_i(valid_i),
      .ready_o(ready_o),
      .data_i (data_i),
      .valid_o(window_valid),
      .ready_i(window_ready),
      .data_o (window_data)
  );

  bf_dot #(
      .InBits(InBits),
      .InSigned(InSigned),
      .InBipolar(InBipolar),
      .WeightBits(WeightBits),
      .Simd(Simd),
      .Pe(Pe),
      .AccBits(AccBits),
      .Terms(KernelHeight * KernelWidth * (Words / Groups)),
      .Results(Groups * Fold),
      .PhasesHeight(UpHeight),
      .PhasesWidth(UpWidth),
      .PhaseHeight(PhaseHeight),
      .PhaseWidth(PhaseWidth),
      .OutHeight(OutHeight),
      .OutWidth(OutWidth),
      .Multiplier(Multiplier),
      .Memory(Memory),
      .Loadable(Loadable),
      .LoadBits(LoadBits),
      .LoadAddressBits(LoadAddressBits),
      .LoadBase(LoadBase),
      .WeightFile(WeightFile),
      .BiasFile(BiasFile)
  ) u_dot (
      .clk_i  (clk_i),
      .rst_i  (rst_i),
      .valid_i(window_valid),
      .ready_o(window_ready),
      .data_i (window_data),
      .valid_o(valid_o),
      .ready_i(ready_i),
      .data_o (data_o),
      .load_i         (load_i),
      .load_address_i (load_address_i),
      .load_data_i    (load_data_i)
  );
endmodule
