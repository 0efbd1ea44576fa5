"""Reduced floats are torch's, bit for bit, wherever torch has them; networks are rounded to them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bitfab.data import digits
from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture
from bitfab.quant.float_formats import (
    BF16,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FloatFormat,
    float_bytes,
    reduce_floats,
    round_float,
)
from bitfab.zoo import load

DTYPES = {FP16: torch.float16, BF16: torch.bfloat16, FP8_E4M3: torch.float8_e4m3fn, FP8_E5M2: torch.float8_e5m2}
FORMATS = pytest.mark.parametrize("format", DTYPES, ids=str)


def _same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, the sign of zero included."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def _all_numbers(format: FloatFormat) -> Tensor:
    """Every finite number of torch's dtype, ascending, as float32."""
    codes = torch.arange(2**format.bits).to(torch.int16 if format.bits == 16 else torch.uint8)
    values = codes.view(DTYPES[format]).float()
    return values[values.isfinite()].unique()


@FORMATS
def test_limits_and_count_of_numbers(format: FloatFormat) -> None:
    numbers = _all_numbers(format)
    assert numbers.max() == format.largest == -numbers.min()
    assert numbers[numbers > 0].min() == format.smallest
    special = 2 * 2**format.mantissa_bits if format.infinities else 2  # infinities and NaN
    assert len(numbers) == 2**format.bits - special - 1  # the two zeros are one


@FORMATS
def test_every_number_every_tie_and_their_neighbours_are_rounded_as_torch_does(format: FloatFormat) -> None:
    numbers = _all_numbers(format)
    ties = ((numbers[1:].double() + numbers[:-1].double()) / 2).float()
    for x in (numbers, ties):
        for neighbour in (x, torch.nextafter(x, torch.tensor(math.inf)), torch.nextafter(x, torch.tensor(-math.inf))):
            expected = neighbour.to(DTYPES[format]).float()
            assert _same(round_float(neighbour, format)[expected.isfinite()], expected[expected.isfinite()])


@FORMATS
@given(values=st.lists(st.floats(width=32), min_size=1))
def test_any_value_is_rounded_as_torch_does_or_saturates(format: FloatFormat, values: list[float]) -> None:
    x = torch.tensor(values)
    rounded, expected = round_float(x, format), x.to(DTYPES[format]).float()
    finite = expected.isfinite()
    assert _same(rounded[finite], expected[finite])
    beyond = ~finite & ~x.isnan()
    assert torch.equal(rounded[beyond], torch.copysign(torch.tensor(format.largest), x[beyond]))
    assert bool((rounded.isnan() == x.isnan()).all())


@given(exponent=st.integers(2, 8), mantissa=st.integers(0, 23), x=st.floats(width=32, allow_nan=False))
def test_custom_formats_are_exact(exponent: int, mantissa: int, x: float) -> None:
    """The nearest multiple of the step at x, in fractions; Python's round takes ties to even."""
    format = FloatFormat(exponent, mantissa)
    (rounded,) = round_float(torch.tensor([x]), format).tolist()
    if abs(x) >= format.largest:
        assert rounded == math.copysign(format.largest, x)
        return
    power = max(math.frexp(x)[1] - 1, format.least_exponent) if x else format.least_exponent
    step = Fraction(2) ** (power - mantissa)
    assert Fraction(rounded) == min(Fraction(format.largest), max(-Fraction(format.largest), round(x / step) * step))


def test_infinities_saturate_and_dtypes_stay() -> None:
    x = torch.tensor([math.inf, -math.inf, 1e30, 449.0])
    assert round_float(x, FP8_E4M3).tolist() == [448.0, -448.0, 448.0, 448.0]
    assert round_float(x.double(), FP8_E5M2).dtype == torch.float64
    assert FloatFormat(8, 23).largest == torch.finfo(torch.float32).max


@pytest.mark.parametrize("arguments", [(1, 3), (9, 3), (4, 24), (4, -1), (4, 0, False), (8, 3, False)])
def test_impossible_formats_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(BitfabError, match=r"^float format"):
        FloatFormat(*arguments)


def test_a_network_in_reduced_floats() -> None:
    net, data = load("digits"), digits.load()
    images, labels = torch.from_numpy(data.test_images[:200]), torch.from_numpy(data.test_labels[:200])

    def accuracy(network: nn.Module) -> float:
        with torch.no_grad():
            return float((network(images).argmax(1) == labels).float().mean())

    module = capture(net, images[:2])  # once for all: taken as it is
    before = [parameter.clone() for parameter in net.parameters()]
    real = accuracy(net)
    for format, loss in ((FP16, 0.006), (BF16, 0.011), (FP8_E4M3, 0.02), (FP8_E5M2, 0.05)):
        stored = reduce_floats(net, format)
        rounded = reduce_floats(module, format, activations=images[:2])
        for parameter in (*stored.parameters(), *rounded.parameters()):
            assert torch.equal(parameter, round_float(parameter, format))
        assert accuracy(stored) > real - loss and accuracy(rounded) > real - loss
        with torch.no_grad():
            output = rounded(images)
        assert torch.equal(output, round_float(output, format)) and not torch.equal(output, stored(images))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    count = sum(parameter.numel() for parameter in net.parameters())
    assert float_bytes(net, FP16) == 2 * count and float_bytes(net, FloatFormat(3, 2)) == -(-6 * count // 8)


def test_every_operation_of_the_normal_form_is_rounded() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([self.first(x) + self.second(x), self.second(x)], 1)
            return torch.relu(both).flatten(1)

    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    reduced = reduce_floats(Net(), FP8_E4M3, activations=x)
    assert torch.equal(reduced(x), round_float(reduced(x), FP8_E4M3))
    parts = [round_float(layer(round_float(x, FP8_E4M3)), FP8_E4M3) for layer in (reduced.first, reduced.second)]
    expected = torch.cat([round_float(parts[0] + parts[1], FP8_E4M3), parts[1]], 1)
    assert torch.equal(reduced(x), torch.relu(expected).flatten(1))


def test_networks_with_nan_are_refused() -> None:
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight[0, 0] = math.nan
    with pytest.raises(BitfabError, match=r"^weight: .*NaN"):
        reduce_floats(net, FP16)
