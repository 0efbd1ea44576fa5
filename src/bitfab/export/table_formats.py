"""Integers as text in the formats that memory initialisation and C compilers read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import IntArray, IntType

RECORD = 16  # bytes in a line of Intel HEX
PER_LINE = 16  # numbers in a line of C


def words(array: IntArray, type: IntType) -> list[str]:
    """Each integer in C order as hexadecimal two's complement of the type's bits; a bipolar -1 is 0."""
    digits = -(-type.bits // 4)
    return [f"{word:0{digits}x}" for word in _unsigned(array, type).tolist()]


def mem(array: IntArray, type: IntType) -> str:
    """Verilog's $readmemh (IEEE 1364-2005, 17.2.9): a word a line."""
    return "".join(f"{word}\n" for word in words(array, type))


def coe(array: IntArray, type: IntType) -> str:
    """Xilinx' COE: the radix, then the words between commas."""
    vector = ",\n".join(words(array, type))
    return f"memory_initialization_radix=16;\nmemory_initialization_vector=\n{vector};\n"


def mif(array: IntArray, type: IntType) -> str:
    """Intel's MIF: width and depth, then `address : word;` in hexadecimal."""
    head = f"WIDTH={type.bits};\nDEPTH={array.size};\nADDRESS_RADIX=HEX;\nDATA_RADIX=HEX;\nCONTENT BEGIN\n"
    return head + "".join(f"{i:x} : {word};\n" for i, word in enumerate(words(array, type))) + "END;\n"


def csv(array: IntArray, _: IntType) -> str:
    """Decimal numbers, a row for each entry of the first axis."""
    rows = array.reshape(len(array), -1).tolist()
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def intel_hex(array: IntArray, type: IntType) -> str:
    """Intel HEX (1988), addresses in bytes: data records, a type 04 record wherever the upper 16 bits change."""
    return "".join(f":{record}\n" for record in _records(packed(array, type)))


def packed(array: IntArray, type: IntType) -> bytes:
    """The integers in C order as bytes: 8 / bits of them in a byte, the first lowest, or little endian."""
    values = _unsigned(array, type)
    if type.bits >= 8:
        return values.astype(f"<u{type.bits // 8}").tobytes()
    count = 8 // type.bits
    padded = np.zeros(-(-values.size // count) * count, dtype=np.int64)
    padded[: values.size] = values
    lanes = padded.reshape(-1, count) << (type.bits * np.arange(count))
    return lanes.sum(axis=1).astype(np.uint8).tobytes()


def c_array(name: str, array: NDArray[np.generic], type: IntType | None) -> list[str]:
    """Lines of C: the array's size and a static constant of the narrowest type; without an IntType, floats."""
    kind, numbers = "float", [f"{number!r}f" for number in array.astype(np.float64).tolist()]
    if type is not None:
        bits = next(width for width in (8, 16, 32) if width >= type.bits)
        kind = f"{'' if type.signed else 'u'}int{bits}_t"
        numbers = [str(number) for number in array.tolist()]
    rows = [", ".join(numbers[i : i + PER_LINE]) for i in range(0, len(numbers), PER_LINE)]
    size = f"{name.upper()}_SIZE"
    return [f"#define {size} {len(numbers)}", f"static const {kind} {name}[{size}] = {{", ",\n".join(rows), "};"]


def _unsigned(array: IntArray, type: IntType) -> IntArray:
    """Two's complement within the type's bits, int64 (N,)."""
    flat = array.astype(np.int64).ravel()
    return (flat + 1) >> 1 if type.bipolar else flat & ((1 << type.bits) - 1)


def _records(data: bytes) -> Iterator[str]:
    upper = 0
    for start in range(0, len(data), RECORD):
        if start >> 16 != upper:
            upper = start >> 16
            yield _record(0, 4, upper.to_bytes(2, "big"))
        yield _record(start & 0xFFFF, 0, data[start : start + RECORD])
    yield _record(0, 1, b"")


def _record(address: int, kind: int, data: bytes) -> str:
    body = bytes([len(data)]) + address.to_bytes(2, "big") + bytes([kind]) + data
    return (body + bytes([-sum(body) & 0xFF])).hex().upper()
