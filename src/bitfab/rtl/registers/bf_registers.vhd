-- AXI-Lite registers beside a stream: what the design is, a gate at its input, and counters of its frames, cycles and stalls.
--
-- Words of 32 bits at byte addresses; "ro" are read only.
--   0x00  ro  "bitf", 0x62697466         0x04  ro  version of bitfab, major << 16 | minor << 8 | patch
--   0x08  ro  Identity of the design     0x0c  rw  control: bit 0 enable (1 after reset); bit 1 clears the counters, reads 0
--   0x10  ro  input words a frame        0x14  ro  output words a frame
--   0x18  ro  input: bits of a lane << 16 | lanes      0x1c  ro  output: the same
--   0x20  ro  latency of the frame timed last: cycles from its first word in to its last word out, both counted
--   0x24  ro  frames under way: begun, and not finished
--   0x28  wo  load data, where Loadable: moves the word to be loaded up by 32 bits and puts these below
--   0x2c  wo  load address, where Loadable: stores that word there; only while disabled and no frame is under way
--   0x40  ro  frames begun, low; 0x44 high             0x48  ro  frames finished; 0x4c
--   0x50  ro  cycles with a frame under way; 0x54      0x58  ro  cycles in which the input waited while enabled; 0x5c
--   0x60  ro  cycles in which the output waited; 0x64
-- Counters have 64 bits: reading a low word keeps its high word, which the next read of a high word gives. One frame at a time
-- is timed; those that begin meanwhile are not. Without enable the input is closed, but for the rest of a frame that has begun.
-- Writes to read-only registers, and unaligned or unknown addresses, answer SLVERR and change nothing; so do load addresses
-- beyond the bus or in a design at work, and reads of what is write only. Byte strobes: that of the lowest byte is looked at.
--
-- The stream passes through without latency (ready_o is combinational in ready_i); a read or a write takes 2 cycles, and
-- address and data of a write come in any order. Every AXI-Lite output is a register's.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use work.bf_stream.all;

entity bf_registers is
  generic (
    Version     : integer := 0;
    Identity    : integer := 0;
    InputWords  : positive := 1;  -- words a frame
    InputLanes  : positive := 1;
    InputBits   : positive := 8;  -- bits of a lane
    OutputWords : positive := 1;
    OutputLanes : positive := 1;
    OutputBits  : positive := 8;
    Loadable    : natural range 0 to 1 := 0;  -- the design's memories can be written (bf_memory), over a bus of
    LoadBits        : positive := 1;
    LoadAddressBits : positive := 1
  );
  port (
    clk_i       : in  std_logic;
    rst_i       : in  std_logic;
    aw_valid_i  : in  std_logic;
    aw_ready_o  : out std_logic;
    aw_addr_i   : in  std_logic_vector(7 downto 0);
    w_valid_i   : in  std_logic;
    w_ready_o   : out std_logic;
    w_data_i    : in  std_logic_vector(31 downto 0);
    w_strb_i    : in  std_logic_vector(3 downto 0);
    b_valid_o   : out std_logic;
    b_ready_i   : in  std_logic;
    b_resp_o    : out std_logic_vector(1 downto 0);
    ar_valid_i  : in  std_logic;
    ar_ready_o  : out std_logic;
    ar_addr_i   : in  std_logic_vector(7 downto 0);
    r_valid_o   : out std_logic;
    r_ready_i   : in  std_logic;
    r_data_o    : out std_logic_vector(31 downto 0);
    r_resp_o    : out std_logic_vector(1 downto 0);
    valid_i     : in  std_logic;  -- the input stream, to
    ready_o     : out std_logic;
    valid_o     : out std_logic;  -- the design
    ready_i     : in  std_logic;
    out_valid_i : in  std_logic;  -- the output stream, watched
    out_ready_i : in  std_logic;
    load_o         : out std_logic;
    load_address_o : out std_logic_vector(LoadAddressBits - 1 downto 0);
    load_data_o    : out std_logic_vector(LoadBits - 1 downto 0)
  );
end entity bf_registers;

