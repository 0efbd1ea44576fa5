-- Random back-pressure (simulation only): ready_o is low with a probability of StallPercent %, whatever valid does.
--
-- Cycle by cycle the same as bf_sim_ready.sv.
library ieee;
use ieee.std_logic_1164.all;
use work.bf_sim.all;

entity bf_sim_ready is
  generic (
    StallPercent : natural range 0 to 100 := 0;
    Seed         : natural := 1
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    ready_o : out std_logic
  );
end entity bf_sim_ready;

architecture sim of bf_sim_ready is
begin
  process (clk_i)
    variable random : random_t;
  begin
    if rising_edge(clk_i) then
      ready_o <= '1' when rst_i = '0' and per_cent(random) > StallPercent else '0';
      random := first_random(Seed) when rst_i = '1' else next_random(random);
    end if;
  end process;
end architecture sim;
