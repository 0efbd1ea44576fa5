"""The Typer application, and the options that several commands share."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfab.terminal import console

if TYPE_CHECKING:
    from bitfab.hw.design import Target

app = typer.Typer(
    name="bitfab",
    help="From a trained neural network to a verified FPGA design.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

GraphFile = Annotated[
    Path, typer.Argument(help="A quantized network: .safetensors, .onnx or .tflite.", show_default=False)
]
Part = Annotated[str, typer.Option(metavar="PART", help="A device of `bitfab parts`, such as ecp5-85k.")]
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


def named_target(part: str, clock: float) -> Target:
    from bitfab.hw.design import Target
    from bitfab.parts import find_part

    return Target(find_part(part).name, clock)
