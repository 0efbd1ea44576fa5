"""A small U-Net for the segmentation of one-channel images, made of the layers that stream well through hardware."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["UNet"]


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) with one logit per pixel.

    Each level is two 3x3 convolutions with batch norm and ReLU; levels are joined by 2x2 max pooling on the way down
    and by a 2x2 transposed convolution of stride 2 on the way up, whose output is concatenated after the skip's
    channels.

    Maps float (N, 1, H, W) to logits (N, 1, H, W); H and W must be multiples of 2 ** (len(channels) - 1).

    Args:
        channels: channels of each level, from full resolution down. `(2, 4)` has 447 parameters.
    """

    def __init__(self, channels: Sequence[int] = (2, 4)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_double_conv(*pair) for pair in zip((1, *channels[:-1]), channels, strict=True))
        rising = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in rising)
        self.merge = nn.ModuleList(_double_conv(2 * shallow, shallow) for _, shallow in rising)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(channels[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        skips: list[Tensor] = []
        x = self.down[0](image)
        for level in self.down[1:]:
            skips.append(x)
            x = level(self.pool(x))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((skips.pop(), up(x)), dim=1))
        logits: Tensor = self.head(x)
        return logits


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
