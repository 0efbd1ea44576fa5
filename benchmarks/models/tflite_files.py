"""TFLite models in: the int8 import against TFLite's reference kernels, bit for bit, and on to RTL; the float import.

ResNet8 of MLPerf Tiny (CIFAR-10), int8 and float, and Visual Wake Words (float), on the images of ../shared/data; the
peer is the TFLite interpreter of ai-edge-litert. The int8 ResNet8 is generated as streaming RTL and simulated on three
images, every stream compared. Damaged files: bytes of all three models overwritten at random.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

import bitfab as bf
from benchmarks.common import ROOT, Check
from bitfab import dtypes
from bitfab.backend import Stages, simulate
from bitfab.data import photos
from bitfab.errors import BitfabError
from bitfab.frontend.tflite import load_tflite
from bitfab.frontend.tflite_quantized import load_quantized_tflite
from bitfab.ir import Graph, trace
from bitfab.ir.run_fast import run_fast

Array = NDArray[Any]

DATA = ROOT.parent / "shared" / "data"
RESNET8_INT8, RESNET8, VWW = (
    DATA / "models" / f"{name}.tflite" for name in ("pretrainedResnet_quant", "pretrainedResnet", "vww_96_float")
)
LOGITS = "model/dense/MatMul;model/dense/BiasAdd"  # of all three
COMPARED, JUDGED, CALIBRATED = 200, 1000, 256  # images
PARALLELISM = 128  # multipliers of the ResNet8 in RTL
SIMULATED = 3  # images
MUTATIONS = 250  # of each file


def tflite(folder: Path) -> Iterator[Check]:
    """All figures; the RTL of ResNet8 goes into `folder`. Nothing where ../shared/data is absent."""
    if not RESNET8.exists():
        print("SKIPPED: no models in ../shared/data/models", file=sys.stderr)
        return
    with np.load(DATA / "cifar10" / "cifar10_4000.npz") as data:
        images, labels = data["x"], data["y"].ravel()
    graph = load_quantized_tflite(RESNET8_INT8)
    codes = (images.astype(np.int16) - 128).astype(np.int8)
    yield from _int8(graph, codes)
    yield from _accuracy(graph, images, codes, labels)
    yield from _float("ResNet8", RESNET8, images[:COMPARED].astype(np.float32))
    yield from _float("Visual Wake Words", VWW, _photos())
    yield from _speed(graph, _first(codes[:16]))
    yield from _damaged()
    yield from _rtl(graph, _first(codes[:SIMULATED]), folder)


class Tflite:
    """A TFLite interpreter that keeps every tensor; images are (N, H, W, C)."""

    def __init__(self, path: Path, resolver: OpResolverType) -> None:
        self.interpreter = Interpreter(
            str(path), experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True, num_threads=1
        )
        self.interpreter.allocate_tensors()
        self.names = {tensor["name"]: tensor["index"] for tensor in self.interpreter.get_tensor_details()}

    def tensors(self, images: Array, names: Sequence[str]) -> dict[str, Array]:
        """The tensors of these names, for each image."""
        found: dict[str, list[Array]] = {name: [] for name in names}
        for image in images:
            self.interpreter.set_tensor(0, image[None])
            self.interpreter.invoke()
            for name in names:
                found[name].append(self.interpreter.get_tensor(self.names[name]).copy())
        return {name: np.concatenate(arrays) for name, arrays in found.items()}


def _first(images: Array) -> Array:
    """Channels first: (N, H, W, C) to (N, C, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if images.ndim == 4 else images


def _int8(graph: Graph, codes: Array) -> Iterator[Check]:
    values = trace(graph, _first(codes[:COMPARED]))
    ours = {node.source: values[node.name] for node in graph}
    reference = Tflite(RESNET8_INT8, OpResolverType.BUILTIN_REF).tensors(codes[:COMPARED], list(ours))
    differing = sum(int((_first(reference[name]) != found).sum()) for name, found in ours.items())
    yield Check(f"ResNet8 int8, {COMPARED} images: values compared, all tensors", sum(x.size for x in ours.values()))
    yield Check.at_most("values that differ from TFLite's reference kernels", differing, 0)
    default = Tflite(RESNET8_INT8, OpResolverType.AUTO).tensors(codes[:COMPARED], [LOGITS])[LOGITS]
    yield Check("logits that differ from TFLite's default kernels, %", 100 * float((default != ours[LOGITS]).mean()))
    agreeing = default.argmax(axis=1) == ours[LOGITS].argmax(axis=1)
    yield Check("decisions equal to those of TFLite's default kernels, %", 100 * float(agreeing.mean()))


def _accuracy(graph: Graph, images: Array, codes: Array, labels: Array) -> Iterator[Check]:
    network = load_tflite(RESNET8)
    real = torch.from_numpy(_first(images.astype(np.float32)))
    with torch.no_grad():
        exact = torch.cat([network(part) for part in real[:JUDGED].split(100)]).numpy()
    ours = bf.quantize(network, real[-CALIBRATED:], name="resnet8")
    (x,) = ours.inputs
    assert x.qparams is not None
    requantized = run_fast(ours, dtypes.quantize(real[:JUDGED].numpy(), x.qparams, x.type))
    imported = run_fast(graph, _first(codes[:JUDGED]))
    for what, logits in (("float", exact), ("int8 file", imported), ("float quantized by bitfab", requantized)):
        right = np.asarray(logits).argmax(axis=1) == labels[:JUDGED]
        yield Check(f"ResNet8 {what}: accuracy on {JUDGED} images, %", 100 * float(right.mean()))


def _float(name: str, path: Path, images: Array) -> Iterator[Check]:
    expected = Tflite(path, OpResolverType.BUILTIN_REF).tensors(images, [LOGITS])[LOGITS]
    network, x = load_tflite(path), torch.from_numpy(_first(images))
    with torch.no_grad():
        found = network(x).numpy()
    largest = float(np.abs(found - expected).max() / np.abs(expected).max())
    yield Check.at_most(f"{name} float, {len(x)} images: largest difference over largest logit", largest, 1e-5)
    graph = bf.quantize(network, x[: len(x) // 2], name="quantized")
    (value,) = graph.inputs
    assert value.qparams is not None
    test = images[len(x) // 2 :]
    codes = run_fast(graph, dtypes.quantize(_first(test), value.qparams, value.type))
    agreeing = np.asarray(codes).argmax(axis=1) == found[len(x) // 2 :].argmax(axis=1)
    yield Check(
        f"{name} quantized by bitfab, {len(test)} other images: decisions kept, %", 100 * float(agreeing.mean())
    )


def _photos() -> Array:
    """The 64 photos of COCO as Visual Wake Words takes them: (N, 96, 96, 3) in 0 to 1."""
    from PIL import Image

    found = [Image.fromarray(photos.read(path)) for path in photos.folder(DATA / "coco" / "val2017")]
    return np.stack([np.asarray(photo.resize((96, 96)), np.float32) / 255 for photo in found])


def _speed(graph: Graph, images: Array) -> Iterator[Check]:
    run_fast(graph, images)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        run_fast(graph, images)
        seconds.append(time.perf_counter() - start)
    yield Check.at_most(f"run_fast of the int8 ResNet8, {len(images)} images, one thread: s", min(seconds), 1.0)


def _damaged() -> Iterator[Check]:
    rng, slowest, refused, broken = np.random.default_rng(0), 0.0, 0, 0
    files: list[tuple[Path, Callable[[Path], object]]] = [
        (RESNET8_INT8, load_quantized_tflite),
        (RESNET8, load_tflite),
        (VWW, load_tflite),
    ]
    with tempfile.TemporaryDirectory() as folder:
        mutated = Path(folder) / "mutated.tflite"
        for path, load in files:
            for case in range(MUTATIONS):
                mutated.write_bytes(_mutated(path.read_bytes(), rng, case))
                start = time.perf_counter()
                try:
                    load(mutated)
                except BitfabError as error:
                    refused += 1
                    broken += "\n" in str(error)
                except Exception:
                    broken += 1
                slowest = max(slowest, time.perf_counter() - start)
    yield Check(f"{MUTATIONS * len(files)} damaged files: refused", refused)
    yield Check.at_most("damaged files that end in anything but a model or one line", broken, 0)
    yield Check.at_most("damaged files: the slowest, s", slowest, 10)


def _mutated(data: bytes, rng: np.random.Generator, case: int) -> bytes:
    """Bytes overwritten: anywhere, near the start, near the end where the tables are; or that and the end cut off."""
    damaged = bytearray(data)
    low, high = [(8, len(data)), (8, 4000), (len(data) - 14_000, len(data)), (8, len(data))][case % 4]
    for place in rng.integers(low, high, rng.integers(1, 30)):
        damaged[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
    return bytes(damaged[: rng.integers(8, len(data))] if case % 4 == 3 else damaged)


def _rtl(graph: Graph, codes: Array, folder: Path) -> Iterator[Check]:
    design = bf.generate(graph, parallelism=PARALLELISM)
    stages = Stages(lambda stage, done: print(f"{stage} ...", file=sys.stderr, flush=True) if done == 0 else None)
    simulation = simulate(design, codes, folder, stages)
    yield Check.at_least("ResNet8 int8 in RTL: whole images simulated", simulation.images, SIMULATED)
    yield Check("values compared, every layer", simulation.values_compared)
    yield Check.at_most("mismatches", simulation.mismatches, 0)
    yield Check("cycles an image", design.expected_cycles)
    yield Check("wall time of generation and simulation, s", sum(stages.seconds.values()))
