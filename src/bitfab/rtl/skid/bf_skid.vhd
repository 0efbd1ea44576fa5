-- Register slice of a stream that breaks both the valid/data and the ready path, at full throughput.
--
-- Latency 1 cycle. Two words of storage: the output register, and a spare one for the word that arrives in the cycle in which
-- the output stalls. valid_o, data_o and ready_o all come straight from registers.
library ieee;
use ieee.std_logic_1164.all;

entity bf_skid is
  generic (
    Bits : positive := 8  -- of a stream word
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Bits - 1 downto 0)
  );
end entity bf_skid;

architecture rtl of bf_skid is
  signal valid_q, spare_valid_q : std_logic;
  signal data_q, spare_q : std_logic_vector(Bits - 1 downto 0);
  signal advance : std_logic;
begin
  advance <= ready_i or not valid_q;
  ready_o <= not spare_valid_q;
  valid_o <= valid_q;
  data_o  <= data_q;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if advance = '1' then
        data_q <= spare_q when spare_valid_q = '1' else data_i;
      end if;
      if spare_valid_q = '0' then
        spare_q <= data_i;
      end if;
      if advance = '1' then
        valid_q       <= valid_i or spare_valid_q;
        spare_valid_q <= '0';
      elsif valid_i = '1' then
        spare_valid_q <= '1';
      end if;
      if rst_i = '1' then
        valid_q       <= '0';
        spare_valid_q <= '0';
      end if;
    end if;
  end process;

  -- synthesis translate_off
  u_handshake : entity work.bf_handshake
    generic map (Bits => Bits, BlockName => "bf_skid")
    port map (clk_i => clk_i, rst_i => rst_i, valid_i => valid_q, ready_i => ready_i, data_i => data_q);
  -- synthesis translate_on
end architecture rtl;
