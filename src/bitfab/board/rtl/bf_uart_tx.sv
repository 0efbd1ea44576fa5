// bf_uart_tx: bytes to an asynchronous serial line (8 data bits, no parity, 1 stop bit, the lowest bit first).
//
// A bit lasts ClocksPerBit cycles, a byte ten bits; ready_o is high while nothing is being sent. tx_o comes from a register and
// is high at rest.

module bf_uart_tx #(
    parameter int ClocksPerBit = 25
) (
    input  logic       clk_i,
    input  logic       rst_i,
    input  logic       valid_i,
    output logic       ready_o,
    input  logic [7:0] data_i,
    output logic       tx_o
);

  localparam int CountBits = $clog2(ClocksPerBit);

  if (ClocksPerBit < 4) begin : g_illegal_clocks_per_bit
    $error("bf_uart_tx: ClocksPerBit must be at least 4");
  end

  logic [9:0] bits_q;  // bit 0 is on the line
  logic [3:0] left_q;  // bits still to send
  logic [CountBits-1:0] count_q;  // cycles to the end of the bit

  assign ready_o = left_q == '0;
  assign tx_o    = bits_q[0];

  always_ff @(posedge clk_i) begin
    count_q <= count_q == '0 ? CountBits'(ClocksPerBit - 1) : count_q - 1'b1;
    if (!ready_o && count_q == '0) begin
      bits_q <= {1'b1, bits_q[9:1]};
      left_q <= left_q - 1'b1;
    end
    if (valid_i && ready_o) begin
      bits_q  <= {1'b1, data_i, 1'b0};
      left_q  <= 4'd10;
      count_q <= CountBits'(ClocksPerBit - 1);
    end
    if (rst_i) begin
      bits_q <= '1;
      left_q <= '0;
    end
  end

endmodule
