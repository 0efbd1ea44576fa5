// First-in first-out buffer of a stream; the first word falls through to the output.
//
// One word in and one word out per cycle. Depth words of memory and one or two words of output registers: it takes at least
// Depth words before ready_o falls. Up to LutDepth words the memory is read asynchronously (LUT RAM) and the latency is
// 2 cycles; beyond, synchronously (block RAM, one register inside and one behind it) and the latency is 3 cycles.
// ready_o, valid_o and data_o come from registers (ready_o through one comparison).
// Memory: word i of the stream lies at address i modulo Depth.

module bf_fifo #(
    parameter int Bits  = 8,  // of a stream word
    parameter int Depth = 2   // words it holds at least
) (
    input  logic            clk_i,
    input  logic            rst_i,
    input  logic            valid_i,
    output logic            ready_o,
    input  logic [Bits-1:0] data_i,
    output logic            valid_o,
    input  logic            ready_i,
    output logic [Bits-1:0] data_o
);

  localparam int LutDepth = 32;
  localparam int AddressBits = Depth > 1 ? $clog2(Depth) : 1;
  localparam int CountBits = Depth > 0 ? $clog2(Depth + 1) : 1;
  localparam bit Wraps = Depth != 2 ** AddressBits;  // else the addresses overflow by themselves
  localparam logic [AddressBits-1:0] LastAddress = AddressBits'(Depth - 1);
  localparam logic [CountBits-1:0] Full = CountBits'(Depth);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Bits < 1) begin : g_illegal_bits
    $error("bf_fifo: Bits must be at least 1");
  end
  if (Depth < 1) begin : g_illegal_depth
    $error("bf_fifo: Depth must be at least 1");
  end
`endif

  // A word is read at the earliest one cycle after it was written: no read meets a write of the same word.
  (* no_rw_check *) logic [Bits-1:0] memory[0:Depth-1];
  logic [AddressBits-1:0] write_address_q, read_address_q;
  logic [CountBits-1:0] count_q;  // words in the memory
  logic [Bits-1:0] data_q;
  logic valid_q;
  logic push, pop, advance;

  assign ready_o = count_q != Full;
  assign push    = valid_i && ready_o;
  assign advance = ready_i || !valid_q;  // the output register takes the next word
  assign valid_o = valid_q;
  assign data_o  = data_q;

  always_ff @(posedge clk_i) begin
    if (push) memory[write_address_q] <= data_i;
    if (push) write_address_q <= Wraps && write_address_q == LastAddress ? '0 : write_address_q + 1'b1;
    if (pop) read_address_q <= Wraps && read_address_q == LastAddress ? '0 : read_address_q + 1'b1;
    if (push != pop) count_q <= count_q + (push ? CountBits'(1) : '1);
    if (rst_i) begin
      write_address_q <= '0;
      read_address_q  <= '0;
      count_q         <= '0;
    end
  end

  if (Depth <= LutDepth) begin : g_lut_memory
    assign pop = advance && count_q != '0;
    always_ff @(posedge clk_i) begin
      if (advance) data_q <= memory[read_address_q];
      if (advance) valid_q <= count_q != '0;
      if (rst_i) valid_q <= 1'b0;
    end
  end else begin : g_block_memory
    logic [Bits-1:0] read_q;
    logic read_valid_q, read_advance;
    assign read_advance = advance || !read_valid_q;
    assign pop = read_advance && count_q != '0;
    always_ff @(posedge clk_i) begin
      if (read_advance) read_q <= memory[read_address_q];
      if (read_advance) read_valid_q <= count_q != '0;
      if (advance) data_q <= read_q;
      if (advance) valid_q <= read_valid_q;
      if (rst_i) begin
        read_valid_q <= 1'b0;
        valid_q      <= 1'b0;
      end
    end
  end

`ifndef SYNTHESIS
  // Words inside, output registers included, and the most there have been since reset (at most Depth + 2).
  int occupancy_d, occupancy_q, peak_q;
  always_comb occupancy_d = occupancy_q + 32'(push) - 32'(valid_o && ready_i);
  always @(posedge clk_i) begin
    occupancy_q <= occupancy_d;
    if (occupancy_d > peak_q) peak_q <= occupancy_d;
    if (!rst_i && (occupancy_q < 0 || occupancy_q > Depth + 2)) $error("bf_fifo: count out of bounds");
    if (rst_i) begin
      occupancy_q <= 0;
      peak_q      <= 0;
    end
  end
`endif

endmodule
