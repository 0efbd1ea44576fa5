-- Maximum or exact sum over a sliding window, channel by channel.
--
--   y[c] = max or sum over the window of x[c]
--
-- Takes and gives Lanes channels a word. One window word is reduced in each cycle, so an output pixel takes
-- Words * KernelHeight * KernelWidth cycles. Latency: that of bf_window plus that of bf_pool.
library ieee;
use ieee.std_logic_1164.all;

entity bf_pool2d is
  generic (
    Bits         : positive := 8;
    Signed       : natural range 0 to 1 := 0;
    Lanes        : positive := 1;
    Sum          : natural range 0 to 1 := 0;  -- 0 maximum, 1 sum
    OutBits      : positive := 8;
    Words        : positive := 1;  -- words a pixel: channels / Lanes
    Height       : positive := 2;
    Width        : positive := 2;
    KernelHeight : positive := 2;
    KernelWidth  : positive := 2;
    StrideHeight : positive := 2;
    StrideWidth  : positive := 2;
    OriginTop    : integer := 0;   -- row of the first tap of output (0, 0): -padding
    OriginLeft   : integer := 0;
    OutHeight    : positive := 1;
    OutWidth     : positive := 1;
    Rows         : positive := 4;  -- line-buffer rows
    PadValue     : integer := 0    -- bits of what lies outside the image
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Lanes * Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Lanes * OutBits - 1 downto 0)
  );
end entity bf_pool2d;

architecture rtl of bf_pool2d is
  signal window_valid, window_ready : std_logic;
  signal window_data : std_logic_vector(Lanes * Bits - 1 downto 0);
begin
  u_window : entity work.bf_window
    generic map (
      Bits => Bits,
      Lanes => Lanes,
      Words => Words,
      Height => Height,
      Width => Width,
      KernelHeight => KernelHeight,
      KernelWidth => KernelWidth,
      StrideHeight => StrideHeight,
      StrideWidth => StrideWidth,
      OriginTop => OriginTop,
      OriginLeft => OriginLeft,
      OutHeight => OutHeight,
      OutWidth => OutWidth,
      Groups => Words,
      Fold => 1,
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

  u_pool : entity work.bf_pool
    generic map (
      Bits => Bits,
      Signed => Signed,
      Lanes => Lanes,
      Terms => KernelHeight * KernelWidth,
      Sum => Sum,
      OutBits => OutBits
    )
    port map (
      clk_i => clk_i,
      rst_i => rst_i,
      valid_i => window_valid,
      ready_o => window_ready,
      data_i => window_data,
      valid_o => valid_o,
      ready_i => ready_i,
      data_o => data_o
    );
end architecture rtl;
