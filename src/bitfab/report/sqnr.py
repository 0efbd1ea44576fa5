"""Signal to quantization noise ratio."""

import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["sqnr_db"]


def sqnr_db(reference: ArrayLike, approximation: ArrayLike) -> float | None:
    """10 log10(sum(reference^2) / sum((reference - approximation)^2)) in dB, in float64.

    Both arrays hold real values (dequantized where they were integers) of one shape. None where the ratio is no finite
    number: there is no error at all, or no signal.

    Raises:
        ValueError: the shapes differ or a value is NaN or infinite.
    """
    signal = np.asarray(reference, np.float64)
    error = np.asarray(approximation, np.float64)
    if signal.shape != error.shape:
        raise ValueError(f"sqnr_db: shapes differ: {signal.shape} and {error.shape}")
    signal_power = float(np.vdot(signal, signal))
    error = signal - error
    error_power = float(np.vdot(error, error))
    if not (math.isfinite(signal_power) and math.isfinite(error_power)):
        raise ValueError("sqnr_db: a value is NaN or infinite")
    if signal_power == 0 or error_power == 0:
        return None
    return 10 * math.log10(signal_power / error_power)
