-- The blocks in SystemVerilog as components, for a design in VHDL that instantiates them (mixed languages).
--
-- Generics and ports are those of each block's .sv file, whose header says what they mean; a bit is an integer, 0 or 1.
-- Written by scripts/components.py.
library ieee;
use ieee.std_logic_1164.all;

package bf_components is
  component bf_add is
    generic (
      ABits : integer := 8;
      ASigned : integer := 1;
      BBits : integer := 8;
      BSigned : integer := 1;
      Lanes : integer := 1;
      OutBits : integer := 9;
      OutSigned : integer
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      a_valid_i : in  std_logic;
      a_ready_o : out std_logic;
      a_data_i : in  std_logic_vector(Lanes*ABits - 1 downto 0);
      b_valid_i : in  std_logic;
      b_ready_o : out std_logic;
      b_data_i : in  std_logic_vector(Lanes*BBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0)
    );
  end component bf_add;

  component bf_bipolar is
    generic (
      Lanes : integer := 1
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(2*Lanes - 1 downto 0)
    );
  end component bf_bipolar;

  component bf_concat is
    generic (
      Bits : integer := 8;
      WordsA : integer := 1;
      WordsB : integer := 1
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      a_valid_i : in  std_logic;
      a_ready_o : out std_logic;
      a_data_i : in  std_logic_vector(Bits - 1 downto 0);
      b_valid_i : in  std_logic;
      b_ready_o : out std_logic;
      b_data_i : in  std_logic_vector(Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Bits - 1 downto 0)
    );
  end component bf_concat;

  component bf_conv2d is
    generic (
      InBits : integer := 8;
      InSigned : integer := 0;
      InBipolar : integer := 0;
      WeightBits : integer := 8;
      AccBits : integer := 24;
      Simd : integer := 1;
      Pe : integer := 1;
      Words : integer := 1;
      Height : integer := 1;
      Width : integer := 1;
      KernelHeight : integer := 1;
      KernelWidth : integer := 1;
      StrideHeight : integer := 1;
      StrideWidth : integer := 1;
      DilationHeight : integer := 1;
      DilationWidth : integer := 1;
      UpHeight : integer := 1;
      UpWidth : integer := 1;
      PhaseHeight : integer := 0;
      PhaseWidth : integer := 0;
      OriginTop : integer := 0;
      OriginLeft : integer := 0;
      OutHeight : integer := 1;
      OutWidth : integer := 1;
      Groups : integer := 1;
      Fold : integer := 1;
      Rows : integer := 2;
      PadValue : integer := 0;
      Multiplier : integer := 0;
      Memory : integer := 0;
      Loadable : integer := 0;
      LoadBits : integer := 1;
      LoadAddressBits : integer := 1;
      LoadBase : integer := 0;
      WeightFile : string;
      BiasFile : string
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Simd*InBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Pe*AccBits - 1 downto 0);
      load_i : in  std_logic;
      load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0);
      load_data_i : in  std_logic_vector(LoadBits - 1 downto 0)
    );
  end component bf_conv2d;

  component bf_dot is
    generic (
      InBits : integer := 8;
      InSigned : integer := 0;
      InBipolar : integer := 0;
      WeightBits : integer := 8;
      Simd : integer := 1;
      Pe : integer := 1;
      AccBits : integer := 24;
      Terms : integer := 1;
      Results : integer := 1;
      PhasesHeight : integer := 1;
      PhasesWidth : integer := 1;
      PhaseHeight : integer := 0;
      PhaseWidth : integer := 0;
      OutHeight : integer := 1;
      OutWidth : integer := 1;
      Multiplier : integer := 0;
      Memory : integer := 0;
      Loadable : integer := 0;
      LoadBits : integer := 1;
      LoadAddressBits : integer := 1;
      LoadBase : integer := 0;
      WeightFile : string;
      BiasFile : string
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Simd*InBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Pe*AccBits - 1 downto 0);
      load_i : in  std_logic;
      load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0);
      load_data_i : in  std_logic_vector(LoadBits - 1 downto 0)
    );
  end component bf_dot;

  component bf_fifo is
    generic (
      Bits : integer := 8;
      Depth : integer := 2
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Bits - 1 downto 0)
    );
  end component bf_fifo;

  component bf_fork is
    generic (
      Bits : integer := 8;
      Count : integer := 2
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Bits - 1 downto 0);
      valid_o : out std_logic_vector(Count - 1 downto 0);
      ready_i : in  std_logic_vector(Count - 1 downto 0);
      data_o : out std_logic_vector(Bits - 1 downto 0)
    );
  end component bf_fork;

  component bf_interpolate is
    generic (
      InBits : integer := 10;
      PlaceBits : integer := 4;
      BaseBits : integer := 16;
      SlopeBits : integer := 8;
      Shift : integer := 7;
      OutBits : integer := 8;
      Low : integer := 0;
      High : integer := 255;
      Lanes : integer := 1;
      TableFile : string
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes*InBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0)
    );
  end component bf_interpolate;

  component bf_last is
    generic (
      Bits : integer := 8;
      Words : integer := 1
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Bits - 1 downto 0);
      last_o : out std_logic
    );
  end component bf_last;

  component bf_memory is
    generic (
      Bits : integer := 8;
      Depth : integer := 1;
      AddressBits : integer := 1;
      Style : integer := 0;
      LoadBits : integer := 8;
      LoadAddressBits : integer := 1;
      LoadBase : integer := 0;
      MemoryFile : string
    );
    port (
      clk_i : in  std_logic;
      enable_i : in  std_logic;
      address_i : in  std_logic_vector(AddressBits - 1 downto 0);
      data_o : out std_logic_vector(Bits - 1 downto 0);
      load_i : in  std_logic;
      load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0);
      load_data_i : in  std_logic_vector(LoadBits - 1 downto 0)
    );
  end component bf_memory;

  component bf_multiply is
    generic (
      InBits : integer := 8;
      InSigned : integer := 0;
      WeightBits : integer := 8;
      Count : integer := 1
    );
    port (
      clk_i : in  std_logic;
      enable_i : in  std_logic;
      data_i : in  std_logic_vector(InBits - 1 downto 0);
      weight_i : in  std_logic_vector(Count*WeightBits - 1 downto 0);
      product_o : out std_logic_vector(Count*(InBits+WeightBits) - 1 downto 0);
      carry_o : out std_logic_vector(Count - 1 downto 0)
    );
  end component bf_multiply;

  component bf_pool is
    generic (
      Bits : integer := 8;
      Signed : integer := 0;
      Lanes : integer := 1;
      Terms : integer := 4;
      Sum : integer := 0;
      OutBits : integer := 8
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes*Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0)
    );
  end component bf_pool;

  component bf_pool2d is
    generic (
      Bits : integer := 8;
      Signed : integer := 0;
      Lanes : integer := 1;
      Sum : integer := 0;
      OutBits : integer := 8;
      Words : integer := 1;
      Height : integer := 2;
      Width : integer := 2;
      KernelHeight : integer := 2;
      KernelWidth : integer := 2;
      StrideHeight : integer := 2;
      StrideWidth : integer := 2;
      OriginTop : integer := 0;
      OriginLeft : integer := 0;
      OutHeight : integer := 1;
      OutWidth : integer := 1;
      Rows : integer := 4;
      PadValue : integer := 0
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes*Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0)
    );
  end component bf_pool2d;

  component bf_products is
    generic (
      InBits : integer := 8;
      InSigned : integer := 0;
      InBipolar : integer := 0;
      WeightBits : integer := 8;
      Simd : integer := 1;
      Pe : integer := 1;
      OutBits : integer := 24;
      Multiplier : integer := 0
    );
    port (
      clk_i : in  std_logic;
      enable_i : in  std_logic;
      data_i : in  std_logic_vector(Simd*InBits - 1 downto 0);
      weight_i : in  std_logic_vector(Pe*Simd*WeightBits - 1 downto 0);
      sum_o : out std_logic_vector(Pe*OutBits - 1 downto 0);
      carry_o : out std_logic_vector(Pe - 1 downto 0)
    );
  end component bf_products;

  component bf_registers is
    generic (
      Version : integer := 0;
      Identity : integer := 0;
      InputWords : integer := 1;
      InputLanes : integer := 1;
      InputBits : integer := 8;
      OutputWords : integer := 1;
      OutputLanes : integer := 1;
      OutputBits : integer := 8;
      Loadable : integer := 0;
      LoadBits : integer := 1;
      LoadAddressBits : integer := 1
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      aw_valid_i : in  std_logic;
      aw_ready_o : out std_logic;
      aw_addr_i : in  std_logic_vector(7 downto 0);
      w_valid_i : in  std_logic;
      w_ready_o : out std_logic;
      w_data_i : in  std_logic_vector(31 downto 0);
      w_strb_i : in  std_logic_vector(3 downto 0);
      b_valid_o : out std_logic;
      b_ready_i : in  std_logic;
      b_resp_o : out std_logic_vector(1 downto 0);
      ar_valid_i : in  std_logic;
      ar_ready_o : out std_logic;
      ar_addr_i : in  std_logic_vector(7 downto 0);
      r_valid_o : out std_logic;
      r_ready_i : in  std_logic;
      r_data_o : out std_logic_vector(31 downto 0);
      r_resp_o : out std_logic_vector(1 downto 0);
      valid_i : in  std_logic;
      ready_o : out std_logic;
      valid_o : out std_logic;
      ready_i : in  std_logic;
      out_valid_i : in  std_logic;
      out_ready_i : in  std_logic;
      load_o : out std_logic;
      load_address_o : out std_logic_vector(LoadAddressBits - 1 downto 0);
      load_data_o : out std_logic_vector(LoadBits - 1 downto 0)
    );
  end component bf_registers;

  component bf_requantize is
    generic (
      InBits : integer := 16;
      InSigned : integer := 1;
      OutBits : integer := 8;
      Lanes : integer := 1;
      Words : integer := 1;
      InputZero : integer := 0;
      OutputZero : integer := 0;
      Low : integer := -128;
      High : integer := 127;
      MultiplierBits : integer := 16;
      MinShift : integer := 0;
      ExtraBits : integer := 0;
      Rounding : integer := 0;
      Multiplier : integer := 0;
      Loadable : integer := 0;
      LoadBits : integer := 1;
      LoadAddressBits : integer := 1;
      LoadBase : integer := 0;
      ScaleFile : string
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes*InBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0);
      load_i : in  std_logic;
      load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0);
      load_data_i : in  std_logic_vector(LoadBits - 1 downto 0)
    );
  end component bf_requantize;

  component bf_scale is
    generic (
      ABits : integer := 8;
      ASigned : integer := 0;
      AZero : integer := 0;
      AFactorBits : integer := 9;
      BBits : integer := 8;
      BSigned : integer := 0;
      BZero : integer := 0;
      BFactorBits : integer := 9;
      Lanes : integer := 1;
      Words : integer := 1;
      Pixels : integer := 1;
      OutBits : integer := 16;
      OutSigned : integer := 0;
      Multiplier : integer := 0
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      a_valid_i : in  std_logic;
      a_ready_o : out std_logic;
      a_data_i : in  std_logic_vector(Lanes*ABits - 1 downto 0);
      b_valid_i : in  std_logic;
      b_ready_o : out std_logic;
      b_data_i : in  std_logic_vector(Lanes*BBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0)
    );
  end component bf_scale;

  component bf_skid is
    generic (
      Bits : integer := 8
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Bits - 1 downto 0)
    );
  end component bf_skid;

  component bf_slice is
    generic (
      Bits : integer := 8;
      Inner : integer := 1;
      Size : integer := 2;
      Start : integer := 0;
      Stop : integer := 1;
      Step : integer := 1
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Bits - 1 downto 0)
    );
  end component bf_slice;

  component bf_table is
    generic (
      InBits : integer := 8;
      OutBits : integer := 8;
      Lanes : integer := 1;
      TableFile : string
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes*InBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0)
    );
  end component bf_table;

  component bf_threshold is
    generic (
      InBits : integer := 16;
      InSigned : integer := 1;
      OutBits : integer := 2;
      Lanes : integer := 1;
      Words : integer := 1;
      Levels : integer := 3;
      Low : integer := 0;
      ThresholdBits : integer := 16;
      Loadable : integer := 0;
      LoadBits : integer := 1;
      LoadAddressBits : integer := 1;
      LoadBase : integer := 0;
      ThresholdFile : string
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes*InBits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*OutBits - 1 downto 0);
      load_i : in  std_logic;
      load_address_i : in  std_logic_vector(LoadAddressBits - 1 downto 0);
      load_data_i : in  std_logic_vector(LoadBits - 1 downto 0)
    );
  end component bf_threshold;

  component bf_topk is
    generic (
      Bits : integer := 8;
      Signed : integer := 1;
      Words : integer := 2;
      K : integer := 1;
      IndexBits : integer := 1
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(IndexBits - 1 downto 0)
    );
  end component bf_topk;

  component bf_width is
    generic (
      Bits : integer := 8;
      InLanes : integer := 1;
      OutLanes : integer := 1
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(InLanes*Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(OutLanes*Bits - 1 downto 0)
    );
  end component bf_width;

  component bf_window is
    generic (
      Bits : integer := 8;
      Lanes : integer := 1;
      Words : integer := 1;
      Height : integer := 1;
      Width : integer := 1;
      KernelHeight : integer := 1;
      KernelWidth : integer := 1;
      StrideHeight : integer := 1;
      StrideWidth : integer := 1;
      DilationHeight : integer := 1;
      DilationWidth : integer := 1;
      UpHeight : integer := 1;
      UpWidth : integer := 1;
      PhaseHeight : integer := 0;
      PhaseWidth : integer := 0;
      OriginTop : integer := 0;
      OriginLeft : integer := 0;
      OutHeight : integer := 1;
      OutWidth : integer := 1;
      Groups : integer := 1;
      Fold : integer := 1;
      Rows : integer := 2;
      PadValue : integer := 0
    );
    port (
      clk_i : in  std_logic;
      rst_i : in  std_logic;
      valid_i : in  std_logic;
      ready_o : out std_logic;
      data_i : in  std_logic_vector(Lanes*Bits - 1 downto 0);
      valid_o : out std_logic;
      ready_i : in  std_logic;
      data_o : out std_logic_vector(Lanes*Bits - 1 downto 0)
    );
  end component bf_window;
end package bf_components;
