-- Adds two streams lane by lane, exactly.
--
-- y[l] = a[l] + b[l]. Latency 1 cycle, one word per cycle. OutBits follows from range analysis and may be less than the types
-- alone would need; a sum that does not fit (OutSigned: two's complement, else unsigned) is an error in simulation.
-- A word is taken from both streams at once: a_ready_o is combinational in b_valid_i and ready_i, b_ready_o likewise.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_add is
  generic (
    ABits     : positive := 8;  -- of a lane
    ASigned   : natural range 0 to 1 := 1;
    BBits     : positive := 8;
    BSigned   : natural range 0 to 1 := 1;
    Lanes     : positive := 1;
    OutBits   : positive := 9;
    OutSigned : natural range 0 to 2 := 2  -- 2: signed where an operand is
  );
  port (
    clk_i     : in  std_logic;
    rst_i     : in  std_logic;
    a_valid_i : in  std_logic;
    a_ready_o : out std_logic;
    a_data_i  : in  std_logic_vector(Lanes * ABits - 1 downto 0);
    b_valid_i : in  std_logic;
    b_ready_o : out std_logic;
    b_data_i  : in  std_logic_vector(Lanes * BBits - 1 downto 0);
    valid_o   : out std_logic;
    ready_i   : in  std_logic;
    data_o    : out std_logic_vector(Lanes * OutBits - 1 downto 0)
  );
end entity bf_add;

architecture rtl of bf_add is
  constant SumBits : positive := maximum(ABits, BBits) + 2;  -- two's complement, whatever the signs
  constant SumSigned : natural := choose(OutSigned = 2, maximum(ASigned, BSigned), OutSigned);

  signal valid_q, enable : std_logic;
begin
  enable    <= ready_i or not valid_q;
  a_ready_o <= enable and b_valid_i;
  b_ready_o <= enable and a_valid_i;
  valid_o   <= valid_q;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_q <= a_valid_i and b_valid_i;
      end if;
      if rst_i = '1' then
        valid_q <= '0';
      end if;
    end if;
  end process;

  g_lane : for l in 0 to Lanes - 1 generate
    signal exact : signed(SumBits - 1 downto 0);
    signal sum : std_logic_vector(OutBits - 1 downto 0);
  begin
    exact <= resize(lane(a_data_i((l + 1) * ABits - 1 downto l * ABits), ASigned), SumBits)
      + resize(lane(b_data_i((l + 1) * BBits - 1 downto l * BBits), BSigned), SumBits);
    sum <= std_logic_vector(cut(exact, OutBits));

    process (clk_i)
    begin
      if rising_edge(clk_i) and enable = '1' then
        data_o((l + 1) * OutBits - 1 downto l * OutBits) <= sum;
        -- synthesis translate_off
        assert rst_i = '1' or a_valid_i = '0' or b_valid_i = '0' or lane(sum, SumSigned) = exact
          report "bf_add: the sum does not fit OutBits" severity error;
        -- synthesis translate_on
      end if;
    end process;
  end generate g_lane;
end architecture rtl;
