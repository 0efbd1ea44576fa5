-- Multiplies two streams lane by lane, exactly: word by word, or each pixel of an image by one pixel of factors.
--
-- y[l] = (a[l] - AZero) * (b[l] - BZero). Pixels = 1: a word of b for each word of a. Else b holds one pixel of Words words
-- for each Pixels pixels of a (squeeze-and-excitation): it is taken beside the first of them, kept, and read for the others.
-- Latency 4 cycles, with Multiplier = 2 those of bf_multiply and 3; one word per cycle. A word is taken from both streams at
-- once, or from a alone: a_ready_o and b_ready_o are combinational in the other's valid and in ready_i.
-- AFactorBits, BFactorBits and OutBits follow from range analysis; what does not fit them is an error in simulation.
-- Memory: word i of the factors at address i; written while b is taken, read for the pixels after.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_scale is
  generic (
    ABits       : positive range 1 to 32 := 8;  -- of a lane
    ASigned     : natural range 0 to 1 := 0;
    AZero       : integer := 0;
    AFactorBits : positive range 2 to 33 := 9;  -- of a - AZero, two's complement
    BBits       : positive range 1 to 32 := 8;
    BSigned     : natural range 0 to 1 := 0;
    BZero       : integer := 0;
    BFactorBits : positive range 2 to 33 := 9;
    Lanes       : positive := 1;
    Words       : positive := 1;  -- of a pixel
    Pixels      : positive := 1;  -- of a that share a pixel of b
    OutBits     : positive range 1 to 32 := 16;
    OutSigned   : natural range 0 to 1 := 0;
    Multiplier  : natural range 0 to 2 := 0  -- 0: `*`; 2: adders alone (bf_multiply)
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
end entity bf_scale;

architecture rtl of bf_scale is
  constant Adders : boolean := Multiplier = 2;
  constant WideBits : positive := maximum(AFactorBits, BFactorBits);
  constant SlimBits : positive := minimum(AFactorBits, BFactorBits);  -- bf_multiply's digits are of it
  constant Stages : positive := choose(not Adders, 4, choose(SlimBits > 4, 4 + (SlimBits - 1) / 2, 5));
  constant ProductBits : positive := AFactorBits + BFactorBits;
  constant ExactBits : positive := 35;  -- of a difference, whatever the widths

  signal valid_q : std_logic_vector(Stages - 1 downto 0);  -- a bit a stage, the newest lowest
  signal enable, take_b, transfer : std_logic;
  signal a_q : std_logic_vector(Lanes * ABits - 1 downto 0);
  signal b_q, b : std_logic_vector(Lanes * BBits - 1 downto 0);
begin
  assert Multiplier /= 1 report "bf_scale: Multiplier must be 0 or 2" severity failure;

  enable    <= ready_i or not valid_q(Stages - 1);
  a_ready_o <= enable and (b_valid_i or not take_b);
  b_ready_o <= enable and a_valid_i and take_b;
  transfer  <= a_valid_i and (b_valid_i or not take_b);
  valid_o   <= valid_q(Stages - 1);

  -- Stage 1: both words, that of b new or from memory.
  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        a_q     <= a_data_i;
        b_q     <= b_data_i;
        valid_q <= valid_q(Stages - 2 downto 0) & transfer;
      end if;
      if rst_i = '1' then
        valid_q <= (others => '0');
      end if;
    end if;
  end process;

  g_factors : if Pixels > 1 generate
    signal read_q : std_logic_vector(Lanes * BBits - 1 downto 0);
    signal word_q : natural range 0 to Words - 1;
    signal pixel_q : natural range 0 to Pixels - 1;
    signal new_q : std_logic;
  begin
    take_b <= to_logic(pixel_q = 0);
    b      <= b_q when new_q = '1' else read_q;

    -- A word that is read while it is written is not used.
    process (clk_i)
      variable memory : memory_t(0 to maximum(Words - 1, 1))(Lanes * BBits - 1 downto 0);
    begin
      if rising_edge(clk_i) then
        if enable = '1' then
          read_q <= memory(word_q);
          new_q  <= take_b;
        end if;
        if enable = '1' and transfer = '1' and take_b = '1' then
          memory(word_q) := b_data_i;
        end if;
        if enable = '1' and transfer = '1' then
          if word_q = Words - 1 then
            word_q  <= 0;
            pixel_q <= 0 when pixel_q = Pixels - 1 else pixel_q + 1;
          else
            word_q <= word_q + 1;
          end if;
        end if;
        if rst_i = '1' then
          word_q  <= 0;
          pixel_q <= 0;
        end if;
      end if;
    end process;
  end generate g_factors;

  g_word_by_word : if Pixels = 1 generate
    take_b <= '1';
    b      <= b_q;
  end generate g_word_by_word;

  -- Stage 2: differences; then the product, in two stages or those of bf_multiply and one for its carry.
  g_lane : for l in 0 to Lanes - 1 generate
    signal a_exact, b_exact : signed(ExactBits - 1 downto 0);
    signal a_factor_q : signed(AFactorBits - 1 downto 0);
    signal b_factor_q : signed(BFactorBits - 1 downto 0);
    signal product_q : signed(ProductBits - 1 downto 0);
  begin
    a_exact <= resize(lane(a_q((l + 1) * ABits - 1 downto l * ABits), ASigned), ExactBits) - to_signed(AZero, ExactBits);
    b_exact <= resize(lane(b((l + 1) * BBits - 1 downto l * BBits), BSigned), ExactBits) - to_signed(BZero, ExactBits);

    process (clk_i)
    begin
      if rising_edge(clk_i) and enable = '1' then
        a_factor_q <= cut(a_exact, AFactorBits);
        b_factor_q <= cut(b_exact, BFactorBits);
      end if;
    end process;

    g_adders : if Adders generate
      signal wide : std_logic_vector(WideBits - 1 downto 0);
      signal slim : std_logic_vector(SlimBits - 1 downto 0);
      signal sum : std_logic_vector(ProductBits - 1 downto 0);
      signal carry : std_logic_vector(0 downto 0);
    begin
      g_straight : if AFactorBits > BFactorBits generate
        wide <= std_logic_vector(a_factor_q);
        slim <= std_logic_vector(b_factor_q);
      end generate g_straight;

      g_swapped : if AFactorBits <= BFactorBits generate
        wide <= std_logic_vector(b_factor_q);
        slim <= std_logic_vector(a_factor_q);
      end generate g_swapped;

      u_multiply : entity work.bf_multiply
        generic map (
          InBits => WideBits,
          InSigned => 1,
          WeightBits => SlimBits
        )
        port map (
          clk_i => clk_i,
          enable_i => enable,
          data_i => wide,
          weight_i => slim,
          product_o => sum,
          carry_o => carry
        );

      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          product_q <= signed(sum) + signed'('0' & carry(0));
        end if;
      end process;
    end generate g_adders;

    g_multiplier : if not Adders generate
      signal first_q : signed(ProductBits - 1 downto 0);
    begin
      process (clk_i)
      begin
        if rising_edge(clk_i) and enable = '1' then
          first_q   <= a_factor_q * b_factor_q;
          product_q <= first_q;
        end if;
      end process;
    end generate g_multiplier;

    data_o((l + 1) * OutBits - 1 downto l * OutBits) <= std_logic_vector(cut(product_q, OutBits));

    -- synthesis translate_off
    process (clk_i)
    begin
      if rising_edge(clk_i) and rst_i = '0' then
        assert valid_q(0) = '0' or (cut(a_exact, AFactorBits) = a_exact and cut(b_exact, BFactorBits) = b_exact)
          report "bf_scale: a factor does not fit its bits" severity error;
        assert valid_o = '0' or lane(std_logic_vector(cut(product_q, OutBits)), OutSigned) = product_q
          report "bf_scale: the product does not fit OutBits" severity error;
      end if;
    end process;
    -- synthesis translate_on
  end generate g_lane;
end architecture rtl;
