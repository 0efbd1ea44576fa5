"""Handwritten digits of 8x8 pixels, from scikit-learn, with a fixed split.

The 1,797 images are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI, 1998;
CC BY 4.0). scikit-learn carries them and is an optional extra: `pip install "bitfab[digits]"`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["Digits", "load"]

_TRAIN: Final = 1347
_SPLIT_SEED: Final = 1


@dataclass(frozen=True)
class Digits:
    """Images float32 (N, 1, 8, 8) in [0, 1] (17 grey levels) and labels int64 (N,) in 0..9."""

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def load() -> Digits:
    """Return 1,347 images to train on and 450 to test on, the same in every run.

    The file's order goes by writer, so the split shuffles once with a fixed seed, drawn from `RandomState`, whose
    stream numpy keeps unchanged between versions (NEP 19).

    Raises:
        BitfabError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BitfabError(
            'digits: scikit-learn is not installed (it carries the images): pip install "bitfab[digits]"'
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    images = (pixels.reshape(-1, 1, 8, 8)[order] / 16).astype(np.float32)
    labels = labels[order].astype(np.int64)
    return Digits(images[:_TRAIN], labels[:_TRAIN], images[_TRAIN:], labels[_TRAIN:])
