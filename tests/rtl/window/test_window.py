"""bf_window: exact against a plain loop nest, one word a cycle, a small control and a block RAM in synthesis."""

from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from bitfab.tools import verilator, yosys
from bitfab.tools.process import ToolError
from tests.rtl.harness import RTL, Case, Words, check, crossed, pack_words, simulate

SOURCE = RTL / "window" / "bf_window.sv"
LATENCY = 3  # cycles from an input word to the same word at the output


@dataclass(frozen=True)
class Window:
    """Parameters of bf_window, named as there."""

    words: int
    height: int
    width: int
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1
    up_height: int = 1
    up_width: int = 1
    phase_height: int = 0
    phase_width: int = 0
    origin_top: int = 0
    origin_left: int = 0
    out_height: int = 1
    out_width: int = 1
    groups: int = 1
    fold: int = 1
    rows: int = 1
    pad_value: int = 0
    bits: int = 5
    lanes: int = 2
    dilation_height: int = 1
    dilation_width: int = 1

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns from the window's first tap to its last."""
        return (self.kernel_height - 1) * self.dilation_height + 1, (self.kernel_width - 1) * self.dilation_width + 1

    def parameters(self) -> dict[str, int]:
        return {name.title().replace("_", ""): value for name, value in asdict(self).items()}


