-- Indices of the K largest of each Words words (classes) of a stream, the largest first; of equal ones the lower index.
--
-- y[0] = min { i : x[i] = max(x) }, y[k] likewise among what y[0..k-1] leave; K = 1 is the argmax. One lane; one word in per
-- cycle, K indices out per Words words, the first 1 cycle after the last of them. K sorted places hold the best so far: a word
-- that beats a place moves that one and all behind it on. ready_o is combinational in ready_i, and falls only while indices
-- wait at the last word of the next pixel.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_topk is
  generic (
    Bits      : positive := 8;  -- of a stream word
    Signed    : natural range 0 to 1 := 1;
    Words     : positive := 2;  -- classes per pixel
    K         : positive := 1;
    IndexBits : positive := 1
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(IndexBits - 1 downto 0)
  );
end entity bf_topk;

architecture rtl of bf_topk is
  type indices_t is array (natural range <>) of natural range 0 to maximum(Words - 1, 1);

  signal position_q : natural range 0 to maximum(Words - 1, 1);
  signal index_q : indices_t(0 to K - 1);
  signal best_q : memory_t(0 to K - 1)(Bits - 1 downto 0);
  signal data_q : memory_t(0 to K - 1)(IndexBits - 1 downto 0);
  signal valid_q : std_logic_vector(0 to K);  -- the last is never set
  signal last, transfer : std_logic;
begin
  assert K <= Words report "bf_topk: K must be 1 to Words" severity failure;
  assert IndexBits >= clog2(Words) report "bf_topk: IndexBits cannot hold the last index" severity failure;

  last     <= to_logic(position_q = Words - 1);
  ready_o  <= not last or not valid_q(0) or (ready_i and not valid_q(1));
  transfer <= valid_i and ready_o;
  valid_o  <= valid_q(0);
  data_o   <= data_q(0);

  process (clk_i)
    variable index : indices_t(0 to K - 1);
  begin
    if rising_edge(clk_i) then
      if ready_i = '1' then
        valid_q <= valid_q(1 to K) & '0';
        if K > 1 and valid_q(1) = '1' then
          data_q(0 to K - 2) <= data_q(1 to K - 1);
        end if;
      end if;
      if transfer = '1' then
        index := index_q;
        for place in K - 1 downto 0 loop
          if position_q <= place or lane(data_i, Signed) > lane(best_q(place), Signed) then
            if place < K - 1 then
              best_q(place + 1) <= best_q(place);
              index(place + 1) := index_q(place);
            end if;
            best_q(place) <= data_i;
            index(place) := position_q;
          end if;
        end loop;
        index_q    <= index;
        position_q <= 0 when last = '1' else position_q + 1;
        if last = '1' then
          for place in 0 to K - 1 loop
            data_q(place) <= std_logic_vector(to_unsigned(index(place), IndexBits));
          end loop;
          valid_q(0 to K - 1) <= (others => '1');
        end if;
      end if;
      if rst_i = '1' then
        position_q <= 0;
        valid_q    <= (others => '0');
      end if;
    end if;
  end process;
end architecture rtl;
