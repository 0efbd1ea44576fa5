"""Random small networks for property tests: every operation that has hardware, in random order and shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.Identity)


@dataclass(frozen=True)
class Spec:
    """A network to build: input shape, one (kind, choices) for each stage, the kind of its end, and a seed."""

    shape: tuple[int, int, int]
    stages: tuple[tuple[str, tuple[int, ...]], ...]
    end: str
    seed: int


class Residual(nn.Module):
    """x + conv(x), or x beside conv(x): a skip connection."""

    def __init__(self, channels: int, activation: nn.Module, join: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = activation
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.activation(x + y) if self.join == "add" else torch.cat([self.activation(y), x], dim=1)


class Gate(nn.Module):
    """Each channel scaled by what all of the image says of it (squeeze-and-excitation), or each number by another."""

    def __init__(self, channels: int, activation: nn.Module, whole: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.activation = activation
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True) if self.whole else x
        return x * self.activation(self.conv(squeezed))


class Halves(nn.Module):
    """Half of the channels, cropped and convolved, behind the other half cropped alike."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels // 2, channels // 2, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, :, 1:, :-1].chunk(2, dim=1)
        return torch.cat([b, self.activation(self.conv(a))], dim=1)


class Classes(nn.Module):
    """The index of the largest channel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.argmax(x, dim=1, keepdim=True)


def build(spec: Spec) -> nn.Module:
    """The network of a spec, in eval mode, its weights random but fixed by the seed."""
    torch.manual_seed(spec.seed)
    layers: list[nn.Module] = []
    x = torch.zeros(1, *spec.shape)
    for kind, choices in spec.stages:
        stage = _stage(kind, choices, x)
        if stage is not None:
            layers.extend(stage)
            with torch.no_grad():
                x = nn.Sequential(*stage).eval()(x)
    layers.extend(_end(spec.end, x))
    return nn.Sequential(*layers).eval()


def _stage(kind: str, choices: tuple[int, ...], x: Tensor) -> list[nn.Module] | None:
    """The layers of one stage; None where the image has become too small for it."""
    (a, b, c, d), channels, size = choices, x.shape[1], min(x.shape[2:])
    activation = ACTIVATIONS[d % len(ACTIVATIONS)]()
    outputs = 2 * (1 + a % 3)
    match kind:
        case "conv":
            kernel, stride, padding = 1 + b % 3, 1 + c % 2, a % 2
            groups = 2 if channels % 2 == 0 and d % 3 == 0 else 1
            if size + 2 * padding < kernel:
                return None
            conv = nn.Conv2d(channels, outputs, (kernel, 1 + c % kernel), stride, padding, groups=groups)
            return [conv, nn.BatchNorm2d(outputs), activation] if b % 2 else [conv, activation]
        case "dilated" if size >= 3:
            dilation = (1 + a % 3, 1 + b % 3)
            padding = (max(0, dilation[0] - c % 2), dilation[1])
            conv = nn.Conv2d(channels, outputs, 3, 1 + c % 2, padding, dilation)
            reach = [x.shape[2 + axis] + 2 * padding[axis] - 2 * dilation[axis] for axis in (0, 1)]
            return [conv, activation] if min(reach) > 0 else None
        case "transposed" if size <= 6:
            kernel, stride = 1 + b % 3, 1 + c % 2
            padding = min(a % 2, kernel - 1)
            if (size - 1) * stride + kernel <= 2 * padding:
                return None
            return [nn.ConvTranspose2d(channels, outputs, kernel, stride, padding), activation]
        case "max_pool" if size >= 2:
            return [nn.MaxPool2d(2, 1 + b % 2)]
        case "average" if size >= 2:
            return [nn.AvgPool2d(2, 1 + b % 2)]
        case "upsample" if size <= 4:
            return [nn.Upsample(scale_factor=2, mode="nearest")]
        case "bilinear" if size <= 4:
            return [nn.Upsample(scale_factor=(1 + a % 4, 2 + b % 2), mode="bilinear")]
        case "halves" if channels % 2 == 0 and size >= 2:
            return [Halves(channels, activation)]
        case "gate" if channels <= 8:
            return [Gate(channels, activation, whole=bool(a % 3))]
        case "add" | "concat" if channels <= 8:
            return [Residual(channels, activation, kind)]
    return None


def _end(end: str, x: Tensor) -> list[nn.Module]:
    channels, features = x.shape[1], x[0].numel()
    match end:
        case "dense":
            return [nn.Flatten(), nn.Linear(features, 4), nn.ReLU(), nn.Linear(4, 3)]
        case "global":
            return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]
        case "argmax":
            return [nn.Conv2d(channels, 3, 1), Classes()]
    return [nn.Conv2d(channels, 2, 1)]


KINDS = (
    "conv",
    "conv",
    "dilated",
    "transposed",
    "max_pool",
    "average",
    "upsample",
    "bilinear",
    "add",
    "concat",
    "gate",
    "gate",
    "halves",
)


def specs(max_stages: int = 4) -> st.SearchStrategy[Spec]:
    """Networks of up to `max_stages` stages behind a first convolution, on images of 4 to 9 pixels a side."""
    choices = st.tuples(*[st.integers(0, 11)] * 4)
    stage = st.tuples(st.sampled_from(KINDS), choices)
    return st.builds(
        lambda shape, first, rest, end, seed: Spec(shape, (("conv", first), *rest), end, seed),
        shape=st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9)),
        first=choices,
        rest=st.lists(stage, max_size=max_stages).map(tuple),
        end=st.sampled_from(("dense", "global", "argmax", "image")),
        seed=st.integers(0, 2**31),
    )
