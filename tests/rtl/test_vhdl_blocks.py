"""The blocks in VHDL: the test bodies of those in SystemVerilog, run by GHDL."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bitfab.tools import ghdl
from bitfab.tools.process import MissingToolError
from tests.rtl import harness_vhdl
from tests.rtl.add import test_add
from tests.rtl.bipolar import test_bipolar
from tests.rtl.concat import test_concat
from tests.rtl.conv2d import test_conv2d
from tests.rtl.dot import test_dot
from tests.rtl.fifo import test_fifo
from tests.rtl.fork import test_fork
from tests.rtl.interpolate import test_interpolate
from tests.rtl.memory import test_memory
from tests.rtl.pool import test_pool
from tests.rtl.requantize import test_requantize
from tests.rtl.scale import test_scale
from tests.rtl.skid import test_skid
from tests.rtl.slice import test_slice
from tests.rtl.table import test_table
from tests.rtl.threshold import test_threshold
from tests.rtl.topk import test_topk
from tests.rtl.width import test_width
from tests.rtl.window import test_window

Body = Callable[[Path], None]
BODIES: list[tuple[ModuleType, Body]] = [
    (test_skid, test_skid.test_skid_passes_every_word_in_order),
    (test_fifo, test_fifo.test_fifo_keeps_the_order),
    (test_fifo, test_fifo.test_fifo_holds_its_depth_when_nothing_is_taken),
    (test_fork, test_fork.test_fork_gives_each_word_once_to_each_output),
    (test_width, test_width.test_width_keeps_the_order_of_the_lanes),
    (test_bipolar, test_bipolar.test_bipolar_widens_every_lane),
    (test_requantize, test_requantize.test_requantize_equals_its_definition),
    (test_threshold, test_threshold.test_threshold_counts_what_is_reached),
    (test_threshold, test_threshold.test_a_wrong_expectation_is_found),
    (test_table, test_table.test_table_looks_up_every_lane),
    (test_interpolate, test_interpolate.test_interpolate_follows_its_lines),
    (test_add, test_add.test_add_is_exact),
    (test_scale, test_scale.test_scale_is_exact),
    (test_scale, test_scale.test_scale_takes_one_word_a_cycle),
    (test_concat, test_concat.test_concat_alternates_per_pixel),
    (test_slice, test_slice.test_slice_equals_numpy),
    (test_topk, test_topk.test_topk_takes_the_largest_in_order),
    (test_topk, test_topk.test_a_wrong_index_is_found),
    (test_pool, test_pool.test_pool_equals_maximum_and_sum),
    (test_dot, test_dot.test_dot_equals_loop_nest),
    (test_dot, test_dot.test_dot_takes_one_word_a_cycle),
    (test_dot, test_dot.test_styles_equal_loop_nest),
    (test_dot, test_dot.test_every_product_is_exact),
    (test_conv2d, test_conv2d.test_conv2d_equals_its_definition),
    (test_memory, test_memory.test_memory_reads_what_was_loaded_last),
    (test_window, test_window.test_window_equals_loop_nest),
    (test_window, test_window.test_window_moves_one_word_a_cycle),
    (test_window, test_window.test_wrong_expected_word_is_found),
]


@pytest.fixture(autouse=True)
def _needs_ghdl() -> None:
    try:
        ghdl.require()
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("module", "body"), BODIES, ids=[body.__name__.removeprefix("test_") for _, body in BODIES])
def test_block(module: ModuleType, body: Body, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "simulate", harness_vhdl.simulate)
    body(tmp_path)
