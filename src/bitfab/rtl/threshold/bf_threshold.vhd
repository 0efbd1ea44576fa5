-- Counts the thresholds that each lane reaches: any monotone function of an integer to Levels + 1 steps, channel by channel.
--
-- y = Low + #{ i < Levels : x >= T[channel][i] }, modulo 2^OutBits. Latency 4 cycles, one word per cycle. ready_o is
-- combinational in ready_i: the whole pipeline stalls together. Bipolar outputs (0 means -1, 1 means +1) have Levels = 1,
-- OutBits = 1 and Low = 0. Limits: InBits <= 32, ThresholdBits <= 34, Levels <= 15, all compared at once.
-- Memory: ThresholdFile holds Words words, one per channel word of a pixel: threshold i of lane l, two's complement, at bits
-- [(l*Levels+i)*ThresholdBits+:ThresholdBits]. The order of a lane's thresholds does not matter.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_threshold is
  generic (
    InBits        : positive range 1 to 32 := 16;  -- of a lane
    InSigned      : natural range 0 to 1 := 1;
    OutBits       : positive range 1 to 32 := 2;
    Lanes         : positive := 1;
    Words         : positive := 1;                 -- channel words per pixel
    Levels        : positive range 1 to 15 := 3;   -- thresholds a channel
    Low           : integer := 0;                  -- where no threshold is reached
    ThresholdBits : positive range 1 to 34 := 16;
    Loadable        : natural range 0 to 1 := 0;  -- the memory can be written (bf_memory), over a bus of
    LoadBits        : positive := 1;
    LoadAddressBits : positive := 1;
    LoadBase        : natural := 0;
    ThresholdFile : string := ""
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
end entity bf_threshold;

architecture rtl of bf_threshold is
  constant Stages : positive := 4;
  constant WordBits : positive := Lanes * Levels * ThresholdBits;
  constant AddressBits : positive := maximum(clog2(Words), 1);

  signal valid_q : std_logic_vector(Stages - 1 downto 0);
  signal enable : std_logic;
  signal read_q, threshold_q : std_logic_vector(WordBits - 1 downto 0);
  signal address_q : natural range 0 to maximum(Words - 1, 1);
begin
  enable  <= ready_i or not valid_q(Stages - 1);
  ready_o <= enable;
  valid_o <= valid_q(Stages - 1);

  -- Threshold memory: read in the first stage, registered in the second, right before the comparators.
  g_loadable : if Loadable = 1 generate
    u_thresholds : entity work.bf_memory
      generic map (
        Bits => WordBits,
        Depth => Words,
        AddressBits => AddressBits,
        LoadBits => LoadBits,
        LoadAddressBits => LoadAddressBits,
        LoadBase => LoadBase,
        MemoryFile => ThresholdFile
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
    constant threshold_rom : memory_t(0 to maximum(Words - 1, 1))(WordBits - 1 downto 0) :=
      read_memory(ThresholdFile, Words, WordBits);
  begin
    process (clk_i)
    begin
      if rising_edge(clk_i) and enable = '1' then
        read_q <= threshold_rom(address_q);
      end if;
    end process;
  end generate g_constant;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable = '1' then
        valid_q     <= valid_q(Stages - 2 downto 0) & valid_i;
        threshold_q <= read_q;
      end if;
      if enable = '1' and valid_i = '1' then
        address_q <= 0 when address_q = Words - 1 else address_q + 1;
      end if;
      if rst_i = '1' then
        valid_q   <= (others => '0');
        address_q <= 0;
      end if;
    end if;
  end process;

  g_lane : for l in 0 to Lanes - 1 generate
    signal input_q, compared_q : std_logic_vector(InBits - 1 downto 0);
    signal reached_q : std_logic_vector(Levels - 1 downto 0);
  begin
    process (clk_i)
      variable first : natural;
      variable count : unsigned(OutBits - 1 downto 0);
    begin
      if rising_edge(clk_i) and enable = '1' then
        -- Stages 1 and 2: input; stage 3: comparisons.
        input_q    <= data_i((l + 1) * InBits - 1 downto l * InBits);
        compared_q <= input_q;
        for i in 0 to Levels - 1 loop
          first := (l * Levels + i) * ThresholdBits;
          reached_q(i) <= to_logic(
            lane(compared_q, InSigned) >= signed(threshold_q(first + ThresholdBits - 1 downto first)));
        end loop;

        -- Stage 4: count.
        count := unsigned(to_bits(Low, OutBits));
        for i in 0 to Levels - 1 loop
          if reached_q(i) = '1' then
            count := count + 1;
          end if;
        end loop;
        data_o((l + 1) * OutBits - 1 downto l * OutBits) <= std_logic_vector(count);
      end if;
    end process;
  end generate g_lane;
end architecture rtl;
