"""bitfab beside NNgen 1.3.4 (folded) and da4ml 0.6 (unrolled) on two INT8 networks: cycles, latency, LUT6, DSP, RAM.

    python benchmarks/hardware.py [--only jets-folded jets-unrolled digits-folded digits-unrolled] [--json FILE]

jets: the MLP 16-64-32-32-5, trained here on ../shared/data/jets; digits: 3x3x4 convolution, 2x2 max pool and dense on
8x8 images of scikit-learn. Both have scales of powers of two, so that a requantize is a shift for everybody.

Folded: our streaming design in Verilator, every value of every stream of all test frames compared (1,000 frames at
most); cycles between results and latency (first word in to last word out) are those measured. NNgen gets the same
weights (`peers/hardware_nngen.py` says what its int8 changes), 2 x 2 multipliers as its documentation has, its own
testbench in Icarus with its own memory model, and all outputs compared with its emulator; weights lie in that memory.

Unrolled: the same integers and widths, and da4ml's answers are compared with ours on all frames. LUT6 of the function
without registers inside; for both, registers and stages of their own pipelines are counted before synthesis.

LUT6, DSP48 and RAMB18 by the same `synth_xilinx` of Yosys for all; unrolled designs are mapped without restructuring
(which proves every step to itself, for half an hour). Peers live in environments of their own under build/peers.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, Check, main, peer_python, told
from benchmarks.models import datasets
from benchmarks.models.hardware_networks import NETWORKS, Trained, trained, write_integers
from bitfab.backend import simulate
from bitfab.hw.design import Design, write_files
from bitfab.hw.generate import generate
from bitfab.hw.parallel import build, pipeline
from bitfab.hw.parallel.cells import Netlist, Register
from bitfab.ir.run import run
from bitfab.tools.yosys import Counts, synthesize_xilinx

PEERS = ROOT / "benchmarks" / "peers"
REQUIREMENTS = {"nngen": ["nngen==1.3.4", "setuptools<81"], "da4ml": ["da4ml==0.6.0"]}
FRAMES = 1000  # of ours in simulation, at most
THEIR_FRAMES = 5  # of NNgen's: 3,200 cycles each, interpreted
UNROLLED_FRAMES = 200
DSPS = 16
FASTER, SOONER = 10, 4  # than NNgen: cycles between results, latency
LEVELS = (2, 4, 6)  # of logic in a stage of ours; an addition takes two, or three where it is wide


def measure(arguments: argparse.Namespace) -> Sequence[Check]:
    torch.set_num_threads(1)
    return list(told(check for part in arguments.only for check in _part(*part.split("-"))))


def _part(name: str, style: str) -> Iterator[Check]:
    if name == "jets" and not datasets.JETS.exists():
        print(f"{name}-{style}: left out, {datasets.JETS} is absent", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(prefix="bitfab-bench-") as folder:
        found = trained(name)
        yield Check(f"{name}: accuracy, float %", found.real)
        yield Check(f"{name}: accuracy, integers %", found.integer)
        yield from (_folded if style == "folded" else _unrolled)(name, found, Path(folder))


def _folded(name: str, found: Trained, folder: Path) -> Iterator[Check]:
    design = generate(found.graph, folding=NETWORKS[name].foldings)
    seen = simulate(design, found.x[:FRAMES], folder / "ours")
    ours = _cells(design, folder / "ours", restructure=True)
    cycles, latency = seen.steady.cycles_per_image, seen.steady.latency_cycles
    yield Check(f"{name}, folded: frames simulated", seen.images)
    yield Check(f"{name}, folded: values compared", seen.values_compared)
    yield Check.at_most(f"{name}, folded: mismatches", seen.mismatches, 0)
    yield from _counted(f"{name}, folded: ours", ours)
    theirs, their_cycles = yield from _nngen(name, found, folder)
    yield Check.at_most(f"{name}, folded: our LUT6, at most NNgen's", ours.lut, theirs.lut)
    yield Check.at_most(f"{name}, folded: our DSP48", ours.dsp, DSPS)
    yield Check(f"{name}, folded: our cycles between results", cycles)
    yield Check(f"{name}, folded: our latency, cycles", latency)
    yield Check.at_least(f"{name}, folded: fewer cycles between results, times", their_cycles / cycles, FASTER)
    yield Check.at_least(f"{name}, folded: less latency, times", their_cycles / latency, SOONER)


def _nngen(name: str, found: Trained, folder: Path) -> Any:
    """The checks of NNgen's design; returns its cells and its cycles a frame."""
    theirs = folder / "nngen"
    told = _peer("nngen", found, theirs, str(THEIR_FRAMES))
    if not shutil.which("iverilog"):
        raise SystemExit("iverilog is missing, which simulates NNgen's testbench: install Icarus Verilog")
    subprocess.run(["iverilog", "-o", "sim", "testbench.v"], cwd=theirs, check=True, stderr=subprocess.DEVNULL)
    lines = subprocess.run(["vvp", "-N", "sim"], cwd=theirs, check=True, capture_output=True, text=True).stdout
    cycles = [int(text) for text in re.findall(r"CYCLES +(\d+)", lines)]
    cells = synthesize_xilinx([theirs / "nngen.v"], "nngen", theirs / "synthesis").total
    yield from _counted(f"{name}, folded: NNgen's", cells)
    yield Check(f"{name}, folded: NNgen's cycles a frame, the fewest", min(cycles))
    same = lines.count("SAME")
    yield Check.at_least(f"{name}, folded: NNgen's outputs as its emulator has them", same, told["outputs"])
    return cells, min(cycles)


