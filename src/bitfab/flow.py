"""The whole pipeline as flat lists of named steps: from a network or a graph to a proved, placed, reported design."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfab import applications, report, summary
from bitfab.backend import Stages, require_tools, simulate, synthesize
from bitfab.dtypes import FloatArray, IntArray, dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.hw import Design, generate
from bitfab.hw.design import Target
from bitfab.ir.graph import Graph
from bitfab.ir.run import trace
from bitfab.ir.run_fast import run_fast
from bitfab.ir.serialize import save
from bitfab.output import MARKER, whole_folder
from bitfab.quant import (
    Diagnosis,
    Quantized,
    Recipe,
    debug,
    float_reference,
    layer_sqnr,
    quantize_with_reference,
)
from bitfab.quant.histograms import histograms
from bitfab.quant.metrics import Predict
from bitfab.quant.simulate import Progress
from bitfab.tools.process import ToolError

SQNR_IMAGES = 16
BATCH = 50


def build(
    design: Design,
    vectors: NDArray[np.generic],
    folder: Path | str | None = None,
    *,
    place: bool = True,
    stages: Stages | None = None,
) -> report.Report:
    """Simulate the design on `vectors`, synthesize, place and route it, and write it with its report into `folder`.

    `folder` is build/<name of the graph> by default.
    vectors: (batch, *shape), integers of the graph's input, or real numbers that are quantized first.
    Raises BitfabError on any mismatch, a device too small, a missing tool or an unwritable folder.
    """
    stages, folder = stages or Stages(), Path(folder or Path("build") / design.name)
    require_tools(design.target, place)
    images = as_integers(design.graph, vectors)
    with _output(folder) as draft:
        simulation = simulate(design, images, draft, stages)
        implementation = synthesize(design, draft, stages) if place else None
        result = summary.summarize(
            design, simulation, implementation, application=design.graph.name, wall_seconds=stages.seconds
        )
        report.write_json(result, draft / "report.json")
        report.write_html(result, [], draft / "report.html")
    return result


def demo(
    name: str,
    folder: Path | str,
    *,
    target: Target | None = None,
    images: int | None = None,
    stages: Stages | None = None,
) -> report.Report:
    """A shipped application end to end: quantize, judge, generate, prove, place and report, into `folder`."""
    stages, folder, target = stages or Stages(), Path(folder), target or Target()
    require_tools(target)
    with stages.stage("load"):
        application = applications.load(name)
    with _output(folder) as draft:
        with stages.stage("quantize"):
            quantized = quantize_with_reference(
                application.network, [application.calibration], Recipe(), application.name
            )
            graph = quantized.graph
        with stages.stage("evaluate"):
            real = float_outputs(application.network, application.tests)
            integer = integer_outputs(graph, application.tests)
            accuracy, sqnr = application.judge(real, integer), _sqnr(quantized, application.tests[:SQNR_IMAGES])
            layers = summary.quantized_layers(histograms(quantized.choices, [application.tests]), quantized, sqnr)
        with stages.stage("generate"):
            design = generate(graph, target, application.parallelism)
        chosen = as_integers(graph, application.tests[: images or application.images])
        simulation = simulate(design, chosen, draft, stages)
        save(graph, draft / f"{graph.name}.safetensors")
        implementation = synthesize(design, draft, stages)
        result = summary.summarize(
            design,
            simulation,
            implementation,
            application=name,
            wall_seconds=stages.seconds,
            float_parameters=sum(p.numel() for p in application.network.parameters()),
            accuracy=accuracy,
            sqnr=sqnr,
            quantized=layers,
            recipe=dataclasses.asdict(quantized.choices.recipe),
            command=f"bitfab demo {name}",
        )
        report.write_json(result, draft / "report.json")
        report.write_html(result, application.show(real, integer), draft / "report.html")
    return result


def debug_application(
    name: str, recipe: Recipe | None = None, progress: Progress | None = None
) -> tuple[Diagnosis, str]:
    """`bitfab.debug` for a shipped application, judged as its demo is; and what its metric is called."""
    application = applications.load(name)
    real = float_outputs(application.network, application.tests)

    def metric(predict: Predict) -> float:
        batches = torch.from_numpy(application.tests).split(BATCH)
        figure = application.judge(real, np.concatenate([predict(batch).numpy() for batch in batches])).int8
        assert figure is not None
        return figure

    called = application.judge(real, real).metric
    assert called is not None
    return debug(application.network, [application.calibration], metric, recipe, progress), called.value


def _sqnr(quantized: Quantized, images: FloatArray) -> dict[str, float | None]:
    """SQNR in dB of each layer; None where the integers are exact."""
    values = trace(quantized.graph, as_integers(quantized.graph, images))
    ratios = layer_sqnr(quantized, float_reference(quantized, images), values)
    return {layer: ratio if math.isfinite(ratio) else None for layer, ratio in ratios.items()}


@contextmanager
def _output(folder: Path) -> Iterator[Path]:
    """A `whole_folder`; but where a tool fails, what it was given and said is kept, in a folder named so."""
    with whole_folder(folder) as draft:
        try:
            yield draft
        except BitfabError as error:
            failure = error if isinstance(error, ToolError) else error.__cause__
            if not isinstance(failure, ToolError):
                raise BitfabError(str(error).replace(str(draft), str(folder))) from error
            kept = draft.with_name(f"{folder.resolve().name}.failed")
            if (kept / MARKER).is_file():
                shutil.rmtree(kept)
            draft.replace(kept)
            if failure is not error:
                text = str(error).replace(str(draft), str(kept))
                raise BitfabError(f"{text}; the design and its logs: {kept}") from error
            lines = [line.replace(str(draft), str(kept)) for line in failure.lines]
            log = kept / os.path.relpath(failure.log, draft) if failure.log else None
            raise ToolError(failure.tool, failure.task, failure.reason, lines, log) from error


def as_integers(graph: Graph, vectors: NDArray[np.generic]) -> IntArray:
    """Real inputs quantized with the graph's own parameters; integers stay as they are."""
    value = graph.inputs[0]
    if np.issubdtype(vectors.dtype, np.integer):
        return vectors.astype(np.int64)
    if not np.issubdtype(vectors.dtype, np.floating) or not np.isfinite(vectors.astype(np.float64)).all():
        raise BitfabError(f"{value.name}: inputs must be integers or finite real numbers; clean the data first")
    if value.qparams is None:
        raise BitfabError(f"{value.name}: the graph does not say what its integers mean; give integers")
    return quantize(vectors.astype(np.float64), value.qparams, value.type)


def integer_outputs(graph: Graph, images: FloatArray) -> FloatArray:
    """What the integer graph gives for real images (batch, *shape), as real numbers."""
    value = graph.output_values[0]
    chunks = [run_fast(graph, as_integers(graph, images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
    codes = np.concatenate([np.asarray(chunk) for chunk in chunks])
    return codes.astype(np.float64) if value.qparams is None else dequantize(codes, value.qparams)


def float_outputs(network: nn.Module, images: FloatArray) -> FloatArray:
    """What the float network gives, in eval mode, batch by batch."""
    with torch.inference_mode():
        chunks = [network(torch.from_numpy(images[i : i + BATCH])).numpy() for i in range(0, len(images), BATCH)]
    return np.concatenate(chunks)
