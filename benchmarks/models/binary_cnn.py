"""A CNV-like network of one bit throughout, input included, whose layers keep an ECP5 busy without remainder."""

from __future__ import annotations

from torch import nn

CHANNELS = (128, 128, 64)


def binary_cnn() -> nn.Sequential:
    """MNIST images (N, 1, 28, 28), ink +1 and paper -1, to 10 logits; Hardtanh stands in for the sign's slope.

    After FINN's CNV (Umuroglu et al. 2017, 1612.07119): 3x3 convolutions without padding, a max pool, a batch norm
    after each layer. The second convolution, 11 * 11 pixels x 9 taps, takes 4,356 cycles with a quarter of its
    128 x 128 pairs of channels at once; the third, 9 * 9 x 9, takes 2,916 with a quarter of its 64 x 128: faster by
    more than the rows that it has to wait for at the beginning of an image.
    """
    first, second, third = CHANNELS
    return nn.Sequential(
        *(nn.Conv2d(1, first, 3, 2, bias=False), nn.BatchNorm2d(first), nn.Hardtanh()),
        *(nn.Conv2d(first, second, 3, bias=False), nn.BatchNorm2d(second), nn.Hardtanh()),
        *(nn.Conv2d(second, third, 3, bias=False), nn.BatchNorm2d(third), nn.Hardtanh()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * third, 10, bias=False), nn.BatchNorm1d(10)),
    )
