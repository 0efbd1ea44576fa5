"""Which block of the RTL library an engine becomes: its parameters and the contents of its memories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bitfab.dtypes import Rounding
from bitfab.hw import memories
from bitfab.hw.folding import FOLDED
from bitfab.hw.plan import Engine
from bitfab.ir.ops import (
    Add,
    Argmax,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Requantize,
    SumPool2d,
    Table,
    Threshold,
    Upsample,
)

Parameters = dict[str, int | str]
ROUNDING_CODES = {Rounding.HALF_UP: 0, Rounding.HALF_EVEN: 1, Rounding.HALF_AWAY: 2, Rounding.FLOOR: 3}


@dataclass(frozen=True)
class Block:
    """A block's name and parameters; `roms` are the texts of its memories by the parameter that names the file."""

    name: str
    parameters: Parameters
    roms: Mapping[str, str] = field(default_factory=dict)


def block(engine: Engine) -> Block:
    """The block that does the engine's work, one instance a node."""
    return _BLOCKS[type(engine.node.op)](engine)


def _multiplying(engine: Engine) -> Block:
    weight_words, bias_words = memories.weights(engine)
    own = parameters(engine)
    roms = {
        "WeightFile": memories.mem_file(weight_words, int(own["WeightBits"])),
        "BiasFile": memories.mem_file(bias_words, int(own["AccBits"])),
    }
    return Block("conv2d", own, roms)


def parameters(engine: Engine) -> Parameters:
    """The parameters of a multiplying engine's block, memory files left out."""
    window, folding, x, op = engine.window, engine.folding, engine.values[0], engine.node.op
    assert window is not None and folding is not None and isinstance(op, FOLDED)
    types: Parameters = {
        "InBits": x.type.bits,
        "InSigned": int(x.type.signed),
        "WeightBits": _signed_bits(int(op.weight.min()), int(op.weight.max())),
        "AccBits": engine.node.output.type.bits,
        "Simd": folding.simd,
        "Pe": folding.pe,
    }
    return types | _window(engine, up=True) | {"Groups": window.groups, "Fold": window.fold}


def _signed_bits(low: int, high: int) -> int:
    """Bits of the narrowest two's complement type, at least 2."""
    return max(2, (-low - 1).bit_length() + 1 if low < 0 else 1, high.bit_length() + 1)


def _window(engine: Engine, up: bool) -> Parameters:
    """Parameters of the sliding window; those of transposed convolutions only where the block has them (`up`)."""
    window, (channels, height, width) = engine.window, engine.inputs[0]
    assert window is not None
    pairs = [("Kernel", window.kernel), ("Stride", window.stride)]
    pairs += [("Up", window.up), ("Phase", window.phase)] if up else []
    parameters: Parameters = {"Words": channels // engine.lanes_in, "Height": height, "Width": width}
    for name, (vertical, horizontal) in pairs:
        parameters |= {f"{name}Height": vertical, f"{name}Width": horizontal}
    parameters |= {"OriginTop": window.origin[0], "OriginLeft": window.origin[1]}
    parameters |= {"OutHeight": window.out[0], "OutWidth": window.out[1], "Rows": window.rows}
    return parameters | {"PadValue": window.pad_value & ((1 << engine.values[0].type.bits) - 1)}


def _pool(engine: Engine) -> Block:
    x = engine.values[0].type
    lanes: Parameters = {"Bits": x.bits, "Signed": int(x.signed), "Lanes": engine.lanes_in}
    reduce: Parameters = {"Sum": int(isinstance(engine.node.op, SumPool2d)), "OutBits": engine.node.output.type.bits}
    return Block("pool2d", lanes | reduce | _window(engine, up=False))


def _upsample(engine: Engine) -> Block:
    lanes: Parameters = {"Bits": engine.values[0].type.bits, "Lanes": engine.lanes_in}
    return Block("window", lanes | _window(engine, up=True))


def _requantize(engine: Engine) -> Block:
    op, x, lanes = engine.node.op, engine.values[0].type, engine.lanes_in
    assert isinstance(op, Requantize)
    multiplier_bits, shift, extra_bits = memories.scale_fields(op)
    parameters: Parameters = {
        "InBits": x.bits,
        "InSigned": int(x.signed),
        "OutBits": op.type.bits,
        "Lanes": lanes,
        "Words": len(op.multiplier) // lanes if len(op.multiplier) > 1 else 1,
        "InputZero": op.input_zero,
        "OutputZero": op.output_zero,
        "Low": op.low,
        "High": op.high,
        "MultiplierBits": multiplier_bits,
        "MinShift": shift,
        "ExtraBits": extra_bits,
        "Rounding": ROUNDING_CODES[op.rounding],
    }
    return Block(
        "requantize", parameters, {"ScaleFile": memories.scales(op, lanes)} if multiplier_bits + extra_bits else {}
    )


def _threshold(engine: Engine) -> Block:
    op, x, lanes = engine.node.op, engine.values[0], engine.lanes_in
    assert isinstance(op, Threshold)
    rows = memories.thresholds(op, x)
    bits = _signed_bits(int(rows.min()), int(rows.max()))
    words = rows if len(rows) > 1 else np.repeat(rows, lanes, axis=0)
    parameters: Parameters = {
        "InBits": x.type.bits,
        "InSigned": int(x.type.signed),
        "OutBits": op.type.bits,
        "Lanes": lanes,
        "Words": len(words) // lanes,
        "Levels": rows.shape[1],
        "Low": 0 if op.type.bipolar else op.low,
        "ThresholdBits": bits,
    }
    return Block(
        "threshold", parameters, {"ThresholdFile": memories.mem_file(words.reshape(-1, lanes * rows.shape[1]), bits)}
    )


def _table(engine: Engine) -> Block:
    op = engine.node.op
    assert isinstance(op, Table)
    parameters: Parameters = {"InBits": op.domain.bits, "OutBits": op.type.bits, "Lanes": engine.lanes_in}
    return Block("table", parameters, {"TableFile": memories.table(op)})


def _add(engine: Engine) -> Block:
    parameters: Parameters = {}
    for side, value in zip("AB", engine.values, strict=True):
        parameters |= {f"{side}Bits": value.type.bits, f"{side}Signed": int(value.type.signed)}
    output = engine.node.output.type
    return Block(
        "add", parameters | {"Lanes": engine.lanes_in, "OutBits": output.bits, "OutSigned": int(output.signed)}
    )


def _concat(engine: Engine) -> Block:
    """The last pair of inputs; the netlist joins the earlier ones pair by pair."""
    *earlier, last = (shape[0] // engine.lanes_in for shape in engine.inputs)
    bits = engine.values[0].type.bits * engine.lanes_in
    return Block("concat", {"Bits": bits, "WordsA": sum(earlier), "WordsB": last})


def _argmax(engine: Engine) -> Block:
    x = engine.values[0].type
    words, index_bits = engine.inputs[0][0], engine.node.output.type.bits
    return Block("argmax", {"Bits": x.bits, "Signed": int(x.signed), "Words": words, "IndexBits": index_bits})


_BLOCKS: dict[type, Callable[[Engine], Block]] = {
    Conv2d: _multiplying,
    ConvTranspose2d: _multiplying,
    Dense: _multiplying,
    MaxPool2d: _pool,
    SumPool2d: _pool,
    Upsample: _upsample,
    Requantize: _requantize,
    Threshold: _threshold,
    Table: _table,
    Add: _add,
    Concat: _concat,
    Argmax: _argmax,
}
