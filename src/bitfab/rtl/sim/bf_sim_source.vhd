-- Plays a file of words into a stream, with random idle cycles (simulation only).
--
-- Path names a file of Words hexadecimal words, one a line. Before each word, and in each cycle of the wait, the source idles
-- with a probability of IdlePercent %. A word once offered stays until it is taken. While idle, data_o is the inverse of the
-- next word, so that a block which reads data without valid is found out. Cycle by cycle the same as bf_sim_source.sv.
library ieee;
use ieee.std_logic_1164.all;
use std.textio.all;
use work.bf_sim.all;

entity bf_sim_source is
  generic (
    Bits        : positive := 8;  -- of a stream word
    Words       : positive := 1;  -- in the file
    Path        : string;
    IdlePercent : natural range 0 to 100 := 0;
    Seed        : natural := 1
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Bits - 1 downto 0);
    done_o  : out boolean  -- every word has been taken
  );
end entity bf_sim_source;

architecture sim of bf_sim_source is
begin
  process (clk_i)
    file vectors : text open read_mode is Path;
    variable word : std_logic_vector(Bits - 1 downto 0);
    variable index : integer range -1 to Words := -1;  -- of the word; -1 before the first
    variable random : random_t;
    variable offer : boolean := false;
  begin
    if rising_edge(clk_i) then
      if index < 0 or (offer and ready_i = '1' and rst_i = '0') then
        index := index + 1;
        offer := false;
        if index < Words then
          read_word(vectors, word);
        end if;
      end if;
      offer := rst_i = '0' and (offer or (index < Words and per_cent(random) > IdlePercent));
      random := first_random(Seed) when rst_i = '1' else next_random(random);
      valid_o <= '1' when offer else '0';
      data_o  <= word when offer else not word;
      done_o  <= index = Words;
    end if;
  end process;
end architecture sim;
