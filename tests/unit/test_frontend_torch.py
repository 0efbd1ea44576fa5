"""The float normal form computes what the user's module computes, under the user's names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.frontend.torch import capture


class Lambda(nn.Module):
    """A module around a function, with layers of its own."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Block(nn.Module):
    """An in-place ReLU, a functional one, a dropout, and a skip from before the in-place call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding="same")
        self.bn = nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        z = self.act(y)  # changes y too
        return self.drop(F.relu6(z)) + y


def _randomized(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def _image_operations(self: nn.Module, x: Tensor) -> Tensor:
    x = F.pad(x, (0, 1, 2, 1))
    x = F.max_pool2d(F.hardswish(x), 2)
    x = self.up(x)
    x = F.interpolate(torch.tanh(x), scale_factor=2)
    x = F.avg_pool2d(F.silu(x), 3, stride=2, padding=1)
    x = torch.cat([x.clamp(-1, 2), F.hardsigmoid(x), F.gelu(x, approximate="tanh")], dim=-3)
    return F.leaky_relu(F.hardtanh(x, 0, 6), 0.2)


def _vector_operations(self: nn.Module, x: Tensor) -> Tensor:
    x = x.mean((2, 3))
    x = self.bn(self.fc(x.view(x.shape[0], -1)))
    x = F.elu(x, 0.7) + F.softplus(x, 2.0) + F.mish(x) + F.selu(x)
    return x.sigmoid().clamp(min=0)


def _layout_operations(self: nn.Module, x: Tensor) -> Tensor:
    """What moves values: every other pixel, chunks, one row, axes swapped, shuffled pixels, windows that overhang."""
    a, b, c = x[:, :, ::2, 1:7].chunk(3, dim=1)
    y = torch.cat([c, a, b], dim=-1).transpose(2, 3)
    y = F.pixel_shuffle(F.pixel_unshuffle(y.permute(0, 2, 3, 1).reshape(-1, 1, 18, 4), 2), 2)
    first, second = F.max_pool2d(y, 3, 2, ceil_mode=True)[:, 0].split([8, 1], dim=-2)
    return torch.cat([second, first], 1)


def _constants(self: nn.Module, x: Tensor) -> Tensor:
    """Sums and products with constants, before and behind layers; functions of one value in several calls."""
    y = self.conv((x - self.mean) / 0.5) * 2 + torch.arange(4.0).reshape(4, 1, 1)
    y = y * torch.sigmoid(y) + (1 - y.abs().sqrt()) * 0.5
    return F.prelu(self.up(-y), torch.tensor([0.1])) - 3


NETS: dict[str, Callable[[], nn.Module]] = {
    "layout": lambda: Lambda(_layout_operations),
    "blocks": lambda: nn.Sequential(Block(), Block()),
    "image": lambda: Lambda(_image_operations, up=nn.ConvTranspose2d(3, 3, 3, 2, 1, output_padding=1)),
    "vector": lambda: Lambda(
        _vector_operations, fc=nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), bn=nn.BatchNorm1d(4)
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 6, (3, 5), (1, 2), (0, 2), (2, 1), groups=3, bias=False), nn.ConvTranspose2d(6, 4, 2, groups=2)
    ),
    "reshapes": lambda: Lambda(lambda _, x: x.flatten(1).reshape(-1, 6, 8, 4).flatten(2).unflatten(2, (4, 8))),
    "flatten": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((4, 2)), nn.Flatten(), nn.Linear(24, 2)),
    "argmax": lambda: Lambda(lambda _, x: x.argmax(1, keepdim=True)),
    "topk": lambda: Lambda(lambda _, x: torch.topk(x, 2, dim=1)[1]),
    "double": lambda: Lambda(lambda _, x: x + x),
    "plain_norm": lambda: nn.BatchNorm2d(3, affine=False),
}


def _with_constants() -> nn.Module:
    net = Lambda(_constants, conv=nn.Conv2d(3, 4, 3), up=nn.ConvTranspose2d(4, 4, 2, 2, groups=2))
    net.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1))
    return net


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (_with_constants, [*["Conv2d"] * 2, "SiLU", "Pointwise", "Conv2d", "ConvTranspose2d", "LeakyReLU", "Conv2d"]),
        (
            lambda: nn.Sequential(Lambda(lambda _, x: x.flatten(2).transpose(1, 2)), nn.Linear(3, 4), nn.ReLU()),
            ["Conv2d", "ReLU"],
        ),
    ],
    ids=["constants", "rows"],
)
def test_what_is_computed_otherwise_is_equal_up_to_rounding(make: Callable[[], nn.Module], kinds: list[str]) -> None:
    """Constants go into the layers before, functions of one value are one module, dense layers of rows convolve."""
    net = _randomized(make())
    normal = capture(net, torch.randn(1, 3, 8, 8))
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(normal(x), net(x), rtol=1e-4, atol=1e-5)
    modules = (normal.get_submodule(str(n.target)) for n in normal.graph.nodes if n.op == "call_module")
    assert [type(module).__name__ for module in modules] == kinds


@pytest.mark.parametrize("name", NETS)
def test_normal_form_equals_the_original_for_any_batch(name: str) -> None:
    net = _randomized(NETS[name]())
    normal = capture(net, torch.randn(1, 3, 8, 8))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.equal(normal(x), net(x))


def test_names_are_the_users_and_unique() -> None:
    block = Block()
    net = _randomized(Lambda(lambda self, x: self.block(self.block(x)), block=block))
    normal = capture(net, torch.randn(2, 3, 8, 8))
    sources = [node.meta["source"] for node in normal.graph.nodes if node.op != "output"]
    assert sources[:6] == ["x", "block.conv", "block.bn", "block.act", "block.relu6", "block.add"]
    assert sources[6] == "block.conv_2"
    assert len(set(sources)) == len(sources)
    weights = [normal.get_parameter(f"{path}.weight") for path in ("block.conv", "block.conv_2")]
    assert weights[0] is not weights[1] and torch.equal(*weights)


def test_result_trains_and_the_original_is_left_alone() -> None:
    net = nn.Sequential(Block(), nn.BatchNorm2d(3)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random_state = torch.get_rng_state()
    normal = capture(net, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert net.training and net[0].drop.training
    normal.train()
    torch.optim.SGD(normal.parameters(), 0.1).zero_grad()
    normal(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in normal.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not normal.eval().training


def test_capturing_a_normal_form_copies_it() -> None:
    normal = capture(_randomized(nn.Sequential(Block())), torch.randn(1, 3, 8, 8)).train()
    again = capture(normal, torch.randn(1, 3, 8, 8))
    assert again is not normal and normal.training and not again.training
    assert [node.name for node in again.graph.nodes] == [node.name for node in normal.graph.nodes]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda _, x: torch.cumsum(x, 1), ["cumsum: cumsum is not supported", __file__, "supported: conv1d"]),
        (lambda _, x: torch.softmax(x, 1), ["softmax is not supported", "argmax"]),
        (lambda _, x: torch.topk(x, 2, dim=1)[0], ["topk is not supported", "its values: use its indices alone"]),
        (lambda _, x: torch.topk(x, 2, dim=1), ["topk is not supported", "its values: use its indices alone"]),
        (lambda _, x: torch.topk(x, 2)[1], ["topk is not supported", "only along the channels (dim=1)"]),
        (lambda _, x: torch.topk(x, 2, 1, largest=False)[1], ["topk is not supported", "of the smallest"]),
        (lambda _, x: x + torch.ones(8, 8), ["add is not supported", "a constant of shape (8, 8)"]),
        (lambda _, x: x * x[:, :, :1], ["mul is not supported", "a factor for each channel"]),
        (lambda _, x: x.mean(1), ["mean is not supported", "global average"]),
        (lambda _, x: torch.cat([x, x], 2), ["cat is not supported", "twice"]),
        (lambda _, x: torch.cat([x, x + 1], 0)[:2], ["cat is not supported", "batch axis"]),
        (lambda _, x: x[:1], ["slice is not supported", "batch axis"]),
        (lambda _, x: x.permute(1, 0, 2, 3), ["permute is not supported", "batch axis"]),
        (lambda _, x: x.reshape(-1), ["batch axis"]),
        (lambda _, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), ["count_include_pad"]),
        (lambda _, x: x if x.sum() > 0 else -x, ["control flow depends on", __file__]),
        (lambda _, x: F.conv2d(x, torch.zeros(1, 5, 1, 1)), ["cannot capture", "(3, 8, 8)", "5"]),
    ],
)
def test_unsupported_is_one_clear_line(
    function: Callable[..., Tensor], expected: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BitfabError) as caught:
        capture(Lambda(function), torch.randn(1, 3, 8, 8))
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in expected), message
    assert capfd.readouterr() == ("", "")


def test_unsupported_names_the_place_in_the_users_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.GroupNorm(2, 4)))
    with pytest.raises(BitfabError, match=r"^1\.0: group_norm is not supported"):
        capture(net, torch.randn(1, 3, 8, 8))


def test_importing_bitfab_loads_no_torch() -> None:
    code = "import sys, bitfab, bitfab.ir; assert 'torch' not in sys.modules; bitfab.Recipe; bitfab.capture"
    subprocess.run([sys.executable, "-c", code], check=True)
