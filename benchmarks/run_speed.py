"""Speed of `run_fast` against torch float32, onnxruntime int8 and the qonnx executor, on one convolutional network.

    python benchmarks/run_speed.py [--threads N] [--batch N] [--repeats N] [--json FILE]

The network has 288,298 parameters and takes 3x64x64 images. All get the same weights, images and number of threads (one
by default: several threads on a busy machine measure its scheduler) and are timed in turns; rates are medians, ratios
the median of each turn's ratio. torch runs in both memory formats and the faster counts. onnxruntime quantizes the
float network itself (static, uint8 activations, per-channel int8 weights, QDQ). The qonnx executor runs its Quant nodes
image by image, as exported QONNX files fix a batch of one; its rate on the whole batch at once is shown beside.
"""

from __future__ import annotations

import argparse
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
    peer = Peer(peer_python("onnx", PEERS), script, path, str(arguments.threads))
    times = time_all(net, images, lambda: run_fast(graph, integers), peer, arguments.repeats)
    peer.close()
    return checks(times, arguments.batch)


def time_all(
    net: nn.Sequential, images: torch.Tensor, fast: Callable[[], object], peer: Peer, repeats: int
) -> dict[str, list[float]]:
    """Seconds per batch of each contestant, turn by turn, after one turn of warm-up."""
    channels_last = network().to(memory_format=torch.channels_last)
    shuffled = images.contiguous(memory_format=torch.channels_last)
    contestants: dict[str, Callable[[], float]] = {
        "run_fast": lambda: seconds(fast),
        "torch float32": lambda: seconds(lambda: net(images)),
        "torch float32, channels last": lambda: seconds(lambda: channels_last(shuffled)),
        "onnxruntime int8": lambda: peer.ask("onnxruntime")["seconds"],
        "qonnx executor": lambda: peer.ask("qonnx")["seconds"],
        "qonnx executor, whole batch": lambda: peer.ask("qonnx batch")["seconds"],
    }
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
    return [
        *(Check(f"{name}, images/s", rate) for name, rate in rates.items()),
        Check.at_least("run_fast / torch float32", min(ratios[name] for name in ratios if "torch" in name), 1.0),
        Check("run_fast / onnxruntime int8", ratios["onnxruntime int8"]),
        Check.at_least("run_fast / qonnx executor", ratios["qonnx executor"], 30.0),
        Check("run_fast / qonnx executor, whole batch", ratios["qonnx executor, whole batch"]),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="run_fast: a 288k-parameter CNN on 64x64 images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    main(measure, parser)
