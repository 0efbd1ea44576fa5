"""Exported ONNX files beside the integer graphs they come from, and their speed beside the float32 networks'.

    python benchmarks/export.py [--images N] [--repeats N] [--json FILE]

The qubit U-Net, the digits CNN, and where ../shared/data is there MLPerf Tiny's ResNet8 (its float TFLite file,
quantized here on CIFAR-10); each in three styles, run by onnxruntime (QONNX by its own executor, in an environment of
its own, on fewer images). Inputs are the reals that the graph's integer inputs mean: float32 and float64 put what lies
between two codes on different sides.

Speed: one thread, one image, INT8 and float32 in turns, medians; the small ResNet-18 has random weights.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

import bitfab as bf
from benchmarks.common import ROOT, Check, main, peer_python, told
from benchmarks.models.resnet import resnet18_small
from benchmarks.run_speed import network as plain
from bitfab import zoo
from bitfab.data import digits, qubit
from bitfab.dtypes import dequantize, quantize
from bitfab.export import Style, export_onnx
from bitfab.frontend.tflite import load_tflite
from bitfab.ir import Graph

DATA = ROOT.parent / "shared" / "data"
WORK = ROOT / "build" / "bench" / "export"
QONNX = ["qonnx==1.0.0", "onnx==1.21.0", "onnxruntime==1.31.0", "numpy==2.4.6"]
CALIBRATION = 64
QONNX_IMAGES = 10
WARMUP = 5

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """A network, images to calibrate and to test (N, C, H, W); `masks` says that decisions are signs of each pixel."""

    name: str
    network: nn.Module
    calibration: Images
    tests: Images
    masks: bool = False


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    """All checks, told as they come."""
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    return list(told(_checks(arguments.images, arguments.repeats)))


def _checks(images: int, repeats: int) -> Iterator[Check]:
    for task in _tasks(images):
        graph = bf.quantize(task.network, task.calibration, name=task.name.replace("-", "_"))
        files = {style: WORK / f"{task.name}-{style}.onnx" for style in Style}
        for style, file in files.items():
            export_onnx(graph, file, style)
            onnx.checker.check_model(onnx.load(file), full_check=True)
            yield Check(f"{task.name} {style}: KiB", file.stat().st_size / 1024)
        yield from _equality(task, graph, files)
        yield from _speed(task, files, repeats)
    yield from _larger(repeats)


def _tasks(images: int) -> Iterator[Task]:
    calibration, _ = qubit.generate(CALIBRATION, qubit.SPLIT_SEEDS["train"])
    tests, _ = qubit.generate(images, qubit.SPLIT_SEEDS["test"])
    yield Task("qubit", zoo.load("qubit"), calibration, tests, masks=True)
    data = digits.load()
    yield Task("digits", zoo.load("digits"), data.train_images[:CALIBRATION], data.test_images)
    model, cifar = DATA / "models" / "pretrainedResnet.tflite", DATA / "cifar10" / "cifar10_4000.npz"
    if not (model.exists() and cifar.exists()):
        print("resnet8: left out, ../shared/data is absent", file=sys.stderr)
        return
    with np.load(cifar) as file:
        pixels = next(file[key] for key in file.files if file[key].ndim == 4)[: CALIBRATION + images]
    pixels = pixels.transpose(0, 3, 1, 2) if pixels.shape[-1] == 3 else pixels
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)  # the network takes 0 to 255
    yield Task("resnet8", load_tflite(model), pixels[:CALIBRATION], pixels[CALIBRATION:])


def _equality(task: Task, graph: Graph, files: dict[Style, Path]) -> Iterator[Check]:
    (x,), (y,) = graph.inputs, graph.output_values
    assert x.qparams is not None and y.qparams is not None
    codes = quantize(task.tests, x.qparams, x.type)
    reals = dequantize(codes, x.qparams).astype(np.float32)
    wanted = np.asarray(bf.run_fast(graph, codes)).astype(np.int64)
    for style, file in files.items():
        count = QONNX_IMAGES if style is Style.QONNX else len(reals)
        made = _by_qonnx(file, reals[:count]) if style is Style.QONNX else _session(file).run(None, {x.name: reals})[0]
        found = np.rint(made.reshape(wanted[:count].shape) / y.qparams.scale[0]) + y.qparams.zero_point
        off = np.abs(found - wanted[:count])
        agree = _decisions(task, found, y.qparams.zero_point) == _decisions(task, wanted[:count], y.qparams.zero_point)
        name = f"{task.name} {style}"
        yield Check.at_most(f"{name}: largest difference, steps", float(off.max()), 1)
        yield Check.at_most(f"{name}: outputs off, %", 100 * float((off > 0).mean()), 5)
        yield Check(f"{name}: outputs off by more than 1, %", 100 * float((off > 1).mean()))
        yield Check.at_least(f"{name}: same decisions, %", 100 * float(agree.mean()), 99.5)


def _decisions(task: Task, codes: NDArray[np.generic], zero: int) -> NDArray[np.generic]:
    return codes > zero if task.masks else codes.reshape(len(codes), -1).argmax(axis=1)


def _by_qonnx(file: Path, images: Images) -> Images:
    """What QONNX's executor makes of a copy that takes one image."""
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 1
    single, given, made = (WORK / f"qonnx.{end}" for end in ("onnx", "in.npy", "out.npy"))
    onnx.save(model, single)
    np.save(given, images)
    script = Path(__file__).parent / "peers" / "interop_qonnx.py"
    subprocess.run([peer_python("qonnx", QONNX), script, single, given, made], check=True)
    return np.load(made)


