-- The functions that unrolled networks are written in: pure, combinational, of any width.
--
-- A bit is a std_logic, a number an unsigned or a signed of the width that its range needs. Numbers wrap modulo 2**width
-- where a width is given, as two's complement does; the generator chooses widths that hold every result.
-- An unknown bit (U, X) makes the result unknown.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;

package bf_cells is
  -- entries(address): a truth table; entry 0 is the last of the literal, the address's first bit its highest.
  function lut (entries : std_logic_vector; address : std_logic_vector) return std_logic;

  -- entries(address), in 32 bits: a table of numbers; entry 0 is the first.
  function entry (entries : integer_vector; address : std_logic_vector) return signed;

  -- '1' where x >= threshold, a constant of the width of x.
  function at_least (x : unsigned; threshold : natural) return std_logic;
  function at_least (x : signed; threshold : integer) return std_logic;
  function at_least (x : unsigned; threshold : unsigned) return std_logic;
  function at_least (x : signed; threshold : signed) return std_logic;

  -- '1' where left < right.
  function less (left : unsigned; right : unsigned) return std_logic;
  function less (left : signed; right : signed) return std_logic;

  -- x in `width` bits, extended by its sign or cut off at the left.
  function as_unsigned (x : std_logic; width : positive) return unsigned;
  function as_unsigned (x : unsigned; width : positive) return unsigned;
  function as_unsigned (x : signed; width : positive) return unsigned;
  function as_signed (x : std_logic; width : positive) return signed;
  function as_signed (x : unsigned; width : positive) return signed;
  function as_signed (x : signed; width : positive) return signed;

  -- The lowest bit of x.
  function lowest (x : unsigned) return std_logic;
end package bf_cells;

package body bf_cells is
  function lut (entries : std_logic_vector; address : std_logic_vector) return std_logic is
    constant numbered : std_logic_vector(entries'length - 1 downto 0) := entries;
  begin
    if is_x(address) then
      return 'X';
    end if;
    return numbered(to_integer(unsigned(address)));
  end function lut;

  function entry (entries : integer_vector; address : std_logic_vector) return signed is
    constant numbered : integer_vector(0 to entries'length - 1) := entries;
    constant unknown : signed(31 downto 0) := (others => 'X');
  begin
    if is_x(address) then
      return unknown;
    end if;
    return to_signed(numbered(to_integer(unsigned(address))), 32);
  end function entry;

  function at_least (x : unsigned; threshold : natural) return std_logic is
  begin
    return at_least(x, to_unsigned(threshold, x'length));
  end function at_least;

  function at_least (x : signed; threshold : integer) return std_logic is
  begin
    return at_least(x, to_signed(threshold, x'length));
  end function at_least;

  -- Bit by bit from the lowest, not by >=, which synthesis makes a carry chain of even where the threshold is a constant.
  function at_least (x : unsigned; threshold : unsigned) return std_logic is
    constant bits : unsigned(x'length - 1 downto 0) := x;
    constant bound : unsigned(x'length - 1 downto 0) := threshold;
    variable reached : std_logic := '1';
  begin
    for place in 0 to bits'left loop
      if bound(place) = '1' then
        reached := bits(place) and reached;
      else
        reached := bits(place) or reached;
      end if;
    end loop;
    return reached;
  end function at_least;

  function at_least (x : signed; threshold : signed) return std_logic is
    constant half : unsigned(x'length - 1 downto 0) := shift_left(to_unsigned(1, x'length), x'length - 1);
  begin
    return at_least(unsigned(x) xor half, unsigned(threshold) xor half);
  end function at_least;

  function less (left : unsigned; right : unsigned) return std_logic is
  begin
    if is_x(std_logic_vector(left)) or is_x(std_logic_vector(right)) then
      return 'X';
    elsif left < right then
      return '1';
    end if;
    return '0';
  end function less;

  function less (left : signed; right : signed) return std_logic is
  begin
    if is_x(std_logic_vector(left)) or is_x(std_logic_vector(right)) then
      return 'X';
    elsif left < right then
      return '1';
    end if;
    return '0';
  end function less;

  function as_unsigned (x : std_logic; width : positive) return unsigned is
    variable result : unsigned(width - 1 downto 0) := (others => '0');
  begin
    result(0) := x;
    return result;
  end function as_unsigned;

  function as_unsigned (x : unsigned; width : positive) return unsigned is
  begin
    return resize(x, width);
  end function as_unsigned;

  function as_unsigned (x : signed; width : positive) return unsigned is
    constant source : signed(x'length - 1 downto 0) := x;
    variable result : unsigned(width - 1 downto 0);
  begin
    for place in result'range loop
      result(place) := source(minimum(place, source'left));
    end loop;
    return result;
  end function as_unsigned;

  function as_signed (x : std_logic; width : positive) return signed is
  begin
    return signed(as_unsigned(x, width));
  end function as_signed;

  function as_signed (x : unsigned; width : positive) return signed is
  begin
    return signed(as_unsigned(x, width));
  end function as_signed;

  function as_signed (x : signed; width : positive) return signed is
  begin
    return signed(as_unsigned(x, width));
  end function as_signed;

  function lowest (x : unsigned) return std_logic is
  begin
    return x(x'right);
  end function lowest;
end package body bf_cells;
