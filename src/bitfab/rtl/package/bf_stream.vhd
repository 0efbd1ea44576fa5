-- What the stream blocks in VHDL share: memories and their files, widths of counters, numbers cut to a width.
--
-- A memory file holds one hexadecimal word a line, as for $readmemh of SystemVerilog; it is read at elaboration.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;

package bf_stream is
  type memory_t is array (natural range <>) of std_logic_vector;

  -- The first `depth` words of a file; a missing file, or one of fewer words, is an error. At least two words are given, the
  -- second zero where there is one: GHDL 2.0 synthesizes no memory of a single word.
  impure function read_memory (path : string; depth : positive; width : positive) return memory_t;

  -- The least n with 2**n >= count, 0 for a count below 2.
  function clog2 (count : integer) return natural;

  -- 0, step, 2 * step, ..., count of them and at least two: a table in place of a multiplier.
  function multiples (count : positive; step : natural) return integer_vector;

  -- One where the condition holds, the other where not.
  function choose (condition : boolean; one : integer; other : integer) return integer;
  function to_logic (condition : boolean) return std_logic;

  -- The number modulo 2**width, in two's complement.
  function to_bits (number : integer; width : positive) return std_logic_vector;

  -- x in `width` bits: extended by its sign, or its lowest bits.
  function cut (x : signed; width : positive) return signed;

  -- x * w in `width` bits; by integers where they hold it, which simulate ten times faster.
  function product (x : signed; w : signed; width : positive) return signed;

  -- A lane as a number: two's complement where `is_signed` is 1, else with a zero for its sign.
  function lane (bits : std_logic_vector; is_signed : natural) return signed;

  -- Whether all bits of x are the same.
  function alike (x : std_logic_vector) return boolean;
end package bf_stream;

use std.textio.all;

package body bf_stream is
  impure function read_memory (path : string; depth : positive; width : positive) return memory_t is
    file contents : text open read_mode is path;
    variable text_line : line;
    variable words : memory_t(0 to maximum(depth - 1, 1))(width - 1 downto 0) := (others => (others => '0'));
  begin
    for place in 0 to depth - 1 loop
      readline(contents, text_line);
      hread(text_line, words(place));
    end loop;
    return words;
  end function read_memory;

  function clog2 (count : integer) return natural is
    variable rest : integer := count - 1;
    variable bits : natural := 0;
  begin
    while rest > 0 loop
      rest := rest / 2;
      bits := bits + 1;
    end loop;
    return bits;
  end function clog2;

  function multiples (count : positive; step : natural) return integer_vector is
    variable found : integer_vector(0 to maximum(count - 1, 1));
  begin
    for place in found'range loop
      found(place) := place * step;
    end loop;
    return found;
  end function multiples;

  function choose (condition : boolean; one : integer; other : integer) return integer is
  begin
    if condition then
      return one;
    end if;
    return other;
  end function choose;

  function to_logic (condition : boolean) return std_logic is
  begin
    if condition then
      return '1';
    end if;
    return '0';
  end function to_logic;

  function to_bits (number : integer; width : positive) return std_logic_vector is
  begin
    return std_logic_vector(cut(to_signed(number, 32), width));
  end function to_bits;

  function cut (x : signed; width : positive) return signed is
    constant source : signed(x'length - 1 downto 0) := x;
  begin
    if width > source'length then
      return resize(source, width);
    end if;
    return source(width - 1 downto 0);
  end function cut;

  function product (x : signed; w : signed; width : positive) return signed is
  begin
    if x'length + w'length <= 32 then
      return to_signed(to_integer(x) * to_integer(w), width);
    end if;
    return cut(x * w, width);
  end function product;

  function lane (bits : std_logic_vector; is_signed : natural) return signed is
  begin
    if is_signed = 1 then
      return signed(bits);
    end if;
    return signed('0' & bits);
  end function lane;

  function alike (x : std_logic_vector) return boolean is
    constant zeros : std_logic_vector(x'length - 1 downto 0) := (others => '0');
  begin
    return x = zeros or x = not zeros;
  end function alike;
end package body bf_stream;
