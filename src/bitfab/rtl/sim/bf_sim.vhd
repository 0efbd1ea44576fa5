-- What the testbenches in VHDL share: the random numbers of those in SystemVerilog, and lines of output (simulation only).
--
-- Random numbers: xorshift32 (Marsaglia 2003).
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use std.textio.all;

package bf_sim is
  subtype random_t is unsigned(31 downto 0);

  -- The first number of a seed: not zero, and unlike for neighbouring seeds.
  function first_random (seed : natural) return random_t;
  function next_random (number : random_t) return random_t;

  -- number mod 100 + 1
  function per_cent (number : random_t) return positive;

  procedure say (message : string);

  -- The next word of a file, one hexadecimal word a line.
  procedure read_word (file words : text; word : out std_logic_vector);
end package bf_sim;

package body bf_sim is
  function first_random (seed : natural) return random_t is
  begin
    return resize(to_unsigned(seed, 32) * x"9E3779B9", 32) or x"00000001";
  end function first_random;

  function next_random (number : random_t) return random_t is
    variable mixed : random_t;
  begin
    mixed := number xor shift_left(number, 13);
    mixed := mixed xor shift_right(mixed, 17);
    return mixed xor shift_left(mixed, 5);
  end function next_random;

  function per_cent (number : random_t) return positive is
  begin  -- 2**16 is 36 modulo 100; integers of VHDL do not hold all of the number
    return (36 * to_integer(number(31 downto 16)) + to_integer(number(15 downto 0))) mod 100 + 1;
  end function per_cent;

  procedure say (message : string) is
  begin
    write(output, message & LF);
  end procedure say;

  procedure read_word (file words : text; word : out std_logic_vector) is
    variable text_line : line;

    procedure read_all (digits : positive) is  -- a file may leave leading zeros out
      variable wide : std_logic_vector(4 * digits - 1 downto 0);
    begin
      hread(text_line, wide);
      word := std_logic_vector(resize(unsigned(wide), word'length));
    end procedure read_all;
  begin
    readline(words, text_line);
    read_all(text_line'length);
    deallocate(text_line);
  end procedure read_word;
end package body bf_sim;
