"""Evaluates truth tables and counts of ones on bit planes: the samples packed 64 to a word, many networks at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import IntArray
from bitfab.ir.ops import Bits, Compare, Lut, thresholded
from bitfab.lutnet.network import LutNetwork

Planes = NDArray[np.uint64]
"""Bit planes (..., words): bit s % 64 of word s // 64 belongs to sample s; behind the last sample lies anything."""

WORD = 64
CHUNK_WORDS = 8192  # of one plane of the tables evaluated together: 16 of these make 1 MiB, what a core's cache holds
ENCODED_TOGETHER = 16 * WORD  # samples
LITTLE = np.dtype("<u8")


def pack(bits: NDArray[Any]) -> Planes:
    """Bits (samples, planes), 0 or 1, as planes (planes, words), zeros behind the last sample."""
    columns = np.packbits(np.asarray(bits, dtype=bool), axis=0, bitorder="little").T
    padded = np.zeros((columns.shape[0], -(-columns.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : columns.shape[1]] = columns
    return padded.view(LITTLE).astype(np.uint64)


def unpack(planes: Planes, samples: int) -> NDArray[np.uint8]:
    """The bits (..., samples) of planes (..., words)."""
    octets = np.ascontiguousarray(planes, dtype=LITTLE).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=samples, bitorder="little")


def words_of_tables(table: IntArray) -> NDArray[np.uint64]:
    """Truth tables (..., 2**K) of 0 and 1 as one word each: bit a is the entry at address a."""
    places = np.left_shift(np.uint64(1), np.arange(table.shape[-1], dtype=np.uint64))
    return (table.astype(np.uint64) * places).sum(axis=-1, dtype=np.uint64)


def tables_of_words(words: NDArray[np.uint64], fan_in: int) -> IntArray:
    """The reverse of `words_of_tables`: (...,) words as (..., 2**fan_in) entries."""
    addresses = np.arange(1 << fan_in, dtype=np.uint64)
    return (np.right_shift(words[..., None], addresses) & np.uint64(1)).astype(np.int64)


def lut_planes(planes: Planes, wiring: IntArray, tables: NDArray[np.uint64]) -> Planes:
    """What M truth tables of K inputs give: planes (C, words), wiring (M, K), tables (M,), result (M, words).

    The 16 functions of the first two inputs are formed once, each table picks those that its entries name (four entries
    are the number of a function), and multiplexers choose among them by the other inputs, all on whole words: 45 word
    operations and 16 copies for six inputs.
    """
    if wiring.shape[1] == 1:  # a second input that the table does not look at
        wiring, tables = np.repeat(wiring, 2, axis=1), tables | np.left_shift(tables, np.uint64(2))
    result = np.empty((len(wiring), planes.shape[1]), dtype=np.uint64)
    together = max(1, CHUNK_WORDS // max(planes.shape[1], 1))
    for start in range(0, len(wiring), together):
        part = slice(start, start + together)
        result[part] = _chunk(planes, wiring[part], tables[part])
    return result


def _chunk(planes: Planes, wiring: IntArray, tables: NDArray[np.uint64]) -> Planes:
    count, fan_in = wiring.shape
    functions = _functions_of_two(planes[wiring[:, 0]], planes[wiring[:, 1]])
    places = np.arange(0, 1 << fan_in, 4, dtype=np.uint64)[:, None]
    numbers = (np.right_shift(tables, places) & np.uint64(15)).astype(np.intp)
    level = functions.reshape(16 * count, -1)[numbers * count + np.arange(count)]
    for place in range(fan_in - 1, 1, -1):
        half = len(level) // 2
        low, high = level[:half], level[half:]
        high ^= low
        high &= planes[wiring[:, place]]
        low ^= high
        level = low
    return level[0]


def _functions_of_two(a: Planes, b: Planes) -> Planes:
    """All functions of two planes (count, words), (16, count, words): number f gives bit a + 2 b of f."""
    f = np.empty((16, *a.shape), dtype=np.uint64)
    f[0] = 0
    np.bitwise_and(a, b, out=f[8])
    np.bitwise_or(a, b, out=f[14])
    np.bitwise_xor(a, b, out=f[6])
    f[10], f[12] = a, b
    np.bitwise_and(f[6], a, out=f[2])
    np.bitwise_and(f[6], b, out=f[4])
    for number in (0, 2, 4, 6, 8, 10, 12, 14):
        np.bitwise_not(f[number], out=f[15 - number])
    return f


def distinct(rows: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct rows of (M, k) integers 0 to 2**64 - 1: where each is first, and which of them each row is.

    Rows are told apart by a sum with fixed multipliers modulo 2**64, and that found right by comparing them all.
    """
    rows = np.ascontiguousarray(rows, dtype=np.uint64)
    multipliers = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) * np.uint64(2)
    keys = (rows * (multipliers + np.uint64(1))).sum(axis=1, dtype=np.uint64)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first[which]], rows):
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, which.reshape(-1)


def count_planes(planes: Planes) -> Planes:
    """The number of ones among L planes, (L, ..., words), as binary digits, the lowest first: (digits, ..., words).

    Full adders on whole words take three planes of one weight to one of it and one of the next.
    """
    digits, column = [], planes
    while len(column):
        carries = []
        while len(column) > 1:
            third = len(column) // 3
            if third:
                a, b, c = column[:third], column[third : 2 * third], column[2 * third : 3 * third]
                unequal = a ^ b
                carries.append((a & b) | (unequal & c))
                column = np.concatenate([unequal ^ c, column[3 * third :]])
            else:
                carries.append(column[:1] & column[1:])
                column = column[:1] ^ column[1:]
        digits.append(column[0])
        column = np.concatenate(carries) if carries else column[:0]
    return np.stack(digits)


def counts_of(planes: Planes, samples: int) -> NDArray[np.int16]:
    """How many of L planes (L, ..., words) are one at each sample, (..., samples)."""
    digits = unpack(count_planes(planes), samples)
    total = digits[0].astype(np.int16)
    for place, digit in enumerate(digits[1:], 1):
        total += np.left_shift(digit, place, dtype=np.int16)
    return total


def encoded(encoder: Compare | Bits, x: IntArray) -> Planes:
    """The encoder's bits of integers x (samples, features) as planes (bits, words)."""
    parts = [_encoded(encoder, x[start : start + ENCODED_TOGETHER]) for start in range(0, len(x), ENCODED_TOGETHER)]
    return np.concatenate(parts, axis=1)


def _encoded(encoder: Compare | Bits, x: IntArray) -> Planes:
    columns = x[:, encoder.channel].astype(np.int64)
    if isinstance(encoder, Compare):
        return pack(columns >= encoder.threshold)
    return pack((columns >> encoder.place) & 1)


def apply(layer: Lut, planes: Planes) -> Planes:
    """One layer's output planes (N, words) from the planes (C, words) before it."""
    return lut_planes(planes, layer.wiring, words_of_tables(layer.table))


def answers(network: LutNetwork, x: IntArray) -> IntArray:
    """The network's answers (samples,) for integers x (samples, features), as `ir.run` gives them, only faster."""
    planes = encoded(network.encoder, x)
    for layer in network.layers:
        planes = apply(layer, planes)
    counts = counts_of(planes[network.head.wiring.T], len(x)).astype(np.int64)
    if network.decision is not None:
        return thresholded(network.decision, counts.T)[:, 0]
    return counts.argmax(axis=0)
