"""Speed of `run_fast` against torch float32, onnxruntime int8 and the qonnx executor, on one convolutional network.

    python benchmarks/run_speed.py [--threads N] [--batch N] [--repeats N] [--json FILE]

The network has 288,298 parameters and takes 3x64x64 images. All get the same weights, images and number of threads (the
cores that the process may use) and are timed in turns; rates are medians, ratios the median of each turn's ratio. torch
float32 and onnxruntime int8 take the images all at once and a few at a time, torch in both memory formats, and the
fastest counts. onnxruntime quantizes the float network itself (static, uint8 activations, per-channel int8 weights,
QDQ). The qonnx executor runs its Quant nodes image by image, as exported QONNX files fix a batch of one; its rates for
more images at once are shown beside.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn

from benchmarks.common import ROOT, Check, Peer, main, peer_python
from bitfab.dtypes import quantize
from bitfab.ir import run
from bitfab.ir.run_fast import run_fast
from bitfab.quant import quantize as quantize_net

PEERS = ["onnxruntime==1.31.0", "onnx==1.21.0", "qonnx==1.0.0", "numpy==2.4.6"]
FEW = 4  # images at a time where a smaller batch may suit caches better than all at once
CHANNELS = ((3, 32), (32, 32), None, (32, 64), (64, 64), None, (64, 128), (128, 128))  # None: max pool


def network() -> nn.Sequential:
    """Six 3x3 convolutions with ReLU, two max pools, a global average and a dense layer; seeded weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in CHANNELS:
        layers += [nn.Conv2d(*channels, 3, padding=1), nn.ReLU()] if channels else [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)).eval()


def save_for_peers(net: nn.Sequential, images: torch.Tensor, path: Path) -> None:
    """The weights in order ("0.weight", "0.bias", ...; pools as "pool") and the images, as one .npz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: parameter.detach().numpy() for name, parameter in net.named_parameters()}
    kinds = [type(layer).__name__ for layer in net]
    with torch.inference_mode():
        np.savez(path, images=images.numpy(), kinds=np.array(kinds), expected=net(images).numpy(), **arrays)


def seconds(function: Callable[[], object]) -> float:
    """The time of the second of two calls: the first brings caches back from what ran before."""
    function()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    torch.set_num_threads(arguments.threads)
    net, images = network(), torch.rand(arguments.batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    graph = quantize_net(net, [images])
    (value,) = graph.inputs
    assert value.qparams is not None
    integers = quantize(images.numpy(), value.qparams, value.type)
    np.testing.assert_array_equal(run_fast(graph, integers), run(graph, integers))
    path = ROOT / "build" / "peers" / "run_speed.npz"
    save_for_peers(net, images, path)
    script = Path(__file__).parent / "peers" / "run_speed_peer.py"
    sizes = (1, FEW, arguments.batch)
    peer = Peer(peer_python("onnx", PEERS), script, path, str(arguments.threads), *map(str, sizes))
    contestants: dict[str, Callable[[], float]] = {"run_fast": lambda: seconds(lambda: run_fast(graph, integers))}
    contestants |= torch_contestants(net, images)
    for name in (f"{kind} {size}" for kind in ("onnxruntime", "qonnx") for size in sizes):
        contestants[name] = functools.partial(lambda name: peer.ask(name)["seconds"], name)
    times = time_all(contestants, arguments.repeats)
    peer.close()
    return checks(times, arguments.batch)


def torch_contestants(net: nn.Sequential, images: torch.Tensor) -> dict[str, Callable[[], float]]:
    """Functions that time the float network, by "torch <format> <images at a time>"."""
    contestants: dict[str, Callable[[], float]] = {}
    for name, layout in (("channels first", torch.contiguous_format), ("channels last", torch.channels_last)):
        model = copy.deepcopy(net).to(memory_format=layout)
        for size in (FEW, len(images)):
            pieces = images.contiguous(memory_format=layout).split(size)
            forward = functools.partial(lambda model, pieces: [model(piece) for piece in pieces], model, pieces)
            contestants[f"torch {name} {size}"] = functools.partial(seconds, forward)
    return contestants


def time_all(contestants: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds for all images of each contestant, turn by turn, after one turn of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with torch.inference_mode():
        for turn in range(-1, repeats):
            for name, contestant in contestants.items():
                elapsed = contestant()
                if turn >= 0:
                    times[name].append(elapsed)
    return times


def checks(times: dict[str, list[float]], batch: int) -> list[Check]:
    """Images a second, and the ratios that must hold."""
    rates = {name: batch / statistics.median(each) for name, each in times.items()}
    ratios = {
        name: statistics.median(other / own for own, other in zip(times["run_fast"], each, strict=True))
        for name, each in times.items()
    }

    def against_fastest(kind: str) -> float:
        return min(ratio for name, ratio in ratios.items() if name.startswith(kind))

    return [
        *(Check(f"{name}{' at a time' if ' ' in name else ''}, images/s", rate) for name, rate in rates.items()),
        Check.at_least("run_fast / torch float32, its fastest", against_fastest("torch"), 1.0),
        Check("run_fast / onnxruntime int8, its fastest", against_fastest("onnxruntime")),
        Check.at_least("run_fast / qonnx executor, image by image", ratios["qonnx 1"], 30.0),
        Check("run_fast / qonnx executor, its fastest", against_fastest("qonnx")),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="run_fast: a 288k-parameter CNN on 64x64 images")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=32, help=f"images, a multiple of {FEW}")
    parser.add_argument("--repeats", type=int, default=5)
    main(measure, parser)
