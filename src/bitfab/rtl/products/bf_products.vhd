-- Products of Simd inputs with Pe rows of weights, and their sums: what bf_dot multiplies with.
--
--   sum[p] + carry[p] = sum over s < Simd of weight[p][s] * x[s], modulo 2^OutBits; the carry is for the adder behind.
-- A bipolar side has one bit: 1 means +1, 0 means -1 (InBipolar; weights of one bit).
-- Multiplier, where no side is bipolar: 0 one `*` each; 1 packed, one `*` for two neighbouring rows of weights;
--   2 adders alone (bf_multiply).
--
-- Latency 1 + stages + ceil(log2(Leaves)) cycles: operands, leaves of the adder tree (one stage; those of bf_multiply
--   for Multiplier = 2), a register a level. Leaves = Simd, or ceil(Simd / 8) where both sides are bipolar.
-- All registers obey enable_i.
-- Each leaf and sum is a number and a carry of the same weight. An adder takes in the carry of its right operand and
-- hands on that of its left one: complements and packed products are corrected by adders that are there anyway.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_products is
  generic (
    InBits     : positive := 8;
    InSigned   : natural range 0 to 1 := 0;
    InBipolar  : natural range 0 to 1 := 0;
    WeightBits : positive := 8;  -- signed; 1: bipolar
    Simd       : positive := 1;  -- lanes of the input
    Pe         : positive := 1;  -- rows of weights
    OutBits    : positive := 24;
    Multiplier : natural range 0 to 2 := 0
  );
  port (
    clk_i    : in  std_logic;
    enable_i : in  std_logic;
    data_i   : in  std_logic_vector(Simd * InBits - 1 downto 0);
    weight_i : in  std_logic_vector(Pe * Simd * WeightBits - 1 downto 0);  -- (p, s) at bit (p * Simd + s) * WeightBits
    sum_o    : out std_logic_vector(Pe * OutBits - 1 downto 0);
    carry_o  : out std_logic_vector(Pe - 1 downto 0)
  );
end entity bf_products;

architecture rtl of bf_products is
  constant Packed : positive := 1;
  constant Adders : positive := 2;
  constant BipolarWeight : boolean := WeightBits = 1;
  constant Xnors : boolean := InBipolar = 1 and BipolarWeight;
  constant Numbers : boolean := InBipolar = 0 and not BipolarWeight;
  constant ValueBits : positive := choose(InSigned = 1, InBits, InBits + 1);  -- of x with a sign
  constant ProductBits : positive := InBits + WeightBits;
  constant Leaves : positive := choose(Xnors, (Simd + 7) / 8, Simd);
  constant LeafBits : positive :=
    choose(Xnors, 3, choose(InBipolar = 1, WeightBits, choose(BipolarWeight, ValueBits, ProductBits)));
  constant Levels : natural := clog2(Leaves);
  constant SumBits : positive := LeafBits + Levels;

  -- Leaf (p, i) at place p * Leaves + i.
  type leaves_t is array (0 to Pe * Leaves - 1) of signed(LeafBits - 1 downto 0);
  signal leaf_q : leaves_t;
  signal carry_q : std_logic_vector(0 to Pe * Leaves - 1);

  -- Level l of the tree holds ceil(Leaves / 2^l) sums for each p; level 0 is the leaves.
  function sums_at (level : natural) return positive is
  begin
    return (Leaves + 2 ** level - 1) / 2 ** level;
  end function sums_at;

  -- How many of three bits are one.
  function full_add (a : std_logic; b : std_logic; c : std_logic) return std_logic_vector is
  begin
    return ((a and b) or (c and (a or b))) & (a xor b xor c);
  end function full_add;

  -- How many of seven bits are one, less four.
  function count (bits : std_logic_vector(6 downto 0)) return signed is
    constant lower : std_logic_vector(1 downto 0) := full_add(bits(0), bits(1), bits(2));
    constant upper : std_logic_vector(1 downto 0) := full_add(bits(3), bits(4), bits(5));
    constant ones : std_logic_vector(1 downto 0) := full_add(lower(0), upper(0), bits(6));
    constant twos : std_logic_vector(1 downto 0) := full_add(lower(1), upper(1), ones(1));
  begin
    return signed'(not twos(1) & twos(0) & ones(0));
  end function count;

  function negate_unless (condition : std_logic; x : signed) return signed is  -- less 1 where it negates
  begin
    if condition = '1' then
      return x;
    end if;
    return not x;
  end function negate_unless;
