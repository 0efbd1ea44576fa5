// bf_uart_rx: bytes from an asynchronous serial line (8 data bits, no parity, 1 stop bit, the lowest bit first).
//
// A bit lasts ClocksPerBit cycles and is sampled once, in its middle, counted from the falling edge of the start bit; after
// the ten bits of a byte the two clocks may differ by half a bit, 5 %. valid_o is high for one cycle a byte: the line cannot be
// stopped. A byte without its stop bit (a break: the line held low; a wrong rate) gives no byte but broken_o, until the line
// is high again. Two registers against metastability stand before everything.

module bf_uart_rx #(
    parameter int ClocksPerBit = 25
) (
    input  logic       clk_i,
    input  logic       rst_i,
    input  logic       rx_i,
    output logic       valid_o,
    output logic [7:0] data_o,
    output logic       broken_o
);

  localparam int CountBits = $clog2(ClocksPerBit);
  localparam logic [3:0] StopBit = 4'd9;

  if (ClocksPerBit < 4) begin : g_illegal_clocks_per_bit
    $error("bf_uart_rx: ClocksPerBit must be at least 4");
  end

  logic [1:0] line_q;
  logic line;
  logic busy_q, sample;
  logic [3:0] bit_q;  // 0 is the start bit
  logic [CountBits-1:0] count_q;  // cycles to the next sample

  assign line   = line_q[1];
  assign sample = busy_q && count_q == '0;

  always_ff @(posedge clk_i) begin
    line_q  <= {line_q[0], rx_i};
    valid_o <= sample && bit_q == StopBit && line;
    count_q <= sample ? CountBits'(ClocksPerBit - 1) : count_q - 1'b1;
    if (sample) begin
      bit_q  <= bit_q + 1'b1;
      data_o <= bit_q == StopBit ? data_o : {line, data_o[7:1]};
      if (bit_q == StopBit || (bit_q == '0 && line)) busy_q <= 1'b0;
      if (bit_q == StopBit && !line) broken_o <= 1'b1;
    end
    if (line) broken_o <= 1'b0;
    if (!busy_q && !broken_o && !line) begin
      busy_q  <= 1'b1;
      bit_q   <= '0;
      count_q <= CountBits'(ClocksPerBit / 2 - 1);
    end
    if (rst_i) begin
      line_q   <= '1;
      busy_q   <= 1'b0;
      valid_o  <= 1'b0;
      broken_o <= 1'b0;
    end
  end

endmodule
