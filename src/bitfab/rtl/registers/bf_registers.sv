// AXI-Lite registers beside a stream: what the design is, a gate at its input, and counters of its frames, cycles and stalls.
//
// Words of 32 bits at byte addresses; "ro" are read only.
//   0x00  ro  "bitf", 0x62697466         0x04  ro  version of bitfab, major << 16 | minor << 8 | patch
//   0x08  ro  Identity of the design     0x0c  rw  control: bit 0 enable (1 after reset); bit 1 clears the counters, reads 0
//   0x10  ro  input words a frame        0x14  ro  output words a frame
//   0x18  ro  input: bits of a lane << 16 | lanes      0x1c  ro  output: the same
//   0x20  ro  latency of the frame timed last: cycles from its first word in to its last word out, both counted
//   0x24  ro  frames under way: begun, and not finished
//   0x28  wo  load data, where Loadable: moves the word to be loaded up by 32 bits and puts these below
//   0x2c  wo  load address, where Loadable: stores that word there; only while disabled and no frame is under way
//   0x40  ro  frames begun, low; 0x44 high             0x48  ro  frames finished; 0x4c
//   0x50  ro  cycles with a frame under way; 0x54      0x58  ro  cycles in which the input waited while enabled; 0x5c
//   0x60  ro  cycles in which the output waited; 0x64
// Counters have 64 bits: reading a low word keeps its high word, which the next read of a high word gives. One frame at a time
// is timed; those that begin meanwhile are not. Without enable the input is closed, but for the rest of a frame that has begun.
// Writes to read-only registers, and unaligned or unknown addresses, answer SLVERR and change nothing; so do load addresses
// beyond the bus or in a design at work, and reads of what is write only. Byte strobes: that of the lowest byte is looked at.
//
// The stream passes through without latency (ready_o is combinational in ready_i); a read or a write takes 2 cycles, and
// address and data of a write come in any order. Every AXI-Lite output is a register's.
module bf_registers #(
    parameter int Version     = 0,
    parameter int Identity    = 0,
    parameter int InputWords  = 1,  // words a frame
    parameter int InputLanes  = 1,
    parameter int InputBits   = 8,  // bits of a lane
    parameter int OutputWords = 1,
    parameter int OutputLanes = 1,
    parameter int OutputBits  = 8,
    parameter bit Loadable    = 1'b0,  // the design's memories can be written (bf_memory), over a bus of
    parameter int LoadBits        = 1,
    parameter int LoadAddressBits = 1
) (
    input  logic        clk_i,
    input  logic        rst_i,
    input  logic        aw_valid_i,
    output logic        aw_ready_o,
    input  logic [ 7:0] aw_addr_i,
    input  logic        w_valid_i,
    output logic        w_ready_o,
    input  logic [31:0] w_data_i,
    input  logic [ 3:0] w_strb_i,
    output logic        b_valid_o,
    input  logic        b_ready_i,
    output logic [ 1:0] b_resp_o,
    input  logic        ar_valid_i,
    output logic        ar_ready_o,
    input  logic [ 7:0] ar_addr_i,
    output logic        r_valid_o,
    input  logic        r_ready_i,
    output logic [31:0] r_data_o,
    output logic [ 1:0] r_resp_o,
    input  logic        valid_i,      // the input stream, to
    output logic        ready_o,
    output logic        valid_o,      // the design
    input  logic        ready_i,
    input  logic        out_valid_i,  // the output stream, watched
    input  logic        out_ready_i,
    output logic                       load_o,
    output logic [LoadAddressBits-1:0] load_address_o,
    output logic [LoadBits-1:0]        load_data_o
);

  localparam logic [31:0] Magic = 32'h62697466;
  localparam logic [1:0] Okay = 2'b00, SlaveError = 2'b10;
  localparam logic [7:0] ControlAddress = 8'h0c, LoadDataAddress = 8'h28, LoadAddress = 8'h2c;
  localparam int WriteBits = Loadable ? 32 : 2;  // control holds two
  localparam int Counters = 5;
  localparam int InCountBits = InputWords > 1 ? $clog2(InputWords) : 1;
  localparam int OutCountBits = OutputWords > 1 ? $clog2(OutputWords) : 1;

