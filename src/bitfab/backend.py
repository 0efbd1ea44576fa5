"""A design meets the tools: simulated until it is proved equal to its graph, then synthesized, placed and routed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.hw.design import Design, Target, write_files
from bitfab.hw.testbench import Observed, observe, testbench
from bitfab.tools import nextpnr, verilator, yosys
from bitfab.tools.nextpnr import Placed
from bitfab.tools.process import ToolError
from bitfab.tools.yosys import Netlist

PAUSED_IMAGES = 2  # images of the run with random pauses
SEEDS = (1, 2, 3)  # of the placer
PAUSES = ("+idle=60", "+stall=60")  # per cent of cycles

Progress = Callable[[str, float], None]
"""Told the stage under way and how much of it is done, 0 to 1."""


@dataclass
class Stages:
    """Times each stage and tells a listener how far it is."""

    progress: Progress = lambda stage, done: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        self.progress(name, 0.0)
        start = time.perf_counter()
        yield lambda done: self.progress(name, done)
        self.seconds[name] = time.perf_counter() - start
        self.progress(name, 1.0)


@dataclass(frozen=True)
class Simulation:
    """What simulation found: all images without pauses, and a few with random pauses at both ends."""

    images: int
    steady: Observed
    paused: Observed

    @property
    def mismatches(self) -> int:
        return sum(self.steady.mismatches.values()) + sum(self.paused.mismatches.values())

    @property
    def values_compared(self) -> int:
        return sum(self.steady.values.values()) + sum(self.paused.values.values())


@dataclass(frozen=True)
class Implementation:
    """The design on the part: synthesized, placed and routed."""

    netlist: Netlist
    placed: Placed


def require_tools(target: Target, place: bool = True) -> None:
    """Raise BitfabError for an unknown part, or a missing tool of simulation and (with `place`) place and route."""
    nextpnr.find_part(target.part)
    verilator.require()
    if place:
        yosys.require()
        nextpnr.require()


def simulate(design: Design, images: IntArray, folder: Path, stages: Stages | None = None) -> Simulation:
    """Write the design with its testbench into `folder` and prove it equal to `ir.run` on whole images.

    images: (batch, *shape) integers of the graph's input. Raises BitfabError on any mismatch, naming the first.
    """
    stages = stages or Stages()
    if len(images) == 0:
        raise BitfabError("simulate: no images given; at least one is needed")
    with stages.stage("testbench vectors"):
        write_files(dict(design.files) | testbench(design, images), folder)
    sources = [folder / path for path in design.sources] + sorted((folder / "sim").glob("*.sv"))
    with stages.stage("compile simulator"):
        program = verilator.build(sources, "tb", folder / "sim" / "obj")
    with stages.stage("simulate") as done:
        steady = _run(design, program, folder, [f"+images={len(images)}"], len(images), done)
    with stages.stage("simulate with pauses") as done:
        count = min(PAUSED_IMAGES, len(images))
        paused = _run(design, program, folder, [f"+images={count}", *PAUSES], count, done)
    return Simulation(len(images), steady, paused)


def _run(
    design: Design, program: Path, folder: Path, arguments: Sequence[str], images: int, done: Callable[[float], None]
) -> Observed:
    finished = 0

    def watch(line: str) -> None:
        nonlocal finished
        if line.startswith("DONE"):
            finished += 1
            done(finished / images)

    try:
        lines = verilator.run(program, folder / "rtl", arguments=arguments, on_line=watch, time_limit=3600)
    except ToolError as error:
        seen = observe(design, list(error.lines))
        if not seen.complaints:
            raise
        raise BitfabError(f"{design.name}: the RTL differs from the integer graph: {seen.complaints[0]}") from error
    return observe(design, lines)


def synthesize(design: Design, folder: Path, stages: Stages | None = None) -> Implementation:
    """Synthesize with Yosys, then place and route with nextpnr; the design must already lie in `folder`.

    Below the target's clock, other seeds are tried and the best result is kept.
    """
    stages = stages or Stages()
    part = nextpnr.find_part(design.target.part)
    sources = [folder / path for path in design.sources]
    with stages.stage("synthesize"):
        netlist = yosys.synthesize_ecp5(sources, design.name, folder / "build")
    clock, results = design.target.clock_mhz, []
    with stages.stage("place and route"):
        for seed in SEEDS:
            results.append(
                nextpnr.place_and_route(netlist.json, part.name, folder / "build", target_mhz=clock, seed=seed)
            )
            if results[-1].fmax_mhz >= clock:
                break
    return Implementation(netlist, max(results, key=lambda placed: placed.fmax_mhz))
