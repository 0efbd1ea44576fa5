// Plays a file of words into a stream, with random idle cycles (simulation only).
//
// File holds Words hexadecimal words, one a line. Before each word, and in each cycle of the wait, the source idles with
// a probability of IdlePercent %. A word once offered stays until it is taken. While idle, data_o is the inverse of the next
// word, so that a block which reads data without valid is found out.
// Random numbers: xorshift32 (Marsaglia 2003), the same in every simulator.

module bf_sim_source #(
    parameter int Bits        = 8,  // of a stream word
    parameter int Words       = 1,  // in the file
    parameter     File        = "",
    parameter int IdlePercent = 0,  // 0 to 99; the plus-argument +idle= overrides it
    parameter int Seed        = 1
) (
    input  logic            clk_i,
    input  logic            rst_i,
    output logic            valid_o,
    input  logic            ready_i,
    output logic [Bits-1:0] data_o,
    output logic            done_o    // every word has been taken
);

  localparam int AddressBits = Words > 1 ? $clog2(Words) : 1;
  localparam logic [31:0] Start = (Seed * 32'd2654435769) | 32'd1;  // not zero, and unlike for neighbouring seeds

  logic [Bits-1:0] memory[0:Words-1];
  logic [31:0] index_d, index_q;
  logic [31:0] random_d, random_q;
  int idle_percent = IdlePercent;
  logic valid_d, valid_q;

  initial $readmemh(File, memory);

  initial begin
    if ($value$plusargs("idle=%d", idle_percent)) $display("idle %0d %%", idle_percent);
  end

  always_comb begin
    random_d = random_q ^ (random_q << 13);
    random_d = random_d ^ (random_d >> 17);
    random_d = random_d ^ (random_d << 5);
    index_d  = valid_q && ready_i ? index_q + 1 : index_q;
    valid_d  = index_d < Words && random_q % 100 + 1 > idle_percent;
    if (valid_q && !ready_i) valid_d = 1'b1;
  end

  always_ff @(posedge clk_i) begin
    index_q  <= index_d;
    random_q <= random_d;
    valid_q  <= valid_d;
    if (rst_i) begin
      index_q  <= 0;
      random_q <= Start;
      valid_q  <= 1'b0;
    end
  end

  assign valid_o = valid_q;
  assign data_o  = valid_q ? memory[index_q[AddressBits-1:0]] : ~memory[index_q[AddressBits-1:0]];
  assign done_o  = index_q == Words;

endmodule
