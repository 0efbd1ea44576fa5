"""SAM's mask decoder with its real weights: FP16, dynamic INT8, static W8A8 and W4A8, against float32.

    python benchmarks/sam.py [--prompts N] [--json FILE]

Masks of 200 random prompts on 5 photos of ../shared/data/coco (see `models/sam.py` for what the decoder sees of them):
the mask that the float decoder ranks first is compared with the quantized decoder's same one, by intersection over
union. Two other photos calibrate. Sizes are bytes of all tensors; speed is one prompt at a time on one thread. All but
dynamic INT8 are judged on 60 of the prompts. Static graphs compute every product of the decoder on integers, `products
A16` those of two activations (scores, attention, mask) on 16-bit ones; W4 has groups of 16 weights (`group_size`).
`as AHCPTQ` is what 2503.03088 names channel-aware grouping and hybrid log-uniform codes, without its learned rounding.
build/bench/sam.html shows photos with both masks. Our modules are compared with the `segment-anything` package's.
"""

from __future__ import annotations

import argparse
import base64
import copy
import io
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks.common import ROOT, Check, main, told
from benchmarks.models import sam as setting
from bitfab.quant import FP16, Override, Recipe, quantize_dynamic, reduce_floats
from bitfab.quant.mixed import Mixed, quantize_mixed, stored_bytes
from bitfab.quant.move_scales import move_scales
from bitfab.zoo.sam import Prompts, Sam, scale_moves
from bitfab.zoo.sam_checkpoint import load_sam

TEST, CALIBRATE, CALIBRATION_PROMPTS = 5, 2, 6
TIMED = 5
FEW = 4  # prompts of each batch that judge all variants but the one with bounds
CHANNEL_GROUPS = 4  # AHCPTQ's
WEIGHT_GROUP = 16
WIDE = {name: Override(activations=16) for name in ("*.scores", "*.mix", "paint")}  # products of two activations
SHOWN = "dynamic INT8"
PICTURES = ROOT / "build" / "bench" / "sam.html"

Arguments = tuple[Tensor, Tensor, Tensor, Tensor]  # of the decoder: embedding, positions, sparse, dense


@dataclass(frozen=True)
class Variant:
    """A decoder in other numbers; the mixed graph where it is one; what is timed where that is another module."""

    name: str
    net: nn.Module
    mixed: Mixed | None = None
    timed: nn.Module | None = None


def variants(net: nn.Module, calibration: list[Arguments]) -> Iterator[Variant]:
    """All that are compared with float32."""
    yield Variant("FP16", reduce_floats(net, FP16), timed=copy.deepcopy(net).half())
    yield Variant("dynamic INT8", quantize_dynamic(net))
    moved = move_scales(net, calibration, scale_moves(net))
    eight = Recipe()
    wide = Recipe(overrides=WIDE)
    four = Recipe(4, overrides=WIDE, observer="mse", group_size=WEIGHT_GROUP)
    ahcptq = {"channel_groups": CHANNEL_GROUPS, "hybrid": True}
    for name, base, recipe, options in (
        ("static W8A8", net, eight, {}),
        ("static W8A8, as AHCPTQ", net, eight, ahcptq),
        ("static W8A8, products A16", net, wide, {}),
        ("static W8A8, products A16, scales moved", moved, wide, {}),
        ("static W4A8, products A16", net, four, {}),
        ("static W4A8, products A16, scales moved", moved, four, {}),
        ("static W4A8, products A16, scales moved, as AHCPTQ", moved, four, ahcptq),
    ):
        mixed = quantize_mixed(base, calibration, recipe, **options)
        yield Variant(name, mixed.module, mixed)


def arguments(sam: Sam, embedding: Tensor, batch: Prompts) -> Arguments:
    """What the decoder is called with."""
    sparse, dense = sam.prompt_encoder(batch)
    return embedding, sam.prompt_encoder.positions(), sparse, dense


def first_masks(net: nn.Module, given: Arguments) -> tuple[Tensor, Tensor]:
    """All masks (N, 4, H, W) as bool, and the one ranked first (N,)."""
    masks, iou = net(*given)
    return masks > 0, iou.argmax(1)


def overlaps(found: Tensor, wanted: Tensor) -> Tensor:
    """Intersection over union (N,) of masks (N, H, W); 1 where both are empty."""
    union = (found | wanted).sum((1, 2))
    return torch.where(union > 0, (found & wanted).sum((1, 2)) / union.clamp(min=1), 1.0)


def seconds(net: nn.Module, given: Sequence[Arguments]) -> float:
    """The median time of one prompt on one thread."""
    precision = next(net.parameters()).dtype
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for one in given[:1] + list(given):
        start = time.perf_counter()
        net(*(x.to(precision) for x in one))
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return float(np.median(times[1:]))


def equal_to_package() -> Check:
    """The largest difference of our modules to the package's, relative to the largest value of each output."""
    script = Path(__file__).parent / "peers" / "sam_reference.py"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, script, setting.packages(), folder], check=True)
        tensors = safetensors.torch.load_file(Path(folder) / "tensors.safetensors")
        sam = load_sam(Path(folder) / "checkpoint.pth")
    assert sam.image_encoder is not None
    found = {"embedding": sam.image_encoder(tensors["image"])}
    for name in [name for name in tensors if name.startswith("logits: ")]:
        given = name.removeprefix("logits: ").split()
        parts = {key: tensors[key] for key in given} | ({"labels": tensors["labels"]} if "points" in given else {})
        masks, iou = sam.segment(tensors["embedding"], Prompts(**parts))
        found |= {name: masks, name.replace("logits", "iou"): iou}
    worst = max(float((x - tensors[name]).abs().max() / tensors[name].abs().max()) for name, x in found.items())
    return Check.at_most("largest difference to segment-anything's classes, relative", worst, 1e-4)


