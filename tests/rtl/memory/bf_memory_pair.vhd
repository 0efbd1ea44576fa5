-- Two bf_memory on one bus behind a stream of commands, for the test harness: a word of both, or a load of either.
library ieee;
use ieee.std_logic_1164.all;

entity bf_memory_pair is
  generic (
    Bits            : positive := 8;  -- of a word of the first; the second's has five
    Depth           : positive := 5;
    AddressBits     : positive := 3;
    LoadBits        : positive := 8;
    LoadAddressBits : positive := 5;
    LoadBase        : natural := 8;   -- of the first; the second's is above
    FirstFile       : string := "";
    SecondFile      : string := ""
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(LoadBits + LoadAddressBits + AddressBits downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Bits + 4 downto 0)
  );
end entity bf_memory_pair;

architecture rtl of bf_memory_pair is
  signal enable, load, wants_load : std_logic;
  signal load_address : std_logic_vector(LoadAddressBits - 1 downto 0);
  signal load_data : std_logic_vector(LoadBits - 1 downto 0);
  signal address : std_logic_vector(AddressBits - 1 downto 0);
begin
  enable  <= ready_i or not valid_o;
  ready_o <= enable;
  load    <= enable and valid_i and wants_load;
  (wants_load, load_address, load_data, address) <= data_i;

  u_first : entity work.bf_memory
    generic map (
      Bits => Bits,
      Depth => Depth,
      AddressBits => AddressBits,
      LoadBits => LoadBits,
      LoadAddressBits => LoadAddressBits,
      LoadBase => LoadBase,
      MemoryFile => FirstFile
    )
    port map (
      clk_i => clk_i,
      enable_i => enable and valid_i,
      address_i => address,
      data_o => data_o(Bits - 1 downto 0),
      load_i => load,
      load_address_i => load_address,
      load_data_i => load_data
    );

  u_second : entity work.bf_memory
    generic map (
      Bits => 5,
      Depth => 2,
      AddressBits => 1,
      LoadBits => LoadBits,
      LoadAddressBits => LoadAddressBits,
      LoadBase => LoadBase + 2 ** AddressBits,
      MemoryFile => SecondFile
    )
    port map (
      clk_i => clk_i,
      enable_i => enable and valid_i,
      address_i => address(0 downto 0),
      data_o => data_o(Bits + 4 downto Bits),
      load_i => load,
      load_address_i => load_address,
      load_data_i => load_data
    );

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_o <= valid_i and not wants_load;
      end if;
      if rst_i = '1' then
        valid_o <= '0';
      end if;
    end if;
  end process;
end architecture rtl;
