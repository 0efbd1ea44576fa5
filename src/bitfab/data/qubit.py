"""Charge stability diagrams of a double quantum dot with their charge transitions, simulated by SimCATS.

SimCATS (https://doi.org/10.1109/TQE.2024.3445967) is licensed CC-BY-NC-SA-4.0: research use only. It is therefore an
optional extra, `pip install "bitfab[qubit]"`, and is imported only when diagrams are generated.
"""

import warnings
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitfab.errors import BitfabError

__all__ = ["EMPTY_KEPT", "SPLIT_SEEDS", "WINDOW_VOLTS", "generate", "normalize"]

SPLIT_SEEDS: Final = {"train": 1, "validation": 2, "test": 3}
"""The dataset seed of each split. Different seeds give independent diagrams, so the splits are disjoint."""

WINDOW_VOLTS: Final = 0.03
"""Width of a window along either plunger gate, in volts."""

EMPTY_KEPT: Final = 0.5
"""Probability of keeping a drawn window that holds no transition."""


def generate(count: int, seed: int, size: int = 64) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Simulate `count` diagrams of the device `GaAs_v1` with all its noise (about 30 ms each).

    Each diagram is a window of 30 mV x 30 mV drawn uniformly within the device's gate limits. Three in ten such
    windows hold no transition. They teach little, but a network must also see some: half of them are drawn again,
    which leaves 18 % empty diagrams and 4.3 % transition pixels. Diagram `i` depends on `(seed, i)` alone, so a
    shorter set is a prefix of a longer one; no global random state is read or changed.

    Args:
        count: number of diagrams N, at least 1.
        seed: non-negative dataset seed, see `SPLIT_SEEDS`.
        size: pixels along each gate, at least 16.

    Returns:
        images, float32 (N, 1, size, size) in [0, 1] (see `normalize`), and masks, uint8 (N, size, size), 1 where a
        transition (a change of the total charge) passes. Row index rises with gate 2, column index with gate 1.

    Raises:
        BitfabError: SimCATS is missing, or an argument is out of range.
    """
    if count < 1 or seed < 0 or size < 16:
        raise BitfabError(
            f"qubit.generate: count={count}, seed={seed}, size={size} is out of range: "
            "choose count >= 1, seed >= 0, size >= 16"
        )
    simcats = _import_simcats()
    images = np.empty((count, 1, size, size), np.float32)
    masks = np.empty((count, size, size), np.uint8)
    for index in range(count):
        signal, masks[index] = _diagram(simcats, np.random.default_rng([seed, index]), size)
        images[index, 0] = normalize(signal)
    return images, masks


def normalize(signal: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Map each image (the last two axes) linearly onto [0, 1]: `(x - min) / (max - min)`; a constant image becomes 0.

    The sensor's offset and gain mean nothing to the task, and the fixed range makes the quantization at the network's
    input the same for every image: `scale = 1/255`. It is done on the measured values before they enter the network.
    """
    low = signal.min(axis=(-2, -1), keepdims=True)
    span = signal.max(axis=(-2, -1), keepdims=True) - low
    return ((signal - low) / np.where(span > 0, span, 1)).astype(np.float32)


def _import_simcats() -> Any:
    try:
        import simcats
    except ImportError as error:
        raise BitfabError(
            "qubit: SimCATS, which simulates the diagrams, is not installed "
            '(licence CC-BY-NC-SA-4.0, research use only): pip install "bitfab[qubit]"'
        ) from error
    return simcats


def _diagram(simcats: Any, rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """One diagram: the sensor's signal and the transition mask, both (size, size)."""
    simulation = simcats.Simulation(**_seeded_configuration(rng))
    while True:
        windows = [_window(rng, simulation.volt_limits_g1), _window(rng, simulation.volt_limits_g2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SimCATS calls deprecated parts of numpy and DIPlib
            signal, _, transitions, _ = simulation.measure(*windows, resolution=np.array([size, size]))
        mask = (transitions != 0).astype(np.uint8)  # SimCATS numbers the transitions 1, 2, ...
        if mask.any() or rng.random() < EMPTY_KEPT:
            return signal, mask


def _window(rng: np.random.Generator, limits: Iterable[float]) -> NDArray[np.float64]:
    low, high = limits
    start = rng.uniform(low, high - WINDOW_VOLTS)
    return np.array([start, start + WINDOW_VOLTS])


def _seeded_configuration(rng: np.random.Generator) -> dict[str, Any]:
    """The configuration `GaAs_v1` with every random part drawing from `rng`.

    SimCATS gives each noise source its own unseeded generator when it is imported, and draws the range of the white
    noise at that moment too; hence the two parameter samplers are rebuilt here, with the values of `GaAs_v1`.
    """
    from simcats import default_configs
    from simcats.support_functions import NormalSamplingRange, UniformSamplingRange

    configuration = deepcopy(default_configs["GaAs_v1"])
    for kind in ("occupation", "sensor_potential", "sensor_response"):
        for distortion in configuration[f"{kind}_distortions"]:
            if hasattr(distortion, "rng"):
                distortion.rng = rng
    pink, white = configuration["sensor_potential_distortions"][0], configuration["sensor_response_distortions"][1]
    pink.sigma = UniformSamplingRange((1.8250268077765864e-12, 9.125134038882932e-05), rng=rng)
    white.sigma = NormalSamplingRange((1e-10, 0.003), sampling_range=0.001, std=0.0003, rng=rng)
    return configuration