`ifndef __ICARUS__  // which has no $error at elaboration
  if (InputWords < 1 || OutputWords < 1) begin : gen_illegal_words
    $error("bf_registers: InputWords and OutputWords must be at least 1");
  end
`endif

  // ---- Writes: address and data wait for each other ----
  logic aw_held_q, w_held_q, write, write_known, load_known, enable_q, clear_q;
  logic [7:0] aw_addr_q;
  logic [WriteBits-1:0] w_data_q;
  logic w_strobe_q;

  assign aw_ready_o  = !aw_held_q;
  assign w_ready_o   = !w_held_q;
  assign write       = aw_held_q && w_held_q && (b_ready_i || !b_valid_o);
  assign write_known = aw_addr_q == ControlAddress || load_known;

  always_ff @(posedge clk_i) begin
    if (aw_ready_o) aw_addr_q <= aw_addr_i;
    if (w_ready_o) begin
      w_data_q   <= w_data_i[WriteBits-1:0];
      w_strobe_q <= w_strb_i[0];
    end
    if (write) b_resp_o <= write_known ? Okay : SlaveError;
    if (write && aw_addr_q == ControlAddress && w_strobe_q) enable_q <= w_data_q[0];
    clear_q   <= write && aw_addr_q == ControlAddress && w_strobe_q && w_data_q[1];
    aw_held_q <= !write && (aw_held_q || aw_valid_i);
    w_held_q  <= !write && (w_held_q || w_valid_i);
    b_valid_o <= write || (b_valid_o && !b_ready_i);
    if (rst_i) begin
      aw_held_q <= 1'b0;
      w_held_q  <= 1'b0;
      b_valid_o <= 1'b0;
      enable_q  <= 1'b1;
      clear_q   <= 1'b0;
    end
  end

  // ---- The gate ----
  logic open, push, pop;
  logic [InCountBits-1:0] in_word_q;
  logic [OutCountBits-1:0] out_word_q;

  assign open    = enable_q || in_word_q != 0;
  assign valid_o = valid_i && open;
  assign ready_o = ready_i && open;
  assign push    = valid_o && ready_i;
  assign pop     = out_valid_i && out_ready_i;

  // ---- Frames, and the one that is timed ----
  logic begins, ends, timed_q;
  logic [15:0] under_way_d, under_way_q, ahead_q;  // frames to finish before the timed one
  logic [31:0] age_q, latency_q;

  assign begins = push && in_word_q == 0;
  assign ends   = pop && out_word_q == OutCountBits'(OutputWords - 1);

  always_comb begin
    under_way_d = under_way_q;
    if (begins) under_way_d = under_way_d + 16'd1;
    if (ends) under_way_d = under_way_d - 16'd1;
  end

  always_ff @(posedge clk_i) begin
    if (push) in_word_q <= in_word_q == InCountBits'(InputWords - 1) ? '0 : in_word_q + 1'b1;
    if (pop) out_word_q <= ends ? '0 : out_word_q + 1'b1;
    under_way_q <= under_way_d;
    age_q       <= age_q + 32'd1;
    if (ends) ahead_q <= ahead_q - 16'd1;
    if (timed_q && ends && ahead_q == 0) begin
      latency_q <= age_q;
      timed_q   <= 1'b0;
    end
    if (begins && !timed_q) begin
      timed_q <= 1'b1;
      age_q   <= 32'd2;  // with this cycle and the next
      ahead_q <= under_way_d - 16'd1;
    end
    if (rst_i) begin
      in_word_q   <= '0;
      out_word_q  <= '0;
      under_way_q <= '0;
      timed_q     <= 1'b0;
      latency_q   <= '0;
    end
  end

  // ---- Loading, while nothing else happens ----
  if (Loadable) begin : gen_load
    logic [LoadBits-1:0] word_q;
    logic load_q, idle, fits;

    assign idle       = !open && under_way_q == 0;
    assign fits       = w_data_q >> LoadAddressBits == 0;
    assign load_known = aw_addr_q == LoadDataAddress || (aw_addr_q == LoadAddress && idle && fits);

    always_ff @(posedge clk_i) begin
      if (write && aw_addr_q == LoadDataAddress && w_strobe_q) word_q <= LoadBits'({word_q, w_data_q});
      load_q <= write && aw_addr_q == LoadAddress && idle && fits && w_strobe_q;
      if (rst_i) load_q <= 1'b0;
    end

    assign load_o         = load_q;
    assign load_address_o = w_data_q[LoadAddressBits-1:0];  // which the next write's data replaces a cycle later
    assign load_data_o    = word_q;
  end else begin : gen_no_load
    logic unused;
    assign load_known     = 1'b0;
    assign load_o         = 1'b0;
    assign load_address_o = '0;
    assign load_data_o    = '0;
    assign unused         = &{1'b0, w_data_i[31:2]};
  end

  // ---- Counters ----
  logic [Counters-1:0] counted;
  logic [63:0] counter_q[Counters];

  assign counted = {
    out_valid_i && !out_ready_i, valid_o && !ready_i, begins || under_way_q != 0, ends, begins
  };

  for (genvar i = 0; i < Counters; i++) begin : gen_counter
    always_ff @(posedge clk_i) begin
      counter_q[i] <= counter_q[i] + 64'(counted[i]);
      if (clear_q || rst_i) counter_q[i] <= '0;
    end
  end

  // ---- Reads ----
  logic ar_held_q, read, read_known, counter_known;
  logic [ 7:0] ar_addr_q;
  logic [ 2:0] counter;
  logic [31:0] fixed, high_q;
  logic [63:0] counter_value;

  assign ar_ready_o    = !ar_held_q;
  assign read          = ar_held_q && (r_ready_i || !r_valid_o);
  assign counter       = ar_addr_q[5:3];
  assign counter_known = ar_addr_q[7:6] == 2'b01 && ar_addr_q[1:0] == 2'b00 && counter < 3'(Counters);

  always_comb begin
    counter_value = counter_q[0];
    for (int i = 1; i < Counters; i++) if (counter == 3'(i)) counter_value = counter_q[i];
  end

  always_comb begin
    read_known = 1'b1;
    fixed      = '0;
    case (ar_addr_q)
      8'h00:   fixed = Magic;
      8'h04:   fixed = 32'(Version);
      8'h08:   fixed = 32'(Identity);
      8'h0c:   fixed = {31'b0, enable_q};
      8'h10:   fixed = 32'(InputWords);
      8'h14:   fixed = 32'(OutputWords);
      8'h18:   fixed = {16'(InputBits), 16'(InputLanes)};
      8'h1c:   fixed = {16'(OutputBits), 16'(OutputLanes)};
      8'h20:   fixed = latency_q;
      8'h24:   fixed = {16'b0, under_way_q};
      default: read_known = counter_known;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (ar_ready_o) ar_addr_q <= ar_addr_i;
    if (read) begin
      r_resp_o <= read_known ? Okay : SlaveError;
      r_data_o <= !counter_known ? fixed : ar_addr_q[2] ? high_q : counter_value[31:0];
      if (counter_known && !ar_addr_q[2]) high_q <= counter_value[63:32];
    end
    ar_held_q <= !read && (ar_held_q || ar_valid_i);
    r_valid_o <= read || (r_valid_o && !r_ready_i);
    if (rst_i) begin
      ar_held_q <= 1'b0;
      r_valid_o <= 1'b0;
    end
  end

  logic unused;
  assign unused = &{1'b0, w_strb_i[3:1]};
endmodule
