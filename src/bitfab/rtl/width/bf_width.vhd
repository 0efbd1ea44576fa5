-- Converts words of InLanes lanes to words of OutLanes lanes; the order of the lanes stays, lane 0 first.
--
-- One of the two lane counts divides the other. Full throughput on the narrow side. Latency: 0 where they are equal (wires),
-- 1 cycle from the wide word to its first part, 1 cycle from the last part to the wide word. One wide register, shifted by a
-- narrow word at a time. ready_o is combinational in ready_i.
library ieee;
use ieee.std_logic_1164.all;
use work.bf_stream.all;

entity bf_width is
  generic (
    Bits     : positive := 8;  -- of a lane
    InLanes  : positive := 1;
    OutLanes : positive := 1
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(InLanes * Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(OutLanes * Bits - 1 downto 0)
  );
end entity bf_width;

architecture rtl of bf_width is
begin
  assert InLanes mod OutLanes = 0 or OutLanes mod InLanes = 0
    report "bf_width: one lane count must divide the other" severity failure;

  g_wires : if InLanes = OutLanes generate
    valid_o <= valid_i;
    ready_o <= ready_i;
    data_o  <= data_i;
  end generate g_wires;

  g_narrow : if InLanes > OutLanes generate
    constant Parts : positive := InLanes / OutLanes;
    constant PartBits : positive := OutLanes * Bits;
    signal data_q : std_logic_vector(InLanes * Bits - 1 downto 0);
    signal count_q : natural range 0 to Parts;  -- parts left in data_q
    signal advance, last : std_logic;
  begin
    advance <= ready_i or not valid_o;
    last    <= to_logic(count_q <= 1);  -- nothing is left once data_q advances
    ready_o <= advance and last;
    valid_o <= to_logic(count_q /= 0);
    data_o  <= data_q(PartBits - 1 downto 0);

    process (clk_i)
    begin
      if rising_edge(clk_i) then
        if advance = '1' and last = '1' then
          data_q  <= data_i;
          count_q <= Parts when valid_i = '1' else 0;
        elsif advance = '1' then
          data_q(data_q'left - PartBits downto 0) <= data_q(data_q'left downto PartBits);
          count_q <= count_q - 1;
        end if;
        if rst_i = '1' then
          count_q <= 0;
        end if;
      end if;
    end process;
  end generate g_narrow;

  g_widen : if InLanes < OutLanes generate
    constant Parts : positive := OutLanes / InLanes;
    constant PartBits : positive := InLanes * Bits;
    signal data_q : std_logic_vector(OutLanes * Bits - 1 downto 0);
    signal count_q : natural range 0 to Parts;  -- parts gathered in data_q
  begin
    ready_o <= ready_i or not valid_o;
    valid_o <= to_logic(count_q = Parts);
    data_o  <= data_q;

    process (clk_i)
    begin
      if rising_edge(clk_i) then
        if valid_i = '1' and ready_o = '1' then
          data_q <= data_i & data_q(data_q'left downto PartBits);
        end if;
        if valid_o = '1' and ready_i = '1' then
          count_q <= 1 when valid_i = '1' else 0;
        elsif valid_i = '1' and ready_o = '1' then
          count_q <= count_q + 1;
        end if;
        if rst_i = '1' then
          count_q <= 0;
        end if;
      end if;
    end process;
  end generate g_widen;

  -- synthesis translate_off
  u_handshake : entity work.bf_handshake
    generic map (Bits => OutLanes * Bits, BlockName => "bf_width")
    port map (clk_i => clk_i, rst_i => rst_i, valid_i => valid_o, ready_i => ready_i, data_i => data_o);
  -- synthesis translate_on
end architecture rtl;