def _speed(task: Task, files: dict[Style, Path], repeats: int) -> Iterator[Check]:
    image = task.tests[:1]
    real = _session(_float_file(task.name, task.network, image))
    for style in (Style.QDQ, Style.QOPERATOR):
        times = _interleaved([real, _session(files[style])], image, repeats)
        yield Check(f"{task.name} {style}: float32 time over INT8 time", times[0] / times[1])


def _larger(repeats: int) -> Iterator[Check]:
    """CNNs of useful size on 64x64 pixels: a plain one, and one whose additions the graph rounds as ONNX does not."""
    images = np.random.default_rng(0).normal(size=(17, 3, 64, 64)).astype(np.float32)
    for name, make in (("plain CNN", plain), ("resnet18-small", resnet18_small)):
        torch.manual_seed(0)
        task = Task(name.replace(" ", "-"), make().eval(), images[:16], images[16:])
        graph = bf.quantize(task.network, task.calibration)
        real = _session(_float_file(task.name, task.network, task.tests))
        for style in (Style.QDQ, Style.QOPERATOR):
            file = WORK / f"{task.name}-{style}.onnx"
            export_onnx(graph, file, style)
            times = _interleaved([real, _session(file)], task.tests, repeats)
            yield Check(f"{name} {style}: INT8, ms", 1e3 * times[1])
            yield Check.at_least(f"{name} {style}: float32 time over INT8 time", times[0] / times[1], 1.8)


def _float_file(name: str, network: nn.Module, image: Images) -> Path:
    """The float network as torch itself exports it."""
    file = WORK / f"{name}-float.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called old
        torch.onnx.export(network, (torch.from_numpy(image),), file, dynamo=False)
    return file


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])


def _interleaved(sessions: Sequence[onnxruntime.InferenceSession], image: Images, repeats: int) -> list[float]:
    """The median seconds of each session, called in turns."""
    times: list[list[float]] = [[] for _ in sessions]
    for repeat in range(WARMUP + repeats):
        for session, seconds in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: image})
            if repeat >= WARMUP:
                seconds.append(time.perf_counter() - start)
    return [float(np.median(seconds)) for seconds in times]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Exported ONNX files beside their integer graphs")
    parser.add_argument("--images", type=int, default=200, help="test images (digits: all 450)")
    parser.add_argument("--repeats", type=int, default=100, help="timed calls of each file")
    main(measure, parser)
