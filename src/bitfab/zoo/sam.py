"""The Segment Anything Model: points, boxes or a rough mask say what is meant, the model puts out its mask.

Kirillov et al. 2023 (2304.02643), section 3 and appendix A. Names of modules and parameters are those of the
`segment-anything` checkpoints; `bitfab.zoo.sam_checkpoint` loads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.frontend.matmul import MatMul
from bitfab.quant.move_scales import Move
from bitfab.zoo.sam_image_encoder import Block, EncoderShape, ImageEncoder, LayerNorm2d, Mlp
from bitfab.zoo.sam_mobile_encoder import MobileEncoder, MobileShape, WindowAttention, WindowMlp

__all__ = ["MaskDecoder", "PromptEncoder", "Prompts", "Sam", "SamShape", "scale_moves"]

PIXEL_MEAN = (123.675, 116.28, 103.53)  # of the images that SAM was trained on, R, G, B, 0 to 255
PIXEL_STD = (58.395, 57.12, 57.375)
NOT_A_POINT, BACKGROUND, FOREGROUND = -1, 0, 1  # the labels of points


@dataclass(frozen=True)
class SamShape:
    """Sizes of the prompt encoder and the mask decoder; SAM and MobileSAM all have these."""

    dim: int = 256
    depth: int = 2
    heads: int = 8
    hidden: int = 2048
    masks: int = 4  # one for clear prompts, and three for the whole, the part, and the part of the part
    mask_channels: int = 16
    iou_hidden: int = 256
    grid: int = 64
    image: int = 1024
    encoder: EncoderShape | MobileShape | None = field(default_factory=EncoderShape)


@dataclass(frozen=True)
class Prompts:
    """N prompts, in pixels (x, y) of the model's square image; at least one of points, boxes and masks.

    points (N, P, 2) with labels (N, P), 1 for the object, 0 for what is not it; boxes (N, 4), corners x0, y0, x1, y1;
    masks (N, 1, 4 * grid, 4 * grid), logits.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


