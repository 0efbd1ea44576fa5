-- Index of the first largest of each Words words (classes) of a stream.
--
-- y = min { i : x[i] = max(x) }. One lane; one word in per cycle; one index out per Words words, 1 cycle after the last of them.
-- ready_o is combinational in ready_i, and falls only while an index waits at the last word of the next pixel.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_argmax is
  generic (
    Bits      : positive := 8;  -- of a stream word
    Signed    : natural range 0 to 1 := 1;
    Words     : positive := 2;  -- classes per pixel
    IndexBits : positive := 1
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(IndexBits - 1 downto 0)
  );
end entity bf_argmax;

architecture rtl of bf_argmax is
  signal position_q, best_index_q : natural range 0 to maximum(Words - 1, 1);
  signal best_q : std_logic_vector(Bits - 1 downto 0);
  signal valid_q, last, transfer : std_logic;
begin
  assert IndexBits >= clog2(Words) report "bf_argmax: IndexBits cannot hold the last index" severity failure;

  last     <= to_logic(position_q = Words - 1);
  ready_o  <= not last or not valid_q or ready_i;
  transfer <= valid_i and ready_o;
  valid_o  <= valid_q;

  process (clk_i)
    variable best_index : natural range 0 to maximum(Words - 1, 1);
  begin
    if rising_edge(clk_i) then
      if ready_i = '1' then
        valid_q <= '0';
      end if;
      if transfer = '1' then
        best_index := best_index_q;
        if position_q = 0 or lane(data_i, Signed) > lane(best_q, Signed) then
          best_index := position_q;
          best_q <= data_i;
        end if;
        best_index_q <= best_index;
        position_q <= 0 when last = '1' else position_q + 1;
        if last = '1' then
          data_o  <= std_logic_vector(to_unsigned(best_index, IndexBits));
          valid_q <= '1';
        end if;
      end if;
      if rst_i = '1' then
        position_q <= 0;
        valid_q    <= '0';
      end if;
    end if;
  end process;
end architecture rtl;
