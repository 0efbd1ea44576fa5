// Sliding window: a cyclic line buffer and the address loop nest that replays the words under a moving window.
//
// For every image, with y0, x0 the row and column of the window's first tap:
//   for oy < OutHeight, ox < OutWidth, g < Groups, f < Fold, kh < KernelHeight, kw < KernelWidth, c < Words / Groups:
//     emit word g * (Words / Groups) + c of pixel (y0(oy) + kh * DilationHeight, x0(ox) + kw * DilationWidth);
//     outside the image PadValue in every lane
//   y0(oy) = OriginTop  + StrideHeight * ((PhaseHeight + oy) / UpHeight), rounded down; x0(ox) likewise.
//
// Latency: 3 cycles from a transfer at the input to the same word at the output, when the window waits for it.
//   One word a cycle in steady state, across rows and images, when Rows >= ReachHeight + StrideHeight; without padding
//   an image's first window may also wait for rows that did not fit beside the last image's.
//   ReachHeight = (KernelHeight - 1) * DilationHeight + 1, the rows from a window's first to its last.
// Limits: Rows >= ReachHeight and Rows > -OriginTop; the last y0 <= Height (padding up to the window's reach).
// Memory: word w of a row in slot s lies at s * (Width * Words) + w; row r of image i: slot (i * Height + r) mod Rows.
module bf_window #(
    parameter int Bits         = 8,  // bits of a lane
    parameter int Lanes        = 1,  // lanes of a word
    parameter int Words        = 1,  // words of an input pixel
    parameter int Height       = 1,  // input image
    parameter int Width        = 1,
    parameter int KernelHeight = 1,
    parameter int KernelWidth  = 1,
    parameter int StrideHeight = 1,
    parameter int StrideWidth  = 1,
    parameter int DilationHeight = 1,  // rows, columns from one tap to the next
    parameter int DilationWidth  = 1,
    parameter int UpHeight     = 1,  // output rows that share a window row
    parameter int UpWidth      = 1,
    parameter int PhaseHeight  = 0,  // phase of the first output row, < UpHeight
    parameter int PhaseWidth   = 0,
    parameter int OriginTop    = 0,  // row of the first tap of output pixel (0, 0): -padding
    parameter int OriginLeft   = 0,
    parameter int OutHeight    = 1,
    parameter int OutWidth     = 1,
    parameter int Groups       = 1,  // channel groups, each replayed by itself
    parameter int Fold         = 1,  // times that each group's window is replayed
    parameter int Rows         = 2,  // rows that the line buffer holds
    parameter int PadValue     = 0   // one lane, its low Bits bits
) (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  valid_i,
    output logic                  ready_o,
    input  logic [Lanes*Bits-1:0] data_i,
    output logic                  valid_o,
    input  logic                  ready_i,
    output logic [Lanes*Bits-1:0] data_o
);

  // Bits of a register that counts 0 .. n - 1.
  function automatic int counter_bits(input int n);
    counter_bits = (n > 1) ? $clog2(n) : 1;
  endfunction

  function automatic int min2(input int a, input int b);
    min2 = (a < b) ? a : b;
  endfunction

  function automatic int max2(input int a, input int b);
    max2 = (a > b) ? a : b;
  endfunction

  function automatic int modulo(input int a, input int n);
    modulo = ((a % n) + n) % n;
  endfunction

  // ---- Geometry, all in words or rows ----
  localparam int GroupWords = Words / Groups;
  localparam int RowWords = Width * Words;
  localparam int ReachHeight = (KernelHeight - 1) * DilationHeight + 1;
  localparam int ReachWidth = (KernelWidth - 1) * DilationWidth + 1;
  localparam int Depth = Rows * RowWords;
  // Consecutive words: one group makes the taps of a kernel row contiguous, unless they are dilated.
  localparam bit Contiguous = Groups == 1 && DilationWidth == 1;
  localparam int Run = Contiguous ? KernelWidth * Words : GroupWords;
  localparam int Taps = Contiguous ? 1 : KernelWidth;
  localparam int LastTop = OriginTop + StrideHeight * ((PhaseHeight + OutHeight - 1) / UpHeight);
  localparam int LastLeft = OriginLeft + StrideWidth * ((PhaseWidth + OutWidth - 1) / UpWidth);
  localparam int LastPhaseHeight = (PhaseHeight + OutHeight - 1) % UpHeight;
  localparam int LastPhaseWidth = (PhaseWidth + OutWidth - 1) % UpWidth;
  // Rows from the last window's top to the next image's first top.
  localparam int NextImage = Height + OriginTop - LastTop;

  // ---- Widths ----
  localparam int AddressBits = counter_bits(Depth);
  localparam int SlotBits = counter_bits(Rows);
  localparam int WriteBits = counter_bits(RowWords);
  // A position is the offset of a tap's word in its row; it wraps, so that left of the image it is beyond RowWords.
  localparam int PositionMin = min2(0, OriginLeft * Words);
  localparam int PositionMax = max2(RowWords, (LastLeft + ReachWidth) * Words) - 1;
  localparam int PositionBits = counter_bits(PositionMax - PositionMin + 1);
  localparam int TopMin = min2(0, OriginTop);
  localparam int TopMax = max2(Height, LastTop + ReachHeight) - 1;
  localparam int TopBits = counter_bits(TopMax - TopMin + 1);
  // Bounds of held (see below), where every window touches the image: the last row it read may still be incomplete.
  // No image fits between two taps of a window, or between two windows of a row.
  localparam bit Dense = DilationHeight <= Height && DilationWidth <= Width && StrideWidth < Width + ReachWidth;
  localparam bit AllTouch = (OriginTop + ReachHeight > 0) && (LastTop < Height) && Dense;
  localparam int HeldNextTop = ReachHeight - 1 - StrideHeight;
  localparam int HeldNextImage = min2(LastTop + ReachHeight - Height, 0) - 1 - OriginTop;
  localparam int HeldCoarse = -2 * Height - ReachHeight;
  localparam int HeldMin = AllTouch ? min2(0, min2(HeldNextTop, HeldNextImage)) : HeldCoarse;
  localparam int HeldMax = max2(-OriginTop, Rows + max2(0, -NextImage));
  localparam int HeldBits = 1 + $clog2(max2(max2(-HeldMin, HeldMax + 1), ReachHeight + 1));

  localparam int RunBits = counter_bits(Run);
  localparam int TapBits = counter_bits(Taps);
  localparam int KernelBits = counter_bits(ReachHeight);
  localparam int TapHeldBits = counter_bits(max2(ReachHeight, 1 - OriginTop));
  localparam int FoldBits = counter_bits(Fold);
  localparam int GroupBits = counter_bits(Groups);
  localparam int PhaseHeightBits = counter_bits(UpHeight);
  localparam int PhaseWidthBits = counter_bits(UpWidth);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Words % Groups != 0) begin : gen_bad_groups
    $error("bf_window: Groups must divide Words");
  end
  if (Rows < ReachHeight || Rows <= -OriginTop) begin : gen_bad_rows
    $error("bf_window: Rows must be at least the window's reach and more than -OriginTop");
  end
  if (PhaseHeight >= UpHeight || PhaseWidth >= UpWidth) begin : gen_bad_phase
    $error("bf_window: PhaseHeight, PhaseWidth must be less than UpHeight, UpWidth");
  end
  if (LastTop > Height || LastTop + ReachHeight <= 0 || OriginTop >= Height)
  begin : gen_bad_top
    $error("bf_window: the windows leave the image's rows");
  end
  if (LastLeft + ReachWidth <= 0 || OriginLeft >= Width) begin : gen_bad_left
    $error("bf_window: the windows leave the image's columns");
  end
