"""da4ml: a network of integers as one combinational function in Verilog, and what its own emulator computes.

    python hardware_da4ml.py NETWORK.npz FOLDER

Runs in an environment of its own, with da4ml. NETWORK.npz is what `benchmarks/models/hardware_networks.py` writes: for
layer i its `weight` (dense: outputs x inputs; convolution without padding: outputs x inputs x 3 x 3), `bias` and
`shift` a channel, `zero`, whether a 2x2 max pool follows (`pool`), and the input `x` of unsigned bytes, images as
(channels, height, width). A layer is
clip(((sum + 2^(shift-1)) >> shift) + zero, 0, 255). FOLDER gets the Verilog, and y.npy, the emulator's answers to x.
Prints one line of JSON: the solver's seconds, and register bits and stages of the pipelined form.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from da4ml.codegen import RTLModel
from da4ml.trace import FixedVariableArrayInput, HWConfig, comb_trace, to_pipeline
from da4ml.trace.ops import quantize

CUTOFFS = (1, 2, 3)  # additions between two ranks of registers


def layer(x, stored, i):
    """The layer's codes as da4ml's fixed-point numbers, which here are integers: half up, saturating."""
    weight, bias = stored[f"weight{i}"].astype(np.float64), stored[f"bias{i}"].astype(np.float64)
    scale = 2.0 ** -stored[f"shift{i}"].astype(np.float64)
    total = convolved(x, weight) if weight.ndim == 4 else x @ weight.T
    codes = quantize((total + bias) * scale + float(stored[f"zero{i}"]), 0, 8, 0, "SAT", "RND")
    return pooled(codes) if stored[f"pool{i}"] else codes


def convolved(x, weight):
    """(H, W, C) to (H, W, outputs): each pixel's 3x3 window times one matrix."""
    rows, columns, channels = x.shape[0] - 2, x.shape[1] - 2, x.shape[2]
    matrix = weight.transpose(2, 3, 1, 0).reshape(9 * channels, -1)
    windows = [x[r : r + 3, c : c + 3].reshape(1, 9 * channels) for r in range(rows) for c in range(columns)]
    return np.concatenate([window @ matrix for window in windows]).reshape(rows, columns, -1)


def pooled(x):
    """The largest of each 2x2 pixels of (H, W, C)."""
    height, width, channels = x.shape
    blocks = x.reshape(height // 2, 2, width // 2, 2, channels)
    return np.max(np.max(blocks, axis=3), axis=1)


def main() -> None:
    stored, folder = np.load(sys.argv[1]), Path(sys.argv[2])
    x, start = stored["x"], time.process_time()
    entry = FixedVariableArrayInput(x.shape[1:], hwconf=HWConfig(1, -1, -1))
    value = quantize(entry, 0, 8, 0)
    if x.ndim == 4:
        value = value.transpose((1, 2, 0))
    for i in range(int(stored["layers"])):
        if stored[f"weight{i}"].ndim == 2:
            value = (value.transpose((2, 0, 1)) if value.ndim == 3 else value).reshape(-1)
        value = layer(value, stored, i)
    function = comb_trace(entry, value)
    seconds = time.process_time() - start
    RTLModel(function, "da4ml", folder).write()
    np.save(folder / "y.npy", function.predict(x.reshape(len(x), -1).astype(np.float64)).astype(np.int64))
    pipelines = {}
    for cutoff in CUTOFFS:
        pipeline = to_pipeline(function, cutoff, retiming=False)
        pipelines[cutoff] = {"stages": len(pipeline.solutions), "registers": int(pipeline.reg_bits)}
    print(json.dumps({"seconds": seconds, "cost": float(function.cost), "pipelines": pipelines}))


if __name__ == "__main__":
    main()
