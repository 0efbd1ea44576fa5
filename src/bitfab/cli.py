"""The command line: `bitfab demo | quantize | debug | train | build | inspect`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bitfab.errors import BitfabError
from bitfab.terminal import Stages, Steps, console, fail, say, show_diagnosis

if TYPE_CHECKING:
    from bitfab.hw.design import Target
    from bitfab.quant import Recipe
    from bitfab.report import Report

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

app = typer.Typer(
    name="bitfab",
    help="From a trained neural network to a verified FPGA design.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

GraphFile = Annotated[Path, typer.Argument(help="A quantized network, .safetensors.", show_default=False)]
Part = Annotated[str, typer.Option(metavar="PART", help="ecp5-25k, ecp5-45k or ecp5-85k.")]
Clock = Annotated[float, typer.Option(metavar="MHZ", help="Clock that place and route aims at.", min=1, max=1000)]
Calibration = typer.Option(
    metavar="FILE", help="Typical inputs: .npy, or .npz of one array; reals (N, C, H, W) or (N, F)."
)
Weights = Annotated[int, typer.Option(help="Bits of the weights, 1 to 16.", min=1, max=16)]
Activations = Annotated[int, typer.Option(help="Bits of the activations, 1 to 16.", min=1, max=16)]
Observer = Annotated[str, typer.Option(help="minmax, moving_average, percentile, mse, entropy or batch_norm.")]
Scale = Annotated[str, typer.Option(help="real or po2 (powers of two).")]
PerChannel = Annotated[bool, typer.Option(help="One scale for each output channel's weights, or one for a layer's.")]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="LAYER", help="A layer to keep at 16 bits; may be repeated.")
]
Parameters = Annotated[Path | None, typer.Option(metavar="FILE", help="The network's state_dict, .safetensors.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default on the process's own arguments, and exit.

    A user's error, and any failure of the file system, is one line on stderr and exit code 2, never a traceback.
    """
    try:
        app(arguments, prog_name="bitfab")
    except BitfabError as error:
        fail(str(error), USER_ERROR)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}; free space, or choose another place", USER_ERROR)
    except MemoryError:
        fail("not enough memory; give fewer or smaller inputs", USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _show_version(wanted: bool) -> None:
    if wanted:
        console().print(f"bitfab {version('bitfab')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


@app.command()
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
    with Stages() as stages:
        result = flow.demo(name, folder, target=_target(target, clock), images=images, stages=stages.watch)
    _summary(result, folder)


@app.command()
def quantize(
    network: Annotated[
        str, typer.Argument(help="A network: MODULE:NAME in Python, or a shipped one (zoo:qubit).", show_default=False)
    ],
    calib: Annotated[Path, Calibration],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The graph's file, .safetensors.")],
    weights: Weights = 8,
    activations: Activations = 8,
    observer: Observer = "minmax",
    scale: Scale = "real",
    per_channel: PerChannel = True,
    equalize: Annotated[bool, typer.Option("--equalize", help="First even out the channels' ranges.")] = False,
    bias_correction: Annotated[str, typer.Option(help="none, empirical or analytic.")] = "none",
    adaround: Annotated[
        int, typer.Option(metavar="N", help="Learn each weight's rounding in N iterations a layer, such as 300.", min=0)
    ] = 0,
    exclude: Exclude = None,
    parameters: Parameters = None,
) -> None:
    """Quantize a trained network to an exact integer graph."""
    from bitfab import inputs
    from bitfab.ir.serialize import save
    from bitfab.quant import AdaRound, BiasCorrection
    from bitfab.quant import quantize as quantize_network

    recipe = replace(
        _recipe(weights, activations, observer, scale, per_channel, exclude),
        equalize=equalize,
        bias_correction=inputs.choice(BiasCorrection, bias_correction, "--bias-correction"),
        adaround=AdaRound(adaround) if adaround else None,
    )
    file, data, net = inputs.graph_file(output), inputs.array(calib), inputs.network(network, parameters)
    with Steps() as steps:
        graph = quantize_network(net, [data], recipe, file.stem, steps.update)
        save(graph, file)
    say(f"{file}: {len(graph.nodes)} operations, {file.stat().st_size:,} bytes, calibrated on {len(data)} inputs")


@app.command()
def debug(
    network: Annotated[
        str, typer.Argument(help="qubit, qubit-447 or digits; or a network: MODULE:NAME in Python.", show_default=False)
    ],
    calib: Annotated[Path | None, Calibration] = None,
    tests: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inputs to judge by, like --calib; by default the same.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Their classes, integers (N,): judge by top-1, else by SQNR.")
    ] = None,
    weights: Weights = 8,
    activations: Activations = 8,
    observer: Observer = "minmax",
    scale: Scale = "real",
    per_channel: PerChannel = True,
    exclude: Exclude = None,
    parameters: Parameters = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as JSON too.")] = None,
) -> None:
    """Tell which layer hurts when a network is quantized, and what helps."""
    from bitfab import flow, inputs
    from bitfab.applications import NAMES
    from bitfab.output import write_whole
    from bitfab.quant import debug as debug_network
    from bitfab.report import to_json

    recipe = _recipe(weights, activations, observer, scale, per_channel, exclude)
    if json:
        inputs.new_file(json)
    given = {"--calib": calib, "--tests": tests, "--labels": labels, "--parameters": parameters}
    with Steps() as steps:
        if network in NAMES:
            if any(given.values()):
                named = ", ".join(option for option, file in given.items() if file)
                raise BitfabError(f"{network}: has data and parameters of its own; leave {named} out")
            found, metric = flow.debug_application(network, recipe, steps.update)
        elif calib is None:
            raise BitfabError(f"{network}: no calibration data; give --calib FILE, or one of {', '.join(NAMES)}")
        else:
            data = inputs.array(calib)
            judged = inputs.array(tests) if tests else data
            truth = inputs.labels(labels, len(judged)) if labels else None
            net, metric = inputs.network(network, parameters), "SQNR, dB" if truth is None else "top-1"
            found = debug_network(net, [data], None, recipe, steps.update, tests=[judged], labels=truth)
    show_diagnosis(found, metric)
    if json:
        content = {"network": network, "metric": metric, "findings": found.findings, "table": found}
        write_whole(json, to_json(content, "debug"))


@app.command()
def train(
    data: Annotated[
        Path,
        typer.Argument(help="Samples, .npz: `x` (N, F), integers or reals, and labels `y` (N,).", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The graph's file, .safetensors.")],
    tables: Annotated[str, typer.Option(metavar="N[,N...]", help="Truth tables a layer.")] = "300",
    fan_in: Annotated[int, typer.Option(help="Inputs of a table.", min=2, max=6)] = 6,
    method: Annotated[str, typer.Option(help="gradient, genetic, or both (gradient first).")] = "gradient",
    levels: Annotated[int, typer.Option(help="Bits of each feature's thermometer code; 0: its own bits.", min=0)] = 15,
    features: Annotated[
        str | None, typer.Option(metavar="FIRST-LAST", help="Features that it may read, such as 2-99; all by default.")
    ] = None,
    bits: Annotated[int, typer.Option(help="Bits of a real feature as an integer.", min=2, max=16)] = 8,
    epochs: Annotated[int, typer.Option(help="Of training by gradients.", min=1)] = 20,
    temperature: Annotated[
        float | None, typer.Option(help="Of the gradients' softmax; a larger one learns less by heart.", min=0.01)
    ] = None,
    generations: Annotated[int, typer.Option(help="Of the genetic search.", min=1)] = 1000,
    unseen: Annotated[
        int,
        typer.Option(
            metavar="N", help="Free table entries that fewer than N samples read: smaller, less exact.", min=0
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of all chance.", min=0)] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where a search is kept, and goes on from.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes of a search; the result is the same.", min=1)] = 1,
) -> None:
    """Train a LUT network: no multiplier, an answer in nanoseconds."""
    from bitfab import inputs
    from bitfab.ir.serialize import save
    from bitfab.lutnet.fit import LutRecipe, Method, answers, train_luts

    widths, kind = inputs.counts(tables, "--tables"), inputs.choice(Method, method, "--method")
    recipe = LutRecipe(
        widths,
        fan_in,
        kind,
        levels,
        read=inputs.span(features, "--features") if features else None,
        bits=bits,
        epochs=epochs,
        temperature=temperature,
        generations=generations,
        unseen=unseen,
        seed=seed,
    )
    file, (samples, labels) = inputs.graph_file(output), inputs.labelled(data)
    with Steps() as steps:
        graph = train_luts(samples, labels, recipe, file.stem, steps.update, checkpoint, workers)
        save(graph, file)
    right = float((answers(graph, samples) == labels).mean())
    say(f"{file}: {right:.2%} of the {len(samples)} samples it was trained on; judge it on others")


@app.command()
def build(
    graph: GraphFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the design and its report.")],
    target: Part = "ecp5-85k",
    clock: Clock = 80.0,
    parallelism: Annotated[int, typer.Option(help="Multipliers to spread over the layers.", min=1)] = 64,
    fold: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER=PExSIMD", help="Folding of one layer, such as conv1=8x4; may be repeated."),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(help="stream, or parallel (all at once, a frame a cycle); by default as the operations ask."),
    ] = None,
    levels: Annotated[
        int | None, typer.Option(help="Parallel: levels of logic between registers, 0 for none within.", min=0)
    ] = None,
    serial: Annotated[bool, typer.Option("--serial", help="Parallel: the input comes one integer a cycle.")] = False,
    language: Annotated[str, typer.Option(help="Parallel: verilog or vhdl (proved by GHDL).")] = "verilog",
    vectors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inputs to simulate, .npy or .npz; random ones by default.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many inputs to simulate, at most.", min=1)] = 8,
    place: Annotated[bool, typer.Option(help="Synthesize, place and route too.")] = True,
) -> None:
    """Generate a design, prove it equal to the graph, place and route it, and report."""
    from bitfab import flow, inputs
    from bitfab.hw import generate
    from bitfab.ir.serialize import load
    from bitfab.output import check_folder

    part, folding = _target(target, clock), inputs.foldings(fold or [])
    check_folder(output)
    network = load(graph)
    design = generate(network, part, parallelism, folding, style=style, levels=levels, serial=serial, language=language)
    data = inputs.array(vectors)[:images] if vectors else inputs.random_codes(network, images)
    with Stages() as stages:
        result = flow.build(design, data, output, place=place, stages=stages.watch)
    _summary(result, output)


@app.command()
def inspect(graph: GraphFile) -> None:
    """Show a quantized network: operations, shapes, types, proven ranges, MACs."""
    from bitfab.ir.infer import macs
    from bitfab.ir.serialize import load

    network = load(graph)
    table = Table(title=network.name, title_justify="left")
    for column in ("layer", "operation", "inputs"):
        table.add_column(column)
    for column in ("shape", "type", "range", "MACs"):
        table.add_column(column, justify="right")
    for value in network.inputs:
        table.add_row(value.name, "input", "", _shape(value.shape), str(value.type), f"{value.low} to {value.high}", "")
    total = 0
    for node in network:
        count, out = macs(node.op, node.output.shape), node.output
        total += count
        cells = [_shape(out.shape), str(out.type), f"{out.low} to {out.high}", f"{count:,}" if count else ""]
        table.add_row(node.name, type(node.op).__name__, ", ".join(node.inputs), *cells)
    console().print(table)
    say(f"outputs: {', '.join(network.outputs)}; {total:,} MACs an inference")


def _recipe(
    weights: int, activations: int, observer: str, scale: str, per_channel: bool, exclude: list[str] | None
) -> Recipe:
    from bitfab import inputs
    from bitfab.dtypes import ScaleKind
    from bitfab.quant import ObserverKind, Recipe

    return Recipe(
        weights=weights,
        activations=activations,
        observer=inputs.choice(ObserverKind, observer, "--observer"),
        scale=inputs.choice(ScaleKind, scale, "--scale"),
        per_channel=per_channel,
        exclude=tuple(exclude or ()),
    )


def _target(part: str, clock: float) -> Target:
    from bitfab.hw.design import Target
    from bitfab.tools.nextpnr import find_part

    return Target(find_part(part).name, clock)


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
        rows.append((used.part, f"{used.lut:,} LUT, {used.ff:,} FF, {used.dsp} DSP, {used.bram} BRAM"))
    if speed.mac_utilization is not None:
        rows.append(("MAC utilization", f"{100 * speed.mac_utilization:.1f} % in the slowest layer"))
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
