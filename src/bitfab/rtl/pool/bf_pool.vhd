-- Reduces runs of Terms words to one word, lane by lane: the largest value, or the exact sum.
--
--   y[l] = max over t < Terms of x[t][l]   (Sum = 0)        y[l] = sum over t < Terms of x[t][l]   (Sum = 1)
--
-- Latency: 1 cycle from the last term to the result. One word a cycle. ready_o follows ready_i within the cycle.
-- Limits: the result fits OutBits (signed when Signed); OutBits >= Bits for a maximum.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_pool is
  generic (
    Bits    : positive := 8;  -- of an input lane
    Signed  : natural range 0 to 1 := 0;
    Lanes   : positive := 1;
    Terms   : positive := 4;
    Sum     : natural range 0 to 1 := 0;  -- 0: largest, 1: sum
    OutBits : positive := 8   -- of an output lane
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Lanes * Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Lanes * OutBits - 1 downto 0)
  );
end entity bf_pool;

architecture rtl of bf_pool is
  signal term_q : natural range 0 to maximum(Terms - 1, 1);
  signal enable, transfer, last : std_logic;
begin
  assert Sum = 1 or OutBits >= Bits report "bf_pool: OutBits must be at least Bits for a maximum" severity failure;

  enable   <= ready_i or not valid_o;
  ready_o  <= enable;
  transfer <= enable and valid_i;
  last     <= to_logic(term_q = Terms - 1);

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_o <= valid_i and last;
      end if;
      if transfer = '1' then
        term_q <= 0 when last = '1' else term_q + 1;
      end if;
      if rst_i = '1' then
        term_q  <= 0;
        valid_o <= '0';
      end if;
    end if;
  end process;

  g_lane : for l in 0 to Lanes - 1 generate
    process (clk_i)
      variable x, y : std_logic_vector(OutBits - 1 downto 0);
    begin
      if rising_edge(clk_i) and transfer = '1' then
        x := std_logic_vector(cut(lane(data_i((l + 1) * Bits - 1 downto l * Bits), Signed), OutBits));
        y := data_o((l + 1) * OutBits - 1 downto l * OutBits);
        if Sum = 1 and term_q /= 0 then
          x := std_logic_vector(unsigned(y) + unsigned(x));
        elsif term_q /= 0 and lane(x, Signed) <= lane(y, Signed) then
          x := y;
        end if;
        data_o((l + 1) * OutBits - 1 downto l * OutBits) <= x;
      end if;
    end process;
  end generate g_lane;

  -- synthesis translate_off
  u_handshake : entity work.bf_handshake
    generic map (Bits => Lanes * OutBits, BlockName => "bf_pool")
    port map (clk_i => clk_i, rst_i => rst_i, valid_i => valid_o, ready_i => ready_i, data_i => data_o);
  -- synthesis translate_on
end architecture rtl;
