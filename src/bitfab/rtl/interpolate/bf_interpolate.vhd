-- A function of each lane as straight lines: the upper bits of x choose a segment, the lower ones the place within it.
--
--   y[l] = clip((base[s] + slope[s] * t) >> Shift, Low, High), {s, t} = the raw bits of x[l], t of PlaceBits bits
--
-- Latency 4 cycles, one word per cycle. ready_o is combinational in ready_i. Memory: TableFile holds 2^(InBits - PlaceBits)
-- words, segment s at address s: base (signed, BaseBits) in the low bits, slope (signed, SlopeBits) above; one read port
-- per lane.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_interpolate is
  generic (
    InBits    : positive range 2 to 16 := 10;  -- of a lane
    PlaceBits : positive := 4;
    BaseBits  : positive := 16;
    SlopeBits : positive := 8;
    Shift     : natural := 7;
    OutBits   : positive := 8;
    Low       : integer := 0;
    High      : integer := 255;
    Lanes     : positive := 1;
    TableFile : string := ""
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Lanes * InBits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Lanes * OutBits - 1 downto 0)
  );
end entity bf_interpolate;

architecture rtl of bf_interpolate is
  constant SegmentBits : positive := InBits - PlaceBits;
  constant WordBits : positive := SlopeBits + BaseBits;
  constant ProductBits : positive := SlopeBits + PlaceBits + 1;
  constant SumBits : positive := maximum(maximum(ProductBits, BaseBits), OutBits) + 1;
  constant table_rom : memory_t(0 to 2 ** SegmentBits - 1)(WordBits - 1 downto 0) :=
    read_memory(TableFile, 2 ** SegmentBits, WordBits);

  signal valid_q : std_logic_vector(3 downto 0);
  signal enable : std_logic;
begin
  assert PlaceBits < InBits report "bf_interpolate: PlaceBits must be less than InBits" severity failure;
  assert Low <= High report "bf_interpolate: Low must not exceed High" severity failure;

  enable  <= ready_i or not valid_q(3);
  ready_o <= enable;
  valid_o <= valid_q(3);

  g_lane : for l in 0 to Lanes - 1 generate
    signal read_q, word_q : std_logic_vector(WordBits - 1 downto 0);
    signal read_place_q, place_q : std_logic_vector(PlaceBits - 1 downto 0);
    signal base_q : signed(BaseBits - 1 downto 0);
    signal product_q : signed(ProductBits - 1 downto 0);
    signal whole : signed(SumBits - 1 downto 0);
  begin
    whole <= shift_right(resize(base_q, SumBits) + resize(product_q, SumBits), Shift);

    process (clk_i)
    begin
      if rising_edge(clk_i) and enable = '1' then
        read_q       <= table_rom(to_integer(unsigned(data_i((l + 1) * InBits - 1 downto l * InBits + PlaceBits))));
        read_place_q <= data_i(l * InBits + PlaceBits - 1 downto l * InBits);
        word_q       <= read_q;  -- a register behind the block RAM, whose read is slow
        place_q      <= read_place_q;
        base_q       <= signed(word_q(BaseBits - 1 downto 0));
        product_q    <= signed(word_q(WordBits - 1 downto BaseBits)) * signed('0' & place_q);
        if whole < Low then
          data_o((l + 1) * OutBits - 1 downto l * OutBits) <= to_bits(Low, OutBits);
        elsif whole > High then
          data_o((l + 1) * OutBits - 1 downto l * OutBits) <= to_bits(High, OutBits);
        else
          data_o((l + 1) * OutBits - 1 downto l * OutBits) <= std_logic_vector(whole(OutBits - 1 downto 0));
        end if;
      end if;
    end process;
  end generate g_lane;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_q <= valid_q(2 downto 0) & valid_i;
      end if;
      if rst_i = '1' then
        valid_q <= (others => '0');
      end if;
    end if;
  end process;
end architecture rtl;
