// Random back-pressure (simulation only): ready_o is low with a probability of StallPercent %, whatever valid does.
// Random numbers: xorshift32 (Marsaglia 2003), the same in every simulator.

module bf_sim_ready #(
    parameter int StallPercent = 0,  // 0 to 99; the plus-argument +stall= overrides it
    parameter int Seed         = 1
) (
    input  logic clk_i,
    input  logic rst_i,
    output logic ready_o
);

  localparam logic [31:0] Start = (Seed * 32'd2654435769) | 32'd1;  // not zero, and unlike for neighbouring seeds

  logic [31:0] random_d, random_q;
  int stall_percent = StallPercent;
  logic ready_q;

  initial begin
    if ($value$plusargs("stall=%d", stall_percent)) $display("stall %0d %%", stall_percent);
  end

  always_comb begin
    random_d = random_q ^ (random_q << 13);
    random_d = random_d ^ (random_d >> 17);
    random_d = random_d ^ (random_d << 5);
  end

  always_ff @(posedge clk_i) begin
    random_q <= random_d;
    ready_q  <= random_q % 100 + 1 > stall_percent;
    if (rst_i) begin
      random_q <= Start;
      ready_q  <= 1'b0;
    end
  end

  assign ready_o = ready_q;

endmodule