begin
  assert InBipolar = 0 or InBits = 1 report "bf_products: InBits must be 1 where InBipolar is 1" severity failure;
  assert Multiplier /= Packed or not Numbers or Pe mod 2 = 0
    report "bf_products: Pe must be even to pack two products into a multiplication" severity failure;
  assert Multiplier /= Packed or not Numbers or (ValueBits <= 18 and ProductBits + WeightBits + 1 <= 27)
    report "bf_products: InBits + 2 * WeightBits must be at most 26 to pack two products into a multiplication"
    severity failure;

  g_adders : if Numbers and Multiplier = Adders generate
    g_lane : for s in 0 to Simd - 1 generate
      signal weights : std_logic_vector(Pe * WeightBits - 1 downto 0);
      signal products : std_logic_vector(Pe * LeafBits - 1 downto 0);
      signal carries : std_logic_vector(Pe - 1 downto 0);
    begin
      u_multiply : entity work.bf_multiply
        generic map (
          InBits => InBits,
          InSigned => InSigned,
          WeightBits => WeightBits,
          Count => Pe
        )
        port map (
          clk_i => clk_i,
          enable_i => enable_i,
          data_i => data_i((s + 1) * InBits - 1 downto s * InBits),
          weight_i => weights,
          product_o => products,
          carry_o => carries
        );

      g_pe : for p in 0 to Pe - 1 generate
        weights((p + 1) * WeightBits - 1 downto p * WeightBits) <=
          weight_i((p * Simd + s + 1) * WeightBits - 1 downto (p * Simd + s) * WeightBits);
        leaf_q(p * Simd + s)  <= signed(products((p + 1) * LeafBits - 1 downto p * LeafBits));
        carry_q(p * Simd + s) <= carries(p);
      end generate g_pe;
    end generate g_lane;
  end generate g_adders;

  -- Two weights in one factor, w1 * 2^ProductBits + w0: below w1, w0 with its sign, which borrows from w1. Of the
  -- product, the lower half is x * w0, and the upper one x * w1 less the lower one's sign. One register for the whole
  -- product, and none beside it for that sign: so Yosys finds the registers inside a DSP48.
  g_packed : if Numbers and Multiplier = Packed generate
    g_pair : for i in 0 to Pe / 2 * Simd - 1 generate
      constant Even : natural := i / Simd * 2 * Simd + i mod Simd;
      constant Odd : natural := Even + Simd;
      constant Place : natural := i mod Simd * InBits;
      signal lower, upper : signed(WeightBits - 1 downto 0);
      signal factor_q : signed(ProductBits + WeightBits downto 0);
      signal data_q : std_logic_vector(InBits - 1 downto 0);
      signal both_q : signed(2 * ProductBits - 1 downto 0);
    begin
      lower <= signed(weight_i((Even + 1) * WeightBits - 1 downto Even * WeightBits));
      upper <= signed(weight_i((Odd + 1) * WeightBits - 1 downto Odd * WeightBits));

      process (clk_i)
      begin
        if rising_edge(clk_i) and enable_i = '1' then
          data_q   <= data_i(Place + InBits - 1 downto Place);
          factor_q <= (resize(upper, WeightBits + 1) - signed'('0' & lower(WeightBits - 1)))
            & resize(lower, ProductBits);
          both_q   <= product(lane(data_q, InSigned), factor_q, 2 * ProductBits);
        end if;
      end process;

      leaf_q(Even)  <= both_q(ProductBits - 1 downto 0);
      leaf_q(Odd)   <= both_q(2 * ProductBits - 1 downto ProductBits);
      carry_q(Even) <= '0';
      carry_q(Odd)  <= both_q(ProductBits - 1);
    end generate g_pair;
  end generate g_packed;

  g_plain : if not Numbers or Multiplier = 0 generate
    signal data_q : std_logic_vector(Simd * InBits - 1 downto 0);
    signal weight_q : std_logic_vector(Pe * Simd * WeightBits - 1 downto 0);
  begin
    process (clk_i)
    begin
      if rising_edge(clk_i) and enable_i = '1' then
        data_q   <= data_i;
        weight_q <= weight_i;
      end if;
    end process;

    g_pe : for p in 0 to Pe - 1 generate
      -- The operand registers hold which lanes match. A leaf counts the matches of seven lanes and has an eighth one for
      -- its carry. As a number of three bits, the highest one inverted, a count of c is c - 4: half the sum of eight lanes
      -- of -1 and +1, and no constant is left over. Lanes beyond Simd match in turn, which sums to 0; with an odd Simd the
      -- first leaf has no carry.
      g_xnor : if Xnors generate
        signal match_q : std_logic_vector(Simd - 1 downto 0);
        signal match : std_logic_vector(8 * Leaves - 1 downto 0);
      begin
        process (clk_i)
        begin
          if rising_edge(clk_i) and enable_i = '1' then
            match_q <= data_i xnor weight_i((p + 1) * Simd - 1 downto p * Simd);
          end if;
        end process;

        g_match : for k in 0 to 8 * Leaves - 1 generate
          g_lane : if k < Simd generate
            match(k) <= match_q(k);
          end generate g_lane;

          g_beyond : if k >= Simd generate
            match(k) <= to_logic(k mod 2 = 1 and k < 8 * Leaves - Simd mod 2);
          end generate g_beyond;
        end generate g_match;

        g_leaf : for i in 0 to Leaves - 1 generate
          process (clk_i)
          begin
            if rising_edge(clk_i) and enable_i = '1' then
              leaf_q(p * Leaves + i)  <= count(match(7 * i + 6 downto 7 * i));
              carry_q(p * Leaves + i) <= match(8 * Leaves - 1 - i);
            end if;
          end process;
        end generate g_leaf;
      end generate g_xnor;

      g_multiply : if not Xnors generate
        g_lane : for s in 0 to Simd - 1 generate
          constant Place : natural := p * Simd + s;
          signal bits : std_logic_vector(InBits - 1 downto 0);
          signal w : signed(WeightBits - 1 downto 0);
        begin
          bits <= data_q((s + 1) * InBits - 1 downto s * InBits);
          w    <= signed(weight_q((Place + 1) * WeightBits - 1 downto Place * WeightBits));

          process (clk_i)
          begin
            if rising_edge(clk_i) and enable_i = '1' then
              if InBipolar = 1 then
                leaf_q(Place)  <= negate_unless(bits(0), w);
                carry_q(Place) <= not bits(0);
              elsif BipolarWeight then
                leaf_q(Place)  <= negate_unless(w(0), lane(bits, InSigned));
                carry_q(Place) <= not w(0);
              else
                leaf_q(Place)  <= product(lane(bits, InSigned), w, LeafBits);
                carry_q(Place) <= '0';
              end if;
            end if;
          end process;
        end generate g_lane;
      end generate g_multiply;
    end generate g_pe;
  end generate g_plain;

  -- Adder tree.
  g_sum : for p in 0 to Pe - 1 generate
    type sums_t is array (0 to Levels, 0 to Leaves - 1) of signed(SumBits - 1 downto 0);
    type carries_t is array (0 to Levels, 0 to Leaves - 1) of std_logic;
    signal sums : sums_t;
    signal carries : carries_t;
    signal sum : signed(SumBits - 1 downto 0);
    signal carry : std_logic;
  begin
    g_leaf : for i in 0 to Leaves - 1 generate
      sums(0, i)    <= resize(leaf_q(p * Leaves + i), SumBits);
      carries(0, i) <= carry_q(p * Leaves + i);
    end generate g_leaf;

    g_level : for l in 1 to Levels generate
      g_place : for i in 0 to Leaves - 1 generate
        g_add : if i < sums_at(l) generate
          process (clk_i)
          begin
            if rising_edge(clk_i) and enable_i = '1' then
              sums(l, i)    <= sums(l - 1, 2 * i);
              carries(l, i) <= carries(l - 1, 2 * i);
              if 2 * i + 1 < sums_at(l - 1) then
                sums(l, i) <= resize(sums(l - 1, 2 * i)(LeafBits + l - 1 downto 0)
                  + sums(l - 1, 2 * i + 1)(LeafBits + l - 1 downto 0)
                  + signed'('0' & carries(l - 1, 2 * i + 1)), SumBits);
              end if;
            end if;
          end process;
        end generate g_add;

        g_none : if i >= sums_at(l) generate
          sums(l, i)    <= (others => '0');
          carries(l, i) <= '0';
        end generate g_none;
      end generate g_place;
    end generate g_level;

    sum   <= sums(Levels, 0);
    carry <= carries(Levels, 0);

    g_double : if Xnors generate  -- 2 * (sum + carry), or 2 * sum + 1 without a carry
      constant One : std_logic := to_logic(Simd mod 2 = 1);
    begin
      sum_o((p + 1) * OutBits - 1 downto p * OutBits) <= std_logic_vector(cut(sum & (One or carry), OutBits));
      carry_o(p) <= carry and not One;
    end generate g_double;

    g_single : if not Xnors generate
      sum_o((p + 1) * OutBits - 1 downto p * OutBits) <= std_logic_vector(cut(sum, OutBits));
      carry_o(p) <= carry;
    end generate g_single;
  end generate g_sum;
end architecture rtl;
