-- Multiplies one number by Count weights with adders alone: no multiplier of the device is taken.
--
--   product[c] + carry[c] = x * w[c]: the carry is left to an adder behind, which takes it in for nothing or nearly so.
-- Of one operand, M, multiples are added; the other one, D, is cut into digits of two bits (d1, d0), lowest first:
--   D = (2 d1 + d0 - 2) + sum over j >= 1 of 2^(2j-1) * (2 b1 + b0),  b = +1 for a bit of 1, -1 for a bit of 0,
-- where the sign bit of D counts inverted, and stands alone on top of an odd number of bits. So row 0 is one of
-- {-2, -1, 0, 1} * M and each further row one of {-3, -1, 1, 3} * M: one LUT of four inputs a bit (M, 3 M, d1, d0),
-- complement included, and one adder a row, into which the complement's carry goes. 3 M is made once for all weights.
-- D is the weight, unless x is so narrow that its digits need no 3 M.
--
-- Latency 1 + max(1, ceil(bits of D / 2) - 1) cycles: operands, then a cycle for each row, the first two rows together.
-- All registers obey enable_i. Limits: WeightBits at least 2, weights signed.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_multiply is
  generic (
    InBits     : positive := 8;
    InSigned   : natural range 0 to 1 := 0;
    WeightBits : positive := 8;
    Count      : positive := 1  -- weights that meet the same x
  );
  port (
    clk_i     : in  std_logic;
    enable_i  : in  std_logic;
    data_i    : in  std_logic_vector(InBits - 1 downto 0);
    weight_i  : in  std_logic_vector(Count * WeightBits - 1 downto 0);
    product_o : out std_logic_vector(Count * (InBits + WeightBits) - 1 downto 0);
    carry_o   : out std_logic_vector(Count - 1 downto 0)
  );
end entity bf_multiply;

architecture rtl of bf_multiply is
  constant ValueBits : positive := choose(InSigned = 0, InBits + 1, maximum(InBits, 2));  -- of x with a sign
  constant CutData : boolean := ValueBits <= 3 and ValueBits <= WeightBits;
  constant DigitBits : positive := choose(CutData, ValueBits, WeightBits);     -- of D
  constant MultipleBits : positive := choose(CutData, WeightBits, ValueBits);  -- of M
  constant Rows : positive := (DigitBits + 1) / 2;
  constant Stages : positive := maximum(Rows - 1, 1);
  constant TripleBits : positive := MultipleBits + 2;
  constant OutBits : positive := InBits + WeightBits;
  constant ProductBits : positive := MultipleBits + DigitBits - 1;

  type values_t is array (natural range <>) of signed(ValueBits - 1 downto 0);
  type triples_t is array (natural range <>) of signed(TripleBits - 1 downto 0);
  type weights_t is array (natural range <>) of std_logic_vector(Count * WeightBits - 1 downto 0);

  signal value : signed(ValueBits - 1 downto 0);
  signal value_q : values_t(0 to Stages - 1);
  signal triple_q : triples_t(0 to Stages - 1);  -- 3 M, where a row wants it
  signal weight_q : weights_t(0 to Stages - 1);
begin
  assert WeightBits >= 2 report "bf_multiply: WeightBits must be at least 2" severity failure;

  -- Operands, delayed as far as the rows need them.
  value <= resize(lane(data_i, InSigned), ValueBits);

  process (clk_i)
  begin
    if rising_edge(clk_i) and enable_i = '1' then
      value_q  <= value & value_q(0 to Stages - 2);
      weight_q <= weight_i & weight_q(0 to Stages - 2);
      triple_q <= resize(value, TripleBits) + shift_left(resize(value, TripleBits), 1) & triple_q(0 to Stages - 2);
    end if;
  end process;

  -- Rows; the first two share a stage.
  g_product : for c in 0 to Count - 1 generate
    subtype weight_bits_t is natural range (c + 1) * WeightBits - 1 downto c * WeightBits;
    type sums_t is array (0 to Rows - 1) of signed(ProductBits - 1 downto 0);
    signal sums : sums_t;  -- up to each row
    signal carry_d : std_logic;
    signal carries : std_logic_vector(0 to Rows - 1);
  begin
    g_row : for j in 0 to Rows - 1 generate
      constant Stage : natural := maximum(j - 1, 0);
      constant Shift : natural := maximum(2 * j - 1, 0);
      constant Pair : boolean := 2 * j + 1 < DigitBits;  -- of bits, not one alone
      constant Top : std_logic := to_logic(j = Rows - 1);
      constant Bits : positive := choose(j = Rows - 1, ProductBits, MultipleBits + 2 * j + 1);  -- of the sum so far
      constant RowBits : positive := Bits - Shift;
      signal digits : std_logic_vector(DigitBits - 1 downto 0);
      signal multiple, row : signed(RowBits - 1 downto 0);
      signal high : std_logic;  -- '0': the row is a complement
      signal sum_d : signed(Bits - 1 downto 0);
    begin
      g_cut_data : if CutData generate
        digits   <= std_logic_vector(value_q(Stage));
        multiple <= resize(signed(weight_q(Stage)(weight_bits_t)), RowBits);
      end generate g_cut_data;

      g_cut_weight : if not CutData generate
        digits   <= weight_q(Stage)(weight_bits_t);
        multiple <= resize(value_q(Stage), RowBits);
      end generate g_cut_weight;

      high <= digits(choose(Pair, 2 * j + 1, 2 * j)) xor Top;

      g_first : if j = 0 generate
        process (all)
          variable times : signed(RowBits - 1 downto 0);
        begin
          times := multiple;
          if digits(0) = '0' then
            times := shift_left(multiple, 1);
            if high = '1' then
              times := (others => '0');
            end if;
          end if;
          row <= times when high = '1' else not times;
        end process;

        sum_d   <= row;
        carry_d <= not high;
      end generate g_first;

      g_further : if j > 0 generate
        process (all)
          variable times : signed(RowBits - 1 downto 0);
        begin
          times := multiple;
          if Pair and high = digits(2 * j) then
            times := resize(triple_q(Stage), RowBits);
          end if;
          row <= times when high = '1' else not times;
        end process;

        sum_d(Shift - 1 downto 0) <= sums(j - 1)(Shift - 1 downto 0);
        sum_d(Bits - 1 downto Shift) <= resize(sums(j - 1)(MultipleBits + 2 * j - 2 downto Shift), RowBits) + row
          + signed'('0' & not high);
      end generate g_further;

      g_wire : if j = 0 and Rows > 1 generate
        sums(j)    <= resize(sum_d, ProductBits);
        carries(j) <= carry_d;
      end generate g_wire;

      g_register : if j > 0 or Rows = 1 generate
        process (clk_i)
        begin
          if rising_edge(clk_i) and enable_i = '1' then
            sums(j)    <= resize(sum_d, ProductBits);
            carries(j) <= carry_d when j = 0 else carries(maximum(j - 1, 0));
          end if;
        end process;
      end generate g_register;
    end generate g_row;

    product_o((c + 1) * OutBits - 1 downto c * OutBits) <= std_logic_vector(resize(sums(Rows - 1), OutBits));
    carry_o(c) <= carries(Rows - 1);
  end generate g_product;
end architecture rtl;
