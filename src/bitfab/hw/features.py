"""What a block's LUTs and flip-flops grow with: bits of its adders, registers, counters and memories, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bitfab.hw.memory_cost import Parameters, difference_bits, memories, weights_in_block_ram

Features = dict[str, float]
Integers = Mapping[str, int]

LUT_INPUTS = 4


def features(block: str, parameters: Parameters) -> Features:
    """The features of one instance of a block; every block has the constant `instance`."""
    p = {name: value for name, value in parameters.items() if isinstance(value, int)}
    held = memories(block, {**p, "Loadable": 0})  # LUTs were fitted to constants alone
    return _BLOCKS[block](p) | {
        "instance": 1,
        "lutram": sum(memory.lutrams for memory in held),
        "lutram joined": sum(memory.joined for memory in held),
        "truth tables": sum(memory.logic for memory in held) / (1 << LUT_INPUTS),
        "narrow tables": sum(memory.bits for memory in held if memory.logic and memory.words <= 1 << LUT_INPUTS),
        "block ram bits": sum(memory.bits for memory in held if memory.brams),
        "other memory bits": sum(memory.bits for memory in held if not memory.brams),
    }


def _bits(n: int) -> int:
    """Of a register that counts 0 to n - 1."""
    return (n - 1).bit_length() if n > 1 else 1


def _counter(n: int) -> int:
    return _bits(n) if n > 1 else 0


def _window(p: Integers) -> Features:
    """The address counters of bf_window; see there for what they count."""
    lanes, bits = (p["Simd"], p["InBits"]) if "Simd" in p else (p["Lanes"], p["Bits"])
    groups, up = p.get("Groups", 1), (p.get("UpHeight", 1), p.get("UpWidth", 1))
    row = p["Width"] * p["Words"]
    padded = p["OriginTop"] < 0 or p["OriginLeft"] < 0
    run = p["KernelWidth"] * p["Words"] if groups == 1 else p["Words"] // groups
    reach = p["OutHeight"] * p["StrideHeight"] // up[0] + p["KernelHeight"]
    counted = [run, p["KernelHeight"], p.get("Fold", 1), groups, p["KernelWidth"] if groups > 1 else 1, *up]
    return {
        "address bits": _bits(p["Rows"] * row),
        "position bits": _bits(row + p["KernelWidth"] * p["Words"]),
        "row bits": _bits(max(p["Height"], reach)),
        "slot table": p["Rows"] * _bits(p["Rows"] * row) / (1 << LUT_INPUTS),
        "slot bits": _bits(p["Rows"]),
        "loop bits": sum(map(_counter, counted)),
        "loops": sum(1 for n in counted if n > 1),
        "padded": float(padded),
        "padded bits": lanes * bits * padded,
        "word bits": lanes * bits,
    }


def _conv2d(p: Integers) -> Features:
    """A window; the leaves of bf_products by their kind, its adder tree; the accumulator and the stages of bf_dot."""
    pe, own = p["Pe"], _leaves(p)
    leaves, leaf_bits = own.count, own.bits
    levels = _counter(leaves)
    counts = [-(-leaves // (1 << level)) for level in range(levels + 1)]
    pairs = [(before // 2, leaf_bits + level) for level, before in enumerate(counts[:-1], start=1)]
    terms = p["KernelHeight"] * p["KernelWidth"] * p["Words"] // p["Groups"]
    phases = p["UpHeight"] * p["UpWidth"]
    results = p["Groups"] * p["Fold"]
    stages = own.stages + levels
    late = weights_in_block_ram(p, phases * results * terms)  # a register more behind block RAM
    weight_lanes = pe * p["Simd"] * p["WeightBits"]
    return _window(p) | {
        "tree bits": pe * sum(count * bits for count, bits in pairs),
        "trees": pe * sum(count for count, _ in pairs),
        "accumulator bits": pe * p["AccBits"],
        "sum bits": pe * sum(count * (leaf_bits + level) for level, count in enumerate(counts)),
        "term bits": _counter(terms) + _counter(results) + _bits(phases * results * terms),
        "stage bits": (2 + late + stages) + _bits(phases * results) * (late + stages),
        "late data bits": p["Simd"] * p["InBits"] * late,
        "phases": phases - 1,
        "stages": stages - 1,
        "weight tables": weight_lanes * phases * results * terms / (1 << LUT_INPUTS) * (p.get("Memory", 0) == 2),
        **own.features,
    }


def room(parameters: Parameters) -> tuple[str, Integers]:
    """The block behind a layer's accumulators, with its parameters: room for results that are under way."""
    p = {name: value for name, value in parameters.items() if isinstance(value, int)}
    terms = p["KernelHeight"] * p["KernelWidth"] * p["Words"] // p["Groups"]
    words = p["UpHeight"] * p["UpWidth"] * p["Groups"] * p["Fold"] * terms
    own = _leaves(p)
    stages = 2 + weights_in_block_ram(p, words) + own.stages + _counter(own.count)
    bits, depth = p["Pe"] * p["AccBits"], 2 + (stages + 4) // terms
    return ("skid", {"Bits": bits}) if depth == 2 else ("fifo", {"Bits": bits, "Depth": depth})


