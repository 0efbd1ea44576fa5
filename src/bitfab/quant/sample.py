"""A sample of the calibration images: bounded memory for the steps that need data more than once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from bitfab.errors import BitfabError
from bitfab.quant.calibrate import NO_DATA, ONE_IMAGE


class Sample:
    """A uniform sample, without replacement, of the images that pass through it (reservoir sampling, Vitter 1985).

    The same images in the same order give the same sample.
    """

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self._kept: list[Tensor] = []
        self._rng = np.random.default_rng(0)

    def passing(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches as they are, each image considered on its way."""
        for batch in batches:
            for image in batch if self.size else ():
                self._consider(image)
            yield batch

    def _consider(self, image: Tensor) -> None:
        self.seen += 1
        if len(self._kept) < self.size:
            self._kept.append(image.clone())
        elif (place := int(self._rng.integers(self.seen))) < self.size:
            self._kept[place] = image.clone()

    @property
    def images(self) -> Tensor:
        """The sample, (at most `size`, *shape)."""
        return torch.stack(self._kept)


def keep(batches: Iterable[Tensor], count: int) -> Tensor:
    """A sample of at most `count` images of the batches; BitfabError where there are fewer than two."""
    sample = Sample(count)
    for _ in sample.passing(batches):
        pass
    if not sample.seen:
        raise BitfabError(NO_DATA)
    if len(sample.images) < 2:
        raise BitfabError(ONE_IMAGE)
    return sample.images