architecture rtl of bf_registers is
  subtype word_t is std_logic_vector(31 downto 0);
  type counters_t is array (0 to 4) of unsigned(63 downto 0);

  constant Magic : word_t := x"62697466";
  constant Okay : std_logic_vector(1 downto 0) := "00";
  constant SlaveError : std_logic_vector(1 downto 0) := "10";
  constant ControlAddress : std_logic_vector(7 downto 0) := x"0c";
  constant LoadDataAddress : std_logic_vector(7 downto 0) := x"28";
  constant LoadAddress : std_logic_vector(7 downto 0) := x"2c";
  constant WriteBits : positive := choose(Loadable = 1, 32, 2);  -- control holds two

  -- Writes: address and data wait for each other.
  signal aw_held_q, w_held_q, write, load_known, w_strobe_q, enable_q, clear_q : std_logic;
  signal aw_addr_q : std_logic_vector(7 downto 0);
  signal w_data_q : std_logic_vector(WriteBits - 1 downto 0);
  -- The gate.
  signal is_open, push, pop : std_logic;
  signal in_word_q : natural range 0 to maximum(InputWords - 1, 1);
  signal out_word_q : natural range 0 to maximum(OutputWords - 1, 1);
  -- Frames, and the one that is timed.
  signal begins, ends, timed_q : std_logic;
  signal under_way, under_way_q, ahead_q : unsigned(15 downto 0);  -- ahead: frames to finish before the timed one
  signal age_q, latency_q : unsigned(31 downto 0);
  -- Counters, and reads.
  signal counted : std_logic_vector(counters_t'range);
  signal counter_q : counters_t;
  signal ar_held_q, read, counter_known : std_logic;
  signal ar_addr_q : std_logic_vector(7 downto 0);
  signal counter : natural range 0 to 7;
  signal high_q : unsigned(31 downto 0);
begin
  aw_ready_o <= not aw_held_q;
  w_ready_o  <= not w_held_q;
  write      <= aw_held_q and w_held_q and (b_ready_i or not b_valid_o);

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if aw_held_q = '0' then
        aw_addr_q <= aw_addr_i;
      end if;
      if w_held_q = '0' then
        w_data_q   <= w_data_i(WriteBits - 1 downto 0);
        w_strobe_q <= w_strb_i(0);
      end if;
      clear_q <= '0';
      if write = '1' then
        b_resp_o <= Okay when aw_addr_q = ControlAddress or load_known = '1' else SlaveError;
        if aw_addr_q = ControlAddress and w_strobe_q = '1' then
          enable_q <= w_data_q(0);
          clear_q  <= w_data_q(1);
        end if;
      end if;
      aw_held_q <= not write and (aw_held_q or aw_valid_i);
      w_held_q  <= not write and (w_held_q or w_valid_i);
      b_valid_o <= write or (b_valid_o and not b_ready_i);
      if rst_i = '1' then
        aw_held_q <= '0';
        w_held_q  <= '0';
        b_valid_o <= '0';
        enable_q  <= '1';
        clear_q   <= '0';
      end if;
    end if;
  end process;

  is_open <= enable_q or to_logic(in_word_q /= 0);
  valid_o <= valid_i and is_open;
  ready_o <= ready_i and is_open;
  push    <= valid_i and is_open and ready_i;
  pop     <= out_valid_i and out_ready_i;

  begins    <= push and to_logic(in_word_q = 0);
  ends      <= pop and to_logic(out_word_q = OutputWords - 1);
  under_way <= under_way_q + 1 when begins = '1' and ends = '0' else
               under_way_q - 1 when begins = '0' and ends = '1' else
               under_way_q;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if push = '1' then
        in_word_q <= 0 when in_word_q = InputWords - 1 else in_word_q + 1;
      end if;
      if pop = '1' then
        out_word_q <= 0 when ends = '1' else out_word_q + 1;
      end if;
      under_way_q <= under_way;
      age_q       <= age_q + 1;
      if ends = '1' then
        ahead_q <= ahead_q - 1;
      end if;
      if timed_q = '1' and ends = '1' and ahead_q = 0 then
        latency_q <= age_q;
        timed_q   <= '0';
      end if;
      if begins = '1' and timed_q = '0' then
        timed_q <= '1';
        age_q   <= to_unsigned(2, 32);  -- with this cycle and the next
        ahead_q <= under_way - 1;
      end if;
      if rst_i = '1' then
        in_word_q   <= 0;
        out_word_q  <= 0;
        under_way_q <= (others => '0');
        timed_q     <= '0';
        latency_q   <= (others => '0');
      end if;
    end if;
  end process;

  -- Loading, while nothing else happens.
  g_load : if Loadable = 1 generate
    signal word_q : std_logic_vector(LoadBits - 1 downto 0);
    signal ready : std_logic;
  begin
    ready      <= not is_open and to_logic(under_way_q = 0 and shift_right(unsigned(w_data_q), LoadAddressBits) = 0);
    load_known <= to_logic(aw_addr_q = LoadDataAddress) or (to_logic(aw_addr_q = LoadAddress) and ready);

    process (clk_i)
    begin
      if rising_edge(clk_i) then
        load_o <= '0';
        if write = '1' and w_strobe_q = '1' and aw_addr_q = LoadDataAddress then
          word_q <= std_logic_vector(resize(unsigned(word_q) & unsigned(w_data_q), LoadBits));
        end if;
        if write = '1' and w_strobe_q = '1' and aw_addr_q = LoadAddress then
          load_o <= ready;
        end if;
        if rst_i = '1' then
          load_o <= '0';
        end if;
      end if;
    end process;

    load_address_o <= w_data_q(LoadAddressBits - 1 downto 0);  -- which the next write's data replaces a cycle later
    load_data_o    <= word_q;
  end generate g_load;

  g_no_load : if Loadable = 0 generate
    load_known     <= '0';
    load_o         <= '0';
    load_address_o <= (others => '0');
    load_data_o    <= (others => '0');
  end generate g_no_load;

  counted(0) <= begins;
  counted(1) <= ends;
  counted(2) <= begins or to_logic(under_way_q /= 0);
  counted(3) <= valid_i and is_open and not ready_i;
  counted(4) <= out_valid_i and not out_ready_i;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      for i in counters_t'range loop
        if counted(i) = '1' then
          counter_q(i) <= counter_q(i) + 1;
        end if;
      end loop;
      if clear_q = '1' or rst_i = '1' then
        counter_q <= (others => (others => '0'));
      end if;
    end if;
  end process;

  ar_ready_o    <= not ar_held_q;
  read          <= ar_held_q and (r_ready_i or not r_valid_o);
  counter       <= to_integer(unsigned(ar_addr_q(5 downto 3)));
  counter_known <= to_logic(ar_addr_q(7 downto 6) = "01" and ar_addr_q(1 downto 0) = "00" and counter <= 4);

  process (clk_i)
    variable known : std_logic;
    variable value : unsigned(63 downto 0);
  begin
    if rising_edge(clk_i) then
      if ar_held_q = '0' then
        ar_addr_q <= ar_addr_i;
      end if;
      known := '1';
      value := (others => '0');
      if counter_known = '1' then
        value := counter_q(counter);
      end if;
      if read = '1' then
        -- No case: GHDL 2.0 loses its `others` on the way to Verilog.
        if ar_addr_q = x"00" then
          r_data_o <= Magic;
        elsif ar_addr_q = x"04" then
          r_data_o <= std_logic_vector(to_signed(Version, 32));
        elsif ar_addr_q = x"08" then
          r_data_o <= std_logic_vector(to_signed(Identity, 32));
        elsif ar_addr_q = x"0c" then
          r_data_o <= (0 => enable_q, others => '0');
        elsif ar_addr_q = x"10" then
          r_data_o <= to_bits(InputWords, 32);
        elsif ar_addr_q = x"14" then
          r_data_o <= to_bits(OutputWords, 32);
        elsif ar_addr_q = x"18" then
          r_data_o <= to_bits(InputBits, 16) & to_bits(InputLanes, 16);
        elsif ar_addr_q = x"1c" then
          r_data_o <= to_bits(OutputBits, 16) & to_bits(OutputLanes, 16);
        elsif ar_addr_q = x"20" then
          r_data_o <= std_logic_vector(latency_q);
        elsif ar_addr_q = x"24" then
          r_data_o <= x"0000" & std_logic_vector(under_way_q);
        else
          known    := counter_known;
          r_data_o <= std_logic_vector(value(31 downto 0));
          if counter_known = '1' and ar_addr_q(2) = '1' then
            r_data_o <= std_logic_vector(high_q);
          end if;
        end if;
        if counter_known = '1' and ar_addr_q(2) = '0' then
          high_q <= value(63 downto 32);
        end if;
        r_resp_o <= Okay when known = '1' else SlaveError;
      end if;
      ar_held_q <= not read and (ar_held_q or ar_valid_i);
      r_valid_o <= read or (r_valid_o and not r_ready_i);
      if rst_i = '1' then
        ar_held_q <= '0';
        r_valid_o <= '0';
      end if;
    end if;
  end process;
end architecture rtl;
