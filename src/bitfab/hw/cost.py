"""What a design will take of an ECP5, without synthesis: a formula for each block, in milliseconds.

Multipliers and block RAMs follow rules that Yosys' own cost tables give (`memory_libmap`, `mul2dsp`). LUTs and
flip-flops are sums of features (`bitfab.hw.features`: bits of adders, of registers, of memories) times coefficients
that `scripts/fit_cost.py` fitted to what Yosys made of random networks; they lie in `cost_ecp5.json`. From the
flip-flops those inside multipliers are taken away (`tools/register_packing.py`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from importlib import resources

from bitfab.errors import BitfabError
from bitfab.hw.design import Design
from bitfab.hw.features import Parameters, features, room
from bitfab.hw.memory_cost import dsps, memories, packed_registers
from bitfab.hw.parallel.design import ParallelDesign
from bitfab.parts import Family, Resources, find_part


def block_cost(block: str, parameters: Parameters) -> Resources:
    """What one instance of an RTL block takes."""
    held = memories(block, parameters)
    counts = features(block, parameters)
    coefficients = _coefficients().get(block, {})
    lut, ff = (
        sum(coefficients.get(kind, {}).get(name, 0.0) * count for name, count in counts.items())
        for kind in ("lut", "ff")
    )
    ff = max(0, ff - packed_registers(block, parameters))
    own = Resources(round(lut), round(ff), dsps(block, parameters), sum(memory.brams for memory in held))
    return own + block_cost(*room(parameters)) if block == "conv2d" else own


def estimate(design: Design) -> dict[str, Resources]:
    """What a streaming design will take, by layer; under its own name what belongs to no layer (skid buffers, `tlast`).

    Converters, forks and FIFOs count with the layer that they serve. Raises BitfabError for parts other than ECP5, and
    for a parallel design, which has no blocks.
    """
    if isinstance(design, ParallelDesign):
        raise BitfabError(f"{design.name}: estimates are of streaming designs; synthesize a parallel one with build")
    require_fitted(design.target.part)
    layers = {layer.name: Resources() for layer in design.layers}
    for instance in design.instances:
        cost = block_cost(instance.block, instance.parameters)
        layers[instance.layer] = layers.get(instance.layer, Resources()) + cost
    return layers | {design.name: layers.get(design.name, Resources()) + block_cost("top", top_parameters(design))}


def require_fitted(part: str) -> None:
    """Raise BitfabError unless the part is of the family whose synthesis the coefficients were fitted to."""
    if find_part(part).family is not Family.ECP5:
        raise BitfabError(f"{part}: estimates are fitted to the ECP5; choose ecp5-25k, ecp5-45k or ecp5-85k, or build")


def total(costs: Iterable[Resources]) -> Resources:
    """Their sum."""
    return sum(costs, Resources())


def top_parameters(design: Design) -> dict[str, int]:
    """What the top's own logic depends on: the widths of its streams, the words of an output image."""
    return {"InBits": design.input.width, "OutBits": design.output.width, "OutWords": design.output.words}


@functools.cache
def _coefficients() -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    return json.loads((resources.files("bitfab.hw") / "cost_ecp5.json").read_text(encoding="utf-8"))
