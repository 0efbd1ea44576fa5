"""Damaged files of every kind that is read: never a traceback, a hang or much memory; a clear error of one line.

    python benchmarks/fuzz.py [--files N] [--seed S] [--json FILE]

Each kind is read in a process of its own, whose address space is limited to what torch takes and 2 GiB: files of ONNX
and TFLite are read and captured (where the network's input is small), graphs of bitfab are loaded and verified. Half of
the files have bytes changed, the others (of ONNX) numbers, names and shapes in a structure that still parses.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from onnx import ModelProto

from benchmarks.common import ROOT, Check, main, told
from bitfab.errors import BitfabError
from bitfab.frontend.onnx import example_input, load_onnx
from bitfab.frontend.tflite import load_tflite
from bitfab.frontend.torch import capture
from bitfab.ir import serialize
from bitfab.quant import quantize
from tests.mutations import damaged, damaged_onnx
from tests.onnx_files import damage_targets

MODELS = ROOT.parent / "shared" / "data" / "models"
SHARES = {"onnx": 0.5, "tflite": 0.25, "safetensors": 0.25}
LONGEST = 10.0  # seconds of processor time for one file
ROOM = 2 << 30  # bytes beyond what the process has mapped once all is imported


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    """The counts of each kind of file, each from a process of its own."""
    checks = []
    for kind, share in SHARES.items():
        if kind == "tflite" and not MODELS.is_dir():
            print(f"{MODELS}: absent; no TFLite files are damaged", file=sys.stderr)
            continue
        command = [sys.executable, __file__, "--kind", kind, "--files", str(int(arguments.files * share))]
        done = subprocess.run([*command, "--seed", str(arguments.seed)], capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
        found = json.loads(done.stdout) if not done.returncode else {"failed": 1}
        checks += list(told(_checks(kind, found)))
    return checks


def _checks(kind: str, found: dict[str, float]) -> Iterator[Check]:
    if "failed" in found:
        yield Check.at_most(f"{kind}: process died", 1, 0)
        return
    yield Check(f"{kind}: files", found["files"])
    yield Check(f"{kind}: of these taken", found["taken"])
    yield Check.at_most(f"{kind}: neither taken nor refused by one line", found["wrong"], 0)
    yield Check.at_most(f"{kind}: longest, s", found["longest"], LONGEST)
    yield Check.at_most(f"{kind}: most memory beyond the imports, MiB", found["memory"], ROOM >> 20)


def _originals(kind: str) -> list[bytes]:
    """Sound files of the kind."""
    if kind == "onnx":
        return [model.SerializeToString() for model in damage_targets()]
    if kind == "tflite":
        return [path.read_bytes() for path in sorted(MODELS.glob("*.tflite")) if path.stat().st_size < 1 << 20]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(27, 2))
    with TemporaryDirectory() as folder:
        serialize.save(quantize(net, [torch.randn(4, 2, 5, 5)]), path := Path(folder) / "net.safetensors")
        return [path.read_bytes()]


def _read_onnx(path: Path) -> None:
    network = load_onnx(path)
    if max(size or 1 for size in network.input_shape) < 100:
        capture(network, example_input(network))


def _read_tflite(path: Path) -> None:
    load_tflite(path)


READERS: dict[str, Callable[[Path], object]] = {
    "onnx": _read_onnx,
    "tflite": _read_tflite,
    "safetensors": serialize.load,
}


def _attack(kind: str, files: int, seed: int) -> dict[str, float]:
    """Read so many damaged files of the kind, one after the other, in this process, its memory limited."""
    rng, originals = np.random.default_rng(seed), _originals(kind)
    found = {"files": float(files), "taken": 0.0, "refused": 0.0, "wrong": 0.0, "longest": 0.0}
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"net.{kind}"
        path.write_bytes(originals[0])
        READERS[kind](path)  # all that is imported late, is now
        before = _mapped()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resource.setrlimit(resource.RLIMIT_AS, (before + ROOM, before + ROOM))
        for number in range(files):
            original = originals[number % len(originals)]
            whole = kind != "onnx" or number % 4 < 2
            path.write_bytes(damaged(original, rng) if whole else damaged_onnx(ModelProto.FromString(original), rng))
            start = time.process_time()
            found[_outcome(READERS[kind], path)] += 1
            found["longest"] = max(found["longest"], time.process_time() - start)
    found["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    return found


def _outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except BitfabError as error:
        return "refused" if "\n" not in str(error) else "wrong"
    except BaseException:
        traceback.print_exc(limit=-3)
        return "wrong"
    return "taken"


def _mapped() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="damaged files")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=SHARES, help=argparse.SUPPRESS)  # what the processes are called with
    if "--kind" in sys.argv:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        wanted = parser.parse_args()
        print(json.dumps(_attack(wanted.kind, wanted.files, wanted.seed)))
    else:
        main(measure, parser)