class Sam(nn.Module):
    """SAM; images (1, 3, S, S), 0 to 255, zeros below and right of a smaller photo.

    `embed` once an image, then `segment` for every set of prompts; `forward` does both. Without an encoder (a
    checkpoint may hold none) only `segment` works.
    """

    def __init__(self, shape: SamShape) -> None:
        super().__init__()
        self.shape = shape
        self.image_encoder = _encoder(shape.encoder)
        self.prompt_encoder = PromptEncoder(shape)
        self.mask_decoder = MaskDecoder(shape)

    def forward(self, image: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        return self.segment(self.embed(image), prompts)

    def embed(self, image: Tensor) -> Tensor:
        """The image's embedding (1, dim, grid, grid)."""
        if self.image_encoder is None:
            raise BitfabError("sam: this checkpoint holds no image encoder; give embeddings to `segment`")
        mean, std = (image.new_tensor(values).reshape(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
        embedding: Tensor = self.image_encoder((image - mean) / std)
        return embedding

    def segment(self, embedding: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Logits of masks (N, masks, 4 * grid, 4 * grid), and the IoU (N, masks) that each is expected to have.

        The first mask is meant for prompts that leave no doubt, such as several points; else the best of the others.
        """
        sparse, dense = self.prompt_encoder(prompts)
        masks, iou = self.mask_decoder(embedding, self.prompt_encoder.positions(), sparse, dense)
        return masks, iou


def _encoder(shape: EncoderShape | MobileShape | None) -> ImageEncoder | MobileEncoder | None:
    match shape:
        case EncoderShape():
            return ImageEncoder(shape)
        case MobileShape():
            return MobileEncoder(shape)
    return None


class PromptEncoder(nn.Module):
    """Prompts to tokens (N, T, dim), and to what is added to the image's embedding (N or 1, dim, grid, grid)."""

    def __init__(self, shape: SamShape) -> None:
        super().__init__()
        self.shape = shape
        few, many = shape.mask_channels // 4, shape.mask_channels
        self.pe_layer = Fourier(shape.dim)
        self.point_embeddings = nn.ModuleList(
            nn.Embedding(1, shape.dim) for _ in range(4)
        )  # back, fore, corner, corner
        self.not_a_point_embed = nn.Embedding(1, shape.dim)
        self.no_mask_embed = nn.Embedding(1, shape.dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, few, 2, 2),
            LayerNorm2d(few),
            nn.GELU(),
            nn.Conv2d(few, many, 2, 2),
            LayerNorm2d(many),
            nn.GELU(),
            nn.Conv2d(many, shape.dim, 1),
        )

    def forward(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        tokens = []
        if prompts.points is not None and prompts.labels is not None:
            tokens.append(self._points(prompts.points, prompts.labels, alone=prompts.boxes is None))
        if prompts.boxes is not None:
            corners = self._at(prompts.boxes.reshape(-1, 2, 2))
            tokens.append(corners + torch.stack([self._kind(2), self._kind(3)]))
        if prompts.masks is not None:
            dense = self.mask_downscaling(prompts.masks)
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(-1, -1, self.shape.grid, self.shape.grid)
        sparse = torch.cat(tokens, 1) if tokens else dense.new_zeros(len(dense), 0, self.shape.dim)
        return sparse, dense

    def positions(self) -> Tensor:
        """The positional encoding of the image's embedding (1, dim, grid, grid)."""
        centres = (torch.arange(self.shape.grid, device=self.no_mask_embed.weight.device) + 0.5) / self.shape.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded: Tensor = self.pe_layer(torch.stack((x, y), dim=-1))
        return encoded.movedim(-1, 0).unsqueeze(0)

    def _points(self, points: Tensor, labels: Tensor, alone: bool) -> Tensor:
        """A token for each point: where it is and what it says. Without a box comes one that says nothing."""
        encoded = self._at(points)
        if alone:
            encoded = torch.cat([encoded, encoded.new_zeros(len(points), 1, self.shape.dim)], 1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), NOT_A_POINT)], 1)
        label = labels.unsqueeze(-1)
        encoded = torch.where(label == NOT_A_POINT, self.not_a_point_embed.weight[0], encoded)
        for kind in (BACKGROUND, FOREGROUND):
            encoded = torch.where(label == kind, encoded + self._kind(kind), encoded)
        return encoded

    def _at(self, pixels: Tensor) -> Tensor:
        """The positional encoding of the centres of pixels (..., 2)."""
        encoded: Tensor = self.pe_layer((pixels + 0.5) / self.shape.image)
        return encoded

    def _kind(self, kind: int) -> Tensor:
        embedding = self.point_embeddings[kind]
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight[0]


class Fourier(nn.Module):
    """Places (..., 2) in 0..1 to sines and cosines (..., dim) of fixed frequencies (Tancik et al. 2020, 2006.10739)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, places: Tensor) -> Tensor:
        phase = 2 * math.pi * ((2 * places - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat((phase.sin(), phase.cos()), dim=-1)


class MaskDecoder(nn.Module):
    """An image's embedding and prompts' tokens to masks and the quality expected of each (figure 14).

    embedding and positions (1, dim, H, W), sparse (N, T, dim), dense (N or 1, dim, H, W) give logits
    (N, masks, 4 * H, 4 * W) and IoUs (N, masks). A mask is the product of the upscaled embedding of each pixel with
    what a small network makes of that mask's token.
    """

    def __init__(self, shape: SamShape) -> None:
        super().__init__()
        dim = shape.dim
        self.transformer = TwoWayTransformer(shape)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(shape.masks, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Head(dim, dim, dim // 8) for _ in range(shape.masks))
        self.iou_prediction_head = Head(dim, shape.iou_hidden, shape.masks)
        self.paint = MatMul()

    def forward(self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight)).expand(sparse.shape[0], -1, -1)
        tokens = torch.cat((own, sparse), 1)
        image = (embedding + dense).expand(sparse.shape[0], -1, -1, -1)
        tokens, pixels = self.transformer(image, positions, tokens)
        upscaled = self.output_upscaling(pixels.transpose(1, 2).unflatten(2, image.shape[2:]))
        made = [head(tokens[:, 1 + i]) for i, head in enumerate(self.output_hypernetworks_mlps)]
        masks = self.paint(torch.stack(made, 1), upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return masks, self.iou_prediction_head(tokens[:, 0])


class TwoWayTransformer(nn.Module):
    """Tokens (N, T, dim) and pixels (N, dim, H, W) attend to each other; returns both, pixels as (N, H * W, dim).

    To every query and key its positional encoding is added anew: for tokens, what they were at first.
    """

    def __init__(self, shape: SamShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(shape, first=i == 0) for i in range(shape.depth))
        self.final_attn_token_to_image = Attention(shape.dim, shape.heads, shape.dim // 2)
        self.norm_final_attn = nn.LayerNorm(shape.dim)

    def forward(self, image: Tensor, positions: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        pixels, places = image.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2)
        tokens = first
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, first, places)
        tokens = tokens + self.final_attn_token_to_image(tokens + first, pixels + places, pixels)
        return self.norm_final_attn(tokens), pixels


class TwoWayBlock(nn.Module):
    """Tokens attend to each other, then to the pixels; an MLP changes them; then pixels attend to tokens."""

    def __init__(self, shape: SamShape, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(shape.dim, shape.heads, shape.dim)
        self.norm1 = nn.LayerNorm(shape.dim)
        self.cross_attn_token_to_image = Attention(shape.dim, shape.heads, shape.dim // 2)
        self.norm2 = nn.LayerNorm(shape.dim)
        self.mlp = Mlp(shape.dim, shape.hidden, nn.ReLU())
        self.norm3 = nn.LayerNorm(shape.dim)
        self.cross_attn_image_to_token = Attention(shape.dim, shape.heads, shape.dim // 2)
        self.norm4 = nn.LayerNorm(shape.dim)

    def forward(self, tokens: Tensor, pixels: Tensor, first: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are their own positions still
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            asked = tokens + first
            tokens = self.norm1(tokens + self.self_attn(asked, asked, tokens))
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + first, pixels + places, pixels))
        tokens = self.norm3(tokens + self.mlp(tokens))
        pixels = self.norm4(pixels + self.cross_attn_image_to_token(pixels + places, tokens + first, tokens))
        return tokens, pixels


class Attention(nn.Module):
    """Attention of queries (N, Q, dim) to keys and values (N or 1, K, dim), within `inner` channels."""

    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, dim)
        self.scores, self.mix = MatMul(), MatMul()

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        projected = (self.q_proj(queries), self.k_proj(keys), self.v_proj(values))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for x in projected)
        weights = (self.scores(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5).softmax(-1)
        y: Tensor = self.out_proj(self.mix(weights, v).transpose(-2, -3).flatten(-2))
        return y


class Head(nn.Module):
    """Three linear layers with ReLU between."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Linear(dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, out)))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        y: Tensor = third(torch.relu(second(torch.relu(first(x)))))
        return y


def scale_moves(module: nn.Module) -> list[Move]:
    """Where per-channel scales can move in SAM or a part of it (see `bitfab.quant.move_scales`).

    Keys against queries, values through attention into what follows it, layer norms into the layers that alone read
    them (of the image encoder; the decoder's are read by shortcuts too), and through every ReLU; not through GELU.
    """
    moves = []
    for path, part in module.named_modules():
        at = f"{path}." if path else ""
        match part:
            case Attention():
                moves.append(Move(f"{at}k_proj", outputs=(f"{at}q_proj",)))
                moves.append(Move(f"{at}v_proj", inputs=(f"{at}out_proj",)))
            case Block():
                moves.append(Move(f"{at}norm1", inputs=(f"{at}attn.qkv",)))
                moves.append(Move(f"{at}norm2", inputs=(f"{at}mlp.lin1",)))
            case WindowAttention():
                moves.append(Move(f"{at}norm", inputs=(f"{at}qkv",)))
            case WindowMlp():
                moves.append(Move(f"{at}norm", inputs=(f"{at}fc1",)))
            case Mlp(act=nn.ReLU()):
                moves.append(Move(f"{at}lin1", inputs=(f"{at}lin2",)))
            case Head():
                moves += [Move(f"{at}layers.{i}", inputs=(f"{at}layers.{i + 1}",)) for i in (0, 1)]
    return moves
