"""Arrays by name out of an .npz file that nobody vouches for."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["labels", "read"]

_BROKEN: Final = (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, MemoryError, NotImplementedError)


def read(path: Path, *names: str) -> tuple[NDArray[Any], ...]:
    """Return the arrays `names` of the file, in that order; nothing in it is ever unpickled.

    Raises:
        BitfabError: the file is absent, no .npz file, damaged, lacks a name, or holds Python objects under it.
    """
    remedy = f"give an .npz file with the arrays {', '.join(names)}, as numpy.savez writes it"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(member).stem for member in archive.namelist()}
        missing = [name for name in names if name not in members]
        if missing:
            raise BitfabError(f"{path}: it holds no array {missing[0]}; {remedy}")
        with np.load(path, allow_pickle=False) as arrays:
            return tuple(np.asarray(arrays[name]) for name in names)
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; {remedy}") from None
    except _BROKEN as error:
        raise BitfabError(f"{path}: unreadable ({' '.join(str(error).split())}); {remedy}") from error


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
