-- A convolution, transposed convolution or dense layer as a sliding window in front of a dot engine.
--
--   acc[o] = bias[o] + sum over window and channels of weight[o] * x
--
-- Takes Simd channels a word, gives Pe accumulators a word. One window word is multiplied in each cycle, so an output
-- pixel takes Groups * Fold * Terms cycles, Terms = KernelHeight * KernelWidth * Words / Groups. Latency from the last
-- input word that a result needs: that of bf_window plus that of bf_dot. Memory layout: see bf_window and bf_dot.
library ieee;
use ieee.std_logic_1164.all;

entity bf_conv2d is
  generic (
    InBits       : positive := 8;  -- bits of an activation
    InSigned     : natural range 0 to 1 := 0;
    InBipolar    : natural range 0 to 1 := 0;  -- InBits is 1: 1 means +1, 0 means -1
    WeightBits   : positive := 8;  -- bits of a weight, signed; 1: bipolar
    AccBits      : positive := 24; -- bits of an accumulator
    Simd         : positive := 1;  -- input channels a cycle
    Pe           : positive := 1;  -- output channels a cycle
    Words        : positive := 1;  -- input words a pixel: input channels / Simd
    Height       : positive := 1;
    Width        : positive := 1;
    KernelHeight : positive := 1;
    KernelWidth  : positive := 1;
    StrideHeight : positive := 1;
    StrideWidth  : positive := 1;
    DilationHeight : positive := 1;
    DilationWidth  : positive := 1;
    UpHeight     : positive := 1;  -- stride of a transposed convolution
    UpWidth      : positive := 1;
    PhaseHeight  : natural := 0;
    PhaseWidth   : natural := 0;
    OriginTop    : integer := 0;   -- row of the first tap of output (0, 0)
    OriginLeft   : integer := 0;
    OutHeight    : positive := 1;
    OutWidth     : positive := 1;
    Groups       : positive := 1;
    Fold         : positive := 1;  -- output channels of a group / Pe
    Rows         : positive := 2;  -- line-buffer rows
    PadValue     : integer := 0;   -- bits of what lies outside the image
    Multiplier   : natural range 0 to 2 := 0;  -- 0: a `*` each, 1: one for two products, 2: adders; see bf_dot
    Memory       : natural range 0 to 2 := 0;  -- of the weights: 0 by depth, 1 block RAM, 2 LUTs
    Loadable        : natural range 0 to 1 := 0;  -- weights and biases can be written, over a bus of
    LoadBits        : positive := 1;
    LoadAddressBits : positive := 1;
    LoadBase        : natural := 0;  -- address of the first word of weights
    WeightFile   : string := "";
    BiasFile     : string := ""
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
end entity bf_conv2d;

architecture rtl of bf_conv2d is
  signal window_valid, window_ready : std_logic;
  signal window_data : std_logic_vector(Simd * InBits - 1 downto 0);
begin
  u_window : entity work.bf_window
    generic map (
      Bits => InBits,
      Lanes => Simd,
      Words => Words,
      Height => Height,
      Width => Width,
      KernelHeight => KernelHeight,
      KernelWidth => KernelWidth,
      StrideHeight => StrideHeight,
      StrideWidth => StrideWidth,
      DilationHeight => DilationHeight,
      DilationWidth => DilationWidth,
      UpHeight => UpHeight,
      UpWidth => UpWidth,
      PhaseHeight => PhaseHeight,
      PhaseWidth => PhaseWidth,
      OriginTop => OriginTop,
      OriginLeft => OriginLeft,
      OutHeight => OutHeight,
      OutWidth => OutWidth,
      Groups => Groups,
      Fold => Fold,
      Rows => Rows,
      PadValue => PadValue
    )
    port map (
      clk_i => clk_i,
      rst_i => rst_i,
      valid_i => valid_i,
      ready_o => ready_o,
      data_i => data_i,
      valid_o => window_valid,
      ready_i => window_ready,
      data_o => window_data
    );

  u_dot : entity work.bf_dot
    generic map (
      InBits => InBits,
      InSigned => InSigned,
      InBipolar => InBipolar,
      WeightBits => WeightBits,
      Simd => Simd,
      Pe => Pe,
      AccBits => AccBits,
      Terms => KernelHeight * KernelWidth * (Words / Groups),
      Results => Groups * Fold,
      PhasesHeight => UpHeight,
      PhasesWidth => UpWidth,
      PhaseHeight => PhaseHeight,
      PhaseWidth => PhaseWidth,
      OutHeight => OutHeight,
      OutWidth => OutWidth,
      Multiplier => Multiplier,
      Memory => Memory,
      Loadable => Loadable,
      LoadBits => LoadBits,
      LoadAddressBits => LoadAddressBits,
      LoadBase => LoadBase,
      WeightFile => WeightFile,
      BiasFile => BiasFile
    )
    port map (
      clk_i => clk_i,
      rst_i => rst_i,
      valid_i => window_valid,
      ready_o => window_ready,
      data_i => window_data,
      valid_o => valid_o,
      ready_i => ready_i,
      data_o => data_o,
      load_i => load_i,
      load_address_i => load_address_i,
      load_data_i => load_data_i
    );
end architecture rtl;