@dataclass(frozen=True)
class _Leaves:
    """The leaves of an adder tree: how many, each of how many bits, made in how many stages, from what."""

    count: int
    bits: int
    stages: int
    features: Features


def _leaves(p: Integers) -> _Leaves:
    """As bf_products makes them; see there."""
    simd, lanes, data, weight = p["Simd"], p["Pe"] * p["Simd"], p["InBits"], p["WeightBits"]
    value, product = data + (not p["InSigned"]), data + weight
    operands: Features = {"operand bits": lanes * weight}
    match (bool(p.get("InBipolar", 0)), weight == 1, p.get("Multiplier", 0)):
        case (True, True, _):
            count = -(-simd // 8)
            return _Leaves(count, 3, 1, operands | {"matches": lanes, "match counts": p["Pe"] * count})
        case (True, False, _):
            return _Leaves(simd, weight, 1, operands | {"signed weight bits": lanes * weight})
        case (False, True, _):
            return _Leaves(simd, value, 1, operands | {"signed data bits": lanes * value})
        case (_, _, 1):
            factor = lanes // 2 * (product + weight + 1)
            return _Leaves(simd, product, 1, {"factor bits": factor, "packed bits": lanes * product})
        case (_, _, 2):
            return _adders(simd, p["Pe"], max(value, 2), weight, product)
    return _Leaves(simd, product, 1, operands | {"product bits": lanes * product})


def _adders(simd: int, pe: int, value: int, weight: int, product: int) -> _Leaves:
    """Products by adders alone, as bf_multiply makes them: digits of two bits of one operand choose multiples of the
    other, a row each."""
    digits, multiple = (value, weight) if value <= 3 and value <= weight else (weight, value)
    rows = -(-digits // 2)
    stages = max(1, rows - 1)
    sums = [multiple + digits - 1 if row == rows - 1 else multiple + 2 * row + 1 for row in range(rows)]
    chosen = [bits - max(0, 2 * row - 1) for row, bits in enumerate(sums)]
    lanes = simd * pe
    features: Features = {
        "operand bits": lanes * weight,
        "first row bits": lanes * chosen[0],
        "row bits": lanes * sum(chosen[1:]),
        "rows": lanes * (rows - 1),
        "row registers": lanes * sum(sums[1:-1]),
        "triple bits": simd * (multiple + 2) * (digits >= 4),
        "delayed bits": simd * (stages - 1) * (2 * multiple + 2) * (digits >= 4),
    }
    return _Leaves(simd, product, stages, features)


def _pool2d(p: Integers) -> Features:
    taps = p["KernelHeight"] * p["KernelWidth"]
    return _window(p) | {
        "reduced bits": p["Lanes"] * p["OutBits"],
        "sum": p["Sum"] * p["Lanes"] * p["OutBits"],
        "tap bits": _bits(taps),
    }


def _requantize(p: Integers) -> Features:
    lanes = p["Lanes"]
    difference = difference_bits(p)
    product = difference + p["MultiplierBits"]
    kept = max(product - p["MinShift"], 1)
    extra = p["ExtraBits"] * kept
    constant, adders = p["Words"] == 1, p.get("Multiplier", 0) == 2
    two = p["MultiplierBits"] > 0 and difference > 18 and not adders
    own: Features = {}
    if adders:
        rows = _adders(lanes, 1, max(difference, 2), p["MultiplierBits"] + 1, product + 1).features
        own = {f"constant {name}" if constant else name: count for name, count in rows.items()}
        own["carried bits"] = lanes * product
    return own | {
        "lanes": lanes,
        "input bits": lanes * p["InBits"],
        "shifted zero": lanes * difference * (p["InputZero"] != 0),
        "product bits": lanes * product,
        "multiplier bits": lanes * p["MultiplierBits"] * (not constant),
        "joined products": lanes * product * two,
        "extra bits": lanes * extra,
        "extra stages": lanes * p["ExtraBits"],
        "kept bits": lanes * kept,
        "cut bits": lanes * p["MinShift"],
        "output bits": lanes * p["OutBits"],
        "output zero": lanes * p["OutBits"] * (p["OutputZero"] != 0),
        "ties": lanes * (p["Rounding"] != 0),
        "words": _counter(p["Words"]),
    }


def _threshold(p: Integers) -> Features:
    compared = p["Lanes"] * p["Levels"] * max(p["ThresholdBits"], p["InBits"])
    constant = p["Words"] == 1
    return {
        "input bits": p["Lanes"] * p["InBits"],
        "compared bits": compared * (not constant),
        "constant compared bits": compared * constant,
        "levels": p["Lanes"] * p["Levels"],
        "output bits": p["Lanes"] * p["OutBits"],
        "words": _counter(p["Words"]),
    }


def _topk(p: Integers) -> Features:
    """`moved bits`: of a word, its index and the index that leaves, which each place but the first takes from the one
    before. Not fitted, as the networks measured have K = 1: a LUT a bit, which chooses."""
    k, value, count = p["K"], p["Bits"], _bits(p["Words"])
    return {"value bits": k * value, "count bits": k * count, "moved bits": (k - 1) * (value + 2 * count)}


def _add(p: Integers) -> Features:
    return {
        "lanes": p["Lanes"],
        "output bits": p["Lanes"] * p["OutBits"],
        "input bits": p["Lanes"] * (p["ABits"] + p["BBits"]),
    }


def _scale(p: Integers) -> Features:
    lanes, a, b = p["Lanes"], p["AFactorBits"], p["BFactorBits"]
    own: Features = {}
    if p.get("Multiplier", 0) == 2:
        own = _adders(lanes, 1, max(a, b), min(a, b), a + b).features
    return own | {
        "word bits": lanes * (p["ABits"] + p["BBits"]),
        "shifted zeros": lanes * (a * (p["AZero"] != 0) + b * (p["BZero"] != 0)),
        "output bits": lanes * p["OutBits"],
        "product bits": lanes * (a + b),
        "kept bits": lanes * p["BBits"] * (p["Pixels"] > 1),
        "count bits": (_bits(p["Words"]) + _bits(p["Pixels"])) * (p["Pixels"] > 1),
    }


def _interpolate(p: Integers) -> Features:
    """Segment and place of each lane, their product, the sum, and what it is compared with."""
    lanes, product = p["Lanes"], p["SlopeBits"] + p["PlaceBits"] + 1
    total = max(product, p["BaseBits"], p["OutBits"]) + 1
    return {
        "word bits": lanes * (p["SlopeBits"] + p["BaseBits"]),
        "base bits": lanes * p["BaseBits"],
        "place bits": lanes * p["PlaceBits"],
        "product bits": lanes * product,
        "sum bits": lanes * total,
        "compared bits": lanes * (total - p["Shift"]),
        "output bits": lanes * p["OutBits"],
    }


def _slice(p: Integers) -> Features:
    return {
        "word bits": p["Bits"],
        "inner bits": _counter(p["Inner"]),
        "place bits": _counter(p["Size"]),
        "skip bits": _counter(p["Step"]),
    }


def _width(p: Integers) -> Features:
    wide, narrow = max(p["InLanes"], p["OutLanes"]), min(p["InLanes"], p["OutLanes"])
    narrows = p["InLanes"] > p["OutLanes"]
    bits = wide * p["Bits"]
    return {
        "held bits": bits,
        "shifted bits": (bits - narrow * p["Bits"]) * narrows,
        "count bits": _bits(wide // narrow + 1),
        "narrows": float(narrows),
    }


def _fifo(p: Integers) -> Features:
    return {
        "word bits": p["Bits"],
        "count bits": _bits(p["Depth"] + 1),
        "power": float(p["Depth"] & (p["Depth"] - 1) == 0),
    }


_BLOCKS: Mapping[str, Callable[[Integers], Features]] = {
    "conv2d": _conv2d,
    "window": _window,
    "pool2d": _pool2d,
    "requantize": _requantize,
    "threshold": _threshold,
    "table": lambda p: {"output bits": p["Lanes"] * p["OutBits"]},
    "interpolate": _interpolate,
    "add": _add,
    "scale": _scale,
    "slice": _slice,
    "concat": lambda p: {"word bits": p["Bits"], "count bits": _bits(max(p["WordsA"], p["WordsB"]))},
    "topk": _topk,
    "width": _width,
    "fifo": _fifo,
    "fork": lambda p: {"copies": p["Count"]},
    "skid": lambda p: {"bits": p["Bits"]},
    "bipolar": lambda p: {"lanes": p["Lanes"]},
    "top": lambda p: {"in bits": p["InBits"], "out bits": p["OutBits"], "count bits": _bits(p["OutWords"])},
}
