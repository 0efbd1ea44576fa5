-- Joins two streams: WordsA words of a, then WordsB words of b, in turns; a turn is a pixel (where channels are joined),
-- a row (columns) or an image (rows).
--
-- Latency 1 cycle, one word per cycle. Words are opaque: both streams have the same lanes. a_ready_o and b_ready_o are
-- combinational in ready_i.
library ieee;
use ieee.std_logic_1164.all;

entity bf_concat is
  generic (
    Bits   : positive := 8;  -- of a stream word
    WordsA : positive := 1;  -- of a turn
    WordsB : positive := 1
  );
  port (
    clk_i     : in  std_logic;
    rst_i     : in  std_logic;
    a_valid_i : in  std_logic;
    a_ready_o : out std_logic;
    a_data_i  : in  std_logic_vector(Bits - 1 downto 0);
    b_valid_i : in  std_logic;
    b_ready_o : out std_logic;
    b_data_i  : in  std_logic_vector(Bits - 1 downto 0);
    valid_o   : out std_logic;
    ready_i   : in  std_logic;
    data_o    : out std_logic_vector(Bits - 1 downto 0)
  );
end entity bf_concat;

architecture rtl of bf_concat is
  signal position_q : natural range 0 to WordsA + WordsB - 1;
  signal data_q : std_logic_vector(Bits - 1 downto 0);
  signal valid_q, take_b_q, enable, transfer : std_logic;
begin
  enable    <= ready_i or not valid_q;
  a_ready_o <= enable and not take_b_q;
  b_ready_o <= enable and take_b_q;
  transfer  <= b_valid_i when take_b_q = '1' else a_valid_i;
  valid_o   <= valid_q;
  data_o    <= data_q;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        data_q  <= b_data_i when take_b_q = '1' else a_data_i;
        valid_q <= transfer;
      end if;
      if enable = '1' and transfer = '1' then
        if position_q = WordsA + WordsB - 1 then
          position_q <= 0;
          take_b_q   <= '0';
        else
          position_q <= position_q + 1;
          take_b_q   <= '1' when position_q = WordsA - 1 else take_b_q;
        end if;
      end if;
      if rst_i = '1' then
        valid_q    <= '0';
        position_q <= 0;
        take_b_q   <= '0';
      end if;
    end if;
  end process;
end architecture rtl;
