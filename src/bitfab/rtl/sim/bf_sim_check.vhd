-- Compares every transfer of a stream with a file of expected words (simulation only, drives nothing of the stream).
--
-- Path names a file of Words hexadecimal words, one a line. A word that differs, a word more than Words, and a breach of the
-- handshake (valid dropped, or data changed, while waiting for ready) each add 1 to mismatches_o. The first wrong word and the
-- first breach are printed: `MISMATCH <Name> word <position>: expected <hex> got <hex>`, `PROTOCOL <Name> word <position>: <what>`.
library ieee;
use ieee.std_logic_1164.all;
use std.textio.all;
use work.bf_sim.all;

entity bf_sim_check is
  generic (
    Bits  : positive := 8;  -- of a stream word
    Words : positive := 1;  -- in the file
    Path  : string;
    Name  : string := "stream"
  );
  port (
    clk_i        : in  std_logic;
    rst_i        : in  std_logic;
    valid_i      : in  std_logic;
    ready_i      : in  std_logic;
    data_i       : in  std_logic_vector(Bits - 1 downto 0);
    count_o      : out natural;  -- transfers so far
    mismatches_o : out natural
  );
end entity bf_sim_check;

architecture sim of bf_sim_check is
begin
  process (clk_i)
    file vectors : text open read_mode is Path;
    variable count, wrong, breaches : natural := 0;
    variable waiting : boolean := false;
    variable expected, data : std_logic_vector(Bits - 1 downto 0);

    procedure complain (message : string; already : natural) is
    begin
      if already = 0 then
        say(message);
      end if;
    end procedure complain;
  begin
    if rising_edge(clk_i) and rst_i = '0' then
      if waiting and valid_i /= '1' then
        complain("PROTOCOL " & Name & " word " & to_string(count) & ": valid dropped while waiting", breaches);
        breaches := breaches + 1;
      elsif waiting and data_i /= data then
        complain("PROTOCOL " & Name & " word " & to_string(count) & ": data changed while waiting", breaches);
        breaches := breaches + 1;
      end if;
      if valid_i = '1' and ready_i = '1' then
        if count >= Words then
          complain("MISMATCH " & Name & " word " & to_string(count) & ": none expected got " & to_hstring(data_i), wrong);
          wrong := wrong + 1;
        else
          read_word(vectors, expected);
          if data_i /= expected then
            complain("MISMATCH " & Name & " word " & to_string(count) & ": expected " & to_hstring(expected) & " got "
              & to_hstring(data_i), wrong);
            wrong := wrong + 1;
          end if;
        end if;
        count := count + 1;
      end if;
      waiting := valid_i = '1' and ready_i = '0';
      data := data_i;
    end if;
    count_o      <= count;
    mismatches_o <= wrong + breaches;
  end process;
end architecture sim;
