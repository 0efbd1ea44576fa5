-- Gives each word of a stream to Count streams, each of which takes it exactly once and in its own time.
--
-- Latency 0. Bit i of valid_o and ready_i belongs to output i; all share data_o. An output that has taken the word is marked
-- done until the slowest has taken it too, so that no output waits for another's ready. ready_o is combinational in ready_i.
library ieee;
use ieee.std_logic_1164.all;

entity bf_fork is
  generic (
    Bits  : positive := 8;  -- of a stream word
    Count : positive := 2   -- output streams
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Bits - 1 downto 0);
    valid_o : out std_logic_vector(Count - 1 downto 0);
    ready_i : in  std_logic_vector(Count - 1 downto 0);
    data_o  : out std_logic_vector(Bits - 1 downto 0)
  );
end entity bf_fork;

architecture rtl of bf_fork is
  signal done_q : std_logic_vector(Count - 1 downto 0);
begin
  ready_o <= and (done_q or ready_i);
  valid_o <= valid_i and not done_q;
  data_o  <= data_i;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if valid_i = '1' then
        done_q <= (others => '0') when ready_o = '1' else done_q or ready_i;
      end if;
      if rst_i = '1' then
        done_q <= (others => '0');
      end if;
    end if;
  end process;

  -- synthesis translate_off
  u_handshake : entity work.bf_handshake
    generic map (Bits => Bits, BlockName => "bf_fork input")
    port map (clk_i => clk_i, rst_i => rst_i, valid_i => valid_i, ready_i => ready_o, data_i => data_i);
  -- synthesis translate_on
end architecture rtl;