def export_onnx(net: nn.Module, given: Arguments) -> Iterator[Check]:
    """The decoder as ONNX by torch's exporter; its size, and how far onnxruntime's masks are from torch's."""
    file = ROOT / "build" / "bench" / "sam_decoder.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
            names = ["embedding", "positions", "sparse", "dense"]
            axes = {"sparse": {0: "prompts", 1: "tokens"}}
            torch.onnx.export(net, given, str(file), input_names=names, dynamic_axes=axes, dynamo=False)
        import onnxruntime
    except (ImportError, RuntimeError, AttributeError, TypeError) as error:
        print(f"SKIPPED: ONNX export: {error}", file=sys.stderr)
        return
    yield Check("float32 as ONNX: MB", file.stat().st_size / 1e6)
    session = onnxruntime.InferenceSession(file)
    masks = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})[0]
    wanted = net(*given)[0].numpy()
    yield Check.at_most(
        "ONNX in onnxruntime: relative difference", float(np.abs(masks - wanted).max() / wanted.max()), 1e-3
    )


def picture(photo: setting.Photo, mask: Tensor) -> str:
    """The photo with a mask (MASK, MASK) over it, as an HTML image."""
    from PIL import Image

    small = photo.pixels.movedim(0, -1)[: photo.height : 4, : photo.width : 4].numpy()
    over = mask[: len(small), : small.shape[1], None].numpy()
    image = Image.fromarray(np.where(over, 0.45 * small + np.array((0, 90, 140)), small).astype(np.uint8))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'


def write_pictures(rows: Sequence[str]) -> None:
    """One page with a row a photo: the float decoder's mask, and the quantized one's."""
    head = "<!doctype html><meta charset=utf-8><title>SAM</title><style>img{margin:4px}</style>"
    unfinished = PICTURES.with_suffix(".part")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(f"{head}<h1>Left float32, right {SHOWN}</h1>" + "\n".join(rows))
    unfinished.replace(PICTURES)
    print(f"pictures: {PICTURES.relative_to(ROOT)}", file=sys.stderr)


def compare(sam: Sam, seen: Sequence[tuple[setting.Photo, Arguments]], calibration: list[Arguments]) -> Iterator[Check]:
    """Every variant's size, speed and masks."""
    net = sam.mask_decoder
    wanted = [first_masks(net, given) for _, given in seen]
    timed = [(embedding, places, sparse[:1], dense) for _, (embedding, places, sparse, dense) in seen[:TIMED]]
    size = stored_bytes(net)
    yield Check("float32: MB", size / 1e6)
    yield Check("float32: ms per prompt", 1e3 * seconds(net, timed))
    for variant in variants(net, calibration):
        few = None if variant.name == SHOWN else FEW
        ious, rows = [], {}
        for (photo, (embedding, places, sparse, dense)), (masks, best) in zip(seen, wanted, strict=True):
            each = torch.arange(len(best))[:few]
            found = first_masks(variant.net, (embedding, places, sparse[:few], dense))[0][each, best[:few]]
            ious.append(overlaps(found, masks[each, best[:few]]))
            rows.setdefault(photo.name, picture(photo, masks[0, best[0]]) + picture(photo, found[0]))
        yield from told_of(variant, torch.cat(ious), size)
        yield Check(f"{variant.name}: ms per prompt", 1e3 * seconds(variant.timed or variant.net, timed))
        if variant.name == SHOWN:
            write_pictures([f"<p>{row}" for row in rows.values()])


def told_of(variant: Variant, ious: Tensor, size: int) -> Iterator[Check]:
    """Quality and size; bounds for dynamic INT8."""
    mean, smaller = float(ious.mean()), size / stored_bytes(variant.timed or variant.net)
    if variant.name == SHOWN:
        yield Check.at_least(f"{variant.name}: mean IoU with float32", mean, 0.97)
        yield Check.at_least(f"{variant.name}: times smaller", smaller, 3.5)
    else:
        yield Check(f"{variant.name}: mean IoU with float32", mean)
        yield Check(f"{variant.name}: times smaller", smaller)
    if variant.mixed:
        yield Check(f"{variant.name}: products in integers, %", 100 * variant.mixed.integer_share)


def measure(options: argparse.Namespace) -> Sequence[Check]:
    """Everything, told as it comes."""
    if not setting.BOXES.exists():
        print("SKIPPED: no photos of COCO in ../shared/data/coco", file=sys.stderr)
        return []
    sam = setting.decoder()
    shown = setting.photos(TEST + CALIBRATE)
    embedded = list(setting.embeddings(sam, shown))
    per_photo = -(-options.prompts // TEST)
    with torch.no_grad():
        batches = [
            [(photo, arguments(sam, embedding, batch)) for batch in setting.prompts(photo, count, seed)]
            for seed, (photo, embedding) in enumerate(zip(shown, embedded, strict=True))
            for count in (per_photo if seed < TEST else CALIBRATION_PROMPTS,)
        ]
        seen = [pair for photo in batches[:TEST] for pair in photo]
        calibration = [given for photo in batches[TEST:] for _, given in photo]
        checks = list(told([equal_to_package(), *export_onnx(sam.mask_decoder, seen[0][1])]))
        checks += told(compare(sam, seen, calibration))
    return checks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="SAM's mask decoder, quantized")
    parser.add_argument("--prompts", type=int, default=200, help="prompts over all photos")
    main(measure, parser)
