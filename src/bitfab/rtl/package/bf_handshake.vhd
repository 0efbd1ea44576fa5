-- Watches a stream in simulation: a word that waits for ready must stay, valid and unchanged.
--
-- Drives nothing. An error names the block that it watches.
library ieee;
use ieee.std_logic_1164.all;

entity bf_handshake is
  generic (
    Bits      : positive := 8;  -- of a stream word
    BlockName : string := "stream"
  );
  port (
    clk_i   : in std_logic;
    rst_i   : in std_logic;
    valid_i : in std_logic;
    ready_i : in std_logic;
    data_i  : in std_logic_vector(Bits - 1 downto 0)
  );
end entity bf_handshake;

architecture sim of bf_handshake is
begin
  process (clk_i)
    variable waiting : boolean := false;
    variable data : std_logic_vector(Bits - 1 downto 0);
  begin
    if rising_edge(clk_i) then
      assert rst_i = '1' or not waiting or (valid_i = '1' and data_i = data)
        report BlockName & ": a word changed while waiting" severity error;
      waiting := valid_i = '1' and ready_i = '0' and rst_i = '0';
      data := data_i;
    end if;
  end process;
end architecture sim;
