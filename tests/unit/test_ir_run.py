"""The definition has the semantics of the float frameworks: `run` against torch in float64, which is exact here."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bitfab.dtypes import IntType
from bitfab.errors import BitfabError
from bitfab.ir import Builder, Graph, run
from bitfab.ir.ops import (
    Add,
    Bits,
    Compare,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Lut,
    MaxPool2d,
    Op,
    Popcount,
    Requantize,
    Reshape,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    TopK,
    Transpose,
    Upsample,
)
from bitfab.ir.run_fast import run_fast

RNG = np.random.default_rng(0)
INT8 = IntType(8, signed=True)
BIPOLAR = IntType(1, signed=True)


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(-128, 128, shape)


def torch_of(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float64))


def assert_like_torch(op: Op, shape: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> None:
    builder = Builder("single")
    graph = builder.build((builder.add("node", op, builder.input("x", shape, INT8)),))
    x = integers(3, *shape)
    expected = function(torch_of(x)).numpy()
    found = run(graph, x)
    assert found.shape[1:] == graph.output_values[0].shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation"), [(3, 1, 1, 1), ((2, 3), (2, 1), (0, 2), (1, 2))])
def test_conv2d(groups: int, kernel: int, stride: int, pad: int, dilation: int) -> None:
    sizes = [value if isinstance(value, tuple) else (value, value) for value in (kernel, stride, pad, dilation)]
    weight, bias = integers(8, 4 // groups, *sizes[0]), integers(8)
    op = Conv2d(weight, bias, sizes[1], (*sizes[2], *sizes[2]), sizes[3], groups)
    constants = torch_of(weight), torch_of(bias)
    assert_like_torch(op, (4, 7, 8), lambda x: F.conv2d(x, *constants, sizes[1], sizes[2], sizes[3], groups))


def test_conv2d_pads_each_side_with_the_pad_value() -> None:
    weight, bias = integers(2, 3, 3, 3), integers(2)
    op = Conv2d(weight, bias, (2, 2), padding=(0, 1, 2, 3), pad_value=-9)
    constants = torch_of(weight), torch_of(bias)
    assert_like_torch(op, (3, 6, 5), lambda x: F.conv2d(F.pad(x, (1, 3, 0, 2), value=-9), *constants, 2))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "output_pad"),
    [(2, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0), (2, 3, 0, 0), (3, 1, 2, 0), (1, 2, 0, 1)],
)
def test_conv_transpose2d(groups: int, kernel: int, stride: int, pad: int, output_pad: int) -> None:
    weight, bias = integers(4, 3, kernel, kernel), integers(3 * groups)
    crop = (pad, pad, pad - output_pad, pad - output_pad)
    op = ConvTranspose2d(weight, bias, (stride, stride), crop, groups)
    constants = torch_of(weight), torch_of(bias)
    assert_like_torch(op, (4, 5, 4), lambda x: F.conv_transpose2d(x, *constants, stride, pad, output_pad, groups))


@pytest.mark.parametrize("zero", [-128, 0, 17])
def test_conv_transpose2d_pads_with_the_zero_point(zero: int) -> None:
    """The folded bias and pad_value give what the float layer gives on x - zero."""
    weight, bias = integers(2, 3, 3, 3), integers(3)
    op = ConvTranspose2d(weight, bias - zero * weight.sum(axis=(0, 2, 3)), (2, 2), (1, 1, 0, 0), pad_value=zero)
    constants = torch_of(weight), torch_of(bias)
    assert_like_torch(op, (2, 4, 5), lambda x: F.conv_transpose2d(x - zero, *constants, 2, 1, 1))


def test_dense() -> None:
    weight, bias = integers(5, 12), integers(5)
    assert_like_torch(Dense(weight, bias), (12,), lambda x: F.linear(x, torch_of(weight), torch_of(bias)))


@pytest.mark.parametrize(("kernel", "stride", "pad"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 3), (1, 1))])
def test_pools(kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]) -> None:
    padding = (*pad, *pad)
    assert_like_torch(MaxPool2d(kernel, stride, padding), (3, 7, 8), lambda x: F.max_pool2d(x, kernel, stride, pad))
    count = kernel[0] * kernel[1]
    sums = SumPool2d(kernel, stride, padding)
    assert_like_torch(sums, (3, 7, 8), lambda x: F.avg_pool2d(x, kernel, stride, pad, divisor_override=1))
    padded = SumPool2d(kernel, stride, padding, pad_value=-7)  # the zero point: what torch gives on x + 7, shifted back
    expected = lambda x: F.avg_pool2d(x + 7, kernel, stride, pad, divisor_override=1) - 7 * count  # noqa: E731
    assert_like_torch(padded, (3, 7, 8), expected)


def test_upsample_reshape_argmax_table() -> None:
    assert_like_torch(Upsample((2, 3)), (3, 4, 5), lambda x: F.interpolate(x, scale_factor=(2, 3)))
    assert_like_torch(Reshape((60,)), (3, 4, 5), lambda x: x.flatten(1))
    assert_like_torch(Transpose((2, 0, 1)), (3, 4, 5), lambda x: x.permute(0, 3, 1, 2))
    assert_like_torch(Slice(1, 1, 4, 2), (3, 4, 5), lambda x: x[:, :, 1:4:2])
    assert_like_torch(TopK(1), (6, 4, 5), lambda x: x.argmax(1, keepdim=True).double())
    table = np.clip(np.arange(-128, 128), 0, 100)
    assert_like_torch(Table(table, INT8, IntType(8, signed=False)), (3, 4, 5), lambda x: x.clamp(0, 100))


@pytest.mark.parametrize(("k", "expected"), [(1, [[1], [0]]), (3, [[1, 2, 0], [0, 1, 2]])])
def test_of_equal_values_the_first_is_the_largest(k: int, expected: list[list[int]]) -> None:
    builder = Builder("top_k")
    graph = builder.build((builder.add("node", TopK(k), builder.input("x", (4,), INT8)),))
    np.testing.assert_array_equal(run(graph, np.array([[1, 5, 5, 0], [-128, -128, -128, -128]])), expected)


def test_top_k_of_many_equals_sorted() -> None:
    """40 channels of 3 values: more equal ones than a sort that is not stable leaves in order."""
    builder = Builder("top_k")
    graph = builder.build((builder.add("node", TopK(11), builder.input("x", (40, 2, 1), IntType(2, signed=True))),))
    x = RNG.integers(-2, 1, (5, 40, 2, 1))
    columns = x.transpose(0, 2, 3, 1).tolist()
    best = [[[sorted(range(40), key=lambda i: (-p[i], i))[:11] for p in row] for row in image] for image in columns]
    expected = np.asarray(best).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(run(graph, x), expected)
    np.testing.assert_array_equal(run_fast(graph, x), expected)
    (value,) = graph.output_values
    assert (value.shape, value.type, value.low, value.high) == ((11, 2, 1), IntType(6, signed=False), 0, 39)


@pytest.mark.parametrize("k", [0, 5])
def test_top_k_of_none_or_too_many_is_refused(k: int) -> None:
    builder = Builder("top_k")
    x = builder.input("x", (4,), INT8)
    with pytest.raises(BitfabError, match=f"the {k} largest of 4; 1 to 4 expected"):
        builder.add("node", TopK(k), x)


def single(op: Op, shape: tuple[int, ...], type: IntType) -> Graph:
    builder = Builder("single")
    return builder.build((builder.add("node", op, builder.input("x", shape, type)),))


def test_threshold_counts_what_is_reached() -> None:
    graph = single(Threshold(np.array([[-5, 0, 0], [1, 2, 3]]), IntType(3, signed=True), -2), (2,), INT8)
    x = np.array([[-128, 0], [-6, 1], [-5, 2], [-1, 3], [0, 127]])
    np.testing.assert_array_equal(run(graph, x), [[-2, -2], [-2, -1], [-1, 0], [-1, 1], [1, 1]])
    assert (graph.output_values[0].low, graph.output_values[0].high) == (-2, 1)


def test_a_bipolar_threshold_is_the_sign() -> None:
    x = integers(3, 4, 2, 5)
    one_row = run(single(Threshold(np.array([[0]]), BIPOLAR, -1), (4, 2, 5), INT8), x)
    np.testing.assert_array_equal(one_row, np.where(x >= 0, 1, -1))
    rows = run(single(Threshold(np.arange(4)[:, None], BIPOLAR, -1), (4, 2, 5), INT8), x)
    np.testing.assert_array_equal(rows, np.where(x >= np.arange(4)[:, None, None], 1, -1))


def test_thresholds_absorb_scale_and_offset() -> None:
    """The levels of `clip(round_half_up(scale * x + offset), 0, 15)`, read off a float reference."""
    scale, offset = np.array([0.07, 0.31, 0.013]), np.array([3.2, -8.1, 6.9])
    thresholds = np.ceil((np.arange(1, 16) - 0.5 - offset[:, None]) / scale[:, None]).astype(int)
    graph = single(Threshold(thresholds, IntType(4, signed=False), 0), (3, 1, 2000), IntType(12, signed=True))
    x = RNG.integers(-2048, 2048, (1, 3, 1, 2000))
    expected = np.clip(np.floor(scale[:, None, None] * x + offset[:, None, None] + 0.5), 0, 15)
    np.testing.assert_array_equal(run(graph, x), expected)


def test_bipolar_values_flow() -> None:
    """-1 and +1 stay so through pools, concatenation and shapes, and become ordinary integers in sums."""
    builder = Builder("bipolar")
    x = builder.input("x", (2, 4, 4), BIPOLAR)
    weight = RNG.choice([-1, 1], (3, 2, 3, 3))
    both = builder.add("both", Concat(), (x, x))
    pooled = builder.add("pool", MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)), both)
    spread = builder.add("spread", Upsample((2, 2)), pooled)
    flat = builder.add("flat", Reshape((256,)), spread)
    conv = builder.add("conv", Conv2d(weight, np.zeros(3, int), padding=(1, 1, 1, 1), pad_value=-1), x)
    total = builder.add("sum", Add(), (x, x))
    sums = builder.add("sums", SumPool2d((2, 2), (2, 2)), x)
    graph = builder.build((pooled, spread, flat, conv, total, sums))
    assert [value.type for value in graph.output_values[:3]] == [BIPOLAR] * 3
    signatures = [(str(value.type), value.low, value.high) for value in graph.output_values[3:]]
    assert signatures == [("int6", -18, 18), ("int3", -2, 2), ("int4", -4, 4)]
    signs = RNG.choice([-1, 1], (2, 2, 4, 4))
    found = run(graph, signs)
    assert all(set(np.unique(values)) <= {-1, 1} for values in found[:3])
    padded = np.pad(signs, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    np.testing.assert_array_equal(found[3], F.conv2d(torch_of(padded), torch_of(weight)).numpy())


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Threshold(np.zeros((3, 1), int), BIPOLAR, -1), "3 rows of thresholds do not fit 2 channels"),
        (Threshold(np.array([[1, 0]]), IntType(2, False), 0), "must ascend"),
        (Threshold(np.array([[200, 100]], np.uint8), IntType(2, False), 0), "must ascend"),
        (Threshold(np.zeros((1, 4), int), IntType(2, False), 0), "0 and 4 steps of 1 do not fit uint2"),
        (Threshold(np.zeros((1, 3), int), IntType(2, True), -1), "-1 and 3 steps of 1 do not fit int2"),
        (Threshold(np.zeros((1, 2), int), BIPOLAR, -1), "2 steps of 2 do not fit int1, which takes .* one threshold"),
        (Threshold(np.zeros((1, 1), int), BIPOLAR, 0), "0 and 1 steps of 2 do not fit int1"),
        (Requantize(np.array([1]), np.array([0]), BIPOLAR, -1, 1), "use a threshold"),
        (Table(np.ones(256, int), INT8, BIPOLAR), "use a threshold"),
    ],
)
def test_what_gives_no_bipolar_or_ordered_levels_is_refused(op: Op, message: str) -> None:
    with pytest.raises(BitfabError, match=message):
        single(op, (2,), INT8)


def test_a_table_of_bipolar_values_is_refused() -> None:
    with pytest.raises(BitfabError, match="no bipolar values in or out"):
        single(Table(np.array([0, 1]), BIPOLAR, INT8), (2,), BIPOLAR)


def test_a_bipolar_input_has_no_zero() -> None:
    graph = single(Upsample((1, 1)), (1, 1, 2), BIPOLAR)
    np.testing.assert_array_equal(run(graph, np.array([[[[1, -1]]]])), [[[[1, -1]]]])
    with pytest.raises(BitfabError, match=r"^x: integers 0 given, -1 and \+1 expected; it is bipolar$"):
        run(graph, np.array([[[[1, 0]]]]))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "0 inputs given, 1 expected"),
        ((np.zeros((1, 3)),), "float64 given, integers expected"),
        ((np.zeros((1, 4), int),), r"shape \(1, 4\) given, \(batch, 3\) expected"),
        ((np.array([[0, 0, 128]]),), "integers 0 to 128 given, -128 to 127 expected"),
    ],
)
def test_bad_inputs_are_refused(inputs: tuple[np.ndarray, ...], message: str) -> None:
    builder = Builder("net")
    graph = builder.build((builder.add("node", Reshape((3, 1)), builder.input("x", (3,), INT8)),))
    with pytest.raises(BitfabError, match=message):
        run(graph, *inputs)


BIT = IntType(1, signed=False)


def test_compare_takes_single_bits_of_thermometer_codes() -> None:
    graph = single(Compare(np.array([1, 0, 1, 0]), np.array([-3, 0, 5, 128])), (2,), INT8)
    np.testing.assert_array_equal(
        run(graph, np.array([[0, -3], [-1, 5], [127, -4]])), [[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0]]
    )
    assert graph.output_values[0].type == BIT


def test_bits_are_those_of_twos_complement() -> None:
    graph = single(Bits(np.array([0, 0, 1, 1]), np.array([0, 7, 0, 6])), (2,), INT8)
    np.testing.assert_array_equal(
        run(graph, np.array([[-1, 1], [-128, 64], [5, -2]])), [[1, 1, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1]]
    )


def test_a_lut_reads_its_first_input_as_the_lowest_bit_of_the_address() -> None:
    table = np.array([[0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]])
    graph = single(Lut(np.array([[0, 1], [1, 2], [2, 2]]), table), (3,), BIT)
    x = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1]])
    expected = [[first & ~second & 1, second ^ third, 1 - third] for first, second, third in x]
    np.testing.assert_array_equal(run(graph, x), expected)


def test_popcount_counts_each_group() -> None:
    graph = single(Popcount(np.array([[0, 1, 2], [2, 3, 3]])), (4,), BIT)
    np.testing.assert_array_equal(
        run(graph, np.array([[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]])), [[2, 2], [1, 1], [3, 3]]
    )
    assert (graph.output_values[0].low, graph.output_values[0].high) == (0, 3)


@pytest.mark.parametrize(
    ("op", "type", "message"),
    [
        (Compare(np.array([2]), np.array([0])), INT8, r"channels \[2, 2\] not within 0 to 1"),
        (Compare(np.array([0]), np.array([0, 1])), INT8, "one threshold for each"),
        (Bits(np.array([0]), np.array([8])), INT8, r"places \[8, 8\] not within 0 to 7"),
        (Bits(np.array([0]), np.array([0])), BIPOLAR, "one bit already"),
        (Lut(np.array([[0, 1]]), np.zeros((1, 4), int)), INT8, "single unsigned bits expected"),
        (Lut(np.array([[0, -1]]), np.zeros((1, 4), int)), BIT, "wiring"),
        (Lut(np.array([[0, 1]]), np.zeros((1, 8), int)), BIT, "do not fit 1 wirings of 2 inputs"),
        (Lut(np.array([[0, 1]]), np.full((1, 4), 2)), BIT, "table entries"),
        (Lut(np.zeros((1, 7), int), np.zeros((1, 128), int)), BIT, "at most 6"),
        (Popcount(np.array([[0, 2]])), BIT, "wiring"),
        (Popcount(np.array([[0, 1]])), INT8, "single unsigned bits expected"),
    ],
)
def test_bit_operations_refuse_what_does_not_fit(op: Op, type: IntType, message: str) -> None:
    with pytest.raises(BitfabError, match=message):
        single(op, (2,), type)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_along_any_axis(axis: int) -> None:
    builder = Builder("joined")
    shapes = [(3, 4, 5), tuple(2 if i == axis else size for i, size in enumerate((3, 4, 5)))]
    names = tuple(builder.input(f"x{i}", shape, INT8) for i, shape in enumerate(shapes))
    graph = builder.build((builder.add("node", Concat(axis), names),))
    x = [integers(2, *shape) for shape in shapes]
    np.testing.assert_array_equal(run(graph, *x), torch.cat([torch_of(part) for part in x], 1 + axis).numpy())
    with pytest.raises(BitfabError, match=r"concat: .* does not fit .* along axis"):
        builder.add("other", Concat((axis + 1) % 3), names)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (Transpose((0, 1)), r"transpose: axes \(0, 1\) of shape \(3, 4, 5\); each of \[0, 1, 2\] once"),
        (Transpose((0, 1, 1)), "transpose: axes"),
        (Slice(3, 0, 1), r"slice: axis 3 of shape \(3, 4, 5\); one of 0 to 2"),
        (Slice(0, 1, 1), "slice: 1:1:1 along axis 0"),
        (Slice(0, 0, 4), "it must lie within the axis"),
        (Slice(0, -1, 2), "it must lie within the axis"),
        (Slice(0, 0, 2, 0), "it must lie within the axis"),
        (Concat(3), "concat: axis 3"),
    ],
)
def test_what_does_not_fit_the_axes_is_refused(op: Op, expected: str) -> None:
    builder = Builder("single")
    with pytest.raises(BitfabError, match=expected):
        builder.add("node", op, builder.input("x", (3, 4, 5), INT8))
