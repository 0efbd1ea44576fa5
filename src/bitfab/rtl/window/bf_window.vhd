-- Sliding window: a cyclic line buffer and the address loop nest that replays the words under a moving window.
--
-- For every image, with y0, x0 the row and column of the window's first tap:
--   for oy < OutHeight, ox < OutWidth, g < Groups, f < Fold, kh < KernelHeight, kw < KernelWidth, c < Words / Groups:
--     emit word g * (Words / Groups) + c of pixel (y0(oy) + kh * DilationHeight, x0(ox) + kw * DilationWidth);
--     outside the image PadValue in every lane
--   y0(oy) = OriginTop  + StrideHeight * ((PhaseHeight + oy) / UpHeight), rounded down; x0(ox) likewise.
--
-- Latency: 3 cycles from a transfer at the input to the same word at the output, when the window waits for it.
--   One word a cycle in steady state, across rows and images, when Rows >= ReachHeight + StrideHeight; without padding
--   an image's first window may also wait for rows that did not fit beside the last image's.
--   ReachHeight = (KernelHeight - 1) * DilationHeight + 1, the rows from a window's first to its last.
-- Limits: Rows >= ReachHeight and Rows > -OriginTop; the last y0 <= Height (padding up to the window's reach).
-- Memory: word w of a row in slot s lies at s * (Width * Words) + w; row r of image i: slot (i * Height + r) mod Rows.
library ieee;
use ieee.std_logic_1164.all;
use work.bf_stream.all;

entity bf_window is
  generic (
    Bits         : positive := 8;  -- bits of a lane
    Lanes        : positive := 1;  -- lanes of a word
    Words        : positive := 1;  -- words of an input pixel
    Height       : positive := 1;  -- input image
    Width        : positive := 1;
    KernelHeight : positive := 1;
    KernelWidth  : positive := 1;
    StrideHeight : positive := 1;
    StrideWidth  : positive := 1;
    DilationHeight : positive := 1;  -- rows, columns from one tap to the next
    DilationWidth  : positive := 1;
    UpHeight     : positive := 1;  -- output rows that share a window row
    UpWidth      : positive := 1;
    PhaseHeight  : natural := 0;   -- phase of the first output row, < UpHeight
    PhaseWidth   : natural := 0;
    OriginTop    : integer := 0;   -- row of the first tap of output pixel (0, 0): -padding
    OriginLeft   : integer := 0;
    OutHeight    : positive := 1;
    OutWidth     : positive := 1;
    Groups       : positive := 1;  -- channel groups, each replayed by itself
    Fold         : positive := 1;  -- times that each group's window is replayed
    Rows         : positive := 2;  -- rows that the line buffer holds
    PadValue     : integer := 0    -- one lane, its low Bits bits
  );
  port (
    clk_i   : in  std_logic;
    rst_i   : in  std_logic;
    valid_i : in  std_logic;
    ready_o : out std_logic;
    data_i  : in  std_logic_vector(Lanes * Bits - 1 downto 0);
    valid_o : out std_logic;
    ready_i : in  std_logic;
    data_o  : out std_logic_vector(Lanes * Bits - 1 downto 0)
  );
end entity bf_window;

architecture rtl of bf_window is
  subtype word_t is std_logic_vector(Lanes * Bits - 1 downto 0);

  function pad_word return std_logic_vector is
    variable word : word_t;
  begin
    for l in 0 to Lanes - 1 loop
      word((l + 1) * Bits - 1 downto l * Bits) := to_bits(PadValue, Bits);
    end loop;
    return word;
  end function pad_word;

  -- Geometry, all in words or rows.
  constant GroupWords : positive := Words / Groups;
  constant RowWords : positive := Width * Words;
  constant ReachHeight : positive := (KernelHeight - 1) * DilationHeight + 1;
  constant ReachWidth : positive := (KernelWidth - 1) * DilationWidth + 1;
  constant Depth : positive := Rows * RowWords;
  -- Consecutive words: one group makes the taps of a kernel row contiguous, unless they are dilated.
  constant Contiguous : boolean := Groups = 1 and DilationWidth = 1;
  constant Run : positive := choose(Contiguous, KernelWidth * Words, GroupWords);
  constant Taps : positive := choose(Contiguous, 1, KernelWidth);
  constant LastTop : integer := OriginTop + StrideHeight * ((PhaseHeight + OutHeight - 1) / UpHeight);
  constant LastLeft : integer := OriginLeft + StrideWidth * ((PhaseWidth + OutWidth - 1) / UpWidth);
  constant LastPhaseHeight : natural := (PhaseHeight + OutHeight - 1) mod UpHeight;
  constant LastPhaseWidth : natural := (PhaseWidth + OutWidth - 1) mod UpWidth;
  -- Rows from the last window's top to the next image's first top.
  constant NextImage : integer := Height + OriginTop - LastTop;

  -- A position is the offset of a tap's word in its row; it is negative left of the image.
  constant PositionMin : integer := minimum(0, OriginLeft * Words);
  constant PositionMax : integer := maximum(RowWords, (LastLeft + ReachWidth) * Words) - 1;
  constant TopMin : integer := minimum(0, OriginTop);
  constant TopMax : integer := maximum(Height, LastTop + ReachHeight) - 1;
  -- Bounds of held (see below), where every window touches the image: the last row it read may still be incomplete.
  -- No image fits between two taps of a window, or between two windows of a row.
  constant Dense : boolean := DilationHeight <= Height and DilationWidth <= Width and StrideWidth < Width + ReachWidth;
  constant AllTouch : boolean := OriginTop + ReachHeight > 0 and LastTop < Height and Dense;
  constant HeldNextTop : integer := ReachHeight - 1 - StrideHeight;
  constant HeldNextImage : integer := minimum(LastTop + ReachHeight - Height, 0) - 1 - OriginTop;
  constant HeldMin : integer :=
    choose(AllTouch, minimum(0, minimum(HeldNextTop, HeldNextImage)), -2 * Height - ReachHeight);
  constant HeldMax : integer := maximum(-OriginTop, Rows + maximum(0, -NextImage));
  constant TapHeldMax : natural := maximum(ReachHeight - 1, -OriginTop);

  -- Every move is a constant step of the position.
  constant StepTap : integer := DilationWidth * Words - GroupWords + 1;
  constant StepKernel : integer := 1 - ((ReachWidth - 1) * Words + GroupWords);
  constant StepGroup : integer := StepKernel + GroupWords;
  constant StepPhase : integer := 1 - ReachWidth * Words;
  constant StepPixel : integer := StepPhase + StrideWidth * Words;
  constant StepRow : integer := (OriginLeft - LastLeft) * Words + StepPhase;

  subtype slot_t is natural range 0 to maximum(Rows - 1, 1);
  subtype position_t is integer range PositionMin to maximum(PositionMax, 1);
  subtype held_t is integer range HeldMin to HeldMax;

  -- The addresses of the slots' first words.
  constant SlotAddresses : integer_vector := multiples(Rows, RowWords);

  -- (slot + step) modulo Rows, step < Rows.
  function slot_plus (slot : slot_t; step : natural) return slot_t is
  begin
    if slot + step >= Rows then
      return slot + step - Rows;
    end if;
    return slot + step;
  end function slot_plus;

  -- Write side: words go to consecutive places, whatever image they belong to.
  signal write_position_q : natural range 0 to maximum(RowWords - 1, 1);
  signal write_slot_q : slot_t;
  signal row_begun_q : boolean;  -- write_position_q /= 0
  signal write, write_row : boolean;

  -- Rows from the window's top that are written completely, padding above the image counted with them. Row y0 + kh is
  -- complete when held > kh, and is being written when held = kh. A row may be written while held < Rows. Below zero:
  -- rows that no window needs are still to come.
  signal held_q : held_t;

  -- Loop nest: the tap after the one in the tap register.
  signal run_q : natural range 0 to maximum(Run - 1, 1);
  signal tap_q : natural range 0 to maximum(Taps - 1, 1);
  signal kernel_q : natural range 0 to maximum(ReachHeight - 1, 1);  -- row of the tap from the window's top
  signal fold_q : natural range 0 to maximum(Fold - 1, 1);
  signal group_q : natural range 0 to maximum(Groups - 1, 1);
  signal phase_width_q : natural range 0 to maximum(UpWidth - 1, 1);
  signal phase_height_q : natural range 0 to maximum(UpHeight - 1, 1);
  signal position_q : position_t;
  signal top_q : integer range TopMin to maximum(TopMax, 1);
  signal top_slot_q : slot_t;
  signal end_run, end_tap, end_kernel, end_fold, end_pixel, end_row, end_image, next_column, next_top : boolean;
  signal inside : boolean;

  -- Tap register: one tap, waiting for its word.
  signal first_q, tap_inside_q, tap_waits_q, tap_next_top_q, tap_next_image_q : boolean;
  signal tap_valid_q, read_valid_q : std_logic;
  signal read_inside_q, written, take, advance, enable : boolean;
  signal tap_held_q : natural range 0 to maximum(TapHeldMax, 1);  -- rows held when the tap's row is complete, less one
  signal tap_position_q : position_t;
  signal tap_address_q, write_address : natural range 0 to maximum(Depth - 1, 1);
  signal read_q : word_t;
begin
  assert Words mod Groups = 0 report "bf_window: Groups must divide Words" severity failure;
  assert Rows >= ReachHeight and Rows > -OriginTop
    report "bf_window: Rows must be at least the window's reach and more than -OriginTop" severity failure;
  assert PhaseHeight < UpHeight and PhaseWidth < UpWidth
    report "bf_window: PhaseHeight, PhaseWidth must be less than UpHeight, UpWidth" severity failure;
  assert LastTop <= Height and LastTop + ReachHeight > 0 and OriginTop < Height
    report "bf_window: the windows leave the image's rows" severity failure;
  assert LastLeft + ReachWidth > 0 and OriginLeft < Width
    report "bf_window: the windows leave the image's columns" severity failure;

  ready_o       <= to_logic(held_q < Rows);
  write         <= valid_i = '1' and held_q < Rows;
  write_row     <= write and write_position_q = RowWords - 1;
  write_address <= SlotAddresses(write_slot_q) + write_position_q;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if write then
        write_position_q <= 0 when write_row else write_position_q + 1;
        row_begun_q      <= not write_row;
      end if;
      if write_row then
        write_slot_q <= slot_plus(write_slot_q, 1 mod Rows);
      end if;
      if rst_i = '1' then
        write_position_q <= 0;
        write_slot_q     <= 0;
        row_begun_q      <= false;
      end if;
    end if;
  end process;

  end_run     <= run_q = Run - 1;
  end_tap     <= end_run and tap_q = Taps - 1;
  end_kernel  <= end_tap and kernel_q = ReachHeight - 1;
  end_fold    <= end_kernel and fold_q = Fold - 1;
  end_pixel   <= end_fold and group_q = Groups - 1;
  next_column <= phase_width_q = UpWidth - 1;
  next_top    <= phase_height_q = UpHeight - 1;
  end_row     <= end_pixel and phase_width_q = LastPhaseWidth and position_q = (LastLeft + ReachWidth) * Words - 1;
  end_image   <= end_row and phase_height_q = LastPhaseHeight and top_q = LastTop;

  inside <= top_q + kernel_q >= 0 and top_q + kernel_q < Height and position_q >= 0 and position_q < RowWords;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if advance then
        run_q <= 0 when end_run else run_q + 1;
        if end_run then
          tap_q <= 0 when end_tap else tap_q + 1;
        end if;
        if end_tap then
          kernel_q <= 0 when end_kernel else kernel_q + DilationHeight;
        end if;
        if end_kernel then
          fold_q <= 0 when end_fold else fold_q + 1;
        end if;
        if end_fold then
          group_q <= 0 when end_pixel else group_q + 1;
        end if;

        if end_row then
          position_q    <= position_q + StepRow;
          phase_width_q <= PhaseWidth;
        elsif end_pixel and next_column then
          position_q    <= position_q + StepPixel;
          phase_width_q <= 0;
        elsif end_pixel then
          position_q    <= position_q + StepPhase;
          phase_width_q <= phase_width_q + 1;
        elsif end_fold then
          position_q <= position_q + StepGroup;
        elsif end_tap then
          position_q <= position_q + StepKernel;
        elsif end_run then
          position_q <= position_q + StepTap;
        else
          position_q <= position_q + 1;
        end if;

        if end_image then
          phase_height_q <= PhaseHeight;
          top_q          <= OriginTop;
          top_slot_q     <= slot_plus(top_slot_q, NextImage mod Rows);
        elsif end_row and next_top then
          phase_height_q <= 0;
          top_q          <= top_q + StrideHeight;
          top_slot_q     <= slot_plus(top_slot_q, StrideHeight mod Rows);
        elsif end_row then
          phase_height_q <= phase_height_q + 1;
        end if;
      end if;
      if rst_i = '1' then
        run_q          <= 0;
        tap_q          <= 0;
        kernel_q       <= 0;
        fold_q         <= 0;
        group_q        <= 0;
        phase_width_q  <= PhaseWidth;
        phase_height_q <= PhaseHeight;
        position_q     <= OriginLeft * Words;
        top_q          <= OriginTop;
        top_slot_q     <= OriginTop mod Rows;
      end if;
    end if;
  end process;

  -- Padding waits for nothing, save that an image's first tap waits for the image's first word: else the padding of an
  -- image that never comes would be sent.
  written <= not tap_waits_q or held_q > tap_held_q
    or (held_q = tap_held_q and ((tap_inside_q and tap_position_q < write_position_q) or (not tap_inside_q and row_begun_q)));
  enable  <= ready_i = '1' or valid_o = '0';
  take    <= enable and tap_valid_q = '1' and written;
  advance <= take or tap_valid_q = '0';

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if advance then
        tap_inside_q     <= inside;
        tap_waits_q      <= inside or first_q;
        tap_held_q       <= maximum(0, -OriginTop) when first_q and not inside else kernel_q;
        tap_position_q   <= position_q;
        tap_address_q    <= SlotAddresses(slot_plus(top_slot_q, kernel_q)) + position_q when inside else 0;
        tap_next_top_q   <= end_row and next_top and not end_image;
        tap_next_image_q <= end_image;
        first_q          <= end_image;
      end if;
      tap_valid_q <= '1';
      if rst_i = '1' then
        first_q     <= true;
        tap_valid_q <= '0';
      end if;
    end if;
  end process;

  process (clk_i)
    variable held : integer range HeldMin - maximum(StrideHeight, NextImage) to HeldMax + maximum(1, -NextImage);
  begin
    if rising_edge(clk_i) then
      held := held_q;
      if write_row then
        held := held + 1;
      end if;
      if take and tap_next_top_q then
        held := held - StrideHeight;
      end if;
      if take and tap_next_image_q then
        held := held - NextImage;
      end if;
      if rst_i = '1' then
        held := -OriginTop;
      end if;
      held_q <= held;
    end if;
  end process;

  -- Line buffer: a word is read a cycle after it was written at the earliest, and overwritten a cycle after its row was
  -- freed.
  process (clk_i)
    variable words_held : memory_t(0 to maximum(Depth - 1, 1))(word_t'range);
  begin
    if rising_edge(clk_i) then
      if enable then
        read_q <= words_held(tap_address_q);
      end if;
      if write then
        words_held(write_address) := data_i;
      end if;
    end if;
  end process;

  process (clk_i)
  begin
    if rising_edge(clk_i) then
      if enable then
        read_valid_q  <= tap_valid_q and to_logic(written);
        read_inside_q <= tap_inside_q;
        valid_o       <= read_valid_q;
        data_o        <= read_q when read_inside_q else pad_word;
      end if;
      if rst_i = '1' then
        read_valid_q <= '0';
        valid_o      <= '0';
      end if;
    end if;
  end process;

  -- synthesis translate_off
  u_handshake : entity work.bf_handshake
    generic map (Bits => Lanes * Bits, BlockName => "bf_window")
    port map (clk_i => clk_i, rst_i => rst_i, valid_i => valid_o, ready_i => ready_i, data_i => data_o);
  -- synthesis translate_on
end architecture rtl;
