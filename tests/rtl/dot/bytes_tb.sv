// Every triple of an input and two weights of eight bits, in pairs of products of bf_products, for signed and unsigned
// inputs: x, w0 and the high bits of w1 count, each of eight pairs has other low bits of w1. The sums are compared with
// a `*` each. +wrong=1 expects one more of the last triple's first products.
module bytes_tb;
  localparam int Pairs = 8, Latency = 2, Last = (1 << 21) - 1;
  logic clk = 1'b0;
  logic [21:0] count = '0;
  logic [2*Pairs*8-1:0] weights;
  int wrong = 0;
  int differ[2] = '{0, 0};

  initial void'($value$plusargs("wrong=%d", wrong));

  always #1 clk = !clk;

  always @(posedge clk) begin
    count <= count + 1'b1;
    if (count == 22'(Last + Latency + 1)) begin
      $display("products %0d different %0d %0d", (Last + 1) * Pairs * 2, differ[0], differ[1]);
      $finish;
    end
  end

  for (genvar i = 0; i < Pairs; i++) begin : gen_pair
    assign weights[16*i+:16] = {count[20:16], 3'(i), count[15:8]};
  end

  for (genvar s = 0; s < 2; s++) begin : gen_signed
    logic [2*Pairs*16-1:0] sums;
    logic [2*Pairs-1:0] carries;

    bf_products #(
        .InBits(8),
        .InSigned(s == 1),
        .WeightBits(8),
        .Simd(1),
        .Pe(2 * Pairs),
        .OutBits(16),
        .Multiplier(1)
    ) dut (
        .clk_i   (clk),
        .enable_i(1'b1),
        .data_i  (count[7:0]),
        .weight_i(weights),
        .sum_o   (sums),
        .carry_o (carries)
    );

    always @(posedge clk) begin
      if (count >= Latency && count <= 22'(Last + Latency)) begin
        automatic logic [21:0] tried = count - 22'(Latency);
        automatic int x = s == 1 ? int'($signed(tried[7:0])) : int'(tried[7:0]);
        automatic int lower = x * int'($signed(tried[15:8])) + (tried == Last ? wrong : 0);
        for (int i = 0; i < Pairs; i++) begin
          automatic logic [7:0] weight = {tried[20:16], 3'(i)};
          automatic int upper = x * int'($signed(weight));
          if (sums[32*i+:16] + 16'(carries[2*i]) != 16'(lower)) differ[s]++;
          if (sums[32*i+16+:16] + 16'(carries[2*i+1]) != 16'(upper)) differ[s]++;
        end
      end
    end
  end
endmodule
