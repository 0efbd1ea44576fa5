"""The command line: `bitfab demo | quantize | build | inspect`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bitfab.errors import BitfabError

if TYPE_CHECKING:
    from bitfab.hw.design import Target
    from bitfab.report import Report

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
PLAIN_WIDTH = 1000  # columns where the output is no terminal: nothing is cut off

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default on the process's own arguments, and exit.

    A user's error, and any failure of the file system, is one line on stderr and exit code 2, never a traceback.
    """
    try:
        app(arguments, prog_name="bitfab")
    except BitfabError as error:
        _fail(str(error), USER_ERROR)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}; free space, or choose another place", USER_ERROR)
    except MemoryError:
        _fail("not enough memory; give fewer or smaller inputs", USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _show_version(wanted: bool) -> None:
    if wanted:
        _console().print(f"bitfab {version('bitfab')}")
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
    name: Annotated[str, typer.Argument(help="qubit, qubit-447 or digits.")] = "qubit",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the design and its report; build/NAME by default.")
    ] = None,
    target: Part = "ecp5-85k",
    clock: Clock = 80.0,
    images: Annotated[
        int | None, typer.Option(help="Test images to prove in simulation; by default 20, digits 100.", min=1)
    ] = None,
) -> None:
    """Run a shipped application end to end: quantize, generate, prove, place and route, report."""
    from bitfab import flow

    folder = output or Path("build") / name
    with _Stages() as stages:
        result = flow.demo(name, folder, target=_target(target, clock), images=images, stages=stages.watch)
    _summary(result, folder)


@app.command()
def quantize(
    network: Annotated[
        str, typer.Argument(help="A network: MODULE:NAME in Python, or a shipped one (zoo:qubit).", show_default=False)
    ],
    calib: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Typical inputs: .npy, or .npz of one array; reals (N, C, H, W) or (N, F)."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The graph's file, .safetensors.")],
    weights: Annotated[int, typer.Option(help="Bits of the weights, 2 to 16.", min=2, max=16)] = 8,
    activations: Annotated[int, typer.Option(help="Bits of the activations, 2 to 16.", min=2, max=16)] = 8,
    observer: Annotated[str, typer.Option(help="minmax, moving_average, percentile or mse.")] = "minmax",
    scale: Annotated[str, typer.Option(help="real or po2 (powers of two).")] = "real",
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="A layer to keep at 16 bits; may be repeated.")
    ] = None,
    parameters: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The network's state_dict, .safetensors.")
    ] = None,
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
    file, data, net = inputs.graph_file(output), inputs.array(calib), inputs.network(network, parameters)
    console = _console()
    with console.status(f"quantizing on {len(data)} inputs"):
        graph = quantize_network(net, [data], recipe, file.stem)
        save(graph, file)
    _say(f"{file}: {len(graph.nodes)} operations, {file.stat().st_size:,} bytes, calibrated on {len(data)} inputs")


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
    design = generate(network, part, parallelism, folding)
    data = inputs.array(vectors)[:images] if vectors else inputs.random_codes(network, images)
    with _Stages() as stages:
        result = flow.build(design, data, output, place=place, stages=stages.watch)
    _summary(result, output)


@app.command()
def inspect(graph: GraphFile) -> None:
    """Show a quantized network: operations, shapes, types, proven ranges, MACs."""
    from bitfab.ir.ops import macs
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
    _console().print(table)
    _say(f"outputs: {', '.join(network.outputs)}; {total:,} MACs an inference")


class _Stages:
    """Progress: one moving line a stage on a terminal, else a line of text when a stage has ended."""

    def __init__(self) -> None:
        from bitfab.backend import Stages

        columns = (SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(bar_width=24), TimeElapsedColumn())
        console = _console()
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
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
        if self._progress.disable and stage in self.watch.seconds:
            _say(f"{stage}: {self.watch.seconds[stage]:.1f} s")


def _target(part: str, clock: float) -> Target:
    from bitfab.hw.design import Target
    from bitfab.tools.nextpnr import find_part

    return Target(find_part(part).name, clock)


def _summary(result: Report, folder: Path) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, text in _figures(result):
        table.add_row(name, text)
    _console().print(table)
    _say(f"report: {folder / 'report.html'} and report.json; design: {folder / 'rtl'}")


def _figures(result: Report) -> list[tuple[str, str]]:
    rows = []
    accuracy, check, speed, used = result.accuracy, result.verification, result.timing, result.resources
    if accuracy.metric is not None and accuracy.float is not None and accuracy.int8 is not None:
        rows.append((accuracy.metric.value, f"float {accuracy.float:.4f}, int8 {accuracy.int8:.4f}"))
    compared = f"{check.values_compared:,} values of {check.images} images, {check.mismatches} mismatches"
    rows.append(("verified", compared))
    rows.append(("cycles", f"{speed.cycles_per_image:,} an image, latency {speed.latency_cycles:,}"))
    if speed.fmax_mhz is not None and speed.images_per_second is not None and speed.gops is not None:
        pace = f"{speed.fmax_mhz:.1f} MHz, {speed.images_per_second:,.0f} images/s, {speed.gops:.1f} GOPS"
        rows.append(("speed", pace))
        rows.append((used.part, f"{used.lut:,} LUT, {used.ff:,} FF, {used.dsp} DSP, {used.bram} BRAM"))
    if speed.mac_utilization is not None:
        rows.append(("MAC utilization", f"{100 * speed.mac_utilization:.1f} % in the slowest layer"))
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _console(stderr: bool = False) -> Console:
    """The terminal; a file or a pipe gets lines of any length."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def _say(text: str) -> None:
    """A line as it is: no markup, no wrapping."""
    _console().print(text, markup=False, soft_wrap=True)


def _fail(message: str, code: int) -> NoReturn:
    """Show an error and exit; what a file smuggles into the message cannot steer the terminal."""
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
    _console(stderr=True).print(Text("error: ", "bold red").append(text, "default not bold"), soft_wrap=True)
    sys.exit(code)
