// Converts words of InLanes lanes to words of OutLanes lanes; the order of the lanes stays, lane 0 first.
//
// One of the two lane counts divides the other. Full throughput on the narrow side. Latency: 0 where they are equal (wires),
// 1 cycle from the wide word to its first part, 1 cycle from the last part to the wide word. One wide register, shifted by a
// narrow word at a time. ready_o is combinational in ready_i.

module bf_width #(
    parameter int Bits     = 8,  // of a lane
    parameter int InLanes  = 1,
    parameter int OutLanes = 1
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     valid_i,
    output logic                     ready_o,
    input  logic [ InLanes*Bits-1:0] data_i,
    output logic                     valid_o,
    input  logic                     ready_i,
    output logic [OutLanes*Bits-1:0] data_o
);

`ifndef __ICARUS__  // which has no $error at elaboration
  if (Bits < 1) begin : g_illegal_bits
    $error("bf_width: Bits must be at least 1");
  end
  if (InLanes < 1 || OutLanes < 1) begin : g_illegal_in_lanes
    $error("bf_width: InLanes and OutLanes must be at least 1");
  end
  if (InLanes % OutLanes != 0 && OutLanes % InLanes != 0) begin : g_illegal_in_lanes_2
    $error("bf_width: one lane count must divide the other");
  end
`endif

  if (InLanes == OutLanes) begin : g_wires
    logic unused;
    assign unused  = &{1'b0, clk_i, rst_i};
    assign valid_o = valid_i;
    assign ready_o = ready_i;
    assign data_o  = data_i;

  end else if (InLanes > OutLanes) begin : g_narrow
    localparam int Parts = InLanes / OutLanes;
    localparam int PartBits = OutLanes * Bits;
    localparam int CountBits = $clog2(Parts + 1);

    logic [Parts*PartBits-1:0] data_q;
    logic [CountBits-1:0] count_q;  // parts left in data_q
    logic advance, last;

    assign advance = ready_i || !valid_o;
    assign last    = count_q <= CountBits'(1);  // nothing is left once data_q advances
    assign ready_o = advance && last;
    assign valid_o = count_q != '0;
    assign data_o  = data_q[PartBits-1:0];

    always_ff @(posedge clk_i) begin
      if (advance) data_q <= last ? data_i : data_q >> PartBits;
      if (advance) count_q <= !last ? count_q - 1'b1 : valid_i ? CountBits'(Parts) : '0;
      if (rst_i) count_q <= '0;
    end

  end else begin : g_widen
    localparam int Parts = OutLanes / InLanes;
    localparam int PartBits = InLanes * Bits;
    localparam int CountBits = $clog2(Parts + 1);

    logic [Parts*PartBits-1:0] data_q;
    logic [CountBits-1:0] count_q;  // parts gathered in data_q

    assign ready_o = !valid_o || ready_i;
    assign valid_o = count_q == CountBits'(Parts);
    assign data_o  = data_q;

    always_ff @(posedge clk_i) begin
      if (valid_i && ready_o) data_q <= {data_i, data_q[Parts*PartBits-1:PartBits]};
      if (valid_o && ready_i) count_q <= CountBits'(valid_i);
      else if (valid_i && ready_o) count_q <= count_q + 1'b1;
      if (rst_i) count_q <= '0;
    end
  end

`ifndef SYNTHESIS
  logic waiting_q;
  logic [OutLanes*Bits-1:0] waiting_data_q;
  always @(posedge clk_i) begin
    waiting_q      <= valid_o && !ready_i && !rst_i;
    waiting_data_q <= data_o;
    if (!rst_i && waiting_q && !(valid_o && data_o == waiting_data_q)) $error("bf_width: output changed while waiting");
  end
`endif

endmodule
