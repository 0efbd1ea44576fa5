"""Number formats other than static integers: EfficientNet-Lite0 in reduced floats, weight-only and dynamic INT8.

    python benchmarks/formats.py [--photos N] [--json FILE]

Top-1 on photos of ../shared/data/imagenet, its agreement with float32, and the bytes of all parameters. No data
calibrates anything here: weights alone tell their scales, activations are quantized as they come. One photo of 300 is
0.33 points. The networks compute in float on what the formats can hold (`dynamic` in integers), as `bitfab.quant`
defines them; accuracy of static integers is `ptq.py`'s.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn

from benchmarks.common import Check, main
from benchmarks.models.lite0 import CALIBRATION, PHOTOS, batches, float_logits, folded, labels
from bitfab.quant import (
    BF16,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FloatFormat,
    Recipe,
    WeightLevels,
    quantize_dynamic,
    quantize_weight_only,
    reduce_floats,
)
from bitfab.quant.dynamic import IntegerLayer

FLOATS = {"FP16": FP16, "BF16": BF16, "FP8 e4m3": FP8_E4M3, "FP8 e5m2": FP8_E5M2, "float(3, 2)": FloatFormat(3, 2)}
WEIGHTS = {
    "INT8": Recipe(observer="mse"),
    "INT4": Recipe(4, observer="mse"),
    "INT4, groups of 16": Recipe(4, observer="mse", group_size=16),
    "4-bit powers of two": Recipe(4, levels=WeightLevels.PO2, observer="mse"),
    "4-bit sums of powers of two": Recipe(4, levels=WeightLevels.APOT, observer="mse"),
    "4-bit codebook": Recipe(4, levels=WeightLevels.CODEBOOK, observer="mse"),
}
BOUNDS = {"FP16": 0.5, "weight-only INT8": 1.0, "dynamic INT8": 1.0}  # points of top-1 lost, as the literature has them


def networks() -> Iterator[tuple[str, nn.Module, float]]:
    """Each variant's name, the network, and its bits a parameter."""
    net, example = folded(), next(batches(0, 1))
    for name, form in FLOATS.items():
        bits = 1 + form.exponent_bits + form.mantissa_bits
        yield f"{name}, weights", reduce_floats(net, form), bits
        yield name, reduce_floats(net, form, example), bits
    for name, recipe in WEIGHTS.items():
        group = 4 / recipe.group_size if recipe.group_size else 0
        yield f"weight-only {name}", quantize_weight_only(net, recipe), recipe.weights + group
    yield "dynamic INT8", quantize_dynamic(net, WEIGHTS["INT8"]), 8


def classes(net: nn.Module, count: int) -> np.ndarray:
    """The class that the network gives each test photo."""
    with torch.inference_mode():
        found = [net(batch).argmax(1) for batch in batches(CALIBRATION, CALIBRATION + count)]
    return torch.cat(found).numpy()


def size(net: nn.Module, bits: float) -> float:
    """Megabytes: parameters and codes in `bits` each; scales and, where codes are integers, biases in 4 bytes."""
    layers = [module for module in net.modules() if isinstance(module, IntegerLayer)]
    if not layers:
        return sum(p.numel() for p in net.parameters()) * bits / 8e6
    rest = sum(b.numel() for layer in layers for name, b in layer.named_buffers() if name != "codes")
    return (sum(layer.codes.numel() for layer in layers) * bits / 8 + 4 * rest) / 1e6


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    """Every format in turn."""
    if not PHOTOS.is_dir() or importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        print("SKIPPED: no photos, or no EfficientNet-Lite0 (dependency group `bench`)", file=sys.stderr)
        return []
    folded()  # before anything runs in inference mode, whose tensors take no gradients
    truth = labels()[CALIBRATION:][: arguments.photos]
    real = float_logits().argmax(1)[: len(truth)]
    top1 = 100 * float((real == truth).mean())
    checks = [Check("float32: top-1, %", top1), Check("float32: MB", size(folded(), 32))]
    for name, net, bits in networks():
        found = classes(net, len(truth))
        accuracy, agreement = (100 * float((found == other).mean()) for other in (truth, real))
        checks.append(Check(f"{name}: top-1, %", accuracy))
        checks.append(Check(f"{name}: agreement with float32, %", agreement))
        checks.append(Check(f"{name}: MB", size(net, bits)))
        if name in BOUNDS:
            checks.append(Check.at_most(f"{name}: points of top-1 lost", top1 - accuracy, BOUNDS[name]))
        print(
            f"{name}: {accuracy:.2f} %, {agreement:.2f} % as float, {size(net, bits):.2f} MB",
            file=sys.stderr,
            flush=True,
        )
    return checks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="EfficientNet-Lite0 in other number formats")
    parser.add_argument("--photos", type=int, default=300, help="test photos, at most 300")
    main(measure, parser)
