"""The hardware world: integer graphs become designs. Knows no vendor, and no HDL but in its renderers."""

from bitfab.hw.design import Design, Folding, Language, MemoryStyle, Multiplier, Target, write_files
from bitfab.hw.generate import Style, generate
from bitfab.hw.parallel.design import ParallelDesign

__all__ = [
    "Design",
    "Folding",
    "Language",
    "MemoryStyle",
    "Multiplier",
    "ParallelDesign",
    "Style",
    "Target",
    "generate",
    "write_files",
]
