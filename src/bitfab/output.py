"""Output folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bitfab.errors import BitfabError

MARKER = "bitfab.json"
"""The file by which a folder is known to be bitfab's own, so that it may be replaced."""


def check_folder(folder: Path) -> None:
    """Raise BitfabError unless `folder` is new, empty, or was written by bitfab; touches nothing."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise BitfabError(f"{nearest}: is not a folder; choose another output folder")
    if not folder.is_dir():
        return
    if any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise BitfabError(f"{folder}: holds files that are not bitfab's; choose an empty or new output folder")
    if folder.is_mount():
        raise BitfabError(f"{folder}: is a mount point and cannot be replaced; choose a folder inside it")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, beside `folder`; it takes that place once the block has ended well.

    Else it is removed and what was there before stays, whatever ended the block (an error, Ctrl-C).
    Raises BitfabError where `check_folder` does, and where anything in the block cannot be written.
    """
    check_folder(folder)
    place = folder.resolve()
    draft, old = (place.with_name(f".{place.name}.{state}") for state in ("unfinished", "old"))
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        for remains in (draft, old):  # of a process that was killed
            shutil.rmtree(remains, ignore_errors=True)
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