def _unrolled(name: str, found: Trained, folder: Path) -> Iterator[Check]:
    design = generate(found.graph, style="parallel", levels=0)
    seen = simulate(design, found.x[:UNROLLED_FRAMES], folder / "ours")
    yield Check(f"{name}, unrolled: frames simulated, random ones too", seen.images)
    yield Check.at_most(f"{name}, unrolled: mismatches", seen.mismatches, 0)
    told = _peer("da4ml", found, folder / "da4ml")
    answers = np.load(folder / "da4ml" / "y.npy")
    wrong = int((answers != np.asarray(run(found.graph, found.x))).sum())
    yield Check.at_most(f"{name}, unrolled: of {answers.size} outputs, da4ml's differ in", wrong, 0)
    yield Check(f"{name}, unrolled: da4ml's solver, CPU seconds", told["seconds"])
    start = time.process_time()
    netlist = build(found.graph)
    yield Check(f"{name}, unrolled: our solver, CPU seconds", time.process_time() - start)
    yield from _pipelines(f"{name}, unrolled", netlist, told["pipelines"])
    sources = [folder / "da4ml" / "src" / "da4ml.v", *sorted((folder / "da4ml" / "src" / "static").glob("*.v"))]
    theirs = synthesize_xilinx(sources, "da4ml", folder / "synthesis", restructure=False).total
    yield from _counted(f"{name}, unrolled: da4ml's", theirs)
    ours = _cells(design, folder / "ours", restructure=False)
    yield from _counted(f"{name}, unrolled: ours", ours)
    yield Check.at_most(f"{name}, unrolled: our LUT6, at most da4ml's", ours.lut, theirs.lut)


def _pipelines(name: str, netlist: Netlist, theirs: dict[str, dict[str, int]]) -> Iterator[Check]:
    for cutoff, made in theirs.items():
        what = f"{name}: da4ml's pipeline, {cutoff} additions a stage"
        yield Check(f"{what}: stages", made["stages"])
        yield Check(f"{what}: register bits", made["registers"])
    for levels in LEVELS:
        cut = pipeline(netlist, levels)
        bits = sum(cell.output.bits for cell in cut if isinstance(cell, Register))
        what = f"{name}: our pipeline, {levels} levels a stage"
        yield Check(f"{what}: stages", cut.stages)
        yield Check(f"{what}: register bits, both ends too", bits + netlist.input.bits + netlist.output.bits)


def _cells(design: Design, folder: Path, restructure: bool) -> Counts:
    write_files(dict(design.files), folder)
    sources = [folder / path for path in design.sources]
    return synthesize_xilinx(sources, design.name, folder / "xilinx", restructure=restructure).total


def _counted(name: str, counts: Counts) -> Iterator[Check]:
    yield Check(f"{name} LUT6", counts.lut)
    yield Check(f"{name} FF", counts.ff)
    yield Check(f"{name} DSP48", counts.dsp)
    yield Check(f"{name} RAMB18", counts.bram)


def _peer(peer: str, found: Trained, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a peer's script on the network; what it says of itself."""
    folder.mkdir(parents=True)
    file = folder / "network.npz"
    write_integers(found.graph, found.x, file)
    command: list[str | Path] = [
        peer_python(peer, REQUIREMENTS[peer]),
        PEERS / f"hardware_{peer}.py",
        file,
        folder,
        *arguments,
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parts = [f"{name}-{style}" for name in NETWORKS for style in ("folded", "unrolled")]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    main(measure, parser)
