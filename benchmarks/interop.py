"""Models of others, read: what the import computes beside what the format's own runtime does.

    python benchmarks/interop.py [--parts float,qonnx,static,tflite] [--photos N] [--images N] [--json FILE]

`float`: every float ONNX file of ../shared/data/models on photos of ../shared/data/coco, as the file's own node names,
shapes and preprocessing (BGR, 0 to 255) want them: the module, its normal form and the integer graph against
onnxruntime; and the seconds that each step takes. A quantized file must be refused there, with a pointer to the other
import. `qonnx`: the QONNX files beside QONNX's own executor. `static`: a network that onnxruntime quantized, in both of
its formats. `tflite`: int8 and float TFLite files beside the TFLite interpreter, and the int8 ResNet8 on to RTL.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import ROOT, Check, main, told
from benchmarks.models.quantized_onnx import qonnx, static
from benchmarks.models.tflite_files import tflite
from bitfab.dtypes import dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.frontend.onnx import Network, load_onnx
from bitfab.frontend.torch import capture
from bitfab.ir import run
from bitfab.ir.run_fast import run_fast
from bitfab.quant import quantize as quantize_network

DATA = ROOT.parent / "shared" / "data"
TOLERANCE = 1e-4  # relative to the largest value of the output: float32, summed in another order


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    """All checks of the wanted parts."""
    if not (DATA / "models").is_dir():
        sys.exit(f"{DATA / 'models'}: absent; nothing measured")
    torch.set_num_threads(1)
    (ROOT / "build" / "bench").mkdir(parents=True, exist_ok=True)
    return [check for part in arguments.parts.split(",") for check in told(PARTS[part](arguments))]


def _float(arguments: argparse.Namespace) -> Iterator[Check]:
    for path in sorted((DATA / "models").glob("*.onnx")):
        start = time.perf_counter()
        try:
            network = load_onnx(path)
        except BitfabError as error:
            known = "quantized already" in str(error) or "opset 9" in str(error)
            yield Check(f"{path.name}: refused as quantized, or too old", float(known), "1", known)
            continue
        yield Check(f"{path.name}: loading, s", time.perf_counter() - start)
        yield from _compared(path, network, _photos(network, arguments.photos))


def _compared(path: Path, network: Network, x: NDArray[np.float32]) -> Iterator[Check]:
    name, expected = path.name, _runtime(path, x)
    with torch.no_grad():
        found = network(torch.from_numpy(x)).numpy()
    yield Check.at_most(f"{name}: module - onnxruntime, of the largest", _difference(found, expected), TOLERANCE)
    start = time.perf_counter()
    normal = capture(network, torch.from_numpy(x[:1]))
    yield Check(f"{name}: capture, s", time.perf_counter() - start)
    with torch.no_grad():
        found = normal(torch.from_numpy(x)).numpy()
    yield Check.at_most(f"{name}: normal form - onnxruntime, of the largest", _difference(found, expected), TOLERANCE)
    start = time.perf_counter()
    graph = quantize_network(normal, [x])
    yield Check(f"{name}: quantize on {len(x)} photos, s", time.perf_counter() - start)
    value, output = graph.inputs[0], graph.output_values[0]
    codes = quantize(x, value.qparams, value.type)
    made = np.asarray(run_fast(graph, codes))
    mismatches = int((made[:1] != run(graph, codes[:1])).sum())
    yield Check.at_most(f"{name}: integers that run and run_fast give differently", mismatches, 0)
    noise = dequantize(made, output.qparams) - expected
    yield Check(f"{name}: integer graph, dB", float(10 * np.log10((expected**2).sum() / (noise**2).sum())))
    yield Check(f"{name}: nodes of the integer graph", len(graph.nodes))


def _photos(network: Network, count: int) -> NDArray[np.float32]:
    """Photos (N, 3, H, W) as BGR of 0 to 255, resized to what the network takes."""
    _, _, height, width = network.input_shape
    photos = sorted((DATA / "coco" / "val2017").glob("*.jpg"))[:count]
    if not photos or height is None or width is None:
        sys.exit(f"{DATA / 'coco'}: no photos, or a network of open shape; nothing measured")
    pixels = [np.asarray(Image.open(photo).convert("RGB").resize((width, height))) for photo in photos]
    return np.stack(pixels)[:, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)


def _runtime(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What onnxruntime gives, photo by photo, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in x])


def _difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Check]]] = {
    "float": _float,
    "qonnx": lambda arguments: qonnx(arguments.images),
    "static": lambda arguments: static(arguments.images),
    "tflite": lambda _: tflite(ROOT / "build" / "resnet8"),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="models of others, imported")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}, separated by commas")
    parser.add_argument("--photos", type=int, default=8, help="that are compared and calibrated on")
    parser.add_argument("--images", type=int, default=500, help="inputs of each quantized ONNX file")
    main(measure, parser)
