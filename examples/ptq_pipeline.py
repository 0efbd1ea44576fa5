"""Each step of post-training quantization alone, and the table that tells which layer hurts and what helps.

    python examples/ptq_pipeline.py

A small network on scikit-learn's digits (extra `digits`), trained here in seconds; 4-bit weights, one scale per layer.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import bitfab as bf
from bitfab.quant import AdaRound, calibrate, choose, debug, equalize, fold, lower_choices
from bitfab.quant.analysis import Predict


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy((digits.images / 16).astype(np.float32))[:, None]
    labels = torch.from_numpy(digits.target)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(300):
        chosen = torch.arange(64) + 64 * (step % 20)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    calibration, test, truth = images[:256], images[1280:], labels[1280:]

    # One call: which layer hurts, what helps?
    def accuracy(predict: Predict) -> float:
        with torch.no_grad():
            return float((predict(test).argmax(1) == truth).float().mean())

    recipe = bf.Recipe(weights=4, per_channel=False, adaround=None)
    found = debug(net, [calibration], accuracy, recipe)
    print(found)
    graph = bf.quantize(net, [calibration], found.recipe)
    print(f"integer graph with '{found.remedy}': {len(graph.nodes)} nodes")

    # The same steps by hand.
    module = equalize(fold(bf.capture(net, calibration)))
    print(
        "ranges:",
        {name: tuple(round(end, 2) for end in ends) for name, ends in calibrate(module, [calibration], recipe).items()},
    )
    choices = choose(module, [calibration], bf.Recipe(weights=4, per_channel=False, adaround=AdaRound(300)))
    print("codes of the first layer:", choices.weights[next(iter(choices.weights))].codes[0, 0].tolist())
    print("values:", len(lower_choices(choices, "digits", (1, 8, 8)).graph.values))


if __name__ == "__main__":
    main()
