"""Small MobileNetV2- and ResNet-18-shaped networks for 32x32 images, their training, and channels made unequal."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

BLOCKS = ((16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))  # inputs, outputs, stride
EXPANSION = 4
STAGES = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; x added where shapes agree (Sandler et al. 2018), with ReLU in ReLU6's place."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = EXPANSION * inputs
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()),
            *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU()),
            *(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def chains(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Each batch norm whose channels only a ReLU parts from one convolution, and that convolution."""
        return (self.body[1], self.body[3]), (self.body[4], self.body[6])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class BasicBlock(nn.Module):
    """Two convolutions 3x3 beside x, or beside a convolution 1x1 of it where shapes differ (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        side = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.side = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(*side)

    def chains(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """As of `InvertedResidual`."""
        return ((self.body[1], self.body[3]),)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.side(x))


def small_resnet() -> nn.Module:
    """The 18 layers of ResNet-18 with a quarter of its channels, from 16x16 pixels on, 10 classes; seeded."""
    torch.manual_seed(0)
    stem = (nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return nn.Sequential(*stem, *(BasicBlock(*block) for block in STAGES), *head)


def small_mobilenet() -> nn.Module:
    """About 100,000 parameters, 10 classes; seeded."""
    torch.manual_seed(0)
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    head = (nn.Conv2d(64, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*stem, *(InvertedResidual(*block) for block in BLOCKS), *head, nn.Linear(128, 10))


def trained(net: nn.Module, images: Tensor, labels: Tensor, epochs: int = 12) -> nn.Module:
    """The network after SGD with one learning-rate cycle and mirrored images; seeded."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: len(images) // 64 * 64].split(64):
            x = images[chosen]
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            loss = nn.functional.cross_entropy(net(x), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def rescaled(net: nn.Module, spread: float = 2.0) -> nn.Module:
    """The same function: each hidden channel of each block multiplied by 10**(-spread..spread), and divided after."""
    net = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    for block in net.modules():
        if isinstance(block, InvertedResidual | BasicBlock):
            for norm, conv in block.chains():
                scale = 10 ** (spread * (2 * torch.rand(norm.num_features, generator=generator) - 1))
                norm.weight.mul_(scale)
                norm.bias.mul_(scale)
                conv.weight.div_(scale[:, None, None, None] if conv.groups > 1 else scale[None, :, None, None])
    return net


def accuracy_of(predict: Callable[[Tensor], Tensor], images: Tensor, labels: np.ndarray) -> float:
    """Top-1 in percent."""
    with torch.inference_mode():
        return 100 * float((predict(images).argmax(1).numpy() == labels).mean())
