// Dot products in IEEE 754 single precision: one multiplication and one addition in every cycle.
//
// For each r < Results, c < 8:  y[8 r + c] = (((0 + w[r][0][c] x[r][0]) + w[r][1][c] x[r][1]) + ...), t < Terms terms,
// every product and sum rounded as in fp32_multiply and fp32_add. An addition takes eight cycles, in which the sums of
// eight channels pass through it one after the other: they circulate in the adder's own registers. Where an input is late,
// eight cycles add -0, which changes nothing.
//
// Throughput: an input word lasts eight cycles. Latency: 17 cycles from the last term's first cycle to the first result.
// Memory: WeightFile word (r * Terms + t) * 8 + c.
module fp32_mac #(
    parameter int Terms      = 1,
    parameter int Results    = 1,
    parameter     WeightFile = ""  // required
) (
    input  logic        clk_i,
    input  logic        rst_i,
    input  logic        valid_i,
    output logic        ready_o,
    input  logic [31:0] data_i,
    output logic        valid_o,
    input  logic        ready_i,
    output logic [31:0] data_o
);

  localparam int Depth = Results * Terms * 8;
  localparam int AddressBits = $clog2(Depth);
  localparam int TermBits = Terms > 1 ? $clog2(Terms) : 1;
  localparam int Product = 8;  // cycles from the address to the product
  localparam int Sum = 8;  // of an addition

  logic enable, active, active_q, first, last, end_term;
  logic [2:0] channel_q;
  logic [TermBits-1:0] term_q;
  logic [AddressBits-1:0] address_q;

  assign enable = ready_i || !valid_o;
  assign active = channel_q == '0 ? valid_i : active_q;
  assign ready_o = enable && active && (channel_q == '1);
  assign first = term_q == '0;
  assign end_term = term_q == TermBits'(Terms - 1);
  assign last = active && end_term;

  always_ff @(posedge clk_i) begin
    if (enable) begin
      channel_q <= channel_q + 1'b1;
      active_q <= active;
      if (active) address_q <= address_q == AddressBits'(Depth - 1) ? '0 : address_q + 1'b1;
      if (active && channel_q == '1) term_q <= end_term ? '0 : term_q + 1'b1;
    end
    if (rst_i) begin
      channel_q <= '0;
      term_q <= '0;
      address_q <= '0;
    end
  end

  // ---- Weight and input, read and registered ----
`ifdef SYNTHESIS
  (* rom_style = "block" *)
`endif
  logic [31:0] weights[0:Depth-1];
  logic [31:0] weight_read_q, weight_q, data_read_q, data_q;

  initial $readmemh(WeightFile, weights);

  always_ff @(posedge clk_i) begin
    if (enable) begin
      weight_read_q <= weights[address_q];
      weight_q <= weight_read_q;
      data_read_q <= data_i;
      data_q <= data_read_q;
    end
  end

  // ---- What travels with a product, and with a sum ----
  logic [Product-1:0] active_stage_q, first_stage_q;
  logic [Product+Sum-1:0] last_stage_q;

  always_ff @(posedge clk_i) begin
    if (enable) begin
      active_stage_q <= {active_stage_q[Product-2:0], active};
      first_stage_q <= {first_stage_q[Product-2:0], active && first};
      last_stage_q <= {last_stage_q[Product+Sum-2:0], last};
    end
    if (rst_i) last_stage_q <= '0;
  end

  logic [31:0] product;

  fp32_multiply multiply (
      .clk_i,
      .enable_i (enable),
      .a_i      (weight_q),
      .b_i      (data_q),
      .product_o(product)
  );

  fp32_add add (
      .clk_i,
      .enable_i(enable),
      .a_i     (first_stage_q[Product-1] ? 32'b0 : data_o),
      .b_i     (active_stage_q[Product-1] ? product : {1'b1, 31'b0}),
      .sum_o   (data_o)
  );

  assign valid_o = last_stage_q[Product+Sum-1];
endmodule
