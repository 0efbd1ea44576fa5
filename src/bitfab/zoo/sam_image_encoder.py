"""SAM's image encoder: a plain vision transformer that looks through windows, and in a few blocks at the whole image.

Kirillov et al. 2023 (2304.02643), appendix A; Li et al. 2022 (ViTDet, 2203.16527), section 3. Names of modules and
parameters are those of the `segment-anything` checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.frontend.matmul import MatMul

__all__ = ["EncoderShape", "ImageEncoder", "LayerNorm2d"]

NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class EncoderShape:
    """What makes one encoder differ from another; an image has `grid * patch` pixels a side.

    `whole` are the blocks that attend to the whole image; all others to windows of `window` x `window` patches.
    """

    dim: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    grid: int = 64
    window: int = 14
    whole: tuple[int, ...] = (2, 5, 8, 11)
    hidden: int = 3072
    out: int = 256


class ImageEncoder(nn.Module):
    """Images (N, 3, S, S), normalised, to embeddings (N, out, grid, grid); S = grid * patch."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, shape.dim, shape.patch, shape.patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid, shape.grid, shape.dim))
        self.blocks = nn.ModuleList(
            Block(shape, shape.grid if i in shape.whole else shape.window) for i in range(shape.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(shape.dim, shape.out, 1, bias=False),
            LayerNorm2d(shape.out),
            nn.Conv2d(shape.out, shape.out, 3, padding=1, bias=False),
            LayerNorm2d(shape.out),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed["proj"](images).movedim(1, -1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.neck(x.movedim(-1, 1))
        return y


class Block(nn.Module):
    """Attention and an MLP, each behind a layer norm and beside a shortcut; x (N, H, W, dim)."""

    def __init__(self, shape: EncoderShape, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(shape.dim, eps=NORM_EPSILON)
        self.attn = Attention(shape.dim, shape.heads, window)
        self.norm2 = nn.LayerNorm(shape.dim, eps=NORM_EPSILON)
        self.mlp = Mlp(shape.dim, shape.hidden, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1:3]
        attended = self.attn(split_windows(self.norm1(x), self.window))
        x = x + join_windows(attended, self.window, (size[0], size[1]))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Attention among all patches of a window, x (N, window, window, dim), with relative positions.

    The score of query patch p and key patch k is `(q_p . k_k) / sqrt(d) + q_p . (R_h[dy] + R_w[dx])`, where dy and dx
    are the distances of the two patches and R learned vectors (2203.16527, section 3; Li et al. 2021, 2112.01526,
    equation 4).
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * window - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * window - 1, dim // heads))
        self.scores, self.mix, self.rows, self.columns = (MatMul() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, dim = x.shape
        qkv = self.qkv(x).reshape(n, height * width, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (n, heads, patches, d)
        scores = self.scores(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        mixed = self.mix((scores + self._positions(q, height, width)).softmax(-1), v)
        y: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, height, width, dim))
        return y

    def _positions(self, q: Tensor, height: int, width: int) -> Tensor:
        """(n, heads, patches, patches): what each query adds to its scores for the distance of each key."""
        grid = q.unflatten(2, (height, width))
        rows = self.rows(grid, distances(self.rel_pos_h, height).transpose(1, 2))
        columns = self.columns(grid.transpose(2, 3), distances(self.rel_pos_w, width).transpose(1, 2)).transpose(2, 3)
        return (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(4).flatten(2, 3)


class Mlp(nn.Module):
    """Two linear layers over the last axis."""

    def __init__(self, dim: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(self.act(self.lin1(x)))
        return y


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel, x (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, NORM_EPSILON).permute(0, 3, 1, 2)


def distances(vectors: Tensor, size: int) -> Tensor:
    """(size, size, d): at [q, k] the vector for distance q - k; `vectors` (2 * size - 1, d) begin with the least."""
    places = torch.arange(size, device=vectors.device)
    return vectors[places[:, None] - places[None, :] + size - 1]


def split_windows(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) to (N * windows, window, window, C), zeros where the last ones reach beyond the image."""
    n, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    x = x.reshape(n, x.shape[1] // window, window, x.shape[2] // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window, window, channels)


def join_windows(x: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `split_windows` for images of `size`, what lies beyond them cut off."""
    down, across = (-(-side // window) for side in size)
    x = x.reshape(-1, down, across, window, window, x.shape[-1]).transpose(2, 3)
    return x.reshape(len(x), down * window, across * window, -1)[:, : size[0], : size[1]]
