"""Write a text file whole or not at all."""

import os
import tempfile
from pathlib import Path

from bitfab.errors import BitfabError

__all__ = ["write_text"]


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 under a temporary name beside `path`, then rename; missing folders are made.

    Raises:
        BitfabError: the file cannot be written; nothing is left behind, and an older file stays as it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise BitfabError(f"{path}: cannot be written ({error.strerror}): choose another output folder") from error
