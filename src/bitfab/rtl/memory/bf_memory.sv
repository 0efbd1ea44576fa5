// Constants that an engine reads, such as weights, and that can be written while it is idle.
//
// data_o <= memory[address_i] where enable_i: one cycle.
// load_i writes the lowest Bits of load_data_i to word load_address_i - LoadBase, if that is a word of this
// memory: many memories share one bus. No memory is read in that cycle, so that none need say what a word then is that is
// read and written at once. A reset changes no word.
// Limits: Depth <= 2^AddressBits; LoadBase is a multiple of 2^AddressBits; LoadBits >= Bits.
// Memory: MemoryFile holds Depth words, the contents at the start.
module bf_memory #(
    parameter int Bits            = 8,
    parameter int Depth           = 1,
    parameter int AddressBits     = 1,
    parameter int Style           = 0,     // 0: the synthesizer's choice, 1: block RAM, 2: LUTs
    parameter int LoadBits        = 8,     // of the bus
    parameter int LoadAddressBits = 1,
    parameter int LoadBase        = 0,     // address of word 0
    parameter     MemoryFile      = ""     // required
) (
    input  logic                       clk_i,
    input  logic                       enable_i,
    input  logic [    AddressBits-1:0] address_i,
    output logic [           Bits-1:0] data_o,
    input  logic                       load_i,
    input  logic [LoadAddressBits-1:0] load_address_i,
    input  logic [       LoadBits-1:0] load_data_i
);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (MemoryFile == "") begin : gen_no_file
    $error("bf_memory: MemoryFile must name a file");
  end
  if (Depth > 2 ** AddressBits || Style < 0 || Style > 2) begin : gen_bad_depth
    $error("bf_memory: Depth must be at most 2^AddressBits, Style 0 to 2");
  end
  if (LoadBits < Bits || LoadAddressBits < AddressBits || LoadBase % 2 ** AddressBits != 0) begin : gen_bad_load
    $error("bf_memory: LoadBits and LoadAddressBits must be enough, LoadBase a multiple of 2^AddressBits");
  end
`endif

`ifdef SYNTHESIS
  (* ram_style = Style == 1 ? "block" : Style == 2 ? "distributed" : "auto" *)
`endif
  logic [Bits-1:0] words[0:Depth-1];
  logic own, unused;

  assign unused = &{1'b0, load_data_i};  // bits above this memory's word

  if (LoadAddressBits > AddressBits) begin : gen_shared_bus
    localparam int SelectBits = LoadAddressBits - AddressBits;
    assign own = load_address_i[LoadAddressBits-1:AddressBits] == SelectBits'(LoadBase >> AddressBits);
  end else begin : gen_own_bus
    assign own = 1'b1;
  end

  initial $readmemh(MemoryFile, words);

  always_ff @(posedge clk_i) begin
    if (load_i && own) words[load_address_i[AddressBits-1:0]] <= load_data_i[Bits-1:0];
    if (enable_i && !load_i) data_o <= words[address_i];
  end

`ifndef SYNTHESIS
  always @(posedge clk_i) begin
    if (load_i && own && 32'(load_address_i[AddressBits-1:0]) >= Depth) $error("bf_memory: load address out of bounds");
  end
`endif
endmodule
