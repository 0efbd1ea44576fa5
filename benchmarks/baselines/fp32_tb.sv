// The FP32 units against files made by numpy: products, sums, and dot products under idle input and back-pressure.
module fp32_tb #(
    parameter int Pairs   = 1,  // of numbers in pairs.mem, with products.mem and sums.mem
    parameter int Terms   = 1,
    parameter int Results = 1,
    parameter int Inputs  = 1,  // words of inputs.mem
    parameter int Outputs = 1   // words of outputs.mem
);

  logic clk = 0, rst = 1;
  always #5 clk = !clk;

  // ---- Units ----
  logic [63:0] pairs[0:Pairs-1];
  logic [31:0] products[0:Pairs-1], sums[0:Pairs-1];
  logic [31:0] product, sum;
  int position = 0, wrong_products = 0, wrong_sums = 0;

  initial $readmemh("pairs.mem", pairs);
  initial $readmemh("products.mem", products);
  initial $readmemh("sums.mem", sums);

  logic [31:0] a, b;
  assign {a, b} = pairs[position < Pairs ? position : 0];

  fp32_multiply multiply (.clk_i(clk), .enable_i(1'b1), .a_i(a), .b_i(b), .product_o(product));
  fp32_add add (.clk_i(clk), .enable_i(1'b1), .a_i(a), .b_i(b), .sum_o(sum));

  always @(posedge clk) begin
    position <= position + 1;
    if (position >= 6 && position - 6 < Pairs && product !== products[position-6]) begin
      if (wrong_products == 0) $display("%h * %h = %h", pairs[position-6][63:32], pairs[position-6][31:0], product);
      wrong_products <= wrong_products + 1;
    end
    if (position >= 8 && position - 8 < Pairs && sum !== sums[position-8]) begin
      if (wrong_sums == 0) $display("%h + %h = %h", pairs[position-8][63:32], pairs[position-8][31:0], sum);
      wrong_sums <= wrong_sums + 1;
    end
  end

  // ---- Engine ----
  logic in_valid, in_ready, out_valid, out_ready, source_done, done;
  logic [31:0] in_data, out_data, count, mismatches;
  int busy = 0;

  bf_sim_source #(
      .Bits (32),
      .Words(Inputs),
      .File ("inputs.mem")
  ) source (
      .clk_i  (clk),
      .rst_i  (rst),
      .valid_o(in_valid),
      .ready_i(in_ready),
      .data_o (in_data),
      .done_o (source_done)
  );

  fp32_mac #(
      .Terms     (Terms),
      .Results   (Results),
      .WeightFile("weights.mem")
  ) engine (
      .clk_i  (clk),
      .rst_i  (rst),
      .valid_i(in_valid),
      .ready_o(in_ready),
      .data_i (in_data),
      .valid_o(out_valid),
      .ready_i(out_ready),
      .data_o (out_data)
  );

  bf_sim_ready ready (
      .clk_i  (clk),
      .rst_i  (rst),
      .ready_o(out_ready)
  );

  bf_sim_check #(
      .Bits (32),
      .Words(Outputs),
      .File ("outputs.mem"),
      .Name ("dot products")
  ) check (
      .clk_i       (clk),
      .rst_i       (rst),
      .valid_i     (out_valid),
      .ready_i     (out_ready),
      .data_i      (out_data),
      .count_o     (count),
      .mismatches_o(mismatches),
      .done_o      (done)
  );

  always @(posedge clk) if (!rst && !source_done) busy <= busy + 1;

  initial begin
    repeat (4) @(posedge clk);
    rst = 0;
    while (!(done && position > Pairs + 8)) @(posedge clk);
    $display("WRONG products %0d sums %0d dots %0d", wrong_products, wrong_sums, mismatches);
    $display("CYCLES %0d of the engine for %0d inputs", busy, Inputs);
    $finish;
  end
endmodule
