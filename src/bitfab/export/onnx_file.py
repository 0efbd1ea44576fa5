"""Writes an integer graph as an ONNX file."""

from __future__ import annotations

import enum
import os
from pathlib import Path

from bitfab.errors import choice
from bitfab.export.onnx_qdq import Qdq
from bitfab.export.onnx_qoperator import QOperator
from bitfab.export.qonnx import Qonnx
from bitfab.ir.graph import Graph
from bitfab.ir.verify import verify
from bitfab.output import write_whole


class Style(enum.StrEnum):
    """How an ONNX file says that values are integers."""

    QDQ = "qdq"  # QuantizeLinear and DequantizeLinear around float operations: most widely read, fused when run
    QOPERATOR = "qoperator"  # operations on integers: QLinearConv, and onnxruntime's own beside the standard's
    QONNX = "qonnx"  # Quant nodes of any bits: Brevitas, FINN, hls4ml


_EXPORTERS = {Style.QDQ: Qdq, Style.QOPERATOR: QOperator, Style.QONNX: Qonnx}


def export_onnx(graph: Graph, path: str | os.PathLike[str], style: str = Style.QDQ) -> None:
    """Write the graph as an ONNX file that takes and gives reals (N, *shape), float32, under the graph's names.

    Inputs are quantized and outputs dequantized with the graph's scales and zero points (scale 1 where it has none); an
    argmax puts out int64. Weights are integers with a scale for each channel, chosen so that the file's scales are the
    graph's multipliers: `s_w = s_y * multiplier / (2**shift * s_x)`. The file rounds half to even, in float32, where
    the graph has its own rounding, so a code may differ by one; where scales are powers of two and the graph rounds
    half to even too, none does. The same graph gives the same bytes; the file appears whole or not at all.

    Raises BitfabError for an unknown style, a malformed graph, an operation that ONNX has not (LUT networks), and
    where the file cannot be written.
    """
    exporter = _EXPORTERS[choice(Style, style, f"style {style!r}")]
    model = exporter(verify(graph)).export()
    write_whole(Path(path), model.SerializeToString(deterministic=True))
