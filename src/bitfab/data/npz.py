"""Arrays out of .npy and .npz files that nobody vouches for."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["MAX_BYTES", "array", "labels", "read"]

MAX_BYTES: Final = 1 << 31
"""Of an array: hundreds of inputs are enough, and a small archive can unpack to terabytes."""

_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What zipfile and numpy raise on files that are damaged.
_BROKEN: Final = (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, MemoryError, RuntimeError)


def read(path: Path, *names: str) -> tuple[NDArray[Any], ...]:
    """Return the arrays `names` of the file, in that order; nothing in it is ever unpickled.

    Raises:
        BitfabError: the file is absent, no .npz file, damaged, too large, lacks a name, or holds Python objects under
            it.
    """
    remedy = f"give an .npz file with the arrays {', '.join(names)}, as numpy.savez writes it"
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(_member(archive, name) for name in names)
    except BitfabError as error:
        raise BitfabError(f"{path}: {error}") from error
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; {remedy}") from None
    except _BROKEN as error:
        raise BitfabError(f"{path}: unreadable ({' '.join(str(error).split())}); {remedy}") from error


def _member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    members = {Path(info.filename).stem: info for info in archive.infolist()}
    if name not in members:
        raise BitfabError(f"it holds no array {name}; save one by that name with numpy.savez")
    with archive.open(members[name]) as file:
        return array(file, members[name].file_size, kinds="iufU")


def array(file: IO[bytes], size: int, kinds: str = "iuf") -> NDArray[np.generic]:
    """Return the array of a .npy of `size` bytes, read once its header is known to promise no more than these.

    `kinds` are numpy's letters of what it may hold: integers and reals, or text (U) as well.

    Raises:
        BitfabError: it is too large, truncated, or holds another kind. Others, as numpy raises them.
    """
    if size > MAX_BYTES:
        raise BitfabError(f"holds {size:,} bytes, at most {MAX_BYTES:,} are read; give fewer inputs")
    read_header = _HEADERS.get(npy.read_magic(file))
    if read_header is None:
        raise BitfabError("is of an unknown .npy version; save it with numpy.save")
    shape, _, dtype = read_header(file)
    if dtype.kind not in kinds:
        kind = "Python objects" if dtype.hasobject else str(dtype)
        raise BitfabError(f"holds {kind}; give integers or real numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size - file.tell():
        raise BitfabError(f"is truncated or damaged: no {str(shape)[:60]} of {dtype} in {size:,} bytes; save it again")
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)


def labels(path: Path, array: NDArray[Any], count: int, classes: int) -> NDArray[np.int64]:
    """Return the array `y` of a file of `count` items as int64 (count,) in 0..classes-1.

    Raises:
        BitfabError: it has another shape, holds no integers, or one out of range.
    """
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise BitfabError(f"{path}: y is {array.dtype} of shape {array.shape}: labels are integers of shape ({count},)")
    wrong = array[(array < 0) | (array >= classes)]
    if len(wrong):
        raise BitfabError(f"{path}: y holds the label {wrong[0]}: there are {classes} classes, 0..{classes - 1}")
    return array.astype(np.int64)
