-- Constants that an engine reads, such as weights, and that can be written while it is idle.
--
-- data_o <= memory[address_i] where enable_i: one cycle.
-- load_i writes the lowest Bits of load_data_i to word load_address_i - LoadBase, if that is a word of this
-- memory: many memories share one bus. No memory is read in that cycle, so that none need say what a word then is that is
-- read and written at once. A reset changes no word.
-- Limits: Depth <= 2^AddressBits; LoadBase is a multiple of 2^AddressBits; LoadBits >= Bits.
-- Memory: MemoryFile holds Depth words, the contents at the start.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_memory is
  generic (
    Bits            : positive := 8;
    Depth           : positive := 1;
    AddressBits     : positive := 1;
    Style           : natural range 0 to 2 := 0;  -- the synthesizer's choice, as GHDL drops attributes
    LoadBits        : positive := 8;              -- of the bus
    LoadAddressBits : positive := 1;
    LoadBase        : natural := 0;               -- address of word 0
    MemoryFile      : string := ""                -- required
  );
  port (
    clk_i          : in  std_logic;
    enable_i       : in  std_logic;
    address_i      : in  std_logic_vector(AddressBits - 1 downto 0);
    data_o         : out std_logic_vector(Bits - 1 downto 0);
    load_i         : in  std_logic;
    load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0);
    load_data_i    : in  std_logic_vector(LoadBits - 1 downto 0)
  );
end entity bf_memory;

architecture rtl of bf_memory is
  subtype word_t is std_logic_vector(Bits - 1 downto 0);
  constant Words : positive := maximum(Depth, 2);  -- GHDL 2.0 synthesizes no memory of a single word
  signal own : std_logic;
begin
  assert LoadBits >= Bits and LoadAddressBits >= AddressBits and LoadBase mod 2 ** AddressBits = 0
    report "bf_memory: LoadBits and LoadAddressBits must be enough, LoadBase a multiple of 2^AddressBits" severity failure;

  own <= to_logic(shift_right(unsigned(load_address_i), AddressBits) = LoadBase / 2 ** AddressBits);

  process (clk_i)  -- a variable: a signal takes a simulator far longer to set up
    variable memory : memory_t(0 to Words - 1)(word_t'range) := read_memory(MemoryFile, Depth, Bits);
  begin
    if rising_edge(clk_i) then
      if enable_i = '1' and load_i = '0' then
        data_o <= memory(to_integer(unsigned(address_i)));
      end if;
      if load_i = '1' and own = '1' then
        memory(to_integer(unsigned(load_address_i(AddressBits - 1 downto 0)))) := load_data_i(word_t'range);
      end if;
    end if;
  end process;

  -- synthesis translate_off
  assert not (rising_edge(clk_i) and load_i = '1' and own = '1')
    or to_integer(unsigned(load_address_i(AddressBits - 1 downto 0))) < Depth
    report "bf_memory: load address out of bounds" severity failure;
  -- synthesis translate_on
end architecture rtl;
