-- Dot products with stationary weights: Simd inputs meet Pe rows of weights each cycle, Terms cycles a result.
--
-- For each output pixel, r < Results, p < Pe (phase: which of a transposed convolution's weight sets the pixel takes):
--   y[r][p] = bias[phase][r][p] + sum over t < Terms, s < Simd of weight[phase][r][t][p][s] * x[r][t][s]
-- The phase advances with each pixel of a row, modulo PhasesWidth, and with each row, modulo PhasesHeight; it starts at
-- (PhaseHeight, PhaseWidth) in each image, at PhaseWidth in each row.
--
-- A bipolar side has one bit: 1 means +1, 0 means -1 (InBipolar; weights of one bit).
--
-- The pipeline never waits: a result begins only where there is room for it behind the accumulators, so that no signal
--   has to reach all registers at once. One word a cycle, also for readers that seldom wait.
-- Latency from the last term to the result: 3 cycles (4 with weights in block RAM) and those of bf_products where a result
--   has so many terms that two places of room do; one cycle more with more room. ready_o comes from registers.
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
    InBipolar    : natural range 0 to 1 := 0;  -- InBits is 1
    WeightBits   : positive := 8;  -- signed; 1: bipolar
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
    Multiplier   : natural range 0 to 2 := 0;  -- 0: a `*` each, 1: one for two products, 2: adders; unused if bipolar
    Memory       : natural range 0 to 2 := 0;  -- of the weights, for the latency: GHDL drops attributes
    Loadable        : natural range 0 to 1 := 0;  -- weights and biases can be written, over a bus of
    LoadBits        : positive := 1;
    LoadAddressBits : positive := 1;
    LoadBase        : natural := 0;
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
    data_o  : out std_logic_vector(Pe * AccBits - 1 downto 0);
    load_i         : in  std_logic := '0';
    load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0) := (others => '0');
    load_data_i    : in  std_logic_vector(LoadBits - 1 downto 0) := (others => '0')
  );
end entity bf_dot;

architecture rtl of bf_dot is
  constant Phases : positive := PhasesHeight * PhasesWidth;
  constant WeightDepth : positive := Phases * Results * Terms;
  constant BiasDepth : positive := Phases * Results;
  -- As in bf_products: leaves of the adder tree, cycles to make them.
  constant Bipolar : boolean := InBipolar = 1 or WeightBits = 1;
  constant Leaves : positive := choose(InBipolar = 1 and WeightBits = 1, (Simd + 7) / 8, Simd);
  constant ValueBits : positive := choose(InSigned = 1, InBits, InBits + 1);
  constant DigitBits : positive := choose(ValueBits <= 3 and ValueBits <= WeightBits, ValueBits, WeightBits);
  constant LeafStages : positive := choose(Multiplier = 2 and not Bipolar and DigitBits > 4, (DigitBits - 1) / 2, 1);
  constant BlockRam : boolean := Memory = 1 or (Memory = 0 and Phases * Results * Terms >= 32);  -- as in SystemVerilog
  -- Before the accumulator: memory, bf_products.
  constant Stages : positive := choose(BlockRam, 3, 2) + LeafStages + clog2(Leaves);
  -- A module for each Rows results: tools elaborate one that many rows share far faster than one with all of them.
  constant Rows : positive := choose(Bipolar or Multiplier = 0, 1, choose(Multiplier = 1 and Pe mod 2 = 0, 2, Pe));
  -- Results for which there is room behind the accumulators, so that a reader that never waits never waits for this block:
  -- a result takes its room from its first term until it is read.
  constant Room : positive := 2 + (Stages + 4) / Terms;
  constant WeightAddressBits : positive := maximum(clog2(WeightDepth), 1);
  constant BiasAddressBits : positive := maximum(clog2(BiasDepth), 1);
  constant FirstPhase : natural := PhaseHeight * PhasesWidth + PhaseWidth;

  subtype weight_t is std_logic_vector(Pe * Simd * WeightBits - 1 downto 0);
  subtype acc_t is std_logic_vector(Pe * AccBits - 1 downto 0);
  subtype data_t is std_logic_vector(Simd * InBits - 1 downto 0);
  subtype weight_address_t is natural range 0 to maximum(WeightDepth - 1, 1);
  subtype bias_address_t is natural range 0 to maximum(BiasDepth - 1, 1);
  type bias_addresses_t is array (natural range <>) of bias_address_t;

  signal transfer, begins, ends, end_term, end_pixel : std_logic;
  signal room_q : natural range 0 to Room;
  signal done_q, has_room : std_logic;
  signal acc_q : acc_t;
  signal term_q : natural range 0 to maximum(Terms - 1, 1);
  signal result_q : natural range 0 to maximum(Results - 1, 1);
  signal weight_address_q, pixel_weight : weight_address_t;
  signal bias_address_q, pixel_bias : bias_address_t;
  signal valid_q, first_q, last_q : std_logic_vector(Stages - 1 downto 0);
  signal stage_bias_q : bias_addresses_t(0 to Stages - 3);  -- the bias is read two stages before the accumulator
  signal weight_read_q, weight : weight_t;
  signal bias_read_q, bias_q : acc_t;
  signal data_read_q, data : data_t;
  signal sums : acc_t;
  signal carries : std_logic_vector(Pe - 1 downto 0);
