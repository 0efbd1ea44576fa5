"""An int8 TFLite model all the way to RTL: what its reference kernels compute, in every bit of every layer."""

from pathlib import Path

import numpy as np

from bitfab.backend import simulate
from bitfab.frontend.tflite_quantized import load_quantized_tflite
from bitfab.hw import generate
from tests.unit.test_frontend_tflite import channels_first, random_images, small_int8


def test_an_int8_model_is_simulated_without_a_mismatch(tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(small_int8())
    graph = load_quantized_tflite(file)
    extremes = np.stack([np.full((9, 7, 3), code, np.int8) for code in (-128, 127)])
    images = channels_first(np.concatenate([random_images((2, 9, 7, 3)), extremes]))
    simulation = simulate(generate(graph, parallelism=64), images, tmp_path / "rtl")
    assert (simulation.images, simulation.mismatches) == (4, 0)
    assert simulation.values_compared > 4 * 4000
