  // What is proved of bf_window, by induction: put before its endmodule. Its taps are those of its header's loops, in order; each
  // is taken in the very cycle in which its word has come in, and finds that word; nothing else can stop it but the output.
  //
  // The loops are written down once more (`walk_`), with a counter for each, and step when the block loads its tap register
  // (`seen_`: the walk's values for the tap in there). Words are told apart by data independence (Wolper 1986): the block
  // never looks at data, so it is enough to follow one word, of a place in its image, of an image and with a value of the
  // solver's choice, and to find that value wherever the walk comes to that place of that image.
  // The assertions under "Why" are what makes the others provable by induction, for every image and every pace.

  localparam int ImageWords = Height * RowWords;
  localparam int ImageTaps = OutHeight * OutWidth * Words * Fold * KernelHeight * KernelWidth;
  typedef logic signed [7:0] number_t;  // holds each count of words, taps and rows below

  logic begun_q = 1'b0;
  always_ff @(posedge clk_i) begun_q <= 1'b1;
  always_comb if (!begun_q) assume (rst_i);

  // ---- The walk ----
  number_t walk_oy_q, walk_ox_q, walk_group_q, walk_fold_q, walk_kh_q, walk_kw_q, walk_word_q;
  logic walk_word_end, walk_kw_end, walk_kh_end, walk_fold_end, walk_group_end, walk_ox_end, walk_end;

  assign walk_word_end  = walk_word_q == GroupWords - 1;
  assign walk_kw_end    = walk_word_end && walk_kw_q == KernelWidth - 1;
  assign walk_kh_end    = walk_kw_end && walk_kh_q == KernelHeight - 1;
  assign walk_fold_end  = walk_kh_end && walk_fold_q == Fold - 1;
  assign walk_group_end = walk_fold_end && walk_group_q == Groups - 1;
  assign walk_ox_end    = walk_group_end && walk_ox_q == OutWidth - 1;
  assign walk_end       = walk_ox_end && walk_oy_q == OutHeight - 1;

  number_t seen_oy_q, seen_ox_q, seen_group_q, seen_fold_q, seen_kh_q, seen_kw_q, seen_word_q, seen_slot_q;

  always_ff @(posedge clk_i) begin
    if (advance) begin
      walk_word_q <= walk_word_end ? 0 : walk_word_q + 1;
      if (walk_word_end) walk_kw_q <= walk_kw_end ? 0 : walk_kw_q + 1;
      if (walk_kw_end) walk_kh_q <= walk_kh_end ? 0 : walk_kh_q + 1;
      if (walk_kh_end) walk_fold_q <= walk_fold_end ? 0 : walk_fold_q + 1;
      if (walk_fold_end) walk_group_q <= walk_group_end ? 0 : walk_group_q + 1;
      if (walk_group_end) walk_ox_q <= walk_ox_end ? 0 : walk_ox_q + 1;
      if (walk_ox_end) walk_oy_q <= walk_end ? 0 : walk_oy_q + 1;
      seen_oy_q <= walk_oy_q;
      seen_ox_q <= walk_ox_q;
      seen_group_q <= walk_group_q;
      seen_fold_q <= walk_fold_q;
      seen_kh_q <= walk_kh_q;
      seen_kw_q <= walk_kw_q;
      seen_word_q <= walk_word_q;
      seen_slot_q <= number_t'(top_slot_q);
    end
    if (rst_i) begin
      {walk_oy_q, walk_ox_q, walk_group_q, walk_fold_q, walk_kh_q, walk_kw_q, walk_word_q} <= '0;
      {seen_oy_q, seen_ox_q, seen_group_q, seen_fold_q, seen_kh_q, seen_kw_q, seen_word_q} <= '0;
      seen_slot_q <= number_t'(modulo(OriginTop, Rows));
    end
  end

  // ---- Rows, columns and places, as the header has them ----
  number_t walk_top, walk_column, seen_top, seen_row, seen_column, seen_place, walk_index, seen_index;
  logic seen_inside, seen_first, seen_end;

  assign walk_top = OriginTop + (PhaseHeight + walk_oy_q) / UpHeight * StrideHeight;
  assign walk_column = OriginLeft + (PhaseWidth + walk_ox_q) / UpWidth * StrideWidth + walk_kw_q * DilationWidth;
  assign seen_top = OriginTop + (PhaseHeight + seen_oy_q) / UpHeight * StrideHeight;
  assign seen_row = seen_top + seen_kh_q * DilationHeight;
  assign seen_column = OriginLeft + (PhaseWidth + seen_ox_q) / UpWidth * StrideWidth + seen_kw_q * DilationWidth;
  assign seen_place = seen_column * Words + seen_group_q * GroupWords + seen_word_q;  // in its row
  assign seen_inside = seen_row >= 0 && seen_row < Height && seen_column >= 0 && seen_column < Width;
  assign walk_index = (((((walk_oy_q * OutWidth + walk_ox_q) * Groups + walk_group_q) * Fold + walk_fold_q) * KernelHeight +
      walk_kh_q) * KernelWidth + walk_kw_q) * GroupWords + walk_word_q;
  assign seen_index = (((((seen_oy_q * OutWidth + seen_ox_q) * Groups + seen_group_q) * Fold + seen_fold_q) * KernelHeight +
      seen_kh_q) * KernelWidth + seen_kw_q) * GroupWords + seen_word_q;
  assign seen_first = seen_index == 0;
  assign seen_end = seen_index == ImageTaps - 1;

  // The place in its image of the walk's n-th tap, -1 outside.
  function automatic int place_of(input int n);
    int word, kw, kh, group, ox, row, column;
    word = n % GroupWords;
    kw = n / GroupWords % KernelWidth;
    kh = n / GroupWords / KernelWidth % KernelHeight;
    group = n / GroupWords / KernelWidth / KernelHeight / Fold % Groups;
    ox = n / GroupWords / KernelWidth / KernelHeight / Fold / Groups % OutWidth;
    row = OriginTop + (PhaseHeight + n / (ImageTaps / OutHeight)) / UpHeight * StrideHeight + kh * DilationHeight;
    column = OriginLeft + (PhaseWidth + ox) / UpWidth * StrideWidth + kw * DilationWidth;
    place_of = row * RowWords + column * Words + group * GroupWords + word;
    if (row < 0 || row >= Height || column < 0 || column >= Width) place_of = -1;
  endfunction

  // ---- What came in: words, less those of the images whose last tap was taken; and the word that is followed ----
  (* anyconst *) number_t followed_row, followed_place;  // place in its row
  (* anyconst *) logic [Lanes*Bits-1:0] chosen;
  (* anyseq *) logic mark;

  number_t in_position, lead_q, in_row_q, images_q, ahead_q, marked_slot_q, after_top, after_ahead;
  logic marked_q, marking, after_live, at_followed, in_ends;
  logic there;

  assign there = seen_inside ? lead_q > seen_row * RowWords + seen_place : !seen_first || lead_q > 0;
  assign in_position = write_position_q;
  assign in_ends = write_row && in_row_q == Height - 1;
  // At the end of this cycle: the tap's top, and images between the tap's and the followed word's.
  assign after_top = !take ? seen_top : walk_top;
  assign after_ahead = (marked_q ? ahead_q : images_q) - number_t'(take && seen_end);
  assign after_live = after_ahead >= 0 && after_ahead * Height + followed_row >= after_top;
  assign marking = write && mark && !marked_q && in_row_q == followed_row &&
      in_position == followed_place && after_live;
  assign at_followed = marked_q && ahead_q == 0 && seen_inside && seen_row == followed_row &&
      seen_place == followed_place;

  always_ff @(posedge clk_i) begin
    if (write_row) in_row_q <= in_ends ? 0 : in_row_q + 1;
    lead_q <= lead_q + number_t'(write) - (take && seen_end ? ImageWords : 0);
    images_q <= images_q + number_t'(in_ends) - number_t'(take && seen_end);
    if (marking) marked_slot_q <= number_t'(write_slot_q);
    marked_q <= (marked_q || marking) && after_live;
    ahead_q <= after_ahead;
    if (rst_i) begin
      in_row_q <= '0;
      lead_q <= '0;
      images_q <= '0;
      marked_q <= 1'b0;
    end
  end

  // ---- Behind the tap register: two ranks that move together ----
  logic read_followed_q, read_outside_q, out_followed_q, out_outside_q, waiting_q;
  logic [Lanes*Bits-1:0] waiting_data_q;
  logic [1:0] taken_q;  // words behind the tap register

  always_ff @(posedge clk_i) begin
    taken_q <= taken_q + 2'(take) - 2'(valid_o && ready_i);
    waiting_q <= valid_o && !ready_i;
    waiting_data_q <= data_o;
    if (enable) begin
      read_followed_q <= take && at_followed;
      read_outside_q <= take && !seen_inside;
      out_followed_q <= read_followed_q;
      out_outside_q <= read_outside_q;
    end
    if (rst_i) begin
      taken_q <= '0;
      waiting_q <= 1'b0;
      {read_followed_q, read_outside_q, out_followed_q, out_outside_q} <= '0;
    end
  end

  // One assertion of them all: each helps to prove the others.
  logic wrong;
