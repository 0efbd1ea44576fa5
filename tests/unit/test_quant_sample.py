"""The sample of calibration images is uniform, bounded and repeatable."""

from __future__ import annotations

import torch

from bitfab.quant.sample import Sample


def _taken(size: int, batches: int) -> torch.Tensor:
    sample = Sample(size)
    data = [torch.arange(10.0).reshape(10, 1) + 10 * i for i in range(batches)]
    assert [torch.equal(a, b) for a, b in zip(sample.passing(data), data, strict=True)] == [True] * batches
    return sample.images.flatten()


def test_few_images_are_all_kept() -> None:
    assert _taken(64, 3).tolist() == list(range(30))


def test_many_images_leave_a_uniform_sample() -> None:
    kept = _taken(200, 100)
    assert len(kept) == 200 == len(set(kept.tolist()))
    assert abs(float(kept.mean()) - 500) < 60 and float(kept.max()) > 950
    assert torch.equal(kept, _taken(200, 100))


def test_a_sample_of_none_keeps_none() -> None:
    sample = Sample(0)
    assert len(list(sample.passing([torch.zeros(3, 1)]))) == 1 and sample.seen == 0
