"""Residual networks for 32x32 images: MLPerf Tiny's ResNet8, and one of ResNet-18's shape."""

from __future__ import annotations

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if changes else nn.Sequential()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return result


class ResNet(nn.Module):
    """A 3x3 convolution, `blocks` residual blocks of each width, the mean over all pixels, and a linear layer."""

    def __init__(self, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        layers, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(inputs, width, stride=2 if stage and not block else 1))
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flatten(self.pool(self.blocks(self.stem(image)))))
        return logits


def resnet8() -> ResNet:
    """MLPerf Tiny's (Banbury et al. 2021, 2106.07597): 16, 32 and 64 channels, 78,000 parameters."""
    return ResNet((16, 32, 64), 1)


def resnet18_small() -> ResNet:
    """ResNet-18's four stages of two blocks with a quarter of its channels, 700,000 parameters."""
    return ResNet((16, 32, 64, 128), 2)
