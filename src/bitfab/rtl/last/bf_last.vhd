-- Marks the last word of each image, for AXI-Stream's tlast.
--
--   last_o = 1 on words Words - 1, 2 * Words - 1, ...
--
-- Latency: none; valid, ready and data pass through, a counter watches the transfers. ready_o is combinational in ready_i.
library ieee;
use ieee.std_logic_1164.all;
use work.bf_stream.all;

entity bf_last is
  generic (
    Bits  : positive := 8;  -- of a stream word
    Words : positive := 1   -- words an image
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Bits - 1 downto 0);
    last_o  : out std_logic
  );
end entity bf_last;

architecture rtl of bf_last is
  signal count_q : natural range 0 to maximum(Words - 1, 1);
begin
  valid_o <= valid_i;
  ready_o <= ready_i;
  data_o  <= data_i;
  last_o  <= to_logic(count_q = Words - 1);

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if valid_i = '1' and ready_i = '1' then
        count_q <= 0 when count_q = Words - 1 else count_q + 1;
      end if;
      if rst_i = '1' then
        count_q <= 0;
      end if;
    end if;
  end process;
end architecture rtl;
