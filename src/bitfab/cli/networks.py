"""Commands that start from a float network or from data: quantize, debug, train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfab.cli.app import Activations, Calibration, Exclude, Observer, Parameters, PerChannel, Scale, Weights
from bitfab.errors import BitfabError, choice
from bitfab.terminal import Steps, say, show_diagnosis

if TYPE_CHECKING:
    from bitfab.quant import Recipe


def quantize(
    network: Annotated[
        str,
        typer.Argument(
            help="A network: MODULE:NAME in Python, a float .onnx or .tflite file, or a shipped one (zoo:qubit).",
            show_default=False,
        ),
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
    preset: Annotated[
        str | None, typer.Option(help="detection: a recipe found for a detector; --calib is a folder of photos.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Detection: boxes of both networks on the photos, .html.")
    ] = None,
    parameters: Parameters = None,
) -> None:
    """Quantize a trained network to an exact integer graph."""
    from bitfab import detector, inputs
    from bitfab.ir.serialize import save
    from bitfab.quant import AdaRound, BiasCorrection
    from bitfab.quant import quantize as quantize_network
    from bitfab.quant.presets import PRESETS

    recipe = replace(
        _recipe(weights, activations, observer, scale, per_channel, exclude),
        equalize=equalize,
        bias_correction=choice(BiasCorrection, bias_correction, f"--bias-correction {bias_correction}"),
        adaround=AdaRound(adaround) if adaround else None,
    )
    if preset not in (None, *PRESETS):
        raise BitfabError(f"--preset {preset}: choose one of {', '.join(PRESETS)}")
    if report and not preset:
        raise BitfabError("--report: compares boxes; give --preset detection with it")
    for file in (inputs.graph_file(output), *([inputs.new_file(report)] if report else [])):
        inputs.new_file(file)
    net = inputs.network(network, parameters)
    data = detector.calibration(calib, net) if preset else [inputs.reals(calib)]
    with Steps() as steps:
        if preset:
            recipe = PRESETS[preset](net, data, steps.update)
        graph = quantize_network(net, data, recipe, output.stem, steps.update)
        save(graph, output)
    count = sum(1 if item.ndim == 3 else len(item) for item in data)
    say(f"{output}: {len(graph.nodes)} operations, {output.stat().st_size:,} bytes, calibrated on {count} inputs")
    if report:
        say(detector.report(report, net, graph, calib))


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
            data = inputs.reals(calib)
            judged = inputs.reals(tests) if tests else data
            truth = inputs.labels(labels, len(judged)) if labels else None
            net, metric = inputs.network(network, parameters), "SQNR, dB" if truth is None else "top-1"
            found = debug_network(net, [data], None, recipe, steps.update, tests=[judged], labels=truth)
    show_diagnosis(found, metric)
    if json:
        content = {"network": network, "metric": metric, "findings": found.findings, "table": found}
        write_whole(json, to_json(content, "debug"))


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

    widths, kind = inputs.counts(tables, "--tables"), choice(Method, method, f"--method {method}")
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
    if checkpoint:
        inputs.new_file(checkpoint)
    file, (samples, labels) = inputs.graph_file(output), inputs.labelled(data)
    with Steps() as steps:
        graph = train_luts(samples, labels, recipe, file.stem, steps.update, checkpoint, workers)
        save(graph, file)
    right = float((answers(graph, samples) == labels).mean())
    say(f"{file}: {right:.2%} of the {len(samples)} samples it was trained on; judge it on others")


def _recipe(
    weights: int, activations: int, observer: str, scale: str, per_channel: bool, exclude: list[str] | None
) -> Recipe:
    from bitfab.dtypes import ScaleKind
    from bitfab.quant import ObserverKind, Recipe

    return Recipe(
        weights=weights,
        activations=activations,
        observer=choice(ObserverKind, observer, f"--observer {observer}"),
        scale=choice(ScaleKind, scale, f"--scale {scale}"),
        per_channel=per_channel,
        exclude=tuple(exclude or ()),
    )
