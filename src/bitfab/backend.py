"""A design meets the tools: simulated until it is proved equal to its graph, then synthesized, placed and routed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError
from bitfab.hw.design import Design, Language, Target, write_files
from bitfab.hw.parallel import testbench as parallel
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.hw.project import project_files
from bitfab.hw.testbench import Observed, observe, testbench
from bitfab.parts import Part, Placer, Resources, find_part
from bitfab.tools import ghdl, nextpnr, verilator, yosys
from bitfab.tools.nextpnr import Placed
from bitfab.tools.process import OnLine, ToolError
from bitfab.tools.yosys import Netlist

PAUSED_IMAGES = 2  # images of the run with random pauses
SEEDS = (1, 2, 3)  # of the placer
IDLE = 60  # per cent of cycles in which the paused run gives no input, and takes no output

Progress = Callable[[str, float], None]
"""Told the stage under way and how much of it is done, 0 to 1."""

Run = Callable[[int, bool, OnLine], list[str]]
"""Simulates so many images, with pauses or without, and returns what the testbench printed."""


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
    """The design on the part: synthesized, placed and routed.

    Where a vendor's tool has to place, `placed` holds what synthesis counted, and no frequency.
    """

    netlist: Netlist
    placed: Placed


def require_tools(target: Target, place: bool = True, language: Language = Language.VERILOG) -> None:
    """Raise BitfabError for an unknown part, or a missing tool of simulation and (with `place`) place and route."""
    part = find_part(target.part)
    (ghdl if language is Language.VHDL else verilator).require()
    if place:
        yosys.require()
    if place and part.family.facts.placer is Placer.NEXTPNR:
        nextpnr.require(part.name)


def simulate(
    design: Design, images: IntArray | Sequence[IntArray], folder: Path, stages: Stages | None = None
) -> Simulation:
    """Write the design with its testbench into `folder` and prove it equal to `ir.run` on whole images.

    For a part whose vendor's tool places, a project for that tool is written too (`bitfab.hw.project`).

    images: (batch, *shape) integers of the graph's input, of several inputs one array each; a parallel design gets
    random frames too, or all there are where its input has up to 16 bits. Raises BitfabError on any mismatch, naming
    the first.
    """
    stages = stages or Stages()
    first, *others = [images] if isinstance(images, np.ndarray) else images
    count = len(first)
    if count == 0:
        raise BitfabError("simulate: no images given; at least one is needed")
    with stages.stage("testbench vectors"):
        if isinstance(design, ParallelDesign):
            frames = parallel.frames(design, first)
            count = len(frames)
            bench = parallel.testbench(design, frames)
        else:
            bench = testbench(design, [first, *others])
        write_files(dict(design.files) | bench | project_files(design), folder)
    run = _simulator(design, bench, folder, stages)
    with stages.stage("simulate") as done:
        steady = _observed(design, run, count, False, done)
    with stages.stage("simulate with pauses") as done:
        some = count if isinstance(design, ParallelDesign) else min(PAUSED_IMAGES, count)
        paused = _observed(design, run, some, True, done)
    return Simulation(count, steady, paused)


def _simulator(design: Design, bench: Iterable[str], folder: Path, stages: Stages) -> Run:
    """How the testbench in `folder`, of the files `bench`, is run: by Verilator, or by GHDL where it is in VHDL."""
    sources = [folder / path for path in design.sources]
    if design.language is Language.VHDL:
        whole = isinstance(design, ParallelDesign)
        sources += [folder / path for path in bench if path.endswith(".vhd")]

        def interpreted(images: int, paused: bool, on_line: OnLine) -> list[str]:
            idle, log = IDLE if paused else 0, folder / "sim" / "ghdl.log"
            generics = {"Idle": idle} if whole else {"Images": images, "Idle": idle, "Stall": idle}
            directory = folder / ("sim" if whole else "rtl")
            return ghdl.run_testbench(sources, "tb", directory, generics, log=log, time_limit=3600, on_line=on_line)

        return interpreted
    with stages.stage("compile simulator"):
        benches = sorted((folder / "sim").glob("*.sv"))
        program = verilator.build([*sources, *benches], "tb", folder / "sim" / "obj")

    def compiled(images: int, paused: bool, on_line: OnLine) -> list[str]:
        arguments = [f"+images={images}", *((f"+idle={IDLE}", f"+stall={IDLE}") if paused else ())]
        return verilator.run(program, folder / "rtl", arguments=arguments, on_line=on_line, time_limit=3600)

    return compiled


def _observed(design: Design, run: Run, images: int, paused: bool, done: Callable[[float], None]) -> Observed:
    finished = 0

    def watch(line: str) -> None:
        nonlocal finished
        if line.startswith("DONE"):
            finished += 1
            done(finished / images)

    try:
        lines = run(images, paused, watch)
    except ToolError as error:
        seen = observe(design, list(error.lines))
        if not seen.complaints:
            raise
        raise BitfabError(f"{design.name}: the RTL differs from the integer graph: {seen.complaints[0]}") from error
    return observe(design, lines)


def synthesize(design: Design, folder: Path, stages: Stages | None = None) -> Implementation:
    """Synthesize with Yosys, then place and route with nextpnr; the design must already lie in `folder`.

    Below the target's clock, other seeds are tried and the best result is kept. For a part that nextpnr does not know
    synthesis is all: `Part.family.facts.caveat` says so.
    """
    stages = stages or Stages()
    part = find_part(design.target.part)
    sources = [folder / path for path in design.sources]
    with stages.stage("synthesize"):
        if design.language is Language.VHDL:
            sources = [ghdl.to_verilog(sources, design.name, folder / "build" / f"{design.name}.v")]
        restructure = not isinstance(design, ParallelDesign)
        netlist = yosys.synthesize(sources, design.name, folder / "build", part, restructure=restructure)
    if part.family.facts.placer is not Placer.NEXTPNR:
        return Implementation(netlist, _counted(part, netlist))
    total = netlist.total  # of LUTs and flip-flops the placer packs some, and adds some
    nextpnr.check_fit(part, {"dsp": total.dsp, "bram": total.bram, "spram": total.spram})
    clock, results = design.target.clock_mhz, []
    with stages.stage("place and route"):
        for seed in SEEDS:
            placed = nextpnr.place_and_route(netlist.json, part.name, folder / "build", target_mhz=clock, seed=seed)
            results.append((placed.fmax_mhz or 0.0, placed))
            if results[-1][0] >= clock:
                break
    return Implementation(netlist, max(results, key=lambda result: result[0])[1])


def _counted(part: Part, netlist: Netlist) -> Placed:
    total = netlist.total
    used = Resources(total.lut, total.ff, total.dsp, total.bram)
    return Placed(part.name, None, used, part.available, (), "")
