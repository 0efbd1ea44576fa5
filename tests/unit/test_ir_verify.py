"""verify accepts every graph that Builder makes and names the fault of every other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from bitfab.dtypes import IntType, QParams
from bitfab.errors import BitfabError
from bitfab.ir import Builder, Graph, Node
from bitfab.ir.ops import Add, Conv2d, ConvTranspose2d, Dense, MaxPool2d, Op, Requantize, SumPool2d, Threshold
from bitfab.ir.verify import verify
from tests.strategies import graphs

UINT8 = IntType(8, signed=False)


@given(graph=graphs())
@settings(deadline=None, max_examples=60)
def test_built_graphs_are_well_formed(graph: Graph) -> None:
    assert verify(graph) is graph


def conv(**changes: object) -> Conv2d:
    return replace(Conv2d(np.full((3, 2, 2, 2), 5), np.array([1, -2, 3])), **changes)


def small() -> Graph:
    """x -> conv -> pool, and total = conv + conv."""
    builder = Builder("small")
    x = builder.add("conv", conv(), builder.input("x", (2, 6, 6), UINT8))
    pool = builder.add("pool", MaxPool2d((2, 2), (2, 2)), x)
    return builder.build((pool, builder.add("total", Add(), (x, x))))


def with_op(op: Op) -> Graph:
    first, *others = small().nodes
    return replace(small(), nodes=(replace(first, op=op), *others))


def with_node(index: int, **changes: object) -> Graph:
    nodes = list(small().nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(small(), nodes=tuple(nodes))


def with_value(index: int, **changes: object) -> Graph:
    return with_node(index, output=replace(small().nodes[index].output, **changes))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (replace(small(), nodes=small().nodes[::-1]), "total: input 'conv' is not defined before its use"),
        (replace(small(), nodes=(*small().nodes, small().nodes[0])), "conv: defined twice"),
        (replace(small(), outputs=("none",)), "output 'none' is not defined"),
        (replace(small(), outputs=()), "at least one"),
        (replace(small(), outputs=("pool", "total", "pool")), "small: value 'pool' is more than one of the outputs"),
        (replace(small(), name="../small"), "identifier"),
        (with_value(0, name="conv 1"), "'conv 1': the name of a value must be an identifier"),
        (with_value(0, name="größe"), "identifier"),
        (with_value(0, high=20000, type=IntType(16, True)), "conv: stored as .* but the operation gives"),
        (with_value(0, high=1 << 20), "conv: range .* does not fit"),
        (with_value(1, shape=(3, 2, 3)), "pool: stored as"),
        (with_value(1, type=IntType(1, True), low=-1, high=0), "pool: .* bipolar .* ends in 0"),
        (with_value(1, shape=(3, 2, 2.0)), "pool: shape"),
        (with_value(0, qparams=QParams((1.0, 2.0))), "conv: .* 3 channels"),
        (with_node(1, inputs=("conv", "conv")), "pool: MaxPool2d: 2 inputs, 1 expected"),
        (
            with_op(conv(weight=np.ones((3, 2, 2, 2)))),
            "conv: weight of Conv2d must be an array of integers, not float64",
        ),
        (with_op(conv(weight=np.ones((3, 2, 2), int))), "weight .* 4 axes"),
        (with_op(conv(weight=np.zeros((10**9, 0, 3, 3), int))), "at least one element"),
        (with_op(conv(weight=np.full((3, 2, 2, 2), 1 << 40))), "beyond 32 bits"),
        (with_op(conv(bias=np.array([0, 0, 1 << 32]))), "beyond 32 bits"),
        (with_op(conv(bias=np.array([-1, 0, 1 << 31]))), "beyond 32 bits"),
        (with_op(conv(bias=[1, 2, 3])), "bias of Conv2d must be an array of integers, not list"),
        (with_op(conv(bias=np.zeros(4, int))), "do not fit"),
        (with_op(conv(stride=(0, 1))), "stride .* out of range"),
        (with_op(conv(stride=(1, 1.5))), "stride .* tuple of 2 integers"),
        (with_op(conv(padding=(0, 0, -1, 0))), "negative"),
        (with_op(conv(groups=0)), "groups"),
        (with_op(conv(pad_value=256)), "pad value 256 does not fit uint8"),
        (with_op(conv(pad_value=True)), "pad_value .* integer"),
        (with_op(Dense(np.ones((2, 2), int), np.ones(2, int))), "conv: dense"),
        (with_op(ConvTranspose2d(np.full((2, 3, 2, 2), 5), np.zeros(3, int), padding=(-1, 0, 0, 0))), "negative"),
        (with_op("conv"), "str is no operation"),
    ],
)
def test_faults_are_named(graph: Graph, message: str) -> None:
    with pytest.raises(BitfabError, match=message):
        verify(graph)


@pytest.mark.parametrize(
    "op",
    [
        conv(padding=(1, 0, 0, 0)),
        ConvTranspose2d(np.full((2, 3, 2, 2), 5), np.zeros(3, int)),
        SumPool2d((2, 2), (2, 2), (0, 0, 0, 1)),
    ],
)
def test_bipolar_images_are_padded_with_minus_or_plus_one(op: Op) -> None:
    for pad in (-1, 0, 1):
        builder = Builder("bipolar")
        x = builder.input("x", (2, 6, 6), IntType(1, signed=True))
        graph = builder.build((builder.add("layer", replace(op, pad_value=pad), x),))
        if pad:
            verify(graph)
        else:
            with pytest.raises(BitfabError, match=r"^layer: pad value 0 of a bipolar input.* pad with -1 or \+1$"):
                verify(graph)


def test_bipolar_images_need_no_pad_value_without_padding() -> None:
    builder = Builder("bipolar")
    x = builder.input("x", (2, 6, 6), IntType(1, signed=True))
    verify(builder.build((builder.add("layer", conv(), x),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multiplier": np.array([1 << 31])}, "at most 31 bits"),
        ({"shift": np.array([63])}, "shifts 0 to 62"),
        ({"input_zero": 1 << 31}, "input zero 2147483648 does not fit 32 bits signed"),
        ({"output_zero": -(1 << 31) - 1}, "output zero -2147483649 does not fit"),
        ({"type": IntType(32, signed=False), "high": 1 << 31}, "high 2147483648 does not fit"),
    ],
)
def test_requantize_stays_within_what_hardware_takes(changes: dict[str, object], message: str) -> None:
    limits = {"multiplier": np.array([(1 << 31) - 1]), "shift": np.array([62]), "input_zero": -(1 << 31)}
    op = replace(Requantize(np.array([1]), np.array([0]), UINT8, 0, 255), **limits, output_zero=(1 << 31) - 1)
    builder = Builder("bounds")
    x = builder.input("x", (1,), IntType(4, signed=False))
    builder.add("fits", replace(op, multiplier=np.array([1 << 29])), x)
    builder.add("wide", replace(op, input_zero=0), x)
    with pytest.raises(BitfabError, match=f"requantize: .*{message}"):
        builder.add("beyond", replace(op, **changes), x)


def test_thresholds_have_two_axes() -> None:
    op = Threshold(np.array([0]), UINT8, 0)
    with pytest.raises(BitfabError, match=r"thresholds of Threshold has shape \(1,\); 2 axes"):
        verify(with_op(op))


def test_sums_beyond_64_bits_are_refused() -> None:
    builder = Builder("wide")
    x = builder.input("x", (4096,), IntType(32, signed=True))
    op = Dense(np.full((1, 4096), (1 << 32) - 1), np.zeros(1, int))
    value = replace(builder.value(x), name="dense", shape=(1,))
    graph = replace(builder.build((x,)), nodes=(Node(op, (x,), value),))
    with pytest.raises(BitfabError, match=r"dense: sums of up to 2\*\*75 do not fit 64 bits"):
        verify(graph)


def test_the_pass_before_is_named() -> None:
    with pytest.raises(BitfabError, match=r"identifier \(after pass prune\)"):
        verify(replace(small(), name=""), after="prune")


def test_a_layer_that_is_always_zero_is_well_formed() -> None:
    builder = Builder("zero")
    x = builder.input("x", (2,), UINT8)
    verify(builder.build((builder.add("dense", Dense(np.zeros((3, 2), int), np.zeros(3, int)), x),)))
