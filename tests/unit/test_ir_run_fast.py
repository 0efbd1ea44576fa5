"""run_fast equals run in every bit, on every operation, rounding and extreme input; proven ranges hold."""

import gc
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntType, Rounding
from bitfab.errors import BitfabError
from bitfab.ir import Builder, Graph, run, trace
from bitfab.ir import run_fast as executor
from bitfab.ir.kernels import elementwise, products
from bitfab.ir.ops import Add, Conv2d, ConvTranspose2d, Dense, MaxPool2d, Op, Requantize, SumPool2d, Threshold
from bitfab.ir.run_fast import run_fast
from tests.strategies import ALL_OPS, batch, far_graphs, graphs


def single(op: Op, shape: tuple[int, ...], type: IntType) -> Graph:
    builder = Builder("single")
    return builder.build((builder.add("node", op, builder.input("x", shape, type)),))


def assert_equal(graph: Graph, *inputs: np.ndarray) -> None:
    expected, found = run(graph, *inputs), run_fast(graph, *inputs)
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(other, one)


@given(graph=graphs(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=300)
def test_random_graphs(graph: Graph, seed: int) -> None:
    inputs = batch(graph, seed)
    assert_equal(graph, *inputs)
    for name, found in trace(graph, *inputs).items():
        value = graph.values[name]
        assert value.low <= found.min() and found.max() <= value.high
        assert value.type.low <= value.low and value.high <= value.type.high


@given(graph=far_graphs(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=120)
def test_far_values(graph: Graph, seed: int) -> None:
    """Intermediate results of an operation may be larger than what it puts out."""
    assert_equal(graph, *batch(graph, seed, size=9))


@pytest.mark.parametrize("kind", ALL_OPS)
def test_each_operation(kind: type) -> None:
    @given(graph=graphs(ops=(kind,), max_nodes=2), seed=st.integers(0, 99))
    @settings(deadline=None, max_examples=25)
    def check(graph: Graph, seed: int) -> None:
        assert_equal(graph, *batch(graph, seed))

    check()


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_requantize_at_every_tie(rounding: Rounding, bits: int, signed: bool) -> None:
    """Every accumulator of a range around zero, with multipliers whose products tie often (and never)."""
    x = np.arange(-(1 << 11), 1 << 11).reshape(1, 4, 1, -1)
    type = IntType(bits, signed)
    for multiplier, shift in (([1], [4]), ([1], [0]), ([3, 1, 12345, 5], [3, 1, 16, 0]), ([65535], [46])):
        constants = np.array(multiplier), np.array(shift)
        for zero in (0, 5, type.high):
            op = Requantize(*constants, type, type.low, type.high - 1, 7, zero, rounding)
            assert_equal(single(op, x.shape[1:], IntType(12, signed=True)), x)


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("type", [IntType(8, False), IntType(8, True), IntType(16, True)])
def test_requantize_at_saturation(rounding: Rounding, type: IntType) -> None:
    """Results about 2**15, 2**16 and 2**24, which carriers of 16 bits and float32 just hold, and no longer hold."""
    x = np.concatenate([np.arange(-2048, -2000), np.arange(2000, 2048)]).reshape(1, 1, 1, -1)
    for multiplier in (16371, 16384, 32742, 32768, (1 << 23) + 1, (1 << 23) + 4097):
        for zero in (type.low, 0, type.high - 5, type.high):
            op = Requantize(np.array([multiplier]), np.array([10]), type, type.low, type.high, 0, zero, rounding)
            assert_equal(single(op, x.shape[1:], IntType(12, signed=True)), x)


def test_sums_that_are_small_of_values_that_are_large() -> None:
    builder = Builder("sums")
    x = builder.input("x", (2,), IntType(8, signed=True))
    first = builder.add("first", Dense(np.array([[1, 2], [3, 1]]), np.array([1 << 25, (1 << 25) + 1])), x)
    second = builder.add("second", Dense(np.array([[1, 1], [3, 2]]), np.array([-(1 << 25), 3 - (1 << 25)])), x)
    graph = builder.build((builder.add("sum", Add(), (first, second)),))
    assert graph.output_values[0].type.bits == 12
    assert_equal(graph, *batch(graph, 0, size=500))


@pytest.mark.parametrize("rounding", list(Rounding))
def test_what_no_float_holds_is_left_to_the_definition(rounding: Rounding) -> None:
    op = Requantize(np.array([(1 << 28) + 1]), np.array([50]), IntType(16, True), -32768, 32767, rounding=rounding)
    graph = single(op, (64,), IntType(32, signed=True))
    assert_equal(graph, np.random.default_rng(0).integers(-(1 << 31), 1 << 31, (9, 64)))


@pytest.mark.parametrize("bits", [1, 6, 8, 20, 26, 32])
@pytest.mark.parametrize(
    ("signed", "type"), [(True, IntType(1, True)), (True, IntType(4, True)), (False, IntType(4, False))]
)
def test_thresholds_at_every_edge(bits: int, signed: bool, type: IntType) -> None:
    """Around each threshold, at both ends of the input's type, and with thresholds beyond them."""
    source = IntType(bits, signed)
    rng, levels = np.random.default_rng(bits), 1 if type.bipolar else 15
    thresholds = rng.integers(source.low, source.high, (3, levels), endpoint=True)
    thresholds[0, 0], thresholds[1, -1], thresholds[2] = source.low - 9, source.high + 9, source.high + 1
    thresholds.sort(axis=1)
    x = np.concatenate([thresholds - 1, thresholds, thresholds + 1], axis=1).clip(source.low, source.high)
    if source.bipolar:
        x = np.where(x < 0, -1, 1)
    op = Threshold(thresholds, type, type.low)
    assert_equal(single(op, (3, 1, x.shape[1]), source), x[None, :, None])
    assert_equal(single(replace(op, thresholds=thresholds[:1]), x.shape, source), np.stack([x, x[:, ::-1]]))


def layers() -> list[tuple[Op, IntType]]:
    """Convolutions that need int8, float32, float64 and an exact uncentred sum."""
    rng = np.random.default_rng(0)
    small, wide = rng.integers(-128, 128, (8, 16, 3, 3)), rng.integers(-32768, 32768, (8, 16, 3, 3))
    bias = rng.integers(-(1 << 20), 1 << 20, 8)
    uint8, int16 = IntType(8, signed=False), IntType(16, signed=True)
    return [
        (Conv2d(small, bias), uint8),
        (Conv2d(small, bias, padding=(1, 1, 1, 1), pad_value=255), uint8),
        (Conv2d(small, bias, padding=(0, 0, 1, 1), stride=(2, 2), pad_value=128), uint8),
        (Conv2d(np.full((8, 16, 3, 3), 127), bias, padding=(1, 1, 1, 1), pad_value=-128), IntType(8, signed=True)),
        (Conv2d(np.full((8, 60, 3, 3), 127), bias, padding=(1, 1, 1, 1), pad_value=128), uint8),
        (Conv2d(small, bias, groups=1, padding=(1, 1, 1, 1), pad_value=-7), int16),
        (Conv2d(wide // 128, bias), int16),
        (Conv2d(rng.integers(-128, 128, (16, 1, 3, 3)), np.zeros(16, int), groups=16, padding=(1, 1, 1, 1)), uint8),
    ]


@pytest.mark.parametrize("case", range(len(layers())))
@pytest.mark.parametrize("int8", [True, False])
def test_convolutions_at_their_limits(case: int, int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not int8:
        monkeypatch.setattr(products, "int8_is_exact", lambda: False)
    op, type = layers()[case]
    graph = single(op, (op.weight.shape[1] * op.groups, 9, 8), type)
    assert_equal(graph, *batch(graph, case, size=5))


WINDOWS: list[tuple[tuple[int, int, int], Conv2d]] = [  # where oneDNN's int8 kernels give wrong sums, or crash
    (shape, Conv2d(np.random.default_rng(0).integers(-127, 128, weight), np.arange(weight[0]), *geometry))
    for shape, weight, geometry in (
        ((2, 4, 4), (6, 1, 3, 4), ((1, 3), (1, 0, 2, 0), (2, 1), 2)),  # one output column, columns strided
        ((1, 6, 4), (16, 1, 2, 3), ((1, 2), (1, 0, 1, 0), (1, 1), 1)),
        ((24, 3, 3), (48, 1, 1, 2), ((1, 3), (0, 0, 0, 0), (2, 1), 24)),
        ((32, 5, 1), (2, 32, 4, 2), ((2, 1), (1, 1, 1, 1), (1, 2), 1)),  # both taps of a row beside the image
        ((48, 4, 2), (12, 24, 2, 2), ((1, 1), (0, 1, 0, 1), (1, 3), 2)),
        ((16, 7, 6), (16, 1, 1, 4), ((2, 1), (2, 0, 2, 0), (1, 1), 16)),  # rows wholly in the padding
        ((5, 1, 11), (15, 1, 2, 3), ((1, 3), (1, 1, 1, 1), (2, 1), 5)),
    )
]


@pytest.mark.parametrize("case", range(len(WINDOWS)))
@pytest.mark.parametrize("pad_value", [0, 255])
def test_convolutions_at_the_edge_of_the_image(case: int, pad_value: int) -> None:
    shape, op = WINDOWS[case]
    graph = single(replace(op, pad_value=pad_value), shape, IntType(8, signed=False))
    assert_equal(graph, *batch(graph, case))


def test_a_transposed_convolution_cropped_beyond_its_pixels() -> None:
    op = ConvTranspose2d(np.array([[[[3]]]]), np.array([5]), padding=(0, 2, 0, -2), pad_value=-7)
    assert_equal(single(op, (1, 1, 1), IntType(8, signed=True)), np.array([[[[9]]]]))


@pytest.fixture
def threads() -> Iterator[int]:
    """Three threads for the test, as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def small_network() -> Graph:
    """A convolution, a requantize that two nodes read, and two outputs."""
    rng = np.random.default_rng(0)
    builder = Builder("net")
    x = builder.input("x", (2, 6, 6), IntType(8, signed=False))
    conv = Conv2d(rng.integers(-9, 10, (4, 2, 3, 3)), rng.integers(-99, 99, 4), padding=(1, 1, 1, 1))
    y = builder.add("conv", conv, x)
    uint8 = IntType(8, signed=False)
    y = builder.add("act", Requantize(np.array([9, 8, 7, 11]), np.array([9, 9, 9, 9]), uint8, 3, 200, 0, 3), y)
    total = builder.add("total", Add(), (y, y))
    return builder.build((total, builder.add("sums", SumPool2d((6, 6), (1, 1)), y)))


@pytest.mark.parametrize("size", [1, 2, 10, 23])
def test_pieces_chunks_and_threads_join(size: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "PIECE", 3 * 4 * 6 * 6)
    monkeypatch.setattr(executor, "LEAST", 1)
    monkeypatch.setattr(elementwise, "CHUNK", 50)
    graph = small_network()
    assert_equal(graph, *batch(graph, 0, size=size))
    assert torch.get_num_threads() == threads
    assert set(executor._workers(threads).map(lambda _: torch.get_num_threads(), range(9))) == {1}


def test_images_a_piece_are_even_shares_within_limits() -> None:
    plan = executor.Plan((), executor.PIECE // 16)
    assert [plan.images(batch, threads=2) for batch in (1, 2, 3, 32, 33, 48, 1000)] == [1, 1, 2, 16, 9, 12, 16]
    assert executor.Plan((), 10 * executor.PIECE).images(5, threads=2) == 1
    assert executor.Plan((), executor.LEAST // 8).images(9, threads=2) == 8


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12: what this test is about
def test_threads_in_a_forked_process(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "LEAST", 1)
    graph = small_network()
    inputs = batch(graph, 0, size=6)
    run_fast(graph, *inputs)
    process = multiprocessing.get_context("fork").Process(target=assert_equal, args=(graph, *inputs))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("bits", [6, 20, 30])
@pytest.mark.parametrize("pools", [((2, 2), (2, 2)), ((3, 3), (2, 2), (2, 2)), ((3, 3), (1, 1))])
def test_max_pools_before_requantize(rounding: Rounding, bits: int, pools: tuple[tuple[int, int], ...]) -> None:
    """Pools that shrink go first, one after another; padding never wins, whatever is below the requantize's range."""
    builder = Builder("pools")
    constants = np.array([9, 3, 1]), np.array([max(bits - 5, 0), 1, bits // 2])
    x = builder.input("x", (3, 9, 8), IntType(bits, signed=True))
    y = builder.add("act", Requantize(*constants, IntType(8, True), -100, 99, 3, -5, rounding), x)
    kernel, *strides = pools
    for stride in strides:
        y = builder.add("pool", MaxPool2d(kernel, stride, (1, 1, 1, 1)), y)
    graph = builder.build((y,))
    moved = [isinstance(node.op, MaxPool2d) for node in executor._pools_first(graph)]
    assert moved == ([False, True] if strides == [(1, 1)] else [True] * len(strides) + [False])
    assert_equal(graph, *batch(graph, 0, size=5))


def test_max_pool_before_threshold() -> None:
    builder = Builder("pools")
    x = builder.input("x", (3, 8, 8), IntType(20, signed=True))
    y = builder.add("act", Threshold(np.array([[-5], [0], [90000]]), IntType(1, signed=True), -1), x)
    graph = builder.build((builder.add("pool", MaxPool2d((2, 2), (2, 2)), y),))
    assert [isinstance(node.op, MaxPool2d) for node in executor._pools_first(graph)] == [True, False]
    assert_equal(graph, *batch(graph, 0, size=5))


def test_max_pool_stays_behind_a_requantize_that_others_read() -> None:
    builder = Builder("shared")
    x = builder.input("x", (1, 4, 4), IntType(12, signed=True))
    y = builder.add("act", Requantize(np.array([1]), np.array([4]), IntType(8, True), -128, 127), x)
    pool = builder.add("pool", MaxPool2d((2, 2), (2, 2)), y)
    for graph in (builder.build((pool, y)), builder.build((pool, builder.add("sum", Add(), (y, y))))):
        assert executor._pools_first(graph) == graph
        assert_equal(graph, *batch(graph, 0))


def test_an_output_that_is_an_input_and_an_empty_batch() -> None:
    builder = Builder("wire")
    x = builder.input("x", (2, 3, 3), IntType(8, signed=True))
    graph = builder.build((x, builder.add("dense", Add(), (x, x))))
    assert_equal(graph, *batch(graph, 0))
    assert_equal(graph, np.zeros((0, 2, 3, 3), np.int8))
    read_only = batch(graph, 0)[0]
    read_only.flags.writeable = False
    assert_equal(graph, read_only)


def test_preparation_lives_as_long_as_the_graph() -> None:
    graph = single(Dense(np.ones((2, 3), int), np.zeros(2, int)), (3,), IntType(8, signed=True))
    run_fast(graph, np.zeros((1, 3), int))
    key = id(graph)
    assert key in executor._PLANS
    del graph
    gc.collect()
    assert key not in executor._PLANS


def test_bad_inputs_are_refused_as_by_run() -> None:
    graph = single(Dense(np.ones((2, 3), int), np.zeros(2, int)), (3,), IntType(4, signed=True))
    with pytest.raises(BitfabError, match="integers -8 to 8 given"):
        run_fast(graph, np.array([[-8, 0, 8]]))
    with pytest.raises(BitfabError, match="float64 given"):
        run_fast(graph, np.zeros((1, 3)))
