"""Photos out of a folder that nobody vouches for, as arrays.

Pillow decodes them and is an optional extra: `pip install "bitfab[detection]"`.
"""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["ENDINGS", "MAX_PIXELS", "folder", "read"]

ENDINGS: Final = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

MAX_PIXELS: Final = 1 << 26
"""Of a photo: above what cameras make, and far below what a small file can claim to unpack to."""

_FORMATS: Final = ("BMP", "JPEG", "PNG", "WEBP")  # the only decoders let near the file
# What Pillow raises on files that are damaged.
_BROKEN: Final = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
    MemoryError,
)


def folder(path: Path) -> tuple[Path, ...]:
    """Return the photos that lie in a folder (not in folders of it), by their names in order.

    Raises:
        BitfabError: there is no such folder, or no photo in it.
    """
    if not path.is_dir():
        reason = "is a file" if path.is_file() else "no such folder"
        raise BitfabError(f"{path}: {reason}; give a folder with photos ({', '.join(ENDINGS)})")
    try:
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
    except OSError as error:
        raise BitfabError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if not found:
        raise BitfabError(f"{path}: no photos in this folder; give one that holds files {', '.join(ENDINGS)}")
    return tuple(found)


def read(path: Path) -> NDArray[np.uint8]:
    """Return a photo as red, green, blue in 0..255, uint8 (H, W, 3), upright as its camera meant it.

    Raises:
        BitfabError: Pillow is missing; or the file is absent, damaged, of another format, or larger than MAX_PIXELS.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise BitfabError(
            'photos: Pillow is not installed (it decodes them): pip install "bitfab[detection]"'
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes and odd metadata; sizes are checked here
            with Image.open(path, formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BitfabError(
                        f"{path}: {width} x {height} pixels, at most {MAX_PIXELS:,} are read; scale it down first"
                    )
                return np.array(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; check the path") from None
    except Image.DecompressionBombError:
        raise BitfabError(f"{path}: more than {MAX_PIXELS:,} pixels; scale it down first") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BitfabError(f"{path}: damaged, or no photo ({reason[:120]}); remove it or save it again") from error
