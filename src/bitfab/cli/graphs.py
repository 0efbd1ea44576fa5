"""Commands that show an integer graph or write it in other formats: inspect, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bitfab.cli.app import GraphFile
from bitfab.errors import BitfabError
from bitfab.terminal import console, say


def inspect(graph: GraphFile) -> None:
    """Show a quantized network: operations, shapes, types, proven ranges, MACs."""
    from bitfab import inputs
    from bitfab.ir.infer import macs

    network = inputs.graph(graph)
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


def export(
    graph: GraphFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="An ONNX file; with --tables a folder.", show_default=False)
    ],
    style: Annotated[str, typer.Option(help="Of an ONNX file: qdq, qoperator or qonnx.")] = "qdq",
    tables: Annotated[
        bool, typer.Option("--tables", help="Tables of all parameters: mem, hex, coe, mif, csv, h, npz, manifest.json.")
    ] = False,
) -> None:
    """Write a quantized network as ONNX, or its parameters as tables."""
    from bitfab import inputs
    from bitfab.export import export_onnx, export_tables
    from bitfab.output import check_folder

    network = inputs.graph(graph)
    if tables:
        check_folder(output)
        export_tables(network, output)
        say(f"{output}: {sum(1 for _ in output.iterdir())} files; manifest.json describes them")
        return
    if output.suffix != ".onnx":
        raise BitfabError(f"{output}: an ONNX file ends in .onnx; give it that ending, or --tables for a folder")
    export_onnx(network, inputs.new_file(output), style)
    say(f"{output}: {output.stat().st_size:,} bytes, style {style}")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
