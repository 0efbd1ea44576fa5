"""Which block of the RTL library an engine becomes: its parameters and the contents of its memories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bitfab.dtypes import Rounding
from bitfab.hw import memories
from bitfab.hw.design import MemoryStyle, Multiplier
from bitfab.hw.folding import FOLDED, factor_bits, signed_bits, weight_bits
from bitfab.hw.plan import Engine, inner_words, turn_words
from bitfab.ir.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool2d,
    Multiply,
    Requantize,
    Slice,
    SumPool2d,
    Table,
    Threshold,
    TopK,
    Upsample,
)
from bitfab.ir.piecewise import Piecewise, recover

Parameters = dict[str, int | str]
WHOLE_BITS = 8  # tables of inputs up to here have an entry for each code
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


MULTIPLIER_CODES = {Multiplier.DSP: 0, Multiplier.PACKED: 1, Multiplier.LUTS: 2}
MEMORY_CODES = {None: 0, MemoryStyle.BLOCK: 1, MemoryStyle.LUTS: 2}


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
        "WeightBits": weight_bits(engine.node),
        "AccBits": engine.node.output.type.bits,
        "Simd": folding.simd,
        "Pe": folding.pe,
    }
    narrow = x.type.bipolar or types["WeightBits"] == 1
    styles: Parameters = {
        "InBipolar": int(x.type.bipolar),
        "Multiplier": 0 if narrow else MULTIPLIER_CODES[folding.multiplier or Multiplier.DSP],
        "Memory": MEMORY_CODES[folding.memory],
    }
    types |= {name: value for name, value in styles.items() if value}  # 0 is the block's own default
    return types | _window(engine, up=True) | {"Groups": window.groups, "Fold": window.fold}


def _window(engine: Engine, up: bool) -> Parameters:
    """Parameters of the sliding window; dilation and transposition only where the block has them (`up`)."""
    window, (channels, height, width) = engine.window, engine.inputs[0]
    assert window is not None
    pairs = [("Kernel", window.kernel), ("Stride", window.stride)]
    pairs += [("Dilation", window.dilation), ("Up", window.up), ("Phase", window.phase)] if up else []
    parameters: Parameters = {"Words": channels // engine.lanes_in, "Height": height, "Width": width}
    for name, (vertical, horizontal) in pairs:
        parameters |= {f"{name}Height": vertical, f"{name}Width": horizontal}
    parameters |= {"OriginTop": window.origin[0], "OriginLeft": window.origin[1]}
    parameters |= {"OutHeight": window.out[0], "OutWidth": window.out[1], "Rows": window.rows}
    x = engine.values[0].type
    pad = max(window.pad_value, 0) if x.bipolar else window.pad_value  # the bit that stands for it
    return parameters | {"PadValue": pad & ((1 << x.bits) - 1)}


def _pool(engine: Engine) -> Block:
    x = engine.values[0].type
    lanes: Parameters = {"Bits": x.bits, "Signed": int(x.signed), "Lanes": engine.lanes_in}
    reduce: Parameters = {"Sum": int(isinstance(engine.node.op, SumPool2d)), "OutBits": engine.node.output.type.bits}
    return Block("pool2d", lanes | reduce | _window(engine, up=False))


def _upsample(engine: Engine) -> Block:
    lanes: Parameters = {"Bits": engine.values[0].type.bits, "Lanes": engine.lanes_in}
    return Block("window", lanes | _window(engine, up=True))


def _requantize(engine: Engine) -> Block:
    op, x, lanes, folding = engine.node.op, engine.values[0].type, engine.lanes_in, engine.folding
    assert isinstance(op, Requantize) and folding is not None
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
    if folding.multiplier is Multiplier.LUTS and multiplier_bits:
        parameters["Multiplier"] = MULTIPLIER_CODES[folding.multiplier]
    return Block(
        "requantize", parameters, {"ScaleFile": memories.scales(op, lanes)} if multiplier_bits + extra_bits else {}
    )


def _threshold(engine: Engine) -> Block:
    op, x, lanes = engine.node.op, engine.values[0], engine.lanes_in
    assert isinstance(op, Threshold)
    rows = memories.thresholds(op, x)
    bits = signed_bits(int(rows.min()), int(rows.max()))
    words = memories.threshold_words(rows, lanes)
    parameters: Parameters = {
        "InBits": x.type.bits,
        "InSigned": int(x.type.signed),
        "OutBits": op.type.bits,
        "Lanes": lanes,
        "Words": len(words),
        "Levels": rows.shape[1],
        "Low": 0 if op.type.bipolar else op.low,
        "ThresholdBits": bits,
    }
    return Block("threshold", parameters, {"ThresholdFile": memories.mem_file(words, bits)})


def _table(engine: Engine) -> Block:
    op = engine.node.op
    assert isinstance(op, Table)
    lines = recover(op) if op.domain.bits > WHOLE_BITS else None
    if lines is not None:
        return _interpolate(engine, lines)
    parameters: Parameters = {"InBits": op.domain.bits, "OutBits": op.type.bits, "Lanes": engine.lanes_in}
    return Block("table", parameters, {"TableFile": memories.table(op)})


def _interpolate(engine: Engine, lines: Piecewise) -> Block:
    parameters: Parameters = {
        "InBits": lines.domain.bits,
        "PlaceBits": lines.place_bits,
        "BaseBits": signed_bits(int(lines.base.min()), int(lines.base.max())),
        "SlopeBits": signed_bits(int(lines.slope.min()), int(lines.slope.max())),
        "Shift": lines.shift,
        "OutBits": lines.type.bits,
        "Low": lines.type.low,
        "High": lines.type.high,
        "Lanes": engine.lanes_in,
    }
    words = np.stack([lines.base, lines.slope], axis=1)
    by_bits = np.roll(words, lines.domain.low >> lines.place_bits, axis=0)  # as those of a table
    widths = [int(parameters["BaseBits"]), int(parameters["SlopeBits"])]
    return Block("interpolate", parameters, {"TableFile": memories.mem_file(by_bits, widths)})


def _add(engine: Engine) -> Block:
    parameters: Parameters = {}
    for side, value in zip("AB", engine.values, strict=True):
        parameters |= {f"{side}Bits": value.type.bits, f"{side}Signed": int(value.type.signed)}
    output = engine.node.output.type
    return Block(
        "add", parameters | {"Lanes": engine.lanes_in, "OutBits": output.bits, "OutSigned": int(output.signed)}
    )


def _scale(engine: Engine) -> Block:
    """Word by word, or the pixels of an image by one pixel of factors."""
    op, output, folding = engine.node.op, engine.node.output.type, engine.folding
    assert isinstance(op, Multiply) and folding is not None
    zeros, bits = (op.first_zero, op.second_zero), factor_bits(op, engine.values)
    parameters: Parameters = {}
    for side, value, zero, own in zip("AB", engine.values, zeros, bits, strict=True):
        parameters |= {f"{side}Bits": value.type.bits, f"{side}Signed": int(value.type.signed)}
        parameters |= {f"{side}Zero": zero, f"{side}FactorBits": own}
    channels, height, width = engine.output
    pixels = height * width if engine.inputs[0] != engine.inputs[1] else 1
    parameters |= {"Lanes": engine.lanes_in, "Words": channels // engine.lanes_in, "Pixels": pixels}
    parameters |= {"OutBits": output.bits, "OutSigned": int(output.signed)}
    if folding.multiplier is Multiplier.LUTS:
        parameters["Multiplier"] = MULTIPLIER_CODES[folding.multiplier]
    return Block("scale", parameters)


def _concat(engine: Engine) -> Block:
    """The last pair of inputs; the netlist joins the earlier ones pair by pair."""
    op, lanes = engine.node.op, engine.lanes_in
    assert isinstance(op, Concat)
    *earlier, last = (turn_words(shape, op.axis, lanes) for shape in engine.inputs)
    bits = engine.values[0].type.bits * engine.lanes_in
    return Block("concat", {"Bits": bits, "WordsA": sum(earlier), "WordsB": last})


def _slice(engine: Engine) -> Block:
    op, (shape,), lanes = engine.node.op, engine.inputs, engine.lanes_in
    assert isinstance(op, Slice)
    inner, unit = inner_words(shape, op.axis, lanes), 1 if op.axis else lanes  # of channels whole words
    size = turn_words(shape, op.axis, lanes) // inner
    parameters: Parameters = {
        "Bits": engine.values[0].type.bits * lanes,
        "Inner": inner,
        "Size": size,
        "Start": op.start // unit,
        "Stop": op.stop // unit,
        "Step": min(op.step, size),  # a longer one keeps the first place alone, too
    }
    return Block("slice", parameters)


def _top_k(engine: Engine) -> Block:
    op, x = engine.node.op, engine.values[0].type
    assert isinstance(op, TopK)
    words, index_bits = engine.inputs[0][0], engine.node.output.type.bits
    parameters: Parameters = {"Bits": x.bits, "Signed": int(x.signed), "Words": words, "K": op.k}
    return Block("topk", parameters | {"IndexBits": index_bits})


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
    Multiply: _scale,
    Concat: _concat,
    Slice: _slice,
    TopK: _top_k,
}
