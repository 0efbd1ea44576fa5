// What is proved of bf_registers, for sby: on AXI-Lite every request has one answer, in order, none is lost, the answer is the
// right one, and nobody waits long; the stream's gate neither drops nor doubles a word and never closes within a frame; nothing
// is loaded but where a write says so, behind the closed gate.
//
// `reads` counts read addresses taken less answers given, `addresses` and `values` those of writes. An answer never comes
// before its request, at most two requests wait, and one that waits is answered within Patience cycles. An answer's address
// is found by following one request of the solver's choice (`mark`): `ahead` counts the answers that come before its own.

module bf_registers_formal #(
    parameter int InputWords  = 3,
    parameter int OutputWords = 2,
    parameter bit Loadable    = 1'b0
) (
    input logic clk_i,
    input logic rst_i,
    input logic aw_valid_i,
    input logic [7:0] aw_addr_i,
    input logic w_valid_i,
    input logic [31:0] w_data_i,
    input logic [3:0] w_strb_i,
    input logic b_ready_i,
    input logic ar_valid_i,
    input logic [7:0] ar_addr_i,
    input logic r_ready_i,
    input logic valid_i,
    input logic ready_i,
    input logic out_valid_i,
    input logic out_ready_i
);

  localparam int Patience = 2;
  localparam logic [1:0] Okay = 2'b00, SlaveError = 2'b10;

  logic aw_ready_o, w_ready_o, b_valid_o, ar_ready_o, r_valid_o, ready_o, valid_o;
  logic [1:0] b_resp_o, r_resp_o;
  logic [31:0] r_data_o;
  logic load_o;
  logic [1:0] load_address_o;
  logic [2:0] load_data_o;

  bf_registers #(
      .InputWords (InputWords),
      .OutputWords(OutputWords),
      .Loadable(Loadable),
      .LoadBits(3),
      .LoadAddressBits(2)
  ) block (
      .clk_i(clk_i),
      .rst_i(rst_i),
      .aw_valid_i(aw_valid_i),
      .aw_ready_o(aw_ready_o),
      .aw_addr_i(aw_addr_i),
      .w_valid_i(w_valid_i),
      .w_ready_o(w_ready_o),
      .w_data_i(w_data_i),
      .w_strb_i(w_strb_i),
      .b_valid_o(b_valid_o),
      .b_ready_i(b_ready_i),
      .b_resp_o(b_resp_o),
      .ar_valid_i(ar_valid_i),
      .ar_ready_o(ar_ready_o),
      .ar_addr_i(ar_addr_i),
      .r_valid_o(r_valid_o),
      .r_ready_i(r_ready_i),
      .r_data_o(r_data_o),
      .r_resp_o(r_resp_o),
      .valid_i(valid_i),
      .ready_o(ready_o),
      .valid_o(valid_o),
      .ready_i(ready_i),
      .out_valid_i(out_valid_i),
      .out_ready_i(out_ready_i),
      .load_o(load_o),
      .load_address_o(load_address_o),
      .load_data_o(load_data_o)
  );

  function automatic logic readable(input logic [7:0] address);
    readable = address[1:0] == 0 && (address < 8'h28 || (address >= 8'h40 && address < 8'h68));
  endfunction

  (* anyseq *) logic mark_read, mark_write;

  logic begun_q = 1'b0;
  logic [1:0] reads_q, addresses_q, values_q, reads, addresses;
  logic [1:0] read_ahead_q, write_ahead_q, read_silent_q, write_silent_q;
  logic read_marked_q, write_marked_q, read_good_q, write_good_q, write_may_q;
  logic r_waits_q, b_waits_q;
  logic [33:0] r_waiting_q;
  logic [1:0] b_waiting_q, words_q;
  logic ar, r, aw, w, b;

  assign ar = ar_valid_i && ar_ready_o;
  assign r = r_valid_o && r_ready_i;
  assign aw = aw_valid_i && aw_ready_o;
  assign w = w_valid_i && w_ready_o;
  assign b = b_valid_o && b_ready_i;
  assign reads = reads_q - 2'(r);
  assign addresses = addresses_q - 2'(b);

  always_ff @(posedge clk_i) begin
    begun_q <= 1'b1;
    reads_q <= reads + 2'(ar);
    addresses_q <= addresses + 2'(aw);
    values_q <= values_q - 2'(b) + 2'(w);
    if (r) read_ahead_q <= read_ahead_q - 2'd1;
    if (read_marked_q && r && read_ahead_q == 0) read_marked_q <= 1'b0;
    if (ar && mark_read && !read_marked_q) begin
      read_marked_q <= 1'b1;
      read_ahead_q <= reads;
      read_good_q <= readable(ar_addr_i);
    end
    if (b) write_ahead_q <= write_ahead_q - 2'd1;
    if (write_marked_q && b && write_ahead_q == 0) write_marked_q <= 1'b0;
    if (aw && mark_write && !write_marked_q) begin
      write_marked_q <= 1'b1;
      write_ahead_q <= addresses;
      write_good_q <= aw_addr_i == 8'h0c || (Loadable && aw_addr_i == 8'h28);
      write_may_q <= Loadable && aw_addr_i == 8'h2c;  // as the design is idle or not
    end
    read_silent_q <= reads_q == 0 || r_valid_o ? '0 : read_silent_q + 2'd1;
    write_silent_q <= addresses_q == 0 || values_q == 0 || b_valid_o ? '0 : write_silent_q + 2'd1;
    r_waits_q <= r_valid_o && !r_ready_i;
    r_waiting_q <= {r_data_o, r_resp_o};
    b_waits_q <= b_valid_o && !b_ready_i;
    b_waiting_q <= b_resp_o;
    if (valid_i && ready_o) words_q <= words_q == InputWords - 1 ? 0 : words_q + 1;
    if (rst_i) begin
      {reads_q, addresses_q, values_q, read_silent_q, write_silent_q, words_q} <= '0;
      {read_marked_q, write_marked_q, r_waits_q, b_waits_q} <= '0;
    end
  end

  always_comb begin
    if (!begun_q) assume (rst_i);
    if (begun_q && !rst_i) begin
      assert (reads_q <= 2 && addresses_q <= 2 && values_q <= 2);
      assert (!r_valid_o || reads_q != 0);
      assert (!b_valid_o || (addresses_q != 0 && values_q != 0));
      assert (reads_q == 2 || ar_ready_o || !r_valid_o);
      assert (read_silent_q < Patience && write_silent_q < Patience);
      if (read_marked_q && r_valid_o && read_ahead_q == 0) assert (r_resp_o == (read_good_q ? Okay : SlaveError));
      if (write_marked_q && b_valid_o && write_ahead_q == 0) begin
        assert (write_may_q || b_resp_o == (write_good_q ? Okay : SlaveError));
      end
      assert (!load_o || (Loadable && !valid_o && words_q == 0 && b_valid_o && b_resp_o == Okay));
      assert (!r_waits_q || (r_valid_o && {r_data_o, r_resp_o} == r_waiting_q));
      assert (!b_waits_q || (b_valid_o && b_resp_o == b_waiting_q));
      assert ((valid_o && ready_i) == (valid_i && ready_o));
      assert (words_q == 0 || (ready_o == ready_i && valid_o == valid_i));
    end
  end

endmodule