begin
  assert PhaseHeight < PhasesHeight and PhaseWidth < PhasesWidth
    report "bf_dot: PhaseHeight, PhaseWidth must be less than PhasesHeight, PhasesWidth" severity failure;

  -- The pipeline never waits: a result begins only if there is room for it behind the accumulators.
  ready_o  <= to_logic(term_q /= 0 or room_q /= 0);
  transfer <= ready_o and valid_i;
  begins   <= transfer and to_logic(term_q = 0);
  ends     <= valid_o and ready_i;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if begins = '1' and ends = '0' then
        room_q <= room_q - 1;
      elsif begins = '0' and ends = '1' then
        room_q <= room_q + 1;
      end if;
      if rst_i = '1' then
        room_q <= Room;
      end if;
    end if;
  end process;

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

  -- What travels with a word through the stages.
  process (clk_i)
  begin
    if rising_edge(clk_i) then
      valid_q      <= valid_q(Stages - 2 downto 0) & transfer;
      first_q      <= first_q(Stages - 2 downto 0) & to_logic(term_q = 0);
      last_q       <= last_q(Stages - 2 downto 0) & end_term;
      stage_bias_q <= bias_address_q & stage_bias_q(0 to Stages - 4);
      bias_q       <= bias_read_q;
      data_read_q  <= data_i;
      if rst_i = '1' then
        valid_q <= (others => '0');
      end if;
    end if;
  end process;

  g_loadable : if Loadable = 1 generate
    u_weights : entity work.bf_memory
      generic map (
        Bits => weight_t'length,
        Depth => WeightDepth,
        AddressBits => WeightAddressBits,
        Style => choose(BlockRam, 1, Memory),
        LoadBits => LoadBits,
        LoadAddressBits => LoadAddressBits,
        LoadBase => LoadBase,
        MemoryFile => WeightFile
      )
      port map (
        clk_i => clk_i,
        enable_i => '1',
        address_i => to_bits(weight_address_q, WeightAddressBits),
        data_o => weight_read_q,
        load_i => load_i,
        load_address_i => load_address_i,
        load_data_i => load_data_i
      );

    u_biases : entity work.bf_memory
      generic map (
        Bits => acc_t'length,
        Depth => BiasDepth,
        AddressBits => BiasAddressBits,
        LoadBits => LoadBits,
        LoadAddressBits => LoadAddressBits,
        LoadBase => LoadBase + 2 ** WeightAddressBits,
        MemoryFile => BiasFile
      )
      port map (
        clk_i => clk_i,
        enable_i => '1',
        address_i => to_bits(stage_bias_q(Stages - 3), BiasAddressBits),
        data_o => bias_read_q,
        load_i => load_i,
        load_address_i => load_address_i,
        load_data_i => load_data_i
      );
  end generate g_loadable;

  g_constant : if Loadable = 0 generate
    constant weights : memory_t(0 to weight_address_t'high)(weight_t'range) :=
      read_memory(WeightFile, WeightDepth, weight_t'length);
    constant biases : memory_t(0 to bias_address_t'high)(acc_t'range) :=
      read_memory(BiasFile, BiasDepth, acc_t'length);
  begin
    process (clk_i)
    begin
      if rising_edge(clk_i) then
        weight_read_q <= weights(weight_address_q);
        bias_read_q   <= biases(stage_bias_q(Stages - 3));
      end if;
    end process;
  end generate g_constant;

  g_block_ram : if BlockRam generate  -- slow to answer: a register behind it
    process (clk_i)
    begin
      if rising_edge(clk_i) then
        weight <= weight_read_q;
        data   <= data_read_q;
      end if;
    end process;
  end generate g_block_ram;

  g_logic : if not BlockRam generate
    weight <= weight_read_q;
    data   <= data_read_q;
  end generate g_logic;

  g_products : for q in 0 to Pe / Rows - 1 generate
    u_products : entity work.bf_products
      generic map (
        InBits => InBits,
        InSigned => InSigned,
        InBipolar => InBipolar,
        WeightBits => WeightBits,
        Simd => Simd,
        Pe => Rows,
        OutBits => AccBits,
        Multiplier => Multiplier
      )
      port map (
        clk_i => clk_i,
        enable_i => '1',
        data_i => data,
        weight_i => weight((q + 1) * Rows * Simd * WeightBits - 1 downto q * Rows * Simd * WeightBits),
        sum_o => sums((q + 1) * Rows * AccBits - 1 downto q * Rows * AccBits),
        carry_o => carries((q + 1) * Rows - 1 downto q * Rows)
      );
  end generate g_products;

  -- Accumulators, and room behind them.
  g_acc : for p in 0 to Pe - 1 generate
    process (clk_i)
      variable base : std_logic_vector(AccBits - 1 downto 0);
    begin
      if rising_edge(clk_i) and valid_q(Stages - 1) = '1' then
        base := acc_q((p + 1) * AccBits - 1 downto p * AccBits);
        if first_q(Stages - 1) = '1' then
          base := bias_q((p + 1) * AccBits - 1 downto p * AccBits);
        end if;
        acc_q((p + 1) * AccBits - 1 downto p * AccBits) <= std_logic_vector(signed(base)
          + signed(sums((p + 1) * AccBits - 1 downto p * AccBits)) + cut(signed'('0' & carries(p)), AccBits));
      end if;
    end process;
  end generate g_acc;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      done_q <= valid_q(Stages - 1) and last_q(Stages - 1);
      if rst_i = '1' then
        done_q <= '0';
      end if;
    end if;
  end process;

  g_skid : if Room = 2 generate
    u_room : entity work.bf_skid
      generic map (Bits => Pe * AccBits)
      port map (
        clk_i => clk_i,
        rst_i => rst_i,
        valid_i => done_q,
        ready_o => has_room,
        data_i => acc_q,
        valid_o => valid_o,
        ready_i => ready_i,
        data_o => data_o
      );
  end generate g_skid;

  g_fifo : if Room > 2 generate
    u_room : entity work.bf_fifo
      generic map (Bits => Pe * AccBits, Depth => Room)
      port map (
        clk_i => clk_i,
        rst_i => rst_i,
        valid_i => done_q,
        ready_o => has_room,
        data_i => acc_q,
        valid_o => valid_o,
        ready_i => ready_i,
        data_o => data_o
      );
  end generate g_fifo;

  -- synthesis translate_off
  assert not (rising_edge(clk_i) and rst_i = '0' and done_q = '1' and has_room = '0')
    report "bf_dot: a result without room" severity failure;
  -- synthesis translate_on
end architecture rtl;
