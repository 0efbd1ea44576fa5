"""Contents of the ROMs: weights, biases, scales and tables packed into the words that the RTL blocks read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bitfab.dtypes import IntArray, IntType
from bitfab.hw.design import Shape3
from bitfab.hw.folding import FOLDED, weight_bits
from bitfab.hw.plan import Engine
from bitfab.ir.graph import Value
from bitfab.ir.ops import Conv2d, ConvTranspose2d, Dense, Requantize, Table, Threshold


def mem_file(words: IntArray | Sequence[Sequence[int]], bits: Sequence[int] | int) -> str:
    """Rows of lanes as hexadecimal text, one word a line, lane 0 in the least significant bits.

    `bits` is the width of each lane, or of every lane; negative numbers become two's complement.
    """
    rows = np.asarray(words)
    widths = [bits] * rows.shape[1] if isinstance(bits, int) else list(bits)
    total = sum(widths)
    packed = np.zeros(len(rows), dtype=np.uint64 if total <= 64 else object)
    offset = 0
    for lane, width in zip(rows.T, widths, strict=True):
        field = (lane.astype(np.int64) & ((1 << width) - 1)).astype(packed.dtype)
        packed |= field << (np.uint64(offset) if packed.dtype == np.uint64 else offset)
        offset += width
    digits = -(-total // 4)
    return "".join([f"{word:0{digits}x}\n" for word in packed.tolist()])


def to_stream(values: IntArray, shape: Shape3, lanes: int, type: IntType) -> IntArray:
    """Values (batch, ...) in graph order to words (batch * words, lanes) in stream order; `shape` is the stream's.

    Bipolar values become what their wire carries: 0 for -1, 1 for +1.
    """
    images = (np.maximum(values, 0) if type.bipolar else values).reshape(len(values), *shape)
    return images.transpose(0, 2, 3, 1).reshape(-1, lanes)


def weights(engine: Engine) -> tuple[IntArray, IntArray]:
    """Weight words (phases * results * terms, pe * simd) and bias words (phases * results, pe) of a bf_dot."""
    folding = engine.folding
    assert folding is not None and isinstance(engine.node.op, FOLDED)
    bipolar = weight_bits(engine.node) == 1
    return weight_words(engine.node.op, engine.inputs[0], folding.pe, folding.simd, bipolar)


def weight_words(
    op: Conv2d | ConvTranspose2d | Dense, shape: Shape3, pe: int, simd: int, bipolar: bool
) -> tuple[IntArray, IntArray]:
    """`weights` of an operation whose input streams as `shape`; where `bipolar`, 0 stands for -1 and 1 for +1.

    The order of the terms is the order in which bf_window reads: kernel row, kernel column, input channels.
    """
    kernels, biases = _phases(op, shape)
    words = []
    for kernel in kernels:  # (O, I / groups, KH, KW)
        outputs, ins, height, width = kernel.shape
        folded = kernel.reshape(outputs // pe, pe, ins // simd, simd, height, width)
        words.append(folded.transpose(0, 4, 5, 2, 1, 3).reshape(-1, pe * simd))
    if bipolar:
        words = [np.maximum(word, 0) for word in words]
    return np.concatenate(words), np.concatenate([bias.reshape(-1, pe) for bias in biases])


def _phases(op: Conv2d | ConvTranspose2d | Dense, shape: Shape3) -> tuple[list[IntArray], list[IntArray]]:
    """Kernels (O, I / groups, KH, KW) and biases, one for each phase of a transposed convolution, else one."""
    match op:
        case Conv2d():
            return [op.weight], [op.bias]
        case Dense():
            return [op.weight.reshape(op.weight.shape[0], *shape)], [op.bias]
        case ConvTranspose2d():
            pairs = [_phase(op, row, column) for row in range(op.stride[0]) for column in range(op.stride[1])]
            return [kernel for kernel, _ in pairs], [bias for _, bias in pairs]


def _phase(op: ConvTranspose2d, row: int, column: int) -> tuple[IntArray, IntArray]:
    """The taps that output pixels of one phase see, in window order; the absent taps' pad values join the bias."""
    ins, per_group, height, width = op.weight.shape
    grouped = op.weight.astype(np.int64).reshape(op.groups, ins // op.groups, per_group, height, width)
    full = grouped.swapaxes(1, 2).reshape(per_group * op.groups, ins // op.groups, height, width)
    rows, columns = -(-height // op.stride[0]), -(-width // op.stride[1])
    padded = np.zeros((*full.shape[:2], rows * op.stride[0], columns * op.stride[1]), dtype=np.int64)
    padded[:, :, :height, :width] = full
    seen = padded[:, :, row :: op.stride[0], column :: op.stride[1]]
    absent = full.sum(axis=(1, 2, 3)) - seen.sum(axis=(1, 2, 3))
    return seen[:, :, ::-1, ::-1], op.bias.astype(np.int64) + op.pad_value * absent


def scale_fields(op: Requantize) -> tuple[int, int, int]:
    """(multiplier bits, smallest shift, bits of the extra shift); 0 multiplier bits: every multiplier is 1."""
    largest, least, most = int(op.multiplier.max()), int(op.shift.min()), int(op.shift.max())
    return (0 if largest == 1 else largest.bit_length()), least, (most - least).bit_length()


def scales(op: Requantize, lanes: int) -> str:
    """Multiplier and extra shift of each channel, `lanes` channels a word."""
    multiplier_bits, least, extra_bits = scale_fields(op)
    return scale_words(np.stack([op.multiplier, op.shift - least], axis=1), (multiplier_bits, extra_bits), lanes)


def scale_words(fields: IntArray, widths: tuple[int, int], lanes: int) -> str:
    """The text of a scale memory of (multiplier, extra shift) rows, one or one a channel, of such widths."""
    rows = np.repeat(fields, lanes, axis=0) if len(fields) == 1 else fields
    kept = [i for i in (0, 1) if widths[i]]
    return mem_file(
        rows.reshape(-1, lanes, 2)[:, :, kept].reshape(-1, lanes * len(kept)), [widths[i] for i in kept] * lanes
    )


def thresholds(op: Threshold, x: Value) -> IntArray:
    """The thresholds (rows, L) no further out than the input's range: from its low (always reached) to high + 1."""
    return np.clip(op.thresholds.astype(np.int64), x.low, x.high + 1)


def threshold_words(rows: IntArray, lanes: int) -> IntArray:
    """Thresholds (channels or 1, L) as the words (channels / lanes or 1, lanes * L) of bf_threshold."""
    words = rows if len(rows) > 1 else np.repeat(rows, lanes, axis=0)
    return words.reshape(-1, lanes * rows.shape[1])


def table(op: Table) -> str:
    """The table by the input's raw bits: of a signed input the non-negative codes come first."""
    by_bits = np.roll(op.table, op.domain.low)
    return mem_file(by_bits.reshape(-1, 1), op.type.bits)


def lines(text: str) -> Iterable[int]:
    """The words of a .mem file."""
    return (int(line, 16) for line in text.split())
