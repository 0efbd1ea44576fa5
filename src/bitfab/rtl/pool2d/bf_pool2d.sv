// bf_pool2d: maximum or exact sum over a sliding window, channel by channel.
//
//   y[c] = max or sum over the window of x[c]
//
// Takes and gives Lanes channels a word. One window word is reduced in each cycle, so an output pixel takes
// Words * KernelHeight * KernelWidth cycles. Latency: that of bf_window plus that of bf_pool.
module bf_pool2d #(
    parameter int Bits         = 8,
    parameter bit Signed       = 1'b0,
    parameter int Lanes        = 1,
    parameter bit Sum          = 1'b0,  // 0 maximum, 1 sum
    parameter int OutBits      = 8,
    parameter int Words        = 1,     // words a pixel: channels / Lanes
    parameter int Height       = 2,
    parameter int Width        = 2,
    parameter int KernelHeight = 2,
    parameter int KernelWidth  = 2,
    parameter int StrideHeight = 2,
    parameter int StrideWidth  = 2,
    parameter int OriginTop    = 0,     // row of the first tap of output (0, 0): -padding
    parameter int OriginLeft   = 0,
    parameter int OutHeight    = 1,
    parameter int OutWidth     = 1,
    parameter int Rows         = 4,     // line-buffer rows
    parameter int PadValue     = 0      // bits of what lies outside the image
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     valid_i,
    output logic                     ready_o,
    input  logic [   Lanes*Bits-1:0] data_i,
    output logic                     valid_o,
    input  logic                     ready_i,
    output logic [Lanes*OutBits-1:0] data_o
);
  logic                  window_valid;
  logic                  window_ready;
  logic [Lanes*Bits-1:0] window_data;

  bf_window #(
      .Bits(Bits),
      .Lanes(Lanes),
      .Words(Words),
      .Height(Height),
      .Width(Width),
      .KernelHeight(KernelHeight),
      .KernelWidth(KernelWidth),
      .StrideHeight(StrideHeight),
      .StrideWidth(StrideWidth),
      .OriginTop(OriginTop),
      .OriginLeft(OriginLeft),
      .OutHeight(OutHeight),
      .OutWidth(OutWidth),
      .Groups(Words),
      .Fold(1),
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

  bf_pool #(
      .Bits(Bits),
      .Signed(Signed),
      .Lanes(Lanes),
      .Terms(KernelHeight * KernelWidth),
      .Sum(Sum),
      .OutBits(OutBits)
  ) u_pool (
      .clk_i  (clk_i),
      .rst_i  (rst_i),
      .valid_i(window_valid),
      .ready_o(window_ready),
      .data_i (window_data),
      .valid_o(valid_o),
      .ready_i(ready_i),
      .data_o (data_o)
  );
endmodule
