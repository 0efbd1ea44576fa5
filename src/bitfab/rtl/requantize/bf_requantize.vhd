-- Brings integers of one scale to another, channel by channel: multiply, shift, round, add the zero point, clip.
--
-- y = clip(round((x - InputZero) * m / 2^n) + OutputZero, Low, High), n = MinShift + extra, per channel m >= 0 and extra >= 0.
-- Latency 6 cycles, with Multiplier = 2 those of bf_multiply and 5; one word per cycle. ready_o is combinational in
-- ready_i: the whole pipeline stalls together.
-- Exact for all inputs. Limits: InBits <= 32; InputZero, OutputZero, Low and High fit 32 bits signed.
-- Rounding: 0 half_up, 1 half_even, 2 half_away (from zero), 3 floor. It takes no wide adder: the quotient is cut off and
-- saturated first; then a carry, found from the sign, the first bit cut off and the OR of the others, is added with the
-- zero point.
-- Memory: ScaleFile holds Words words, one per channel word of a pixel: lane l at bits
-- [l*(MultiplierBits+ExtraBits)+:MultiplierBits+ExtraBits], m in its low MultiplierBits bits, extra above.
-- MultiplierBits = 0 means m = 1 without a multiplier; with ExtraBits = 0 too there is no memory.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_requantize is
  generic (
    InBits         : positive range 1 to 32 := 16;  -- of a lane
    InSigned       : natural range 0 to 1 := 1;
    OutBits        : positive range 1 to 32 := 8;
    Lanes          : positive := 1;
    Words          : positive := 1;  -- channel words per pixel
    InputZero      : integer := 0;
    OutputZero     : integer := 0;
    Low            : integer := -128;
    High           : integer := 127;
    MultiplierBits : natural range 0 to 31 := 16;
    MinShift       : natural := 0;
    ExtraBits      : natural range 0 to 6 := 0;
    Rounding       : natural range 0 to 3 := 0;
    Multiplier     : natural range 0 to 2 := 0;  -- 0: `*`, one or two a lane; 2: adders alone (bf_multiply)
    Loadable        : natural range 0 to 1 := 0;  -- the memory can be written (bf_memory), over a bus of
    LoadBits        : positive := 1;
    LoadAddressBits : positive := 1;
    LoadBase        : natural := 0;
    ScaleFile      : string := ""
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Lanes * InBits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Lanes * OutBits - 1 downto 0);
    load_i         : in  std_logic := '0';
    load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0) := (others => '0');
    load_data_i    : in  std_logic_vector(LoadBits - 1 downto 0) := (others => '0')
  );
end entity bf_requantize;

architecture rtl of bf_requantize is
  -- The fewest bits, at least 2, that hold every number of [lowest, highest]; reals hold what 32 bits do not.
  function holding (lowest : real; highest : real) return positive is
    variable limit : real := 2.0;
    variable bits : positive := 2;
  begin
    while -limit > lowest or limit <= highest loop
      limit := 2.0 * limit;
      bits := bits + 1;
    end loop;
    return bits;
  end function holding;

  -- Of every value of the input type less InputZero.
  function difference_bits return positive is
    constant zero : real := real(InputZero);
  begin
    if InSigned = 1 then
      return holding(-(2.0 ** (InBits - 1)) - zero, 2.0 ** (InBits - 1) - 1.0 - zero);
    end if;
    return holding(-zero, 2.0 ** InBits - 1.0 - zero);
  end function difference_bits;

  -- The fewest bits in which saturation changes no result, and which hold all the constants of the last stage.
  function enough_bits return positive is
    constant zero : real := real(OutputZero);
    constant saturated : positive := holding(real(Low) - zero - 1.0, real(High) - zero);
  begin
    return maximum(saturated, maximum(holding(zero, zero), holding(real(Low), real(High))));
  end function enough_bits;

  constant HalfUp : natural := 0;
  constant HalfEven : natural := 1;
  constant HalfAway : natural := 2;
  constant ScaleBits : natural := MultiplierBits + ExtraBits;
  constant DifferenceBits : positive := difference_bits;
  constant Zero : signed(DifferenceBits - 1 downto 0) := cut(to_signed(InputZero, 32), DifferenceBits);
  constant ProductBits : positive := DifferenceBits + MultiplierBits;
  constant Adders : boolean := Multiplier = 2 and MultiplierBits > 0;
  -- As in bf_multiply, whose weight is m with a zero for its sign.
  constant CutData : boolean := DifferenceBits <= 3 and DifferenceBits <= MultiplierBits + 1;
  constant DigitBits : positive := choose(CutData, DifferenceBits, MultiplierBits + 1);
  constant ProductStages : positive := choose(not Adders, 2, choose(DigitBits > 4, 2 + (DigitBits - 1) / 2, 3));
  constant Stages : positive := 4 + ProductStages;
  -- The product with a zero bit below it (the first bit cut off when nothing is), wide enough to shift by MinShift.
  constant WideBits : positive := choose(ProductBits > MinShift, ProductBits + 1, MinShift + 2);
  constant KeptBits : positive := WideBits - MinShift;
  constant EnoughBits : positive := enough_bits;
  constant QuotientBits : positive := minimum(KeptBits - 1, EnoughBits);
  constant SumBits : positive := EnoughBits + 2;
  constant SumLow : signed(SumBits - 1 downto 0) := to_signed(Low, SumBits);
  constant SumHigh : signed(SumBits - 1 downto 0) := to_signed(High, SumBits);
  constant ScaleWordBits : positive := choose(ScaleBits > 0, Lanes * ScaleBits, 1);

  signal valid_q : std_logic_vector(Stages - 1 downto 0);
  signal enable : std_logic;
  signal scale_q : std_logic_vector(ScaleWordBits - 1 downto 0);