`endif

  // The address of a slot's first word: a table of constants, Rows entries.
  function automatic logic [AddressBits-1:0] slot_address(input logic [SlotBits-1:0] slot);
    slot_address = '0;
    for (int i = 1; i < Rows; i++) begin
      if (slot == SlotBits'(i)) slot_address = AddressBits'(i * RowWords);
    end
  endfunction

  // (slot + step) modulo Rows, step < Rows.
  function automatic logic [SlotBits-1:0] slot_plus(input logic [SlotBits-1:0] slot, input logic [SlotBits-1:0] step);
    logic [SlotBits:0] sum;
    sum = {1'b0, slot} + {1'b0, step};
    if (sum >= (SlotBits + 1)'(Rows)) sum = sum - (SlotBits + 1)'(Rows);
    slot_plus = SlotBits'(sum);
  endfunction

  // ---- Write side: words go to consecutive places, whatever image they belong to ----
  logic [WriteBits-1:0] write_position_d, write_position_q;
  logic row_begun_d, row_begun_q;  // write_position_q != 0
  logic [SlotBits-1:0] write_slot_d, write_slot_q;
  logic write, write_row;

  // Rows from the window's top that are written completely, padding above the image counted with them. Row y0 + kh is
  // complete when held > kh, and is being written when held == kh. A row may be written while held < Rows. Below zero:
  // rows that no window needs are still to come.
  logic signed [HeldBits-1:0] held_d, held_q;

  assign ready_o = held_q < HeldBits'(Rows);
  assign write = valid_i && ready_o;
  assign write_row = write && (write_position_q == WriteBits'(RowWords - 1));

  always_comb begin
    write_position_d = write_position_q;
    write_slot_d = write_slot_q;
    row_begun_d = row_begun_q;
    if (write) row_begun_d = !write_row;
    if (write) write_position_d = write_position_q + 1'b1;
    if (write_row) begin
      write_position_d = '0;
      write_slot_d = slot_plus(write_slot_q, SlotBits'(1 % Rows));
    end
  end

  // ---- Loop nest: the tap after the one in the tap register ----
  logic [RunBits-1:0] run_d, run_q;
  logic [TapBits-1:0] tap_d, tap_q;
  logic [KernelBits-1:0] kernel_d, kernel_q;  // row of the tap from the window's top
  logic [FoldBits-1:0] fold_d, fold_q;
  logic [GroupBits-1:0] group_d, group_q;
  logic [PhaseWidthBits-1:0] phase_width_d, phase_width_q;
  logic [PhaseHeightBits-1:0] phase_height_d, phase_height_q;
  logic [PositionBits-1:0] position_q, step;
  logic [TopBits-1:0] top_d, top_q;
  logic [SlotBits-1:0] top_slot_d, top_slot_q;
  logic end_run, end_tap, end_kernel, end_fold, end_pixel, end_row, end_image, next_column, next_top;

  assign end_run = run_q == RunBits'(Run - 1);
  assign end_tap = end_run && (tap_q == TapBits'(Taps - 1));
  assign end_kernel = end_tap && (kernel_q == KernelBits'(ReachHeight - 1));
  assign end_fold = end_kernel && (fold_q == FoldBits'(Fold - 1));
  assign end_pixel = end_fold && (group_q == GroupBits'(Groups - 1));
  assign next_column = phase_width_q == PhaseWidthBits'(UpWidth - 1);
  assign next_top = phase_height_q == PhaseHeightBits'(UpHeight - 1);
  assign end_row = end_pixel && (phase_width_q == PhaseWidthBits'(LastPhaseWidth)) &&
      (position_q == PositionBits'((LastLeft + ReachWidth) * Words - 1));
  assign end_image = end_row && (phase_height_q == PhaseHeightBits'(LastPhaseHeight)) && (top_q == TopBits'(LastTop));

  // Every move is a constant step of the position, modulo 2^PositionBits.
  localparam int StepTap = DilationWidth * Words - GroupWords + 1;
  localparam int StepKernel = 1 - ((ReachWidth - 1) * Words + GroupWords);
  localparam int StepGroup = StepKernel + GroupWords;
  localparam int StepPhase = 1 - ReachWidth * Words;
  localparam int StepPixel = StepPhase + StrideWidth * Words;
  localparam int StepRow = (OriginLeft - LastLeft) * Words + StepPhase;

  always_comb begin
    step = PositionBits'(1);
    if (end_run) step = PositionBits'(StepTap);
    if (end_tap) step = PositionBits'(StepKernel);
    if (end_fold) step = PositionBits'(StepGroup);
    if (end_pixel) step = next_column ? PositionBits'(StepPixel) : PositionBits'(StepPhase);
    if (end_row) step = PositionBits'(StepRow);
  end

  always_comb begin
    run_d = end_run ? '0 : run_q + 1'b1;
    tap_d = tap_q;
    kernel_d = kernel_q;
    fold_d = fold_q;
    group_d = group_q;
    if (end_run) tap_d = end_tap ? '0 : tap_q + 1'b1;
    if (end_tap) kernel_d = end_kernel ? '0 : kernel_q + KernelBits'(DilationHeight);
    if (end_kernel) fold_d = end_fold ? '0 : fold_q + 1'b1;
    if (end_fold) group_d = end_pixel ? '0 : group_q + 1'b1;
  end

  always_comb begin
    phase_width_d = phase_width_q;
    phase_height_d = phase_height_q;
    top_d = top_q;
    top_slot_d = top_slot_q;
    if (end_pixel) phase_width_d = next_column ? '0 : phase_width_q + 1'b1;
    if (end_row) begin
      phase_width_d = PhaseWidthBits'(PhaseWidth);
      phase_height_d = next_top ? '0 : phase_height_q + 1'b1;
      if (next_top) begin
        top_d = top_q + TopBits'(StrideHeight);
        top_slot_d = slot_plus(top_slot_q, SlotBits'(StrideHeight % Rows));
      end
    end
    if (end_image) begin
      phase_height_d = PhaseHeightBits'(PhaseHeight);
      top_d = TopBits'(OriginTop);
      top_slot_d = slot_plus(top_slot_q, SlotBits'(modulo(NextImage, Rows)));
    end
  end

  logic inside_rows, inside_columns;

  if (OriginTop < 0 || LastTop + ReachHeight > Height) begin : gen_pad_rows
    logic [TopBits-1:0] row;
    assign row = top_q + TopBits'(kernel_q);
    assign inside_rows = row < TopBits'(Height);
  end else begin : gen_all_rows
    assign inside_rows = 1'b1;
  end
  if (OriginLeft < 0 || LastLeft + ReachWidth > Width) begin : gen_pad_columns
    assign inside_columns = position_q < PositionBits'(RowWords);
  end else begin : gen_all_columns
    assign inside_columns = 1'b1;
  end

  // ---- Tap register: one tap, waiting for its word ----
  // Padding waits for nothing, save that an image's first tap waits for the image's first word: else the padding of an
  // image that never comes would be sent.
  logic first_q, tap_valid_q, tap_inside_q, tap_waits_q, tap_next_top_q, tap_next_image_q;
  logic [TapHeldBits-1:0] tap_held_d, tap_held_q;
  logic [PositionBits-1:0] tap_position_q;
  logic [AddressBits-1:0] tap_address_q;
  logic signed [HeldBits-1:0] complete;  // rows held when the tap's row is complete, less one
  logic written, take, advance, enable;

  assign complete = $signed(HeldBits'(tap_held_q));
  assign written = !tap_waits_q || held_q > complete ||
      (held_q == complete && (tap_inside_q ? tap_position_q < PositionBits'(write_position_q) : row_begun_q));
  assign enable = ready_i || !valid_o;
  assign take = enable && tap_valid_q && written;
  assign advance = take || !tap_valid_q;

  always_comb begin
    tap_held_d = TapHeldBits'(kernel_q);
    if (first_q && !(inside_rows && inside_columns)) tap_held_d = TapHeldBits'(max2(0, -OriginTop));
  end

  always_comb begin
    held_d = held_q;
    if (write_row) held_d = held_d + HeldBits'(1);
    if (take && tap_next_top_q) held_d = held_d - HeldBits'(StrideHeight);
    if (take && tap_next_image_q) held_d = held_d - HeldBits'(NextImage);
  end

  // ---- Line buffer ----
  // A word is read a cycle after it was written at the earliest, and overwritten a cycle after its row was freed.
  (* no_rw_check *)
  logic [Lanes*Bits-1:0] buffer[0:Depth-1];
  logic [Lanes*Bits-1:0] read_q;
  logic [AddressBits-1:0] write_address;
  logic read_valid_q, read_inside_q;

  assign write_address = slot_address(write_slot_q) + AddressBits'(write_position_q);

  always_ff @(posedge clk_i) begin
    if (write) buffer[write_address] <= data_i;
  end

  always_ff @(posedge clk_i) begin
    if (enable) read_q <= buffer[tap_address_q];
  end

  always_ff @(posedge clk_i) begin
    write_position_q <= write_position_d;
    write_slot_q <= write_slot_d;
    row_begun_q <= row_begun_d;
    held_q <= held_d;
    if (advance) begin
      run_q <= run_d;
      tap_q <= tap_d;
      kernel_q <= kernel_d;
      fold_q <= fold_d;
      group_q <= group_d;
      phase_width_q <= phase_width_d;
      phase_height_q <= phase_height_d;
      position_q <= position_q + step;
      top_q <= top_d;
      top_slot_q <= top_slot_d;
      tap_inside_q <= inside_rows && inside_columns;
      tap_waits_q <= (inside_rows && inside_columns) || first_q;
      tap_held_q <= tap_held_d;
      first_q <= end_image;
      tap_position_q <= position_q;
      tap_address_q <= slot_address(slot_plus(top_slot_q, SlotBits'(kernel_q))) + AddressBits'(position_q);
      tap_next_top_q <= end_row && next_top && !end_image;
      tap_next_image_q <= end_image;
    end
    tap_valid_q <= 1'b1;
    if (enable) begin
      read_valid_q <= tap_valid_q && written;
      read_inside_q <= tap_inside_q;
      valid_o <= read_valid_q;
      data_o <= read_inside_q ? read_q : {Lanes{Bits'(PadValue)}};
    end
    if (rst_i) begin
      write_position_q <= '0;
      write_slot_q <= '0;
      row_begun_q <= 1'b0;
      held_q <= HeldBits'(-OriginTop);
      first_q <= 1'b1;
      run_q <= '0;
      tap_q <= '0;
      kernel_q <= '0;
      fold_q <= '0;
      group_q <= '0;
      phase_width_q <= PhaseWidthBits'(PhaseWidth);
      phase_height_q <= PhaseHeightBits'(PhaseHeight);
      position_q <= PositionBits'(OriginLeft * Words);
      top_q <= TopBits'(OriginTop);
      top_slot_q <= SlotBits'(modulo(OriginTop, Rows));
      tap_valid_q <= 1'b0;
      read_valid_q <= 1'b0;
      valid_o <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  logic [Lanes*Bits-1:0] last_data_q;
  logic waiting_q;

  always @(posedge clk_i) begin
    last_data_q <= data_o;
    waiting_q <= valid_o && !ready_i && !rst_i;
    if (!rst_i && waiting_q) begin
      if (!valid_o || data_o != last_data_q) $error("bf_window: the output changed while it waited");
    end
    if (!rst_i && 32'(held_q) > HeldMax) $error("bf_window: more rows held than the buffer has");
    if (!rst_i && 32'(held_q) < HeldMin) $error("bf_window: held is below its bound");
    if (!rst_i && take && tap_inside_q && 32'(tap_address_q) >= Depth) $error("bf_window: address out of bounds");
  end
`endif
endmodule
