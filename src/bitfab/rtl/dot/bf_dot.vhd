-- Dot products with stationary weights: Simd inputs meet Pe rows of weights each cycle, Terms cycles a result.
--
-- For each output pixel, r < Results, p < Pe (phase: which of a transposed convolution's weight sets the pixel takes):
--   y[r][p] = bias[phase][r][p] + sum over t < Terms, s < Simd of weight[phase][r][t][p][s] * x[r][t][s]
-- The phase advances with each pixel of a row, modulo PhasesWidth, and with each row, modulo PhasesHeight; it starts at
-- (PhaseHeight, PhaseWidth) in each image, at PhaseWidth in each row.
--
-- Latency: 4 + ceil(log2(Simd)) cycles from the last term to the result. One word a cycle. ready_o follows ready_i
--   within the cycle.
-- Limits: the result fits AccBits; arithmetic is modulo 2^AccBits, so a partial sum need not fit.
-- Memory: WeightFile word ((phase * Results) + r) * Terms + t, signed weight (p, s) at bit (p * Simd + s) * WeightBits;
--   BiasFile word phase * Results + r, signed bias p at bit p * AccBits;
--   phase = phase row * PhasesWidth + phase column.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_dot is
  generic (
    InBits       : positive := 8;
    InSigned     : natural range 0 to 1 := 0;
    WeightBits   : positive := 8;
    Simd         : positive := 1;  -- lanes of an input word
    Pe           : positive := 1;  -- lanes of an output word
    AccBits      : positive := 24;
    Terms        : positive := 1;  -- input words a result
    Results      : positive := 1;  -- output words a pixel
    PhasesHeight : positive := 1;  -- sets of weights
    PhasesWidth  : positive := 1;
    PhaseHeight  : natural := 0;   -- of the first output pixel
    PhaseWidth   : natural := 0;
    OutHeight    : positive := 1;  -- output image; unused with one set of weights
    OutWidth     : positive := 1;
    WeightFile   : string := "";   -- required
    BiasFile     : string := ""    -- required
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Simd * InBits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Pe * AccBits - 1 downto 0)
  );
end entity bf_dot;

