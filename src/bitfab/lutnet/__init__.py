"""LUT networks: layers of truth tables, trained by genetic search or by gradients, lowered to the integer graph."""

from bitfab.lutnet.encode import Spacing, fixed_point, integers, raw_bits, thermometer
from bitfab.lutnet.network import Features, LutNetwork, equal_groups, lower

__all__ = [
    "Features",
    "LutNetwork",
    "Spacing",
    "equal_groups",
    "fixed_point",
    "integers",
    "lower",
    "raw_bits",
    "thermometer",
]