`define holds(condition) if (!(condition)) wrong = 1'b1
  always_comb begin
    assume (followed_row >= 0 && followed_row < Height && followed_place >= 0 && followed_place < RowWords);
    if (marking) assume (data_i == chosen);
    wrong = 1'b0;
    if (begun_q && !rst_i) begin
      // A tap is taken when, and only when, its word has come in; while it has not, the input is ready.
      if (tap_valid_q) `holds(written == there);
      if (tap_valid_q && !written) `holds(ready_o);
      // What it finds is its word, or PadValue outside the image, and that gets out, once.
      if (tap_valid_q) `holds(tap_inside_q == seen_inside);
      `holds(!(valid_o && out_followed_q) || data_o == chosen);
      `holds(!(valid_o && out_outside_q) || data_o == {Lanes{Bits'(PadValue)}});
      `holds(taken_q == 2'(read_valid_q) + 2'(valid_o));
      `holds(!waiting_q || (valid_o && data_o == waiting_data_q));
      // Counts and addresses stay in range.
      `holds(32'(held_q) <= HeldMax && 32'(held_q) >= HeldMin);
      `holds(32'(write_address) < Depth);
      if (tap_valid_q && tap_inside_q) `holds(32'(tap_address_q) < Depth);

      // ---- Why ----
      // The block's counters are the walk's.
      `holds(walk_word_q >= 0 && walk_word_q < GroupWords && walk_kw_q >= 0 && walk_kw_q < KernelWidth);
      `holds(walk_kh_q >= 0 && walk_kh_q < KernelHeight && walk_fold_q >= 0 && walk_fold_q < Fold);
      `holds(walk_group_q >= 0 && walk_group_q < Groups && walk_ox_q >= 0 && walk_ox_q < OutWidth);
      `holds(walk_oy_q >= 0 && walk_oy_q < OutHeight);
      `holds(32'(run_q) == (Contiguous ? walk_kw_q * Words + walk_word_q : walk_word_q));
      `holds(32'(tap_q) == (Contiguous ? 0 : walk_kw_q) && 32'(kernel_q) == walk_kh_q * DilationHeight);
      `holds(32'(fold_q) == walk_fold_q && 32'(group_q) == walk_group_q);
      `holds(32'(phase_width_q) == (PhaseWidth + walk_ox_q) % UpWidth);
      `holds(32'(phase_height_q) == (PhaseHeight + walk_oy_q) % UpHeight);
      `holds(position_q == PositionBits'(walk_column * Words + walk_group_q * GroupWords + walk_word_q));
      `holds(top_q == TopBits'(walk_top) && 32'(top_slot_q) < Rows && first_q == (walk_index == 0));
      // The tap register is a step behind.
      `holds(seen_word_q >= 0 && seen_word_q < GroupWords && seen_kw_q >= 0 && seen_kw_q < KernelWidth);
      `holds(seen_kh_q >= 0 && seen_kh_q < KernelHeight && seen_fold_q >= 0 && seen_fold_q < Fold);
      `holds(seen_group_q >= 0 && seen_group_q < Groups && seen_ox_q >= 0 && seen_ox_q < OutWidth);
      `holds(seen_oy_q >= 0 && seen_oy_q < OutHeight && seen_slot_q >= 0 && seen_slot_q < Rows);
      if (!tap_valid_q) begin
        `holds(walk_index == 0 && seen_first && lead_q == 0 && held_q == -OriginTop);
        `holds(number_t'(top_slot_q) == seen_slot_q);
      end else begin
        `holds(walk_index == (seen_end ? 0 : seen_index + 1));
        `holds(number_t'(top_slot_q) == modulo(seen_slot_q + (seen_end ? NextImage : walk_top - seen_top), Rows));
        `holds(tap_next_image_q == seen_end && tap_next_top_q == (!seen_end && walk_top != seen_top));
        `holds(tap_waits_q == (seen_inside || seen_first));
        `holds(32'(tap_held_q) == (seen_first && !seen_inside ? max2(0, -OriginTop) : seen_kh_q * DilationHeight));
        if (seen_inside) begin
          `holds(tap_position_q == PositionBits'(seen_place));
          `holds(32'(tap_address_q) == modulo(seen_slot_q + seen_row - seen_top, Rows) * RowWords + seen_place);
        end
      end
      // Rows held, and where the next one goes, follow from the words that came in.
      `holds(32'(write_position_q) < RowWords && row_begun_q == (write_position_q != 0));
      `holds(lead_q == (seen_top + held_q) * RowWords + in_position);
      `holds(lead_q == images_q * ImageWords + in_row_q * RowWords + in_position);
      `holds(in_row_q >= 0 && in_row_q < Height);
      `holds(lead_q > -ImageWords && (seen_first || lead_q > 0));
      for (int n = 0; n < ImageTaps; n++) if (seen_index > n) `holds(lead_q > place_of(n));
      `holds(number_t'(write_slot_q) == modulo(seen_slot_q + held_q, Rows));
      // The followed word lies where its row is, and no later row is written there while a window may come to it.
      if (marked_q) begin
        `holds(ahead_q >= 0 && ahead_q * Height + followed_row >= seen_top);
        `holds(ahead_q * ImageWords + followed_row * RowWords + followed_place < lead_q);
        `holds(marked_slot_q == modulo(seen_slot_q + ahead_q * Height + followed_row - seen_top, Rows));
        `holds(buffer[AddressBits'(marked_slot_q*RowWords+followed_place)] == chosen);
      end
      `holds(!read_followed_q || (read_valid_q && !read_outside_q && read_inside_q && read_q == chosen));
      `holds(!read_outside_q || (read_valid_q && !read_inside_q));
    end
    assert (!wrong);
  end
