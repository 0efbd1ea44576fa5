"""A tiny PNG encoder for indexed images (PNG specification, third edition, sections 5 and 11)."""

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["data_uri", "encode"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
INDEXED = 3


def encode(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """PNG of `palette[indices]`: indices uint8 (H, W), each below N; palette uint8 RGB (N, 3), N from 1 to 256.

    Raises:
        ValueError: a shape or an index is out of these limits.
    """
    if indices.ndim != 2 or indices.size == 0 or indices.dtype != np.uint8:
        raise ValueError(f"png: indices are {indices.dtype} {indices.shape}: need uint8 (H, W)")
    if palette.ndim != 2 or palette.shape[1] != 3 or not int(indices.max()) < len(palette) <= 256:
        raise ValueError(f"png: palette is {palette.shape}: need (N, 3) with {int(indices.max())} < N <= 256")
    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, 8, INDEXED, 0, 0, 0)
    no_filter = np.zeros((height, 1), np.uint8)  # the filter type in front of each row
    rows = np.concatenate((no_filter, indices), axis=1).tobytes()
    chunks = ((b"IHDR", header), (b"PLTE", _bytes(palette)), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def data_uri(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """The PNG of `encode` as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(encode(indices, palette)).decode("ascii")


def _bytes(palette: NDArray[Any]) -> bytes:
    return palette.astype(np.uint8).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
