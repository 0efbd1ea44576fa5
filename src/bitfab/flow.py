"""The whole pipeline as flat lists of named steps: from a network or a graph to a proved, placed, reported design."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfab import applications, report, summary
from bitfab.applications import Application, LutApplication
from bitfab.backend import Stages, require_tools, simulate, synthesize
from bitfab.board import bitstream, check_board, find_board
from bitfab.board import require_tools as require_board_tools
from bitfab.data.metrics import top1_accuracy
from bitfab.dtypes import FloatArray, IntArray, dequantize, quantize
from bitfab.errors import BitfabError
from bitfab.hw import Design, generate
from bitfab.hw.design import Target
from bitfab.ir.graph import Graph, Value
from bitfab.ir.run import trace
from bitfab.ir.run_fast import run_fast
from bitfab.ir.serialize import save
from bitfab.lutnet.fit import answers
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
BOARD_IMAGES = 4  # sent over a board's simulated serial line
BATCH = 50

Vectors = NDArray[np.generic] | torch.Tensor | Sequence[Any]
"""Inputs (batch, *shape): an array, a tensor, or nested lists."""


def build(
    design: Design,
    vectors: Vectors | Sequence[Vectors],
    folder: Path | str | None = None,
    *,
    place: bool = True,
    board: str | None = None,
    stages: Stages | None = None,
) -> report.Report:
    """Simulate the design on `vectors`, synthesize, place and route it, and write it with its report into `folder`.

    `folder` is build/<name of the graph> by default. With `board`, that board's bitstream is made too
    (`bitfab.board.bitstream`), in <folder>/board.
    vectors: (batch, *shape), integers of the graph's input, or real numbers that are quantized first; a list of one for
    each of several inputs. Raises BitfabError on any mismatch, a device too small, a board that has not the part, a
    missing tool or an unwritable folder.
    """
    stages, folder = stages or Stages(), Path(folder or Path("build") / design.name)
    require_tools(design.target, place, design.language)
    images = _each_input(design.graph, vectors)
    if board is not None:
        check_board(design, find_board(board))
        require_board_tools(board)
    with _output(folder) as draft:
        simulation = simulate(design, images, draft, stages)
        implementation = synthesize(design, draft, stages) if place else None
        if board is not None:
            bitstream(design, images[0][:BOARD_IMAGES], draft, board, stages=stages)
        result = summary.summarize(
            design, simulation, implementation, application=design.graph.name, wall_seconds=stages.seconds
        )
        report.write_json(result, draft / "report.json")
        report.write_html(result, [], draft / "report.html")
    return result


@dataclass(frozen=True)
class Judged:
    """An application's integer graph, the inputs to simulate, and what the report says of both networks."""

    graph: Graph
    vectors: IntArray
    parallelism: int
    float_parameters: int
    accuracy: report.Accuracy
    pictures: report.Pictures = ()
    sqnr: Mapping[str, float | None] | None = None
    quantized: tuple[report.QuantizedLayer, ...] = ()
    recipe: Mapping[str, object] | None = None


def demo(
    name: str,
    folder: Path | str,
    *,
    target: Target | None = None,
    images: int | None = None,
    stages: Stages | None = None,
) -> report.Report:
    """A shipped application end to end: quantize or load, judge, generate, prove, place and report, into `folder`."""
    stages, folder, target = stages or Stages(), Path(folder), target or Target()
    require_tools(target)
    with stages.stage("load"):
        application = applications.load(name)
    with _output(folder) as draft:
        found = _judged(application, images, stages)
        with stages.stage("generate"):
            design = generate(found.graph, target, found.parallelism)
        simulation = simulate(design, found.vectors, draft, stages)
        save(found.graph, draft / f"{found.graph.name}.safetensors")
        implementation = synthesize(design, draft, stages)
        result = summary.summarize(
            design,
            simulation,
            implementation,
            application=name,
            wall_seconds=stages.seconds,
            float_parameters=found.float_parameters,
            accuracy=found.accuracy,
            sqnr=found.sqnr,
            quantized=found.quantized,
            recipe=found.recipe,
            command=f"bitfab demo {name}",
        )
        report.write_json(result, draft / "report.json")
        report.write_html(result, found.pictures, draft / "report.html")
    return result


