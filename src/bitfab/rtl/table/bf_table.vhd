-- Replaces each lane by its entry in a read-only table: any function of one integer, exact by construction.
--
-- y[l] = table[x[l]], where x[l] is read as an unsigned number whatever it means. Latency 2 cycles, one word per cycle.
-- ready_o is combinational in ready_i. Memory: TableFile holds 2^InBits hexadecimal words of OutBits bits, entry i at address i;
-- one read port per lane.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_table is
  generic (
    InBits    : positive range 1 to 16 := 8;  -- of a lane
    OutBits   : positive := 8;
    Lanes     : positive := 1;
    TableFile : string := ""
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Lanes * InBits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Lanes * OutBits - 1 downto 0)
  );
end entity bf_table;

architecture rtl of bf_table is
  constant table_rom : memory_t(0 to 2 ** InBits - 1)(OutBits - 1 downto 0) := read_memory(TableFile, 2 ** InBits, OutBits);

  signal read_q, data_q : std_logic_vector(Lanes * OutBits - 1 downto 0);
  signal read_valid_q, valid_q, enable : std_logic;
begin
  enable  <= ready_i or not valid_q;
  ready_o <= enable;
  valid_o <= valid_q;
  data_o  <= data_q;

  g_lane : for l in 0 to Lanes - 1 generate
    process (clk_i)
    begin
      if rising_edge(clk_i) and enable = '1' then
        read_q((l + 1) * OutBits - 1 downto l * OutBits) <=
          table_rom(to_integer(unsigned(data_i((l + 1) * InBits - 1 downto l * InBits))));
      end if;
    end process;
  end generate g_lane;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        data_q       <= read_q;  -- a register behind the block RAM, whose read is slow
        read_valid_q <= valid_i;
        valid_q      <= read_valid_q;
      end if;
      if rst_i = '1' then
        read_valid_q <= '0';
        valid_q      <= '0';
      end if;
    end if;
  end process;
end architecture rtl;
