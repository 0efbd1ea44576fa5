-- bf_fork with three outputs under their own names, for the test harness.
library ieee;
use ieee.std_logic_1164.all;

entity bf_fork_named is
  generic (
    Bits : positive := 8
  );
  port (
    clk_i     : in  std_logic;
    rst_i     : in  std_logic;
    valid_i   : in  std_logic;
    ready_o   : out std_logic;
    data_i    : in  std_logic_vector(Bits - 1 downto 0);
    a_valid_o : out std_logic;
    a_ready_i : in  std_logic;
    a_data_o  : out std_logic_vector(Bits - 1 downto 0);
    b_valid_o : out std_logic;
    b_ready_i : in  std_logic;
    b_data_o  : out std_logic_vector(Bits - 1 downto 0);
    c_valid_o : out std_logic;
    c_ready_i : in  std_logic;
    c_data_o  : out std_logic_vector(Bits - 1 downto 0)
  );
end entity bf_fork_named;

architecture rtl of bf_fork_named is
begin
  u_fork : entity work.bf_fork
    generic map (
      Bits => Bits,
      Count => 3
    )
    port map (
      clk_i => clk_i,
      rst_i => rst_i,
      valid_i => valid_i,
      ready_o => ready_o,
      data_i => data_i,
      valid_o(0) => a_valid_o,
      valid_o(1) => b_valid_o,
      valid_o(2) => c_valid_o,
      ready_i(0) => a_ready_i,
      ready_i(1) => b_ready_i,
      ready_i(2) => c_ready_i,
      data_o => a_data_o
    );

  b_data_o <= a_data_o;
  c_data_o <= a_data_o;
end architecture rtl;
