"""Commands that make hardware: demo, estimate, build."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bitfab.cli.app import Clock, GraphFile, Part, named_target
from bitfab.errors import BitfabError
from bitfab.terminal import StageBars, console, say

if TYPE_CHECKING:
    from bitfab.hw.design import Folding, Target
    from bitfab.ir import Graph
    from bitfab.report import Report

Parallelism = Annotated[int, typer.Option(help="Multipliers to spread over the layers.", min=1)]
Fold = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER=PExSIMD[:MULTIPLIER]",
        help="Folding of one layer, such as conv1=8x4 or conv1=8x4:luts (dsp, packed, luts); may be repeated.",
    ),
]
Share = Annotated[
    float | None,
    typer.Option("--fit", metavar="SHARE", help="As fast as fits into this share of the part, such as 0.8."),
]
Rate = Annotated[
    float | None, typer.Option(metavar="N", help="As small as gives N images a second at the clock.", min=1e-3)
]


def demo(
    name: Annotated[str, typer.Argument(help="qubit, qubit-447, digits, pulses, jets or mnist.")] = "qubit",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the design and its report; build/NAME by default.")
    ] = None,
    target: Part = "ecp5-85k",
    clock: Clock = 80.0,
    images: Annotated[
        int | None,
        typer.Option(help="Test images to prove in simulation; by default 20, digits 100, others 1000.", min=1),
    ] = None,
) -> None:
    """Run a shipped application end to end: quantize, generate, prove, place and route, report."""
    from bitfab import flow

    folder = output or Path("build") / name
    with StageBars() as stages:
        result = flow.demo(name, folder, target=named_target(target, clock), images=images, stages=stages.watch)
    _summary(result, folder)


def estimate(
    graph: GraphFile,
    target: Part = "ecp5-85k",
    clock: Clock = 80.0,
    parallelism: Parallelism = 64,
    fold: Fold = None,
    share: Share = None,
    rate: Rate = None,
) -> None:
    """Tell in seconds what a streaming design will take and how fast it will be; nothing is synthesized."""
    from bitfab import inputs
    from bitfab.hw import cost, generate
    from bitfab.parts import find_part

    part, network = named_target(target, clock), inputs.graph(graph)
    design = generate(network, part, parallelism, _foldings(network, part, fold, share, rate), style="stream")
    layers = cost.estimate(design)
    table = Table(title=f"{design.name} on {part.part}, estimated", title_justify="left")
    table.add_column("layer")
    for column in ("PE x SIMD", "products", "cycles", "LUT", "FF", "DSP", "BRAM"):
        table.add_column(column, justify="right")
    known = {layer.name: layer for layer in design.layers}
    for name, used in layers.items():
        layer = known.get(name)
        folded = f"{layer.folding.pe} x {layer.folding.simd}" if layer and layer.folding else ""
        products = layer.folding.multiplier or "" if layer and layer.folding else ""
        cycles = f"{layer.cycles:,}" if layer else ""
        table.add_row(name, folded, products, cycles, *(f"{count:,}" for count in astuple(used)))
    console().print(table)
    needed, has = cost.total(layers.values()), find_part(part.part).available
    pairs = zip(("LUT", "FF", "DSP", "BRAM"), astuple(needed), astuple(has), strict=True)
    say(f"needs about {', '.join(f'{count:,} of {most:,} {kind}' for kind, count, most in pairs)}")
    pace = 1e6 * part.clock_mhz / design.expected_cycles
    say(f"{design.expected_cycles:,} cycles an image: {pace:,.0f} images a second at {part.clock_mhz:g} MHz")


def build(
    graph: GraphFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the design and its report.")],
    target: Part = "ecp5-85k",
    clock: Clock = 80.0,
    parallelism: Parallelism = 64,
    fold: Fold = None,
    share: Share = None,
    rate: Rate = None,
    style: Annotated[
        str | None,
        typer.Option(help="stream, or parallel (all at once, a frame a cycle); by default as the operations ask."),
    ] = None,
    levels: Annotated[
        int | None, typer.Option(help="Parallel: levels of logic between registers, 0 for none within.", min=0)
    ] = None,
    serial: Annotated[bool, typer.Option("--serial", help="Parallel: the input comes one integer a cycle.")] = False,
    language: Annotated[str, typer.Option(help="verilog or vhdl (proved by GHDL).")] = "verilog",
    registers: Annotated[bool, typer.Option("--registers", help="A top with AXI-Lite registers too.")] = False,
    loadable: Annotated[bool, typer.Option("--loadable", help="With registers that can write the weights.")] = False,
    vectors: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Inputs to simulate, .npy or .npz, a file for each input; by default random."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="How many inputs to simulate, at most.", min=1)] = 8,
    place: Annotated[bool, typer.Option(help="Synthesize, place and route too.")] = True,
    board: Annotated[
        str | None, typer.Option(metavar="BOARD", help="ulx3s: its bitstream too, proved over its serial line.")
    ] = None,
) -> None:
    """Generate a design, prove it equal to the graph, place and route it, and report."""
    from bitfab import flow, inputs
    from bitfab.hw import generate
    from bitfab.output import check_folder

    part = named_target(target, clock)
    check_folder(output)
    network = inputs.graph(graph)
    folding = _foldings(network, part, fold, share, rate)
    design = generate(
        network,
        part,
        parallelism,
        folding,
        style=style,
        levels=levels,
        serial=serial,
        language=language,
        registers=registers or loadable,
        loadable=loadable,
    )
    data = [inputs.array(file)[:images] for file in vectors] if vectors else inputs.random_codes(network, images)
    with StageBars() as stages:
        result = flow.build(design, data, output, place=place, board=board, stages=stages.watch)
    _summary(result, output)
    if board:
        say(f"bitstream: {output / 'board' / f'{design.name}_{board}.bit'}; host: {output / 'board' / 'framing.json'}")


def parts() -> None:
    """List the devices that --target names, what each has, and who places and routes on it."""
    from bitfab.parts import table

    headings, rows = table()
    shown = Table(*headings)
    for row in rows:
        shown.add_row(*row)
    console().print(shown)


def _foldings(
    graph: Graph, target: Target, fold: list[str] | None, share: float | None, rate: float | None
) -> dict[str, Folding]:
    """The foldings that the user gives, or those that an integer program finds for a share of the part or a rate."""
    from bitfab import inputs
    from bitfab.hw.fit import SHARE, fit

    if share is None and rate is None:
        return inputs.foldings(fold or [])
    if fold:
        raise BitfabError("--fold: --fit and --rate choose every folding; leave either out")
    return fit(graph, target, SHARE if share is None else share, rate)


def _summary(result: Report, folder: Path) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, text in _figures(result):
        table.add_row(name, text)
    console().print(table)
    say(f"report: {folder / 'report.html'} and report.json; design: {folder / 'rtl'}")


def _figures(result: Report) -> list[tuple[str, str]]:
    from bitfab.report.text import latency

    rows = []
    accuracy, check, speed, used = result.accuracy, result.verification, result.timing, result.resources
    if accuracy.metric is not None and accuracy.float is not None and accuracy.integer is not None:
        rows.append((accuracy.metric.value, f"float {accuracy.float:.4f}, integer {accuracy.integer:.4f}"))
    compared = f"{check.values_compared:,} values of {check.images} images, {check.mismatches} mismatches"
    rows.append(("verified", compared))
    after = "" if speed.latency_us is None else f" ({latency(speed.latency_us)})"
    rows.append(("cycles", f"{speed.cycles_per_image:,} an image, latency {speed.latency_cycles:,}{after}"))
    if speed.fmax_mhz is not None and speed.images_per_second is not None and speed.gops is not None:
        gops = f", {speed.gops:.1f} GOPS" if speed.gops else ""
        pace = f"{speed.fmax_mhz:.1f} MHz, {speed.images_per_second:,.0f} images/s{gops}"
        rows.append(("speed", pace))
    if used.lut is not None:
        rows.append((used.part, f"{used.lut:,} LUT, {used.ff:,} FF, {used.dsp} DSP, {used.bram} BRAM"))
    if used.note:
        rows.append(("", used.note))
    if speed.mac_utilization is not None:
        rows.append(("MAC utilization", f"{100 * speed.mac_utilization:.1f} % in the slowest layer"))
    return rows
