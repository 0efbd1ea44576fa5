"""The command line: `bitfab demo | quantize | build | inspect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bitfab.errors import BitfabError

app = typer.Typer(
    name="bitfab",
    help="From a trained neural network to a verified FPGA design.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Target = Annotated[str, typer.Option(help="FPGA part: ecp5-25k, ecp5-45k or ecp5-85k.")]
Clock = Annotated[float, typer.Option(help="Clock to aim at, in MHz.")]


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2, never a traceback."""
    try:
        app()
    except BitfabError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {_escaped(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="qubit, qubit-447 or digits.")] = "qubit",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; build/NAME by default.")] = None,
    target: Target = "ecp5-85k",
    clock: Clock = 80.0,
    images: Annotated[int | None, typer.Option(help="Test images to prove in simulation.", min=1)] = None,
) -> None:
    """Run a shipped application end to end: quantize, generate, prove, place and route, report."""
    from bitfab import flow
    from bitfab.hw.design import Target as Part

    folder = output or Path("build") / name
    with _Stages() as stages:
        result = flow.demo(name, folder, target=Part(target, clock), images=images, stages=stages.watch)
    _summary(result, folder)


@app.command()
def quantize(
    network: Annotated[str, typer.Argument(help="A network: MODULE:NAME in Python, or a shipped one (zoo:qubit).")],
    calib: Annotated[
        Path, typer.Option(help="Calibration data: .npy, or .npz with one array; (N, C, H, W) or (N, F).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The graph's file, .safetensors.")],
    weights: Annotated[int, typer.Option(help="Bits of the weights, 2 to 16.")] = 8,
    activations: Annotated[int, typer.Option(help="Bits of the activations, 2 to 16.")] = 8,
    observer: Annotated[str, typer.Option(help="minmax, moving_average, percentile or mse.")] = "minmax",
    scale: Annotated[str, typer.Option(help="real or po2 (powers of two).")] = "real",
    exclude: Annotated[list[str] | None, typer.Option(help="Layers to keep at 16 bits; may be repeated.")] = None,
    parameters: Annotated[Path | None, typer.Option(help="The network's state_dict, .safetensors.")] = None,
) -> None:
    """Quantize a trained network to an exact integer graph."""
    from bitfab import inputs
    from bitfab.dtypes import ScaleKind
    from bitfab.ir.serialize import save
    from bitfab.quant import ObserverKind, Recipe
    from bitfab.quant import quantize as quantize_network

    recipe = Recipe(
        weights=weights,
        activations=activations,
        observer=inputs.choice(ObserverKind, observer, "--observer"),
        scale=inputs.choice(ScaleKind, scale, "--scale"),
        exclude=tuple(exclude or ()),
    )
    data = inputs.array(calib)
    net = inputs.network(network, parameters)
    with console.status(f"quantizing {network} on {len(data)} inputs"):
        graph = quantize_network(
            net, (data[i : i + 16] for i in range(0, len(data), 16)), recipe, inputs.identifier(output.stem)
        )
        save(graph, output)
    console.print(f"{output}: {len(graph.nodes)} operations, {output.stat().st_size:,} bytes")


@app.command()
def build(
    graph: Annotated[Path, typer.Argument(help="A quantized network, .safetensors.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the design and its report.")],
    target: Target = "ecp5-85k",
    clock: Clock = 80.0,
    parallelism: Annotated[int, typer.Option(help="Multipliers to spread over the layers.", min=1)] = 64,
    fold: Annotated[list[str] | None, typer.Option(help="LAYER=PExSIMD fixes one layer; may be repeated.")] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Inputs to simulate, .npy or .npz; random ones by default.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many inputs to simulate.", min=1)] = 8,
    place: Annotated[bool, typer.Option(help="Synthesize, place and route too.")] = True,
) -> None:
    """Generate a design, prove it equal to the graph, place and route it, and report."""
    from bitfab import flow, inputs
    from bitfab.hw import generate
    from bitfab.hw.design import Target as Part
    from bitfab.ir.serialize import load
    from bitfab.tools.nextpnr import find_part

    find_part(target)
    network = load(graph)
    data = inputs.array(vectors)[:images] if vectors else inputs.random_codes(network, images)
    design = generate(network, Part(target, clock), parallelism, inputs.foldings(fold or []))
    with _Stages() as stages:
        result = flow.build(design, data, output, place=place, stages=stages.watch)
    _summary(result, output)


@app.command()
def inspect(graph: Annotated[Path, typer.Argument(help="A quantized network, .safetensors.")]) -> None:
    """Show a quantized network: operations, shapes, types, proven ranges, MACs."""
    from bitfab.ir.ops import macs
    from bitfab.ir.serialize import load

    network = load(graph)
    table = Table(title=network.name, title_justify="left")
    for column, justify in (("layer", "left"), ("operation", "left"), ("inputs", "left"), ("shape", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for column in ("type", "range", "MACs"):
        table.add_column(column, justify="right")
    for value in network.inputs:
        table.add_row(value.name, "input", "", _shape(value.shape), str(value.type), f"{value.low} to {value.high}", "")
    total = 0
    for node in network:
        count, out = macs(node.op, node.output.shape), node.output
        total += count
        cells = [_shape(out.shape), str(out.type), f"{out.low} to {out.high}", f"{count:,}" if count else ""]
        table.add_row(node.name, type(node.op).__name__, ", ".join(node.inputs), *cells)
    console.print(table)
    console.print(f"outputs: {', '.join(network.outputs)}; {total:,} MACs an inference")


class _Stages:
    """Progress on the terminal: one line a stage."""

    def __init__(self) -> None:
        from bitfab.backend import Stages

        columns = (SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(bar_width=24), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}
        self.watch = Stages(self._update)

    def __enter__(self) -> _Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _update(self, stage: str, done: float) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=None)
        self._progress.update(self._tasks[stage], total=1.0 if done else None, completed=done)
        if not console.is_terminal and done == 1.0:
            console.print(f"{stage}: done")


def _summary(result: object, folder: Path) -> None:
    from bitfab.report import Report

    assert isinstance(result, Report)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, text in _figures(result):
        table.add_row(name, text)
    console.print(table)
    console.print(f"report: {folder / 'report.html'} and report.json; design: {folder / 'rtl'}")


def _figures(result: object) -> list[tuple[str, str]]:
    from bitfab.report import Report

    assert isinstance(result, Report)
    rows = []
    accuracy, check, time, used = result.accuracy, result.verification, result.timing, result.resources
    if accuracy.metric is not None and accuracy.float is not None and accuracy.int8 is not None:
        rows.append((accuracy.metric.value, f"float {accuracy.float:.4f}, int8 {accuracy.int8:.4f}"))
    compared = f"{check.values_compared:,} values of {check.images} images, {check.mismatches} mismatches"
    rows.append(("verified", compared))
    rows.append(("cycles", f"{time.cycles_per_image:,} an image, latency {time.latency_cycles:,}"))
    if time.fmax_mhz is not None and time.images_per_second is not None and time.gops is not None:
        rows.append(("speed", f"{time.fmax_mhz:.1f} MHz, {time.images_per_second:,.0f} images/s, {time.gops:.1f} GOPS"))
        rows.append((used.part, f"{used.lut:,} LUT, {used.ff:,} FF, {used.dsp} DSP, {used.bram} BRAM"))
    if time.mac_utilization is not None:
        rows.append(("MAC utilization", f"{100 * time.mac_utilization:.1f} % in the slowest layer"))
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
