-- The most words that a FIFO has held, from what goes in and comes out (simulation only).
library ieee;
use ieee.std_logic_1164.all;

entity bf_sim_peak is
  port (
    clk_i       : in  std_logic;
    rst_i       : in  std_logic;
    in_valid_i  : in  std_logic;
    in_ready_i  : in  std_logic;
    out_valid_i : in  std_logic;
    out_ready_i : in  std_logic;
    peak_o      : out natural
  );
end entity bf_sim_peak;

architecture sim of bf_sim_peak is
begin
  process (clk_i)
    variable held, peak : natural := 0;
  begin
    if rising_edge(clk_i) and rst_i = '0' then
      if in_valid_i = '1' and in_ready_i = '1' then
        held := held + 1;
      end if;
      if out_valid_i = '1' and out_ready_i = '1' then
        held := held - 1;
      end if;
      peak := maximum(peak, held);
    end if;
    peak_o <= peak;
  end process;
end architecture sim;
