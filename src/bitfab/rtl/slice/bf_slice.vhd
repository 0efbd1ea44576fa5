-- Keeps a slice of a stream along one axis: places Start, Start + Step, ... below Stop of Size, each of Inner words.
--
--   for each run of Size * Inner words: y = x[Start:Stop:Step]
--
-- Latency 1 cycle, one word in per cycle. Words are opaque. ready_o is combinational in ready_i for the words it keeps;
-- those it drops it takes at any time. Limits: 0 <= Start < Stop <= Size.
library ieee;
use ieee.std_logic_1164.all;
use work.bf_stream.all;

entity bf_slice is
  generic (
    Bits  : positive := 8;  -- of a stream word
    Inner : positive := 1;  -- words of a place
    Size  : positive := 2;  -- places
    Start : natural := 0;
    Stop  : positive := 1;
    Step  : positive := 1
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
end entity bf_slice;

architecture rtl of bf_slice is
  signal inner_q : natural range 0 to maximum(Inner - 1, 1);
  signal place_q : natural range 0 to maximum(Size - 1, 1);
  signal skip_q : natural range 0 to maximum(Step - 1, 1);  -- places since the last kept one
  signal inside_q : std_logic;
  signal keep, enable, transfer : std_logic;
begin
  assert Start < Stop and Stop <= Size report "bf_slice: the slice must lie within Size" severity failure;

  keep     <= inside_q and to_logic(skip_q = 0);
  enable   <= ready_i or not valid_o;
  ready_o  <= enable or not keep;
  transfer <= valid_i and ready_o;

  process (clk_i)
    variable before_start : boolean;
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_o <= valid_i and keep;
        data_o  <= data_i;
      end if;
      if transfer = '1' then
        inner_q <= 0 when inner_q = Inner - 1 else inner_q + 1;
      end if;
      if transfer = '1' and inner_q = Inner - 1 then
        before_start := place_q = (Start + Size - 1) mod Size;
        place_q <= 0 when place_q = Size - 1 else place_q + 1;
        skip_q  <= 0 when before_start or skip_q = Step - 1 else skip_q + 1;
        if before_start then
          inside_q <= '1';
        elsif place_q = Stop - 1 then
          inside_q <= '0';
        end if;
      end if;
      if rst_i = '1' then
        valid_o  <= '0';
        inner_q  <= 0;
        place_q  <= 0;
        skip_q   <= 0;
        inside_q <= to_logic(Start = 0);
      end if;
    end if;
  end process;
end architecture rtl;
