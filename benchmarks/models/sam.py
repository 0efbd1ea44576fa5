"""What SAM is measured on: real weights of its decoder, photos, embeddings in which it finds their objects, prompts.

No package carries an image encoder's weights. The embeddings are those of an encoder of ViT-B's architecture with two
blocks (one looks through windows, one at the whole photo) and random weights, scaled to the spread of SAM's learned
`no_mask_embed`; then a few steps of gradient descent move them so that the real, frozen decoder finds the photo's
objects where boxes point at them. So masks are large, follow the photo, and the decoder works as it was trained to;
what it finds is not what SAM would find.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import ROOT, peer_python
from bitfab.zoo.sam import PIXEL_MEAN, PIXEL_STD, Prompts, Sam
from bitfab.zoo.sam_checkpoint import load_sam
from bitfab.zoo.sam_image_encoder import EncoderShape, ImageEncoder

PHOTOS = ROOT.parent / "shared" / "data" / "coco" / "val2017"
BOXES = PHOTOS.parent / "instances_val64.json"
WEIGHTS = "segment_everything/vendored/PromptGuidedDecoder/Prompt_guided_Mask_Decoder.pt"
SIZE, MASK = 1024, 256
SMALLEST_SIDE = 100  # of an object, in pixels of the model's image
OBJECTS = 3  # of a photo, the largest
STEPS, RATE, SPREAD = 6, 0.02, 0.1


@dataclass(frozen=True)
class Photo:
    """A photo as the model sees it, (3, SIZE, SIZE), 0 to 255, its own height and width there, and boxes (N, 4)."""

    name: str
    pixels: Tensor
    height: int
    width: int
    boxes: Tensor


def packages() -> Path:
    """The folder with the packages `segment-everything` (for its weights) and `segment-anything` (for its classes)."""
    python = peer_python("sam", ["--no-deps", "segment-everything==0.3", "segment-anything==1.0"])
    return next((python.parent.parent / "lib").glob("python*/site-packages"))


def decoder() -> Sam:
    """SAM's prompt encoder and mask decoder with the weights that `segment-everything` carries."""
    return load_sam(packages() / WEIGHTS)


def photos(count: int) -> list[Photo]:
    """The first photos on which at least two objects are large enough."""
    known = json.loads(BOXES.read_text())
    found = []
    for image in sorted(known["images"], key=lambda image: image["id"]):
        ratio = SIZE / max(image["width"], image["height"])
        boxes = [
            [ratio * side for side in (x, y, x + width, y + height)]
            for x, y, width, height in (
                a["bbox"] for a in known["annotations"] if a["image_id"] == image["id"] and not a.get("iscrowd")
            )
            if min(width, height) * ratio >= SMALLEST_SIDE
        ]
        boxes.sort(key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))
        if len(boxes) >= 2:
            found.append(_photo(image["file_name"], torch.tensor(boxes[:OBJECTS])))
        if len(found) == count:
            break
    return found


def _photo(name: str, boxes: Tensor) -> Photo:
    from PIL import Image

    image = Image.open(PHOTOS / name).convert("RGB")
    ratio = SIZE / max(image.size)
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BILINEAR)
    pixels = torch.zeros(3, SIZE, SIZE)
    pixels[:, : image.height, : image.width] = torch.from_numpy(np.array(image)).movedim(-1, 0)
    return Photo(name, pixels, image.height, image.width, boxes)


def embeddings(sam: Sam, shown: list[Photo]) -> Iterator[Tensor]:
    """An embedding (1, 256, 64, 64) for each photo; see above."""
    torch.manual_seed(0)
    encoder = ImageEncoder(EncoderShape(depth=2, whole=(1,))).eval()
    for name, parameter in encoder.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    for photo in shown:
        with torch.no_grad():
            embedding = encoder(((photo.pixels - mean) / std).unsqueeze(0)) * SPREAD
        yield _fitted(sam, embedding, photo)


def _fitted(sam: Sam, embedding: Tensor, photo: Photo) -> Tensor:
    """The embedding, moved until the decoder finds the objects' regions."""
    regions = torch.stack([_region(photo, box) for box in photo.boxes])
    embedding = embedding.clone().requires_grad_()
    optimizer = torch.optim.Adam([embedding], lr=RATE, betas=(0.8, 0.95))
    prompts = Prompts(boxes=photo.boxes)
    for _ in range(STEPS):
        logits = sam.segment(embedding, prompts)[0][:, 0]
        found = logits.sigmoid()
        overlap = 2 * (found * regions).sum((1, 2)) / (found.sum((1, 2)) + regions.sum((1, 2)))
        loss = F.binary_cross_entropy_with_logits(logits, regions) + 1 - overlap.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return embedding.detach()


def _region(photo: Photo, box: Tensor) -> Tensor:
    """(MASK, MASK), 1 where the photo in the box's ellipse is nearer in colour to the box's middle than to its rim."""
    image = F.avg_pool2d(photo.pixels, 9, 4, 4, count_include_pad=False)[:, :MASK, :MASK]
    places = torch.arange(MASK) * SIZE / MASK
    x0, y0, x1, y1 = box.tolist()
    across, down = (2 * places - x0 - x1) / (x1 - x0), (2 * places - y0 - y1) / (y1 - y0)
    distance = (across[None, :] ** 2 + down[:, None] ** 2).sqrt()
    colours = [image[:, where].mean(1) for where in (distance < 0.5, (distance > 1) & (distance < 1.3))]
    inner, rim = ((image - colour[:, None, None]).norm(dim=0) for colour in colours)
    near = (distance < 0.5) | ((inner < rim) & (distance < 1))
    smooth = F.avg_pool2d(near.float()[None], 9, 1, 4)[0]
    return (smooth > 0.5).float()


def prompts(photo: Photo, count: int, seed: int) -> list[Prompts]:
    """`count` random prompts in three batches: boxes moved by up to 5 % of a side, points within objects, and both."""
    rng = np.random.default_rng(seed)
    batches = []
    for kind, share in enumerate(np.array_split(np.arange(count), 3)):
        box = photo.boxes[rng.integers(len(photo.boxes), size=len(share))].numpy()
        sides = np.tile(box[:, 2:] - box[:, :2], 2)
        boxes = torch.from_numpy(box + sides * rng.uniform(-0.05, 0.05, box.shape)).float()
        places = box[:, :2] + sides[:, :2] * rng.uniform(0.3, 0.7, (len(share), 2))
        points, labels = torch.from_numpy(places).float().unsqueeze(1), torch.ones(len(share), 1)
        batches.append(Prompts(points if kind else None, labels if kind else None, None if kind == 1 else boxes))
    return batches
