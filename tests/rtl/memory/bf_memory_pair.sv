// Two bf_memory on one bus behind a stream of commands, for the test harness: a word of both, or a load of either.
module bf_memory_pair #(
    parameter int Bits        = 8,   // of a word of the first; the second's has five
    parameter int Depth       = 5,
    parameter int AddressBits = 3,
    parameter int LoadBits    = 8,
    parameter int LoadAddressBits = 5,
    parameter int LoadBase    = 8,   // of the first; the second's is above
    parameter     FirstFile   = "",
    parameter     SecondFile  = ""
) (
    input  logic                                          clk_i,
    input  logic                                          rst_i,
    input  logic                                          valid_i,
    output logic                                          ready_o,
    input  logic [LoadBits+LoadAddressBits+AddressBits:0] data_i,
    output logic                                          valid_o,
    input  logic                                          ready_i,
    output logic [Bits+4:0]                               data_o
);
  logic enable, load;
  logic [LoadAddressBits-1:0] load_address;
  logic [LoadBits-1:0] load_data;
  logic [AddressBits-1:0] address;
  logic wants_load;

  assign enable = ready_i || !valid_o;
  assign ready_o = enable;
  assign {wants_load, load_address, load_data, address} = data_i;
  assign load = enable && valid_i && wants_load;

  bf_memory #(
      .Bits(Bits),
      .Depth(Depth),
      .AddressBits(AddressBits),
      .LoadBits(LoadBits),
      .LoadAddressBits(LoadAddressBits),
      .LoadBase(LoadBase),
      .MemoryFile(FirstFile)
  ) u_first (
      .clk_i         (clk_i),
      .enable_i      (enable && valid_i),
      .address_i     (address),
      .data_o        (data_o[Bits-1:0]),
      .load_i        (load),
      .load_address_i(load_address),
      .load_data_i   (load_data)
  );

  bf_memory #(
      .Bits(5),
      .Depth(2),
      .AddressBits(1),
      .LoadBits(LoadBits),
      .LoadAddressBits(LoadAddressBits),
      .LoadBase(LoadBase + 2 ** AddressBits),
      .MemoryFile(SecondFile)
  ) u_second (
      .clk_i         (clk_i),
      .enable_i      (enable && valid_i),
      .address_i     (address[0]),
      .data_o        (data_o[Bits+:5]),
      .load_i        (load),
      .load_address_i(load_address),
      .load_data_i   (load_data)
  );

  always_ff @(posedge clk_i) begin
    if (enable) valid_o <= valid_i && !wants_load;
    if (rst_i) valid_o <= 1'b0;
  end
endmodule