architecture rtl of bf_dot is
  constant Phases : positive := PhasesHeight * PhasesWidth;
  constant WeightDepth : positive := Phases * Results * Terms;
  constant BiasDepth : positive := Phases * Results;
  constant ProductBits : positive := InBits + WeightBits;
  constant Levels : natural := clog2(Simd);  -- of the adder tree, each one register deep
  constant SumBits : positive := ProductBits + Levels;
  constant Stages : positive := 3 + Levels;  -- registers before the accumulator: memory, operands, products, tree
  constant FirstPhase : natural := PhaseHeight * PhasesWidth + PhaseWidth;

  subtype weight_t is std_logic_vector(Pe * Simd * WeightBits - 1 downto 0);
  subtype acc_t is std_logic_vector(Pe * AccBits - 1 downto 0);
  subtype data_t is std_logic_vector(Simd * InBits - 1 downto 0);
  subtype weight_address_t is natural range 0 to maximum(WeightDepth - 1, 1);
  subtype bias_address_t is natural range 0 to maximum(BiasDepth - 1, 1);
  type bias_addresses_t is array (natural range <>) of bias_address_t;

  constant weights : memory_t(0 to weight_address_t'high)(weight_t'range) :=
    read_memory(WeightFile, WeightDepth, weight_t'length);
  constant biases : memory_t(0 to bias_address_t'high)(acc_t'range) :=
    read_memory(BiasFile, BiasDepth, acc_t'length);

  -- Level l of the tree holds ceil(Simd / 2^l) sums for each p; level 0 is the products.
  function lanes_at (level : natural) return positive is
  begin
    return (Simd + 2 ** level - 1) / 2 ** level;
  end function lanes_at;

  type sums_t is array (natural range <>) of signed(SumBits - 1 downto 0);

  signal enable, transfer, end_term, end_pixel : std_logic;
  signal term_q : natural range 0 to maximum(Terms - 1, 1);
  signal result_q : natural range 0 to maximum(Results - 1, 1);
  signal weight_address_q, pixel_weight : weight_address_t;
  signal bias_address_q, pixel_bias : bias_address_t;
  signal valid_q, first_q, last_q : std_logic_vector(Stages - 1 downto 0);
  signal stage_bias_q : bias_addresses_t(0 to Stages - 3);  -- the bias is read two stages before the accumulator
  signal weight_read_q, weight_q : weight_t;
  signal bias_read_q, bias_q : acc_t;
  signal data_read_q, data_q : data_t;
  signal sums : sums_t(0 to Pe - 1);
begin
  assert PhaseHeight < PhasesHeight and PhaseWidth < PhasesWidth
    report "bf_dot: PhaseHeight, PhaseWidth must be less than PhasesHeight, PhasesWidth" severity failure;
  assert WeightBits >= 2 report "bf_dot: WeightBits must be at least 2" severity failure;

  enable   <= ready_i or not valid_o;
  ready_o  <= enable;
  transfer <= enable and valid_i;

  -- Which term, result and set of weights the next input word belongs to.
  end_term  <= to_logic(term_q = Terms - 1);
  end_pixel <= end_term and to_logic(result_q = Results - 1);

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if transfer = '1' and end_pixel = '1' then
        term_q           <= 0;
        result_q         <= 0;
        weight_address_q <= pixel_weight;
        bias_address_q   <= pixel_bias;
      elsif transfer = '1' then
        term_q           <= 0 when end_term = '1' else term_q + 1;
        weight_address_q <= weight_address_q + 1;
        if end_term = '1' then
          result_q       <= result_q + 1;
          bias_address_q <= bias_address_q + 1;
        end if;
      end if;
      if rst_i = '1' then
        term_q           <= 0;
        result_q         <= 0;
        weight_address_q <= FirstPhase * Results * Terms;
        bias_address_q   <= FirstPhase * Results;
      end if;
    end if;
  end process;

  g_one_phase : if Phases = 1 generate
    pixel_weight <= 0;
    pixel_bias   <= 0;
  end generate g_one_phase;

  g_phases : if Phases > 1 generate
    constant LastRowPhase : natural := (PhasesHeight - 1) * PhasesWidth + PhaseWidth;
    constant FirstWeights : integer_vector := multiples(Phases, Results * Terms);
    constant FirstBiases : integer_vector := multiples(Phases, Results);
    subtype phase_t is natural range 0 to Phases - 1;
    signal row_q : natural range 0 to maximum(OutHeight - 1, 1);
    signal column_q : natural range 0 to maximum(OutWidth - 1, 1);
    signal row_phase_d, row_phase_q : phase_t;  -- of the row's first pixel
    signal phase_d, phase_q : phase_t;          -- of this pixel
    signal end_row, end_image : std_logic;
  begin
    end_row   <= to_logic(column_q = OutWidth - 1);
    end_image <= end_row and to_logic(row_q = OutHeight - 1);

    process (all)
    begin
      row_phase_d <= row_phase_q;
      if end_image = '1' then
        row_phase_d <= FirstPhase;
      elsif end_row = '1' and row_phase_q = LastRowPhase then
        row_phase_d <= PhaseWidth;
      elsif end_row = '1' then
        row_phase_d <= row_phase_q + PhasesWidth;
      end if;
    end process;

    -- The columns of a row's phases end where the next row's begin.
    process (all)
      variable wrap : boolean;
    begin
      wrap := false;
      for i in 1 to PhasesHeight loop
        wrap := wrap or phase_q = i * PhasesWidth - 1;
      end loop;
      if end_row = '1' then
        phase_d <= row_phase_d;
      elsif wrap then
        phase_d <= phase_q - (PhasesWidth - 1);
      else
        phase_d <= phase_q + 1;
      end if;
    end process;

    pixel_weight <= FirstWeights(phase_d);
    pixel_bias   <= FirstBiases(phase_d);

    process (clk_i)
    begin
      if rising_edge(clk_i) then
        if transfer = '1' and end_pixel = '1' then
          column_q <= 0 when end_row = '1' else column_q + 1;
          if end_row = '1' then
            row_q <= 0 when end_image = '1' else row_q + 1;
          end if;
          row_phase_q <= row_phase_d;
          phase_q     <= phase_d;
        end if;
        if rst_i = '1' then
          column_q    <= 0;
          row_q       <= 0;
          row_phase_q <= FirstPhase;
          phase_q     <= FirstPhase;
        end if;
      end if;
    end process;
  end generate g_phases;

  -- What travels with a word through the stages; memories and operands.
  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_q       <= valid_q(Stages - 2 downto 0) & valid_i;
        first_q       <= first_q(Stages - 2 downto 0) & to_logic(term_q = 0);
        last_q        <= last_q(Stages - 2 downto 0) & end_term;
        stage_bias_q  <= bias_address_q & stage_bias_q(0 to Stages - 4);
        weight_read_q <= weights(weight_address_q);
        weight_q      <= weight_read_q;
        bias_read_q   <= biases(stage_bias_q(Stages - 3));
        bias_q        <= bias_read_q;
        data_read_q   <= data_i;
        data_q        <= data_read_q;
      end if;
      if rst_i = '1' then
        valid_q <= (others => '0');
      end if;
    end if;
  end process;

  g_pe : for p in 0 to Pe - 1 generate
    type tree_t is array (0 to Levels) of sums_t(0 to Simd - 1);
    signal tree_q : tree_t;
  begin
    process (clk_i)
      variable x, w : natural;
    begin
      if rising_edge(clk_i) and enable = '1' then
        for s in 0 to Simd - 1 loop
          x := s * InBits;
          w := (p * Simd + s) * WeightBits;
          tree_q(0)(s) <= product(lane(data_q(x + InBits - 1 downto x), InSigned),
            signed(weight_q(w + WeightBits - 1 downto w)), SumBits);
        end loop;
        for level in 1 to Levels loop
          for s in 0 to Simd - 1 loop
            if 2 * s + 1 < lanes_at(level - 1) then
              tree_q(level)(s) <= tree_q(level - 1)(2 * s) + tree_q(level - 1)(2 * s + 1);
            elsif 2 * s < lanes_at(level - 1) then
              tree_q(level)(s) <= tree_q(level - 1)(2 * s);
            else
              tree_q(level)(s) <= (others => '0');
            end if;
          end loop;
        end loop;
      end if;
    end process;

    sums(p) <= tree_q(Levels)(0);
  end generate g_pe;

  -- Accumulator, which is the output register: it waits for ready_i with everything behind it.
  g_acc : for p in 0 to Pe - 1 generate
    process (clk_i)
      variable base : std_logic_vector(AccBits - 1 downto 0);
    begin
      if rising_edge(clk_i) and enable = '1' and valid_q(Stages - 1) = '1' then
        base := data_o((p + 1) * AccBits - 1 downto p * AccBits);
        if first_q(Stages - 1) = '1' then
          base := bias_q((p + 1) * AccBits - 1 downto p * AccBits);
        end if;
        data_o((p + 1) * AccBits - 1 downto p * AccBits) <= std_logic_vector(signed(base) + cut(sums(p), AccBits));
      end if;
    end process;
  end generate g_acc;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_o <= valid_q(Stages - 1) and last_q(Stages - 1);
      end if;
      if rst_i = '1' then
        valid_o <= '0';
      end if;
    end if;
  end process;

  -- synthesis translate_off
  u_handshake : entity work.bf_handshake
    generic map (Bits => Pe * AccBits, BlockName => "bf_dot")
    port map (clk_i => clk_i, rst_i => rst_i, valid_i => valid_o, ready_i => ready_i, data_i => data_o);
  -- synthesis translate_on
end architecture rtl;