def _judged(application: Application | LutApplication, images: int | None, stages: Stages) -> Judged:
    if isinstance(application, LutApplication):
        return _judge_luts(application, images, stages)
    return _judge_quantized(application, images, stages)


def _judge_quantized(application: Application, images: int | None, stages: Stages) -> Judged:
    """A float network quantized, and both judged on the test images."""
    network, tests = application.network, application.tests
    with stages.stage("quantize"):
        quantized = quantize_with_reference(network, [application.calibration], Recipe(), application.name)
    with stages.stage("evaluate"):
        real, integer = float_outputs(network, tests), integer_outputs(quantized.graph, tests)
        sqnr = _sqnr(quantized, tests[:SQNR_IMAGES])
        return Judged(
            quantized.graph,
            as_integers(quantized.graph, tests[: images or application.images]),
            application.parallelism,
            sum(p.numel() for p in network.parameters()),
            application.judge(real, integer),
            application.show(real, integer),
            sqnr,
            summary.quantized_layers(histograms(quantized.choices, [tests]), quantized, sqnr),
            dataclasses.asdict(quantized.choices.recipe),
        )


def _judge_luts(application: LutApplication, images: int | None, stages: Stages) -> Judged:
    """A LUT network and its float reference judged on the test samples."""
    graph, tests, labels = application.graph, application.tests, application.labels
    with stages.stage("evaluate"):
        real = top1_accuracy(float_outputs(application.reference, tests.astype(np.float32)), labels)
        integer = float((answers(graph, tests) == labels).mean())
        return Judged(
            graph,
            as_integers(graph, tests[: images or application.frames]),
            parallelism=0,
            float_parameters=sum(p.numel() for p in application.reference.parameters()),
            accuracy=report.Accuracy(report.Metric.ACCURACY, real, integer),
        )


def debug_application(
    name: str, recipe: Recipe | None = None, progress: Progress | None = None
) -> tuple[Diagnosis, str]:
    """`bitfab.debug` for a shipped application, judged as its demo is; and what its metric is called."""
    application = applications.load(name)
    if isinstance(application, LutApplication):
        raise BitfabError(f"{name}: a LUT network is integer from the start; debug a quantized network")
    real = float_outputs(application.network, application.tests)

    def metric(predict: Predict) -> float:
        batches = torch.from_numpy(application.tests).split(BATCH)
        figure = application.judge(real, np.concatenate([predict(batch).numpy() for batch in batches])).integer
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


def _each_input(graph: Graph, vectors: Vectors | Sequence[Vectors]) -> list[IntArray]:
    """The integers of every input, as many of each."""
    listed = isinstance(vectors, list | tuple) and (
        len(graph.inputs) > 1 or all(isinstance(each, np.ndarray | torch.Tensor) for each in vectors)
    )
    arrays = [_array(graph, each) for each in (vectors if listed else [vectors])]
    if len(arrays) != len(graph.inputs):
        names = ", ".join(value.name for value in graph.inputs)
        raise BitfabError(f"{graph.name}: {len(arrays)} arrays for the inputs {names}; give one for each")
    if len({len(array) for array in arrays}) > 1:
        raise BitfabError(
            f"{graph.name}: {' and '.join(str(len(array)) for array in arrays)} inputs; give as many of each"
        )
    return [_codes(value, array) for value, array in zip(graph.inputs, arrays, strict=True)]


def _array(graph: Graph, vectors: object) -> NDArray[np.generic]:
    """An array with a batch axis, of anything that numpy or torch hold as one."""
    try:
        found = vectors.detach().cpu().numpy() if isinstance(vectors, torch.Tensor) else np.asarray(vectors)
    except ValueError:  # lists of several lengths
        found = np.asarray(None)
    if found.ndim == 0:
        raise BitfabError(f"{graph.name}: a {type(vectors).__name__} given for inputs; give an array (batch, *shape)")
    return found


def as_integers(graph: Graph, vectors: NDArray[np.generic]) -> IntArray:
    """Real inputs quantized with the graph's own parameters (its first input's); integers stay as they are."""
    return _codes(graph.inputs[0], vectors)


def _codes(value: Value, vectors: NDArray[np.generic]) -> IntArray:
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