begin
  assert Low <= High report "bf_requantize: Low must not exceed High" severity failure;
  assert Multiplier /= 1 report "bf_requantize: Multiplier must be 0 or 2" severity failure;
  assert ScaleBits = 0 or ScaleFile /= "" report "bf_requantize: ScaleFile must name a file" severity failure;

  enable  <= ready_i or not valid_q(Stages - 1);
  ready_o <= enable;
  valid_o <= valid_q(Stages - 1);

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_q <= valid_q(Stages - 2 downto 0) & valid_i;
      end if;
      if rst_i = '1' then
        valid_q <= (others => '0');
      end if;
    end if;
  end process;

  -- Scale memory: read in the first stage, registered in the second, right before the multiplier.
  g_scale : if ScaleBits > 0 generate
    constant AddressBits : positive := maximum(clog2(Words), 1);
    signal read_q : std_logic_vector(ScaleWordBits - 1 downto 0);
    signal address_q : natural range 0 to maximum(Words - 1, 1);
  begin
    g_loadable : if Loadable = 1 generate
      u_scales : entity work.bf_memory
        generic map (
          Bits => ScaleWordBits,
          Depth => Words,
          AddressBits => AddressBits,
          LoadBits => LoadBits,
          LoadAddressBits => LoadAddressBits,
          LoadBase => LoadBase,
          MemoryFile => ScaleFile
        )
        port map (
          clk_i => clk_i,
          enable_i => enable,
          address_i => to_bits(address_q, AddressBits),
          data_o => read_q,
          load_i => load_i,
          load_address_i => load_address_i,
          load_data_i => load_data_i
        );
    end generate g_loadable;

    g_constant : if Loadable = 0 generate
      constant scale_rom : memory_t(0 to maximum(Words - 1, 1))(ScaleWordBits - 1 downto 0) :=
        read_memory(ScaleFile, Words, ScaleWordBits);
    begin
      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          read_q <= scale_rom(address_q);
        end if;
      end process;
    end generate g_constant;

    process (clk_i)
    begin
      if rising_edge(clk_i) then
        if enable = '1' then
          scale_q <= read_q;
        end if;
        if enable = '1' and valid_i = '1' then
          address_q <= 0 when address_q = Words - 1 else address_q + 1;
        end if;
        if rst_i = '1' then
          address_q <= 0;
        end if;
      end if;
    end process;
  end generate g_scale;

  g_lane : for l in 0 to Lanes - 1 generate
    signal input_q : std_logic_vector(InBits - 1 downto 0);
    signal difference_q : signed(DifferenceBits - 1 downto 0);
    signal product_q : signed(ProductBits - 1 downto 0);
    signal extra : std_logic_vector(ExtraBits - 1 downto 0);  -- beside product_q
    signal quotient_q : signed(QuotientBits - 1 downto 0);
    signal carry_q : std_logic;
  begin
    -- Stages 1 and 2: input, difference.
    process (clk_i)
    begin
      if rising_edge(clk_i) and enable = '1' then
        input_q      <= data_i((l + 1) * InBits - 1 downto l * InBits);
        difference_q <= cut(lane(input_q, InSigned), DifferenceBits) - Zero;
      end if;
    end process;

    -- Stages 3 and 4: product; in two parts, each for one 18 x 18 multiplier, where the difference is wider than that.
    -- More stages with adders alone, the last one for their carry.
    g_no_multiplier : if MultiplierBits = 0 generate
      signal same_q : signed(ProductBits - 1 downto 0);
    begin
      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          same_q    <= difference_q;
          product_q <= same_q;
        end if;
      end process;
    end generate g_no_multiplier;

    g_adders : if Adders generate
      signal difference : std_logic_vector(DifferenceBits - 1 downto 0);
      signal factor : std_logic_vector(MultiplierBits downto 0);
      signal sum : std_logic_vector(ProductBits downto 0);  -- its highest bit repeats the sign: m has none
      signal carry : std_logic_vector(0 downto 0);
    begin
      difference <= std_logic_vector(difference_q);
      factor <= '0' & scale_q(l * ScaleBits + MultiplierBits - 1 downto l * ScaleBits);

      u_multiply : entity work.bf_multiply
        generic map (
          InBits => DifferenceBits,
          InSigned => 1,
          WeightBits => MultiplierBits + 1
        )
        port map (
          clk_i => clk_i,
          enable_i => enable,
          data_i => difference,
          weight_i => factor,
          product_o => sum,
          carry_o => carry
        );

      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          product_q <= signed(sum(ProductBits - 1 downto 0)) + signed'('0' & carry(0));
        end if;
      end process;
    end generate g_adders;

    g_one_product : if MultiplierBits > 0 and not Adders and DifferenceBits <= 18 generate
      signal factor : signed(MultiplierBits downto 0);
      signal first_q : signed(ProductBits - 1 downto 0);
    begin
      factor <= lane(scale_q(l * ScaleBits + MultiplierBits - 1 downto l * ScaleBits), 0);

      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          first_q   <= cut(difference_q * factor, ProductBits);
          product_q <= first_q;
        end if;
      end process;
    end generate g_one_product;

    g_two_products : if MultiplierBits > 0 and not Adders and DifferenceBits > 18 generate
      constant LowBits : positive := 17;
      signal factor : signed(MultiplierBits downto 0);
      signal part : signed(LowBits downto 0);
      signal low_product_q : signed(LowBits + MultiplierBits downto 0);
      signal high_product_q : signed(ProductBits - LowBits - 1 downto 0);
    begin
      factor <= lane(scale_q(l * ScaleBits + MultiplierBits - 1 downto l * ScaleBits), 0);
      part <= '0' & difference_q(LowBits - 1 downto 0);

      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          low_product_q  <= cut(part * factor, LowBits + 1 + MultiplierBits);
          high_product_q <= cut(difference_q(DifferenceBits - 1 downto LowBits) * factor, ProductBits - LowBits);
          product_q <= shift_left(resize(high_product_q, ProductBits), LowBits) + resize(low_product_q, ProductBits);
        end if;
      end process;
    end generate g_two_products;

    g_extra_shift : if ExtraBits > 0 generate
      type extras_t is array (0 to ProductStages - 1) of std_logic_vector(ExtraBits - 1 downto 0);
      signal extras_q : extras_t;
    begin
      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          extras_q <= scale_q((l + 1) * ScaleBits - 1 downto l * ScaleBits + MultiplierBits)
            & extras_q(0 to ProductStages - 2);
        end if;
      end process;

      extra <= extras_q(ProductStages - 1);
    end generate g_extra_shift;

    -- Then shift (bit 0 of `kept` is the first bit cut off, `sticky` the OR of those below), saturate, find the carry.
    process (clk_i)
      variable wide : signed(WideBits - 1 downto 0);
      variable kept : signed(KeptBits - 1 downto 0);
      variable sticky : std_logic;
    begin
      if rising_edge(clk_i) and enable = '1' then
        wide := shift_left(resize(product_q, WideBits), 1);
        kept := wide(WideBits - 1 downto MinShift);
        sticky := or ('0' & wide(MinShift - 1 downto 0));
        for i in 0 to ExtraBits - 1 loop
          if extra(i) = '1' then
            sticky := sticky or (or kept(minimum(2 ** i, KeptBits) - 1 downto 0));
            kept := shift_right(kept, 2 ** i);
          end if;
        end loop;
        carry_q <= kept(0) and (to_logic(Rounding = HalfUp) or (to_logic(Rounding = HalfEven) and (sticky or kept(1)))
          or (to_logic(Rounding = HalfAway) and (sticky or not kept(KeptBits - 1))));
        if alike(std_logic_vector(kept(KeptBits - 1 downto QuotientBits))) then
          quotient_q <= kept(QuotientBits downto 1);
        else
          quotient_q <= (others => not kept(KeptBits - 1));
          quotient_q(QuotientBits - 1) <= kept(KeptBits - 1);
        end if;
      end if;
    end process;

    -- Last stage: zero point and clip.
    process (clk_i)
      variable sum : signed(SumBits - 1 downto 0);
    begin
      if rising_edge(clk_i) and enable = '1' then
        sum := resize(quotient_q, SumBits) + to_signed(OutputZero, SumBits) + signed'('0' & carry_q);
        if sum < SumLow then
          sum := SumLow;
        elsif sum > SumHigh then
          sum := SumHigh;
        end if;
        data_o((l + 1) * OutBits - 1 downto l * OutBits) <= std_logic_vector(cut(sum, OutBits));
      end if;
    end process;
  end generate g_lane;
end architecture rtl;
