"""Output folders and files that appear whole or not at all."""

from __future__ import annotations

import glob
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bitfab.errors import BitfabError

MARKER = "bitfab.json"
"""The file by which a folder is known to be bitfab's own, so that it may be replaced."""

STATES = ("unfinished", "old")  # of a folder under a process's own name, beside the one that it becomes or was
_NUMBERS = itertools.count()


def check_folder(folder: Path) -> None:
    """Raise BitfabError unless `folder` is new, empty, or was written by bitfab; touches nothing."""
    nearest_folder(folder)
    if not folder.is_dir():
        return
    if any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise BitfabError(f"{folder}: holds files that are not bitfab's; choose an empty or new output folder")
    if folder.is_mount():
        raise BitfabError(f"{folder}: is a mount point and cannot be replaced; choose a folder inside it")


def nearest_folder(place: Path) -> Path:
    """The folder itself, or the first above it that there is; BitfabError where that is no folder."""
    nearest = next(path for path in (place, *place.absolute().parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise BitfabError(f"{nearest}: is not a folder; choose another output folder")
    return nearest


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, beside `folder`; it takes that place once the block has ended well.

    Else it is removed and what was there before stays, whatever ended the block (an error, Ctrl-C). Of several
    processes that write one folder at a time, the last to end wins; what a killed one left is put back, or removed.
    Raises BitfabError where `check_folder` does, and where anything in the block cannot be written.
    """
    place = folder.resolve()
    _tidy(place)
    check_folder(folder)
    own = f".{place.name}.{os.getpid()}-{next(_NUMBERS)}"
    draft, old = (place.with_name(f"{own}.{state}") for state in STATES)
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        draft.mkdir(parents=True)
        yield draft
        if place.exists():
            place.replace(old)
        draft.replace(place)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists() and not place.exists():
            old.replace(place)
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise BitfabError(
                f"{folder}: cannot be written ({reason}); free space or choose another output folder"
            ) from error
        raise


def _tidy(place: Path) -> None:
    """Put back or remove what processes left that were killed; of those that still run, nothing."""
    for state in STATES:
        for remains in place.parent.glob(f".{glob.escape(place.name)}.*.{state}"):
            process = remains.name.removesuffix(f".{state}").rpartition(".")[2].partition("-")[0]
            if not process.isdecimal() or _runs(int(process)):
                continue
            if state == "old" and not place.exists():
                with suppress(OSError):  # stays where it is
                    remains.replace(place)
            else:
                shutil.rmtree(remains, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside `path`, then rename; missing folders are made.

    Raises BitfabError where it cannot be written; nothing is left behind, and an older file stays as it was.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise BitfabError(f"{path}: cannot be written ({error.strerror}); choose another output folder") from error
    finally:
        with suppress(OSError):  # where it could not be made at all
            unfinished.unlink(missing_ok=True)
