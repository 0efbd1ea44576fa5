"""Photos as JPEG inside a page; Pillow encodes them and is needed only here (extra `detection`)."""

import base64
import io

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["data_uri"]

QUALITY = 80
LONGEST = 640  # side of a picture on a page, in pixels


def data_uri(photo: NDArray[np.uint8]) -> str:
    """The photo, uint8 (H, W, 3) of red, green, blue, as a `data:` address, scaled down to 640 pixels at most.

    Raises:
        BitfabError: Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise BitfabError(
            'report: Pillow is not installed (it encodes photos): pip install "bitfab[detection]"'
        ) from error
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
        raise ValueError(f"jpeg: photo is {photo.dtype} {photo.shape}: need uint8 (H, W, 3)")
    image = Image.fromarray(photo)
    image.thumbnail((LONGEST, LONGEST))
    target = io.BytesIO()
    image.save(target, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode("ascii")
