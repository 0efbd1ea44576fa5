-- First-in first-out buffer of a stream; the first word falls through to the output.
--
-- One word in and one word out per cycle. Depth words of memory and one or two words of output registers: it takes at least
-- Depth words before ready_o falls. Up to LutDepth words the memory is read asynchronously (LUT RAM) and the latency is
-- 2 cycles; beyond, synchronously (block RAM, one register inside and one behind it) and the latency is 3 cycles.
-- ready_o, valid_o and data_o come from registers (ready_o through one comparison).
-- Memory: word i of the stream lies at address i modulo Depth.
library ieee;
use ieee.std_logic_1164.all;
use work.bf_stream.all;

entity bf_fifo is
  generic (
    Bits  : positive := 8;  -- of a stream word
    Depth : positive := 2   -- words it holds at least
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Bits - 1 downto 0)
  );
end entity bf_fifo;

architecture rtl of bf_fifo is
  constant LutDepth : positive := 32;
  subtype address_t is natural range 0 to maximum(Depth - 1, 1);

  signal write_address_q, read_address_q : address_t;
  signal count_q : natural range 0 to Depth;  -- words in the memory
  signal data_q : std_logic_vector(Bits - 1 downto 0);
  signal valid_q : std_logic;
  signal push, pop, advance, filled : std_logic;
begin
  ready_o <= to_logic(count_q /= Depth);
  push    <= valid_i and ready_o;
  advance <= ready_i or not valid_q;  -- the output register takes the next word
  filled  <= to_logic(count_q /= 0);
  valid_o <= valid_q;
  data_o  <= data_q;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if push = '1' then
        write_address_q <= 0 when write_address_q = Depth - 1 else write_address_q + 1;
      end if;
      if pop = '1' then
        read_address_q <= 0 when read_address_q = Depth - 1 else read_address_q + 1;
      end if;
      if push = '1' and pop = '0' then
        count_q <= count_q + 1;
      elsif push = '0' and pop = '1' then
        count_q <= count_q - 1;
      end if;
      if rst_i = '1' then
        write_address_q <= 0;
        read_address_q  <= 0;
        count_q         <= 0;
      end if;
    end if;
  end process;

  -- A word is read at the earliest one cycle after it was written: no read meets a write of the same word.
  g_lut_memory : if Depth <= LutDepth generate
    pop <= advance and filled;

    process (clk_i)
      variable memory : memory_t(0 to maximum(Depth - 1, 1))(Bits - 1 downto 0);
    begin
      if rising_edge(clk_i) then
        if advance = '1' then
          data_q  <= memory(read_address_q);
          valid_q <= filled;
        end if;
        if push = '1' then
          memory(write_address_q) := data_i;
        end if;
        if rst_i = '1' then
          valid_q <= '0';
        end if;
      end if;
    end process;
  end generate g_lut_memory;

  g_block_memory : if Depth > LutDepth generate
    signal read_q : std_logic_vector(Bits - 1 downto 0);
    signal read_valid_q, read_advance : std_logic;
  begin
    read_advance <= advance or not read_valid_q;
    pop <= read_advance and filled;

    process (clk_i)
      variable memory : memory_t(0 to maximum(Depth - 1, 1))(Bits - 1 downto 0);
    begin
      if rising_edge(clk_i) then
        if read_advance = '1' then
          read_q       <= memory(read_address_q);
          read_valid_q <= filled;
        end if;
        if push = '1' then
          memory(write_address_q) := data_i;
        end if;
        if advance = '1' then
          data_q  <= read_q;
          valid_q <= read_valid_q;
        end if;
        if rst_i = '1' then
          read_valid_q <= '0';
          valid_q      <= '0';
        end if;
      end if;
    end process;
  end generate g_block_memory;

  -- synthesis translate_off
  u_handshake : entity work.bf_handshake
    generic map (Bits => Bits, BlockName => "bf_fifo")
    port map (clk_i => clk_i, rst_i => rst_i, valid_i => valid_q, ready_i => ready_i, data_i => data_q);
  -- synthesis translate_on
end architecture rtl;
