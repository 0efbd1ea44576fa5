-- Widens bipolar lanes (one bit: 0 means -1, 1 means +1) to two's complement of two bits, for blocks that calculate.
--
-- y[l] = 2 * x[l] - 1. Wires and inverters alone: latency 0; ready_o is ready_i.
library ieee;
use ieee.std_logic_1164.all;

entity bf_bipolar is
  generic (
    Lanes : positive := 1
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Lanes - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(2 * Lanes - 1 downto 0)
  );
end entity bf_bipolar;

architecture rtl of bf_bipolar is
begin
  valid_o <= valid_i;
  ready_o <= ready_i;

  g_lane : for l in 0 to Lanes - 1 generate
    data_o(2 * l + 1 downto 2 * l) <= not data_i(l) & '1';
  end generate g_lane;
end architecture rtl;
