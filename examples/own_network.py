"""A network of one's own, from training to a placed design: a CNN that tells two kinds of stripes apart."""

import numpy as np
import torch
from torch import nn

import bitfab as bf


def stripes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images (N, 1, 12, 12) of vertical (0) or horizontal (1) stripes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    wave = np.sin(np.arange(12) * 1.3 + generator.uniform(0, 6, (count, 1)))
    images = np.where(labels[:, None, None] == 1, wave[:, :, None], wave[:, None, :])
    noisy = images + generator.normal(0, 0.8, images.shape)
    return torch.tensor(noisy[:, None], dtype=torch.float32), torch.tensor(labels)


def main() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    images, labels = stripes(2000, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    net.eval()
    tests, truth = stripes(500, seed=2)
    graph = bf.quantize(net, images[:200], name="stripes")
    float_accuracy = (net(tests).argmax(1) == truth).float().mean().item()
    int8_accuracy = float((bf.run_fast(graph, bf.as_integers(graph, tests.numpy())).argmax(1) == truth.numpy()).mean())
    print(f"accuracy: float {float_accuracy:.3f}, INT8 {int8_accuracy:.3f}")

    design = bf.generate(graph, target="ecp5-25k", parallelism=16)
    report = bf.build(design, tests[:20].numpy(), "build/stripes")
    print(f"{report.verification.mismatches} mismatches in {report.verification.values_compared:,} values")
    print(f"{report.timing.fmax_mhz:.1f} MHz, {report.timing.images_per_second:,.0f} images a second")


if __name__ == "__main__":
    main()