def convolution(
    words: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int = 1,
    pad: tuple[int, int] = (0, 0),
    **others: int,
) -> Window:
    """A convolution's window over an image of `size`, padded alike on both sides, with the fewest rows."""
    out = [(size[axis] + 2 * pad[axis] - kernel[axis]) // stride + 1 for axis in range(2)]
    return Window(
        words,
        *size,
        *kernel,
        stride,
        stride,
        origin_top=-pad[0],
        origin_left=-pad[1],
        out_height=out[0],
        out_width=out[1],
        rows=kernel[0],
        **others,
    )


def dilated(
    words: int,
    size: tuple[int, int],
    dilation: tuple[int, int],
    stride: int = 1,
    pad: tuple[int, int] = (0, 0),
    **others: int,
) -> Window:
    """A 3x2 convolution's window with gaps between its taps, with the fewest rows."""
    reach = (2 * dilation[0] + 1, dilation[1] + 1)
    window = convolution(words, size, reach, stride, pad, **others)
    return replace(
        window, kernel_height=3, kernel_width=2, dilation_height=dilation[0], dilation_width=dilation[1], rows=reach[0]
    )


def upsample(words: int, size: tuple[int, int], factor: int) -> Window:
    """Nearest neighbour: each pixel `factor` times, each row `factor` times."""
    out = (factor * size[0], factor * size[1])
    return Window(words, *size, up_height=factor, up_width=factor, out_height=out[0], out_width=out[1], rows=1)


WINDOWS = {
    "dense": Window(7, 1, 1),
    "dense, folded": Window(6, 1, 1, fold=3),
    "one word": Window(1, 1, 1),
    "1x1": convolution(2, (3, 4), (1, 1)),
    "1x1, folded": convolution(3, (3, 4), (1, 1), fold=2),
    "1x1, stride 2": convolution(2, (5, 4), (1, 1), stride=2),
    "3x3, same": convolution(1, (5, 6), (3, 3), pad=(1, 1), pad_value=-3),
    "3x3, same, words": convolution(3, (4, 4), (3, 3), pad=(1, 1), pad_value=7),
    "3x3, valid": convolution(2, (5, 5), (3, 3)),
    "3x3, stride 2, odd": convolution(2, (5, 7), (3, 3), stride=2, pad=(1, 1)),
    "3x3, stride 2, even": convolution(1, (6, 4), (3, 3), stride=2, pad=(1, 1)),
    "3x3, stride 3, rows between and behind": convolution(1, (8, 7), (2, 2), stride=3),
    "2x2, stride 2, odd": convolution(2, (5, 7), (2, 2), stride=2),
    "5x3": convolution(1, (7, 4), (5, 3), pad=(2, 1), pad_value=9),
    "kernel larger than image": convolution(2, (2, 3), (5, 7), pad=(2, 3), pad_value=1),
    "full padding": convolution(1, (4, 4), (3, 3), pad=(2, 2), pad_value=4),
    "as much padding as kernel": replace(convolution(1, (2, 3), (1, 1), pad=(1, 1), pad_value=3), rows=2),
    "depthwise": convolution(4, (4, 5), (3, 3), pad=(1, 1), groups=4),
    "groups and fold": convolution(6, (4, 3), (3, 2), pad=(1, 0), groups=3, fold=2, pad_value=2),
    "groups, stride 2": convolution(4, (5, 5), (2, 2), stride=2, groups=2),
    "starts inside": Window(2, 4, 4, 2, 2, origin_top=1, origin_left=2, out_height=2, out_width=1, rows=2),
    "row and column strides": Window(1, 6, 9, 2, 3, 2, 3, out_height=3, out_width=3, rows=2),
    "dilated": dilated(2, (7, 5), (2, 3), pad=(2, 1), pad_value=3),
    "dilated, folded, stride 2": dilated(1, (7, 6), (2, 2), stride=2, fold=2),
    "dilated, groups": dilated(4, (6, 5), (2, 1), pad=(1, 1), groups=2, fold=2, pad_value=-2),
    "dilated in columns": dilated(2, (4, 6), (1, 4), pad=(1, 2)),
    "dilated beyond the image": dilated(2, (3, 2), (4, 3), pad=(4, 2), pad_value=5),
    "nearest by 2": upsample(2, (3, 4), 2),
    "nearest by 3": upsample(1, (2, 3), 3),
    "transposed 2x2, stride 2": Window(2, 3, 4, up_height=2, up_width=2, out_height=6, out_width=8),
    "transposed 4x4, stride 2, pad 1": Window(
        2, 3, 4, 2, 2, 1, 1, 2, 2, 1, 1, -1, -1, out_height=6, out_width=8, rows=2, pad_value=5
    ),
    "transposed 3x3, stride 2, pad 1, output pad 1": Window(
        1, 3, 3, 2, 2, 1, 1, 2, 2, 0, 0, 0, 0, out_height=6, out_width=6, rows=2, pad_value=6
    ),
    "phase in rows only": Window(
        1, 4, 3, 2, 1, up_height=2, phase_height=1, origin_top=-1, out_height=8, out_width=3, rows=2
    ),
    "transposed, groups": Window(
        4, 3, 3, 2, 2, 1, 1, 3, 2, 2, 1, -1, -1, out_height=9, out_width=6, groups=2, fold=2, rows=2, pad_value=1
    ),
}


def slide(window: Window, images: np.ndarray) -> np.ndarray:
    """The words under the window, images (N, H, W, words, lanes) -> (words out, lanes): the specified loop nest."""
    out: list[np.ndarray] = []
    group_words = window.words // window.groups
    pad = np.full(window.lanes, window.pad_value)
    for image in images:
        for oy in range(window.out_height):
            y0 = window.origin_top + window.stride_height * ((window.phase_height + oy) // window.up_height)
            for ox in range(window.out_width):
                x0 = window.origin_left + window.stride_width * ((window.phase_width + ox) // window.up_width)
                for g in range(window.groups):
                    for _ in range(window.fold):
                        for y in range(y0, y0 + window.reach[0], window.dilation_height):
                            for x in range(x0, x0 + window.reach[1], window.dilation_width):
                                inside = 0 <= y < window.height and 0 <= x < window.width
                                for c in range(g * group_words, (g + 1) * group_words):
                                    out.append(image[y, x, c] if inside else pad)
    return np.array(out)


def case(name: str, window: Window, count: int, idle: int = 0, stall: int = 0, seed: int = 1) -> Case:
    shape = (count, window.height, window.width, window.words, window.lanes)
    images = np.random.default_rng(seed).integers(0, 1 << window.bits, shape)
    inputs = {"": pack_words(images.reshape(-1, window.lanes), window.bits)}
    outputs = {"": pack_words(slide(window, images), window.bits)}
    return Case(name, inputs, outputs, window.parameters(), idle=idle, stall=stall, seed=seed)


def test_window_equals_loop_nest(tmp_path: Path) -> None:
    paces = cycle(crossed())
    cases: list[Case] = []
    for name, window in WINDOWS.items():
        for rows in (window.rows, window.rows + 1):
            idle, stall = next(paces)
            title = f"{name}, {rows} rows, idle {idle}, stall {stall}"
            cases.append(case(title, replace(window, rows=rows), 4, idle, stall, seed=len(cases)))
    check(simulate("bf_window", cases, tmp_path))


# With KernelHeight + StrideHeight rows, and the cycles beyond the longer of the input and the output of 8 images: the
# latency, then the wait for the first window's last row.
FAST = {
    "dense": (replace(Window(16, 1, 1), rows=2), LATENCY),
    "1x1": (replace(convolution(2, (4, 4), (1, 1)), rows=2), LATENCY),
    "3x3, same": (replace(convolution(2, (8, 8), (3, 3), pad=(1, 1)), rows=4), LATENCY + 2),
    "5x5, same": (replace(convolution(2, (8, 8), (5, 5), pad=(2, 2)), rows=6), LATENCY),
    "2x2, stride 2": (replace(convolution(2, (8, 8), (2, 2), stride=2), rows=4), LATENCY + 12),
    "3x2, dilated": (replace(dilated(2, (8, 8), (2, 3), pad=(2, 1)), rows=6), LATENCY + 26),
    "3x3, stride 2": (replace(convolution(2, (8, 8), (3, 3), stride=2, pad=(1, 1)), rows=5), LATENCY + 2),
    "nearest by 2": (replace(upsample(2, (6, 6), 2), rows=2), LATENCY),
    "transposed 4x4": (replace(WINDOWS["transposed 4x4, stride 2, pad 1"], rows=3), LATENCY),
}


def test_window_moves_one_word_a_cycle(tmp_path: Path) -> None:
    cases = [case(name, window, 8) for name, (window, _) in FAST.items()]
    results = simulate("bf_window", cases, tmp_path)
    check(results)
    for single in cases:
        words = max(len(single.inputs[""].words), len(single.outputs[""].words))
        assert results[single.name].cycles == words + FAST[single.name][1], single.name


def test_wrong_expected_word_is_found(tmp_path: Path) -> None:
    good = case("good", WINDOWS["3x3, same"], 2)
    words = list(good.outputs[""].words)
    words[-1] ^= 1
    bad = replace(good, name="bad", outputs={"": Words(good.outputs[""].bits, words)})
    results = simulate("bf_window", [good, bad], tmp_path)
    assert results["good"].passed
    assert results["bad"].mismatches == 1


@pytest.mark.parametrize("name", WINDOWS)
def test_no_lint(name: str) -> None:
    verilator.lint([SOURCE], "bf_window", WINDOWS[name].parameters())


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (Window(4, 2, 2, groups=3), "Groups must divide Words"),
        (Window(1, 4, 4, 3, 1, rows=2), "Rows must be at least the window's reach and more than -OriginTop"),
        (
            Window(1, 4, 4, origin_top=-1, out_height=3),
            "Rows must be at least the window's reach and more than -OriginTop",
        ),
        (Window(1, 4, 4, up_width=2, phase_width=2), "PhaseHeight, PhaseWidth must be less than UpHeight, UpWidth"),
        (Window(1, 4, 4, origin_top=-1, rows=2), "the windows leave the image's rows"),
        (Window(1, 4, 4, origin_left=4), "the windows leave the image's columns"),
    ],
)
def test_illegal_parameters_are_refused(window: Window, message: str) -> None:
    with pytest.raises(ToolError) as error:
        verilator.lint([SOURCE], "bf_window", window.parameters())
    assert any(f"bf_window: {message}" in line for line in error.value.lines)


@pytest.mark.parametrize(("lanes", "bram"), [(1, 1), (4, 4)])
def test_line_buffer_is_block_ram(lanes: int, bram: int, tmp_path: Path) -> None:
    window = replace(convolution(8, (64, 64), (3, 3), pad=(1, 1)), rows=4, bits=8, lanes=lanes)
    values = ", ".join(f".{name}({value})" for name, value in window.parameters().items())
    top = tmp_path / "top.sv"
    top.write_text(f"""\
module top (
    input logic clk_i, rst_i, valid_i, ready_i, output logic ready_o, valid_o,
    input logic [{8 * lanes - 1}:0] data_i, output logic [{8 * lanes - 1}:0] data_o
);
  bf_window #({values}) dut (
    .clk_i(clk_i), .rst_i(rst_i), .valid_i(valid_i), .ready_o(ready_o), .data_i(data_i),
    .valid_o(valid_o), .ready_i(ready_i), .data_o(data_o));
endmodule
""")
    total = yosys.synthesize_ecp5([SOURCE, top], "top", tmp_path).total
    assert (total.bram, total.lutram, total.dsp) == (bram, 0, 0)
    assert total.lut < 230
