"""MobileSAM's image encoder: TinyViT, convolutions at first, then attention in windows at three resolutions.

Zhang et al. 2023 (MobileSAM, 2306.14289); Wu et al. 2022 (TinyViT, 2207.10666). Names of modules and parameters are
those of the MobileSAM checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitfab.frontend.matmul import MatMul
from bitfab.zoo.sam_image_encoder import LayerNorm2d, join_windows, split_windows

__all__ = ["MobileEncoder", "MobileShape", "Stage", "WindowAttention", "WindowMlp"]

EXPANSION = 4  # of channels, within the convolutional blocks and the MLPs


@dataclass(frozen=True)
class Stage:
    """Blocks of attention at one resolution, in windows of `window` x `window` pixels."""

    dim: int
    depth: int
    heads: int
    window: int


@dataclass(frozen=True)
class MobileShape:
    """Sizes of the encoder, TinyViT-5M unless told: `depth` convolutional blocks of `dim` channels, then the stages."""

    dim: int = 64
    depth: int = 2
    stages: tuple[Stage, ...] = (Stage(128, 2, 4, 7), Stage(160, 6, 5, 14), Stage(320, 2, 10, 7))
    out: int = 256


class MobileEncoder(nn.Module):
    """Images (N, 3, S, S), normalised, to embeddings (N, out, S / 16, S / 16), with three stages of attention.

    The stem divides the image's sides by 4, and each merging by 2, save the last: unlike TinyViT for classes, MobileSAM
    keeps the resolution there, so that its embedding is as large as that of SAM's own encoder.
    """

    def __init__(self, shape: MobileShape) -> None:
        super().__init__()
        self.shape = shape
        stem = (ConvNorm(3, shape.dim // 2, 3, stride=2), nn.GELU(), ConvNorm(shape.dim // 2, shape.dim, 3, stride=2))
        self.patch_embed = nn.ModuleDict({"seq": nn.Sequential(*stem)})
        dims = (shape.dim, *(stage.dim for stage in shape.stages))
        blocks = [nn.Sequential(*(ConvBlock(shape.dim) for _ in range(shape.depth)))]
        blocks += [nn.Sequential(*(WindowBlock(stage) for _ in range(stage.depth))) for stage in shape.stages]
        layers = [nn.ModuleDict({"blocks": several}) for several in blocks]
        for i, layer in enumerate(layers[:-1]):
            layer["downsample"] = merging(dims[i], dims[i + 1], stride=1 if i == len(layers) - 2 else 2)
        self.layers = nn.ModuleList(layers)
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], shape.out, 1, bias=False),
            LayerNorm2d(shape.out),
            nn.Conv2d(shape.out, shape.out, 3, padding=1, bias=False),
            LayerNorm2d(shape.out),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed["seq"](images)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            for part in layer.values():  # blocks, and a merging behind all but the last
                x = part(x)
        y: Tensor = self.neck(x)
        return y


class ConvNorm(nn.Sequential):
    """A convolution without bias that keeps the resolution (at stride 1), then a batch norm."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(c=conv, bn=nn.BatchNorm2d(out)))


class ConvBlock(nn.Module):
    """MBConv (Sandler et al. 2018, 1801.04381): wider, each channel alone, narrower, all beside a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = EXPANSION * dim
        self.conv1 = ConvNorm(dim, hidden, 1)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim, 1)
        self.act1, self.act2, self.act3 = (nn.GELU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act3(x + self.conv3(self.act2(self.conv2(self.act1(self.conv1(x))))))
        return y


def merging(dim: int, out: int, stride: int) -> nn.Sequential:
    """(N, dim, H, W) to (N, out, H / stride, W / stride): mix channels, merge neighbours of each channel, mix again."""
    return nn.Sequential(
        OrderedDict(
            conv1=ConvNorm(dim, out, 1),
            act1=nn.GELU(),
            conv2=ConvNorm(out, out, 3, stride=stride, groups=out),
            act2=nn.GELU(),
            conv3=ConvNorm(out, out, 1),
        )
    )


class WindowBlock(nn.Module):
    """Attention beside a shortcut, a convolution of each channel, an MLP beside a shortcut; x (N, dim, H, W).

    Windows that reach beyond the image are filled with zeros, which are attended to like all else.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.window = stage.window
        self.attn = WindowAttention(stage)
        self.local_conv = ConvNorm(stage.dim, stage.dim, 3, groups=stage.dim)
        self.mlp = WindowMlp(stage.dim)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        attended = self.attn(split_windows(x.movedim(1, -1), self.window))
        x = x + join_windows(attended, self.window, size).movedim(-1, 1)
        x = self.local_conv(x)
        return x + self.mlp(x.movedim(1, -1)).movedim(-1, 1)


class WindowAttention(nn.Module):
    """A layer norm, then attention among all pixels of a window, x (N, window, window, dim).

    The score of query p and key k is `(q_p . k_k) / sqrt(d) + b[|dy|, |dx|]`, where dy and dx are their distances and b
    learned, one table for each head, held as rows of length window ** 2 (Graham et al. 2021, LeViT, 2104.01136).
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.heads = stage.heads
        self.window = stage.window
        self.norm = nn.LayerNorm(stage.dim)
        self.qkv = nn.Linear(stage.dim, 3 * stage.dim)
        self.proj = nn.Linear(stage.dim, stage.dim)
        self.attention_biases = nn.Parameter(torch.zeros(stage.heads, stage.window**2))
        self.scores, self.mix = MatMul(), MatMul()

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(1, 2).unflatten(-1, (self.heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each (n, heads, pixels, d)
        scores = self.scores(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        mixed = self.mix((scores + self.biases()).softmax(-1), v)
        y: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return y

    def biases(self) -> Tensor:
        """(heads, pixels, pixels): what is added to the score of each query (row) and key (column)."""
        places = torch.arange(self.window, device=self.attention_biases.device)
        apart = (places[:, None] - places[None, :]).abs()
        offsets = self.window * apart[:, None, :, None] + apart[None, :, None, :]  # (y, x) of the query, then the key
        return self.attention_biases[:, offsets.flatten(2).flatten(0, 1)]


class WindowMlp(nn.Module):
    """A layer norm and two linear layers over the last axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, EXPANSION * dim)
        self.fc2 = nn.Linear(EXPANSION * dim, dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.fc1(self.norm(x))))
        return y
