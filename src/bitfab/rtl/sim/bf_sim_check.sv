// Compares every transfer of a stream with a file of expected words (simulation only, drives nothing of the stream).
//
// File holds Words hexadecimal words, one a line. A word that differs, a word more than Words, and a breach of the handshake
// (valid dropped, or data changed, while waiting for ready) each add 1 to mismatches_o. The first wrong word and the first
// breach are printed: `MISMATCH <Name> word <position>: expected <hex> got <hex>`, `PROTOCOL <Name> word <position>: <what>`.

module bf_sim_check #(
    parameter int Bits  = 8,  // of a stream word
    parameter int Words = 1,  // in the file
    parameter     File  = "",
    parameter     Name  = "stream"
) (
    input  logic            clk_i,
    input  logic            rst_i,
    input  logic            valid_i,
    input  logic            ready_i,
    input  logic [Bits-1:0] data_i,
    output logic [    31:0] count_o,       // transfers so far
    output logic [    31:0] mismatches_o,
    output logic            done_o         // count_o == Words
);

  localparam int AddressBits = Words > 1 ? $clog2(Words) : 1;

  logic [Bits-1:0] memory[0:Words-1];
  logic [Bits-1:0] expected, waiting_data_q;
  logic [31:0] count_q, mismatches_q;
  logic waiting_q, wrong_seen_q, breach_seen_q;
  logic transfer, wrong, dropped, changed;

  initial $readmemh(File, memory);

  assign expected = memory[count_q[AddressBits-1:0]];
  assign transfer = valid_i && ready_i;
  assign wrong    = transfer && (count_q >= Words || data_i !== expected);
  assign dropped  = waiting_q && !valid_i;
  assign changed  = waiting_q && valid_i && data_i !== waiting_data_q;

  always @(posedge clk_i) begin
    waiting_q      <= valid_i && !ready_i;
    waiting_data_q <= data_i;
    count_q        <= count_q + 32'(transfer);
    mismatches_q   <= mismatches_q + 32'(wrong) + 32'(dropped || changed);
    wrong_seen_q   <= wrong_seen_q || wrong;
    breach_seen_q  <= breach_seen_q || dropped || changed;
    if (rst_i) begin
      waiting_q     <= 1'b0;
      count_q       <= 0;
      mismatches_q  <= 0;
      wrong_seen_q  <= 1'b0;
      breach_seen_q <= 1'b0;
    end else begin
      if (wrong && !wrong_seen_q) begin
        if (count_q >= Words) $display("MISMATCH %0s word %0d: none expected got %0h", Name, count_q, data_i);
        else $display("MISMATCH %0s word %0d: expected %0h got %0h", Name, count_q, expected, data_i);
      end
      if (dropped && !breach_seen_q) $display("PROTOCOL %0s word %0d: valid dropped while waiting", Name, count_q);
      if (changed && !breach_seen_q) $display("PROTOCOL %0s word %0d: data changed while waiting", Name, count_q);
    end
  end

  assign count_o      = count_q;
  assign mismatches_o = mismatches_q;
  assign done_o       = count_q == Words;

endmodule
